"""What a stand-in tells the outside world while it runs: one JSON object a line.

Tests, the demo and a human at a terminal all read the same stream; nobody has to parse log texts.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

#: How a stand-in reports: the event's name and its fields (anything JSON can hold).
Emit = Callable[[str, dict[str, Any]], None]


class JsonLines:
    """Writes a line ``{"t": <epoch seconds>, "who": ..., "event": ..., <fields>}`` for each event."""

    def __init__(self, stream: TextIO, who: str) -> None:
        self._stream = stream
        self._who = who
        self._lock = threading.Lock()  # some stand-ins report from several threads

    def __call__(self, event: str, fields: dict[str, Any]) -> None:
        """Write one line."""
        line = {"t": round(time.time(), 6), "who": self._who, "event": event, **fields}
        # ASCII only: a text from the network may hold what no encoding can write.
        text = json.dumps(line, default=str) + "\n"
        with self._lock:
            self._stream.write(text)
            self._stream.flush()


def silent(event: str, fields: dict[str, Any]) -> None:
    """An :data:`Emit` for whoever does not want to know."""
