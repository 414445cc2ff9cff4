"""Replays a topic with Python's ktables.

    replay.py json|pydantic BOOTSTRAP TOPIC

Prints one JSON object when the table is complete, and then waits for the end of its input. The object
has the times when the first value was decoded and when the table was complete (seconds since 1970), the
number of records and the number of entries.
"""

import asyncio
import json
import sys
import time

from ktables import KafkaTable


def choose_decoder(kind):
    if kind == "json":
        return json.loads
    from pydantic import BaseModel

    class Service(BaseModel):
        id: int
        up: bool
        weight: float
        tags: list[str]
        host: str

    return Service.model_validate_json


class TimedDecoder:
    """A decoder that records when it was first called, and how often."""

    def __init__(self, decode):
        self.decode = decode
        self.first = None
        self.records = 0

    def __call__(self, raw):
        if self.first is None:
            self.first = time.time()
        self.records += 1
        return self.decode(raw)


async def replay(kind, bootstrap, topic):
    decode = TimedDecoder(choose_decoder(kind))
    table = KafkaTable(
        connection=bootstrap, topic=topic, value_decoder=decode, catchup_timeout=600, ensure_topic=False
    )
    async with table:
        done = time.time()
        if table.status != "caught_up":
            sys.exit(f"the table did not catch up, it is {table.status}: {table.stats}")
        result = {"first": decode.first, "done": done, "records": decode.records, "entries": len(table)}
        print(json.dumps(result), flush=True)
        sys.stdin.read()


asyncio.run(replay(*sys.argv[1:]))
