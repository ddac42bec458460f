"""A progress line on a terminal, erased when the report comes."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self, TextIO


class Progress:
    """Told the name of a check and ``begins`` or ``done``; says nothing where nobody sits before it."""

    def __init__(self, stream: TextIO, *, wanted: bool) -> None:
        self._stream = stream
        self._wanted = wanted and stream.isatty()
        self._lock = threading.Lock()
        self._open: dict[str, None] = {}
        self._done = 0

    def __call__(self, name: str, what: str) -> None:
        """One step of one check, from any thread."""
        with self._lock:
            if what == "begins":
                self._open[name] = None
            else:
                self._open.pop(name, None)
                self._done += 1
            self._write(f"{self._done} done, looking at: {', '.join(self._open)}")

    def _write(self, line: str) -> None:
        if self._wanted:
            self._stream.write(f"\r\x1b[K{line[:78]}")
            self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._write("")
            self._wanted = False
