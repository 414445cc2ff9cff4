// A peer of the tests with a schema registry: Apicurio's serializers for Java.
//
//   write avro|json REGISTRY BOOTSTRAP TOPIC
//       Publishes values in two versions of a schema, and prints each: {"key": ..., "value": ...}.
//   read avro|json REGISTRY BOOTSTRAP TOPIC
//       Prints the newest value of each key.
//
// REGISTRY is the address of Apicurio's own API. Values are printed in the form of ktables' codecs.

import static java.nio.charset.StandardCharsets.UTF_8;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Base64;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

final class RegistryPeer {
    private static final JsonMapper JSON = JsonMapper.builder().build();

    /** Standard output, in UTF-8 whatever the locale. */
    private static final PrintStream OUT = new PrintStream(new FileOutputStream(FileDescriptor.out), true, UTF_8);

    private final boolean isAvro;
    private final String registry;
    private final String bootstrap;
    private final String topic;

    private RegistryPeer(String[] arguments) {
        isAvro = arguments[1].equals("avro");
        registry = arguments[2];
        bootstrap = arguments[3];
        topic = arguments[4];
    }

    public static void main(String[] arguments) throws Exception {
        System.setProperty("org.slf4j.simpleLogger.defaultLogLevel", "error");
        var peer = new RegistryPeer(arguments);
        if (arguments[0].equals("write")) {
            peer.write();
        } else {
            peer.read();
        }
        System.exit(0);
    }

    private Map<String, Object> settings() {
        var settings = new HashMap<String, Object>();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("apicurio.registry.url", registry);
        settings.put("apicurio.registry.auto-register", "true");
        settings.put("apicurio.registry.if-exists", "RETURN_OR_UPDATE");
        settings.put("apicurio.registry.headers.enabled", "false");
        settings.put("apicurio.registry.id-handler", "io.apicurio.registry.serde.Legacy4ByteIdHandler");
        settings.put("apicurio.registry.use-id", "contentId");
        return settings;
    }

    /** An instance of one of Apicurio's classes: "Serializer" or "Deserializer". */
    private Object serde(String kind) throws Exception {
        var name = isAvro ? "avro.AvroKafka" : "jsonschema.JsonSchemaKafka";
        return Class.forName("io.apicurio.registry.serde." + name + kind).getDeclaredConstructor().newInstance();
    }

    @SuppressWarnings("unchecked")
    private void write() throws Exception {
        for (int version = 1; version <= 2; version++) {
            var settings = settings();
            if (!isAvro) {
                // The serializer reads the schema from the class path, to which the caller has added this folder.
                Files.writeString(Path.of(System.getProperty("peer.folder"), "v" + version + ".json"), jsonSchema(version));
                settings.put("apicurio.registry.artifact.schema.location", "v" + version + ".json");
            }
            var serializer = (Serializer<Object>) serde("Serializer");
            serializer.configure(settings, false);
            try (var producer = new KafkaProducer<>(settings, new StringSerializer(), serializer)) {
                for (int number = version * 10; number < version * 10 + 10; number++) {
                    Object value = isAvro ? avroOrder(number, version) : jsonOrder(number, version);
                    producer.send(new ProducerRecord<>(topic, "k" + number, value)).get();
                    print("k" + number, value);
                }
            }
        }
    }

