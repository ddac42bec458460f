"""eslbot's log, read as it grows; what it says of each call until somebody asks, and what it complains about.

The file is emptied where it gets long, as ``copytruncate`` of logrotate does it: what is written in that very
moment may be lost, and a call then counts as one without a last line.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Bytes from which on it is emptied; and tracebacks that are kept.
LONG, TRACEBACKS = 32 << 20, 20
#: Calls of which something is remembered: those that nobody asked for are the oldest.
_CALLS = 5000


@dataclass
class Told:
    """Of one call."""

    call_id: str | None = None
    dispositions: list[str] = field(default_factory=list)
    take_overs: int = 0


class Log:
    """Of one service. ``exceptions``: lines with a traceback; ``events``: lines of level error."""

    def __init__(self, path: Path, long: int = LONG) -> None:
        self._path, self._long = path, long
        self._offset = path.stat().st_size  # what was there before is not of this run
        self._calls: dict[str, Told] = {}
        self.exceptions = 0
        self.tracebacks: list[str] = []
        self.events: Counter[str] = Counter()

    def read(self) -> None:
        """Take in what is new."""
        with self._path.open("r+b") as file:
            file.seek(self._offset)
            data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._offset += len(whole)
            if self._offset > self._long and file.seek(0, os.SEEK_END) == self._offset:
                file.truncate(0)
                self._offset = 0
        for line in whole.decode(errors="replace").splitlines():
            if line.startswith("{"):
                with suppress(ValueError):  # its writer was killed
                    self._take(json.loads(line))

    def _take(self, line: dict[str, Any]) -> None:
        event = str(line.get("event"))
        if "exception" in line:
            self.exceptions += 1
            if len(self.tracebacks) < TRACEBACKS:
                self.tracebacks.append(f"{event}: {line['exception']}")
        if line.get("level") in ("error", "critical"):
            self.events[re.sub(r"\d+", "…", event)] += 1
        crt = line.get("crt_object_id")
        if not crt:
            return
        told = self._calls.setdefault(crt, Told())
        if len(self._calls) > _CALLS:
            del self._calls[next(iter(self._calls))]
        told.call_id = line.get("call_id") or told.call_id
        if event == "call_taken_over":
            told.take_overs += 1
        elif event == "call_ended" and "sip_hangup_disposition" in line:
            told.dispositions.append(line["sip_hangup_disposition"])

    def take(self, crt: str) -> Told:
        """What it said of a call; it is forgotten."""
        return self._calls.pop(crt, Told())
