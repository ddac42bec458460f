"""The bot's process, which can be killed, and what it has told of each call until somebody asks."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from eslbot.sim.service import LabError

#: Seconds to start.
START_LIMIT = 15.0
_CALLS = 5000


@dataclass
class BotSaw:
    """Of one call, over all its connections. ``ended_at``: the first ``end``; ``reached``: it went out."""

    ended_at: float | None = None
    closed_at: float | None = None
    reached: bool = False
    keys: str = ""
    holds: int = 0


class BotProcess:
    """``python -m benchmarks.soak.bot``; a context manager. ``totals`` is of all calls."""

    def __init__(self) -> None:
        self.port = 0
        self.totals: Counter[str] = Counter()
        self._calls: dict[str, BotSaw] = {}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"ws://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Run it, on the port it had. Raises LabError."""
        command = [sys.executable, "-m", "benchmarks.soak.bot", str(self.port)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        ready = threading.Event()
        self._reader = threading.Thread(
            target=self._read, args=(self._process, ready), name="bot's events", daemon=True
        )
        self._reader.start()
        if not ready.wait(START_LIMIT):
            self.kill()
            raise LabError(f"the soak's bot did not start within {START_LIMIT:g} s")

    def kill(self) -> None:
        """KILL, with all its calls."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(5)
            self._reader.join(5)
            self._process = None

    def take(self, crt: str) -> BotSaw:
        """What it saw of a call; it is forgotten."""
        with self._lock:
            return self._calls.pop(crt, BotSaw())

    def _read(self, process: subprocess.Popen[bytes], ready: threading.Event) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                try:
                    event = json.loads(line)
                except ValueError:  # it was killed in the middle of it
                    continue
                if event["event"] == "ready":
                    self.port = event["port"]
                    ready.set()
                else:
                    self._note(event)

    def _note(self, event: dict[str, Any]) -> None:
        with self._lock:
            saw = self._calls.setdefault(event["crt"], BotSaw())
            if len(self._calls) > _CALLS:
                del self._calls[next(iter(self._calls))]
            match event["event"]:
                case "end":
                    saw.ended_at = saw.ended_at or event["t"]
                    saw.reached = True
                case "closed":
                    saw.closed_at = event["t"]
                case "key":
                    saw.keys += event["key"]
                case "hold":
                    saw.holds += 1
                case name:
                    self.totals[name] += 1