    @SuppressWarnings("unchecked")
    private void read() throws Exception {
        var deserializer = (Deserializer<Object>) serde("Deserializer");
        deserializer.configure(settings(), false);
        var newest = new LinkedHashMap<String, Object>();
        var settings = settings();
        settings.put("enable.auto.commit", "false");
        try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), deserializer)) {
            var partitions = consumer.partitionsFor(topic).stream()
                    .map(partition -> new TopicPartition(topic, partition.partition()))
                    .toList();
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            var ends = consumer.endOffsets(partitions);
            while (partitions.stream().anyMatch(partition -> consumer.position(partition) < ends.get(partition))) {
                for (var message : consumer.poll(Duration.ofMillis(50))) {
                    newest.put(message.key(), message.value());
                }
            }
        }
        for (var entry : newest.entrySet()) {
            print(entry.getKey(), entry.getValue());
        }
    }

    private void print(String key, Object value) throws Exception {
        ObjectNode line = JSON.createObjectNode().put("key", key);
        line.set("value", value instanceof JsonNode json ? json : toJson(value, null));
        OUT.println(JSON.writeValueAsString(line));
    }

    private static String jsonSchema(int version) {
        var added = version == 1 ? "" : ", \"extra\": {\"type\": \"integer\"}";
        return """
            {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "required": ["id"], "properties":
            {"id": {"type": "integer"}, "note": {"type": ["null", "string"]}, "inner": {"$ref": "#/definitions/i"}%s},
            "definitions": {"i": {"type": "object", "properties": {"x": {"type": "number", "minimum": 0}}}}}"""
                .formatted(added);
    }

    private static JsonNode jsonOrder(int number, int version) {
        ObjectNode order = JSON.createObjectNode().put("id", number).put("note", number % 2 == 0 ? null : "ä\n");
        order.putObject("inner").put("x", number + 0.5);
        return version == 1 ? order : order.put("extra", Long.MAX_VALUE);
    }

    private static Schema avroSchema(int version) {
        var added = version == 1 ? "" : ", {\"name\": \"extra\", \"type\": [\"null\", \"long\"], \"default\": null}";
        return new Schema.Parser().parse("""
            {"type": "record", "name": "Order", "namespace": "x.y", "fields": [
              {"name": "id", "type": "long"},
              {"name": "address", "type": {"type": "record", "name": "Address", "fields": [
                {"name": "city", "type": "string"}, {"name": "next", "type": ["null", "Address"]}]}},
              {"name": "note", "type": ["null", "string", "int"], "default": null},
              {"name": "color", "type": {"type": "enum", "name": "Color", "symbols": ["RED", "GREEN"]}},
              {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
              {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
              {"name": "tags", "type": {"type": "array", "items": "string"}},
              {"name": "counts", "type": {"type": "map", "values": "double"}}%s]}""".formatted(added));
    }

    private static GenericRecord avroOrder(int number, int version) {
        var schema = avroSchema(version);
        var inner = new GenericData.Record(schema.getField("address").schema());
        inner.put("city", "Köln");
        var address = new GenericData.Record(schema.getField("address").schema());
        address.put("city", "Bonn");
        address.put("next", inner);
        var order = new GenericData.Record(schema);
        order.put("id", number * 1_000_000_000_000L);
        order.put("address", address);
        order.put("note", number % 3 == 0 ? null : number % 3 == 1 ? "text" : (Object) number);
        order.put("color", new GenericData.EnumSymbol(schema.getField("color").schema(), number % 2 == 0 ? "RED" : "GREEN"));
        order.put("at", 1_700_000_000_123L + number);
        order.put("price", ByteBuffer.wrap(BigInteger.valueOf(-number).toByteArray()));
        order.put("tags", List.of("a", "b"));
        order.put("counts", Map.of("x", number + 0.25));
        if (version == 2) {
            order.put("extra", Long.MIN_VALUE);
        }
        return order;
    }

    /** The JSON of a value in Avro; `schema` is needed for logical types. */
    private static JsonNode toJson(Object value, Schema schema) {
        var logical = schema == null ? null : schema.getProp("logicalType");
        if (value instanceof GenericRecord record) {
            ObjectNode json = JSON.createObjectNode();
            for (var field : record.getSchema().getFields()) {
                json.set(field.name(), toJson(record.get(field.pos()), field.schema()));
            }
            return json;
        } else if (value instanceof Map<?, ?> map) {
            ObjectNode json = JSON.createObjectNode();
            map.forEach((key, item) -> json.set(key.toString(), toJson(item, schema.getValueType())));
            return json;
        } else if (value instanceof List<?> list) {
            var json = JSON.createArrayNode();
            list.forEach(item -> json.add(toJson(item, schema.getElementType())));
            return json;
        } else if (value instanceof ByteBuffer bytes) {
            var raw = new byte[bytes.remaining()];
            bytes.duplicate().get(raw);
            return JSON.getNodeFactory().textNode("decimal".equals(logical)
                    ? new BigDecimal(new BigInteger(raw), 2).toPlainString()
                    : Base64.getEncoder().encodeToString(raw));
        } else if ("timestamp-millis".equals(logical)) {
            var text = java.time.Instant.ofEpochMilli((Long) value).toString();
            return JSON.getNodeFactory().textNode(text.replaceFirst("(\\.[0-9]*?)0+Z", "$1Z"));
        } else if (value instanceof CharSequence || value instanceof GenericData.EnumSymbol) {
            return JSON.getNodeFactory().textNode(value.toString());
        }
        return JSON.valueToTree(value);
    }
}
