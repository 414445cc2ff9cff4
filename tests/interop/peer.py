"""A peer of the interoperability tests: Python's ktables, flat and grouped.

    peer.py write BOOTSTRAP TOPIC [--grouped]
        Publishes the records on standard input, one JSON object a line: "key" (grouped: "group"
        and "member") with "value", or with "delete": true. Answers each with a line: the flat
        key, and the partition and offset that the broker acknowledged.
    peer.py read BOOTSTRAP TOPIC [--grouped]
        Prints the table, complete as of the topic's end, as one JSON object.

Topics must exist. All else is as ktables does it by default: its tables show the records of open
and aborted transactions too.
"""

import argparse
import asyncio
import json
import sys

from aiokafka import AIOKafkaProducer
from ktables import GroupedKafkaTable, GroupedKafkaTableWriter, KafkaTable, KafkaTableWriter, kafka_table


class AnsweringProducer(AIOKafkaProducer):
    """What ktables' writers publish with. They drop the acknowledgement; this prints it."""

    async def send_and_wait(self, topic, value=None, key=None, **options):
        ack = await super().send_and_wait(topic, value=value, key=key, **options)
        answer = {"key": key.decode(), "partition": ack.partition, "offset": ack.offset}
        print(json.dumps(answer), flush=True)
        return ack


def encode(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


async def write(topic, grouped):
    kafka_table.AIOKafkaProducer = AnsweringProducer
    writer = (GroupedKafkaTableWriter if grouped else KafkaTableWriter)(value_encoder=encode, **topic)
    names = ["group", "member"] if grouped else ["key"]
    async with writer:
        for line in sys.stdin.buffer:
            record = json.loads(line)
            key = [record[name] for name in names]
            if record.get("delete"):
                await writer.delete(*key)
            else:
                await writer.set(*key, record["value"])


async def read(topic, grouped):
    table = (GroupedKafkaTable if grouped else KafkaTable)(value_decoder=json.loads, **topic)
    async with table:
        if table.status != "caught_up":
            sys.exit(f"the table is {table.status}: {table.stats}")
        print(json.dumps(table.snapshot(), sort_keys=True, allow_nan=False))


def main():
    parser = argparse.ArgumentParser(description="A peer of the interoperability tests.")
    parser.add_argument("command", choices=["write", "read"])
    parser.add_argument("bootstrap")
    parser.add_argument("topic")
    parser.add_argument("--grouped", action="store_true")
    arguments = parser.parse_args()
    topic = {"connection": arguments.bootstrap, "topic": arguments.topic, "ensure_topic": False}
    command = {"write": write, "read": read}[arguments.command]
    asyncio.run(command(topic, arguments.grouped))


if __name__ == "__main__":
    main()
