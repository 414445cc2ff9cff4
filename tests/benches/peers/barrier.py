"""Times barriers of Python's ktables, with its defaults.

    barrier.py BOOTSTRAP TOPIC TIMES

Prints one JSON object with the duration of each in seconds, and then waits for the end of its input.
"""

import asyncio
import json
import sys
import time

from ktables import KafkaTable


async def time_barriers(bootstrap, topic, times):
    table = KafkaTable(connection=bootstrap, topic=topic, value_decoder=json.loads, ensure_topic=False)
    took = []
    async with table:
        for _ in range(int(times)):
            start = time.perf_counter()
            if not await table.barrier(60):
                sys.exit("the barrier timed out after 60 s")
            took.append(time.perf_counter() - start)
    print(json.dumps({"took": took}), flush=True)
    sys.stdin.read()


asyncio.run(time_barriers(*sys.argv[1:]))
