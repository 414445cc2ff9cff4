"""Reads a topic with values in Avro into a dict, with Confluent's client for Python.

    schemas.py REGISTRY BOOTSTRAP TOPIC

Prints one JSON object when the dict is complete, and then waits for the end of its input. The object has the number of
records and of entries.
"""

import json
import sys

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

registry, bootstrap, topic = sys.argv[1:]
deserialize = AvroDeserializer(SchemaRegistryClient({"url": registry}))
context = SerializationContext(topic, MessageField.VALUE)
consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench", "enable.auto.commit": False})
partitions = [TopicPartition(topic, number, 0) for number in consumer.list_topics(topic, 60).topics[topic].partitions]
unread = sum(consumer.get_watermark_offsets(partition, 60)[1] for partition in partitions)
consumer.assign(partitions)
entries, records = {}, 0
while unread > 0:
    messages = consumer.consume(1000, 60)
    assert messages, "no messages"
    for message in messages:
        assert not message.error(), message.error()
        entries[message.key().decode()] = deserialize(message.value(), context)
    records += len(messages)
    unread -= len(messages)
consumer.close()
print(json.dumps({"records": records, "entries": len(entries)}), flush=True)
sys.stdin.read()
