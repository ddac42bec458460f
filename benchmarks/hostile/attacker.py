"""``python -m benchmarks.hostile.attacker PORT KIND RATE``: sends requests until its standard input ends.

Prints a JSON object then: ``sent``, ``refused`` (connections that were not taken), ``first_bytes`` of the
answers with their numbers.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from contextlib import suppress

from benchmarks.hostile.kinds import KINDS

#: Seconds that a connection is kept for, unless the other side ends it before.
KEPT = 2.0
#: Bytes of an answer that are read.
MOST = 1 << 20


async def _attack(port: int, request: bytes, found: Counter[str]) -> None:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        found["refused"] += 1
        return
    found["sent"] += 1
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(KEPT):
            writer.write(request)
            first = await reader.read(12)
            found[first.decode("ascii", "replace") or "nothing"] += 1
            read = len(first)
            while (more := await reader.read(65536)) and read < MOST:
                read += len(more)
    writer.transport.abort()


async def run(port: int, kind: str, rate: float) -> Counter[str]:
    """Send until standard input ends."""
    found: Counter[str] = Counter()
    loop = asyncio.get_running_loop()
    ended = asyncio.ensure_future(loop.run_in_executor(None, sys.stdin.read))
    due = loop.time()
    tasks: set[asyncio.Task[None]] = set()
    while not ended.done():
        task = asyncio.create_task(_attack(port, KINDS[kind], found))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        due += 1 / rate
        await asyncio.sleep(max(0.0, due - loop.time()))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])))))
