"""What the peers with Confluent's client for Python share.

write REGISTRY BOOTSTRAP TOPIC   writes values, and prints each: {"key": …, "value": …}
read REGISTRY BOOTSTRAP TOPIC    prints the newest value of each key

Values are printed in the form of ktables' codecs.
"""

import json
import sys

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.serialization import MessageField, SerializationContext


def run(values, reader, to_json):
    """Runs the command that the arguments name.

    values(registry, topic) yields keys, serializers and values; reader(registry) returns a function of a key, bytes and a
    context; to_json(value) returns what is printed.
    """

    def show(key, value):
        print(json.dumps({"key": key, "value": to_json(value)}))

    command, url, bootstrap, topic = sys.argv[1:]
    registry = SchemaRegistryClient({"url": url})
    context = SerializationContext(topic, MessageField.VALUE)
    if command == "write":
        producer = Producer({"bootstrap.servers": bootstrap})
        for key, serialize, value in values(registry, topic):
            producer.produce(topic, key=key.encode(), value=serialize(value, context))
            show(key, value)
        assert producer.flush(60) == 0
    else:
        deserialize = reader(registry)
        for key, value in newest_values(bootstrap, topic).items():
            show(key, deserialize(key, value, context))


def newest_values(bootstrap, topic):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False})
    partitions = consumer.list_topics(topic, 60).topics[topic].partitions
    newest = {}
    for partition in (TopicPartition(topic, number, 0) for number in partitions):
        low, high = consumer.get_watermark_offsets(partition, 60)
        consumer.assign([TopicPartition(topic, partition.partition, low)])
        position = low
        while position < high:
            message = consumer.poll(60)
            assert message is not None and not message.error(), message
            position = message.offset() + 1
            newest[message.key().decode()] = message.value()
    consumer.close()
    return newest
