"""What a worker costs from its fork until it takes connections: ``python -m benchmarks.esl.boot``.

Processor time of the worker's threads, by the scheduler's own count, at the first look at which it waits for
connections; the looks are 50 ms apart, and an idle worker uses nothing.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

from benchmarks.esl.subjects import cpu_seconds, eslbot_service, running
from eslbot.sim.addresses import free_port

ROUNDS = 7


def main() -> None:
    """Start the service some times, and print what each took."""
    workers: list[float] = []
    arbiters: list[float] = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            port = free_port()
            subject = eslbot_service(Path(folder), port, "http://127.0.0.1:9", free_port())
            with running(subject, Path(folder), sorted(os.sched_getaffinity(0)), port) as run:
                workers += map(cpu_seconds, run.workers())
                arbiters.append(cpu_seconds(run.process.pid))
    for name, seconds in (("worker", workers), ("arbiter until then", arbiters)):
        print(
            f"{name}: median {statistics.median(seconds):.3f} s of processor time "
            f"({min(seconds):.3f} to {max(seconds):.3f})"
        )
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
