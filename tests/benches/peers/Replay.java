import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.apicurio.registry.serde.avro.AvroKafkaDeserializer;
import io.kcache.KafkaCache;
import io.kcache.KafkaCacheConfig;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StoreQueryParameters;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.processor.StateRestoreListener;
import org.apache.kafka.streams.state.KeyValueBytesStoreSupplier;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.QueryableStoreTypes;
import org.apache.kafka.streams.state.Stores;

/**
 * Replays a topic with a Java peer: {@code Replay memory|rocksdb|kcache BOOTSTRAP TOPIC}, or {@code Replay avro BOOTSTRAP
 * TOPIC REGISTRY} with values in Avro, whose schemas are in a registry, and the address of Apicurio's own API.
 *
 * <p>Prints one JSON object when the table is complete, and then waits for the end of its input. The
 * object has the times when loading began and when the table was complete (seconds since 1970), the
 * number of records and the number of entries. A GlobalKTable restores bytes; its entries are decoded
 * once, at the end.
 */
public final class Replay {
    private static final ObjectMapper MAPPER = new ObjectMapper();
    private static volatile double first;
    private static final AtomicLong RECORDS = new AtomicLong();

    private static double now() {
        return System.currentTimeMillis() / 1000.0;
    }

    private static final Serializer<JsonNode> WRITE = (topic, value) -> {
        try {
            return value == null ? null : MAPPER.writeValueAsBytes(value);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    };

    private static final Deserializer<JsonNode> READ = (topic, bytes) -> {
        try {
            return bytes == null ? null : MAPPER.readTree(bytes);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    };

    private static final Serde<JsonNode> JSON = Serdes.serdeFrom(WRITE, READ);

    public static void main(String[] args) throws Exception {
        String kind = args[0];
        String bootstrap = args[1];
        String topic = args[2];
        switch (kind) {
            case "kcache" -> replayWithKCache(bootstrap, topic);
            case "avro" -> replayWithStreams(kind, avro(args[3]), bootstrap, topic);
            default -> replayWithStreams(kind, JSON, bootstrap, topic);
        }
        System.exit(0);
    }

    private static Serde<Object> avro(String registry) {
        Deserializer<Object> read = new AvroKafkaDeserializer<>();
        read.configure(
                Map.of(
                        "apicurio.registry.url", registry,
                        "apicurio.registry.id-handler", "io.apicurio.registry.serde.Legacy4ByteIdHandler",
                        "apicurio.registry.use-id", "contentId"),
                false);
        Serializer<Object> write = (topic, value) -> {
            throw new UnsupportedOperationException("the table is only read");
        };
        return Serdes.serdeFrom(write, read);
    }

    private static <V> void replayWithStreams(String kind, Serde<V> values, String bootstrap, String topic)
            throws Exception {
        StreamsBuilder builder = new StreamsBuilder();
        KeyValueBytesStoreSupplier supplier =
                kind.equals("rocksdb") ? Stores.persistentKeyValueStore("table") : Stores.inMemoryKeyValueStore("table");
        Materialized<String, V, KeyValueStore<Bytes, byte[]>> store =
                Materialized.<String, V>as(supplier).withKeySerde(Serdes.String()).withValueSerde(values);
        builder.globalTable(topic, Consumed.with(Serdes.String(), values), store);
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, topic + "-" + ProcessHandle.current().pid());
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, Files.createTempDirectory("replay").toString());
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        CountDownLatch running = new CountDownLatch(1);
        streams.setStateListener((state, before) -> {
            if (state == KafkaStreams.State.RUNNING) {
                running.countDown();
            }
        });
        streams.setGlobalStateRestoreListener(new StateRestoreListener() {
            @Override
            public void onRestoreStart(TopicPartition partition, String name, long start, long end) {
                if (first == 0) {
                    first = now();
                }
            }

            @Override
            public void onBatchRestored(TopicPartition partition, String name, long end, long records) {}

            @Override
            public void onRestoreEnd(TopicPartition partition, String name, long records) {
                RECORDS.addAndGet(records);
            }
        });
        streams.start();
        running.await();
        var table = streams.store(StoreQueryParameters.fromNameAndType(
                "table", QueryableStoreTypes.<String, V>keyValueStore()));
        long entries = 0;
        try (var all = table.all()) {
            while (all.hasNext()) {
                if (all.next().value != null) {
                    entries++;
                }
            }
        }
        printResult(entries);
        streams.close();
    }

    private static void replayWithKCache(String bootstrap, String topic) throws Exception {
        Map<String, Object> settings = Map.of(
                KafkaCacheConfig.KAFKACACHE_BOOTSTRAP_SERVERS_CONFIG, bootstrap,
                KafkaCacheConfig.KAFKACACHE_TOPIC_CONFIG, topic,
                KafkaCacheConfig.KAFKACACHE_TOPIC_SKIP_VALIDATION_CONFIG, true,
                KafkaCacheConfig.KAFKACACHE_INIT_TIMEOUT_CONFIG, 600_000);
        Deserializer<JsonNode> timed = (name, bytes) -> {
            if (first == 0) {
                first = now();
            }
            RECORDS.incrementAndGet();
            return READ.deserialize(name, bytes);
        };
        KafkaCache<String, JsonNode> cache = new KafkaCache<>(
                new KafkaCacheConfig(settings), Serdes.String(), Serdes.serdeFrom(WRITE, timed));
        cache.init();
        printResult(cache.size());
        cache.close();
    }

    private static void printResult(long entries) throws IOException {
        System.out.printf(
                java.util.Locale.ROOT,
                "{\"first\": %.3f, \"done\": %.3f, \"records\": %d, \"entries\": %d}%n",
                first, now(), RECORDS.get(), entries);
        System.out.flush();
        System.in.readAllBytes();
    }
}
