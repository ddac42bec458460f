"""What workers write for the ledger, written by tests."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

ACME = "2b37ba17-7b20-4b3e-b138-1161e351d5c5"
OTHER = "11111111-1111-1111-1111-111111111111"
#: When the calls of the tests begin.
NOON = 1_800_000_000.0


def fact(call: str, what: str, after: float, at: float = NOON, **more: Any) -> dict[str, Any]:
    """``what`` happens ``after`` seconds behind the INVITE at ``at``."""
    return {"call": call, "at": at + after, "what": what, **more}


def identity(workspace: str = ACME, name: str = "acme", at: float = NOON, **more: Any) -> dict[str, Any]:
    """ADMITTED's fields."""
    return {
        "invited_at": at,
        "workspace_id": workspace,
        "workspace": name,
        "did": "00919990152080",
        "crt_object_id": "crt-1",
        "caller": "919800001234",
        "called": "919990152080",
        "source": "203.0.113.10",
        **more,
    }


def whole_call(call: str, at: float = NOON, **who: Any) -> list[dict[str, Any]]:
    """A call that goes as it should: 15 facts."""

    def said(what: str, after: float, **more: Any) -> dict[str, Any]:
        return fact(call, what, after, at, **more)

    return [
        said("admitted", 0.01, **identity(at=at, **who)),
        said("answered", 0.05),
        said("bot_connecting", 0.06),
        said("bot_connected", 0.2),
        said("speech_began", 0.5),
        said("speech_ended", 2.0, cut=False),
        said("caller_speaks", 2.5, speaking=True),
        said("caller_speaks", 4.0, speaking=False),
        said("speech_began", 4.5),
        said("mark", 5.0, name="asked", cleared=False),
        said("speech_ended", 6.0, cut=False),
        said("bot_ended", 6.1, outcome="bot_ended", reason="done"),
        said("attempt_began", 6.2, number=1),
        said("attempt", 6.3, number=1, verdict="accepted", status=200, seconds=0.1, detail="ok"),
        said(
            "ended",
            9.3,
            disposition="recv_bye",
            cause="NORMAL_CLEARING",
            outcome="bot_ended",
            handed_off=True,
            stage="held",
            media={"packets": 460, "mos": 4.4, "codec": "PCMU"},
        ),
    ]


class Worker:
    """Writes a journal as a worker does, and is gone when told so."""

    number = 0

    def __init__(self, folder: Path, host: str = "here") -> None:
        Worker.number += 1
        self.path = folder / f"{host}-{os.getpid()}-{time.time_ns() // 1_000_000 + Worker.number}.jsonl"
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self.write([{"what": "journal", "version": 1, "host": host, "pid": os.getpid(), "at": NOON}])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.die()

    def write(self, facts: Iterable[dict[str, Any]]) -> None:
        self.write_bytes(b"".join(json.dumps(one).encode() + b"\n" for one in facts))

    def write_bytes(self, data: bytes) -> None:
        os.write(self._file, data)

    def die(self) -> None:
        """Its lock goes with it."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
