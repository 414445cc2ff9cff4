// A peer of the interoperability tests: Java's own Kafka client.
//
//   write BOOTSTRAP TOPIC [--grouped]
//       Publishes the records on standard input, one JSON object a line: "key" (grouped: "group" and
//       "member") with "value", or with "delete": true. When the input has ended, answers each with a
//       line: the flat key, and the partition and offset that the broker acknowledged.
//   read BOOTSTRAP TOPIC [--grouped]
//       Prints the newest committed value of each key as one JSON object.
//   partitions BOOTSTRAP TOPIC
//       Prints where every record is, a line for each; committed or not.
//
// Run with the libraries of Kafka's broker on the class path: java -cp 'lib/*' Peer.java COMMAND ...

import static java.nio.charset.StandardCharsets.UTF_8;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.MappingIterator;
import com.fasterxml.jackson.databind.cfg.JsonNodeFeature;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import java.util.function.Consumer;
import java.util.regex.Pattern;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

final class Peer {
    /** How long the consumer waits for records: closing it waits for its last fetch. */
    private static final Duration POLL = Duration.ofMillis(50);

    /** The flat key of (group, member), as in Python's ktables: the group's length, a colon, both. */
    private static final Pattern FLAT = Pattern.compile("(0|[1-9][0-9]{0,9}):(.*)", Pattern.DOTALL);

    private static final JsonMapper JSON = JsonMapper.builder()
            .enable(DeserializationFeature.USE_BIG_DECIMAL_FOR_FLOATS)
            .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
            .build();

    /** Standard output, in UTF-8 whatever the locale. */
    private static final PrintStream OUT =
            new PrintStream(new FileOutputStream(FileDescriptor.out), true, UTF_8);

    private final String bootstrap;
    private final String topic;
    private final boolean grouped;

    private Peer(String bootstrap, String topic, boolean grouped) {
        this.bootstrap = bootstrap;
        this.topic = topic;
        this.grouped = grouped;
    }

    public static void main(String[] arguments) throws Exception {
        System.setProperty("org.slf4j.simpleLogger.defaultLogLevel", "error");
        var peer = new Peer(arguments[1], arguments[2], List.of(arguments).contains("--grouped"));
        switch (arguments[0]) {
            case "write" -> peer.write();
            case "read" -> peer.read();
            case "partitions" -> peer.partitions();
            default -> throw new IllegalArgumentException(arguments[0]);
        }
    }

    private void write() throws Exception {
        var keys = new ArrayList<String>();
        var sent = new ArrayList<Future<RecordMetadata>>();
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap);
        var bytes = new ByteArraySerializer();
        try (var producer = new KafkaProducer<>(config, bytes, bytes)) {
            for (var lines = lines(); lines.hasNext(); ) {
                var line = lines.next();
                keys.add(key(line));
                sent.add(producer.send(new ProducerRecord<>(topic, bytes(key(line)), value(line))));
            }
        }
        for (int i = 0; i < sent.size(); i++) {
            OUT.println(answer(keys.get(i), sent.get(i).get()));
        }
    }

    private void read() throws IOException {
        var newest = new HashMap<String, byte[]>();
        consume("read_committed", record -> {
            if (record.key() != null && record.value() != null) {
                newest.put(text(record.key()), record.value());
            } else if (record.key() != null) {
                newest.remove(text(record.key()));
            }
        });
        var table = JSON.createObjectNode();
        for (var entry : newest.entrySet()) {
            insert(table, entry.getKey(), JSON.readValue(entry.getValue(), JsonNode.class));
        }
        OUT.println(JSON.writer().with(JsonNodeFeature.WRITE_PROPERTIES_SORTED).writeValueAsString(table));
    }

    private void partitions() {
        consume("read_uncommitted", record -> OUT.println(JSON.createObjectNode()
                .put("key", text(record.key()))
                .put("partition", record.partition())
                .put("offset", record.offset())
                .put("tombstone", record.value() == null)));
    }

    /** Hands over every record below the topic's end. */
    private void consume(String isolation, Consumer<ConsumerRecord<byte[], byte[]>> action) {
        Map<String, Object> config = Map.of(
                "bootstrap.servers", bootstrap,
                "isolation.level", isolation,
                "enable.auto.commit", false,
                "fetch.max.wait.ms", Math.toIntExact(POLL.toMillis()));
        var bytes = new ByteArrayDeserializer();
        try (var consumer = new KafkaConsumer<>(config, bytes, bytes)) {
            var partitions = consumer.partitionsFor(topic).stream()
                    .map(info -> new TopicPartition(topic, info.partition()))
                    .toList();
            if (partitions.isEmpty()) {
                throw new IllegalStateException("there is no topic " + topic);
            }
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            var ends = consumer.endOffsets(partitions);
            while (partitions.stream().anyMatch(one -> consumer.position(one) < ends.get(one))) {
                consumer.poll(POLL).forEach(action);
            }
        }
    }

    private static MappingIterator<JsonNode> lines() throws IOException {
        return JSON.readerFor(JsonNode.class).readValues(System.in);
    }

    private String key(JsonNode line) {
        if (!grouped) {
            return line.required("key").textValue();
        }
        var group = line.required("group").textValue();
        return group.codePointCount(0, group.length()) + ":" + group + line.required("member").textValue();
    }

    private static byte[] value(JsonNode line) throws JsonProcessingException {
        if (line.path("delete").booleanValue()) {
            return null;
        }
        return JSON.writeValueAsBytes(line.required("value"));
    }

    /** Adds a row; in a grouped table, not if its key is foreign. */
    private void insert(ObjectNode table, String key, JsonNode value) {
        if (!grouped) {
            table.set(key, value);
            return;
        }
        var flat = FLAT.matcher(key);
        if (!flat.matches()) {
            return;
        }
        var rest = flat.group(2);
        var length = Long.parseLong(flat.group(1));
        if (length <= rest.codePointCount(0, rest.length())) {
            int end = rest.offsetByCodePoints(0, (int) length);
            table.withObjectProperty(rest.substring(0, end)).set(rest.substring(end), value);
        }
    }

    private static ObjectNode answer(String key, RecordMetadata sent) {
        return JSON.createObjectNode()
                .put("key", key)
                .put("partition", sent.partition())
                .put("offset", sent.offset());
    }

    private static byte[] bytes(String text) {
        return text == null ? null : text.getBytes(UTF_8);
    }

    private static String text(byte[] bytes) {
        return bytes == null ? null : new String(bytes, UTF_8);
    }
}
