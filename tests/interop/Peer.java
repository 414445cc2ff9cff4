// A peer of the interoperability tests: Java's own Kafka client.
//
//   write BOOTSTRAP TOPIC [--grouped] [--compression none|gzip|snappy|lz4|zstd] [--partition N]
//       Publishes the records on standard input, one JSON object a line: "key" (grouped: "group" and
//       "member") with "value", with "value_text" (not JSON) or with "delete": true; on request with
//       "headers" and "timestamp". When the input has ended, answers each with a line: the flat key,
//       and the partition and offset that the broker acknowledged.
//   read BOOTSTRAP TOPIC [--grouped]
//       Prints the newest committed value of each key as one JSON object.
//   partitions BOOTSTRAP TOPIC
//       Prints where every record is, a line for each; committed or not.
//   transactions BOOTSTRAP TOPIC
//       Does one command a line, and answers it before it reads the next: {"do": "begin"}, "send" with
//       a record, "commit", "abort". At the end of the input the process dies as in a crash: an open
//       transaction stays open.
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
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
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
    /** How long a transaction may be open: as long as brokers allow by default. */
    private static final Duration TRANSACTION = Duration.ofMinutes(15);

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
    private final String compression;
    private final Integer partition;

    private Peer(String bootstrap, String topic, Map<String, String> options) {
        this.bootstrap = bootstrap;
        this.topic = topic;
        grouped = options.containsKey("--grouped");
        compression = options.getOrDefault("--compression", "none");
        partition = options.containsKey("--partition") ? Integer.valueOf(options.get("--partition")) : null;
    }

    public static void main(String[] arguments) throws Exception {
        System.setProperty("org.slf4j.simpleLogger.defaultLogLevel", "error");
        var words = new ArrayDeque<>(List.of(arguments));
        var command = words.remove();
        var peer = new Peer(words.remove(), words.remove(), options(words));
        switch (command) {
            case "write" -> peer.write();
            case "read" -> peer.read();
            case "partitions" -> peer.partitions();
            case "transactions" -> peer.transactions();
            default -> throw new IllegalArgumentException(command);
        }
    }

    private static Map<String, String> options(ArrayDeque<String> words) {
        var options = new HashMap<String, String>();
        while (!words.isEmpty()) {
            var name = words.remove();
            switch (name) {
                case "--grouped" -> options.put(name, "");
                case "--compression", "--partition" -> options.put(name, words.remove());
                default -> throw new IllegalArgumentException(name);
            }
        }
        return options;
    }

    private void write() throws Exception {
        var keys = new ArrayList<String>();
        var sent = new ArrayList<Future<RecordMetadata>>();
        try (var producer = producer(Map.of("compression.type", compression))) {
            for (var lines = lines(); lines.hasNext(); ) {
                var line = lines.next();
                keys.add(key(line));
                sent.add(producer.send(record(line)));
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

    private void transactions() throws Exception {
        var producer = producer(Map.of(
                "transactional.id", UUID.randomUUID().toString(),
                "transaction.timeout.ms", Math.toIntExact(TRANSACTION.toMillis())));
        producer.initTransactions();
        for (var lines = lines(); lines.hasNext(); ) {
            var line = lines.next();
            var command = line.required("do").asText();
            switch (command) {
                case "begin" -> producer.beginTransaction();
                case "commit" -> producer.commitTransaction();
                case "abort" -> producer.abortTransaction();
                case "send" -> {
                    var sent = producer.send(record(line));
                    producer.flush();
                    OUT.println(answer(key(line), sent.get()));
                    continue;
                }
                default -> throw new IllegalArgumentException(command);
            }
            OUT.println(JSON.createObjectNode().put("done", command));
        }
        // Closing the producer would abort what is open.
        Runtime.getRuntime().halt(0);
    }

    private KafkaProducer<byte[], byte[]> producer(Map<String, Object> own) {
        var config = new HashMap<>(own);
        config.put("bootstrap.servers", bootstrap);
        return new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer());
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

    private ProducerRecord<byte[], byte[]> record(JsonNode line) throws IOException {
        var timestamp = line.has("timestamp") ? line.get("timestamp").longValue() : null;
        var record = new ProducerRecord<>(topic, partition, timestamp, bytes(key(line)), value(line));
        for (var header : line.path("headers").properties()) {
            record.headers().add(header.getKey(), bytes(header.getValue().textValue()));
        }
        return record;
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
        if (line.has("value_text")) {
            return bytes(line.get("value_text").textValue());
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
