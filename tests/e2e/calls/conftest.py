"""One lab per kind of switch, shared by all scenarios: each call has a CRT Object ID of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from uuid import uuid4

import pytest

from eslbot.sim import freeswitch
from eslbot.sim.lab import Tenant
from tests.support.lab import Lab

#: A second tenant's PBX, which the switch lets in; and an address that nobody has configured.
OTHER_SOURCE, FOREIGN_SOURCE = "127.0.0.3", "127.0.0.9"

TENANTS = [
    Tenant("talk", "talk?listen_ms=200"),
    Tenant("hold", "hold"),
    Tenant("one-breath", "one-breath"),
    Tenant("close", "close"),
    Tenant("error-close", "error-close"),
    Tenant("abort", "abort"),
    Tenant("silent", "silent", bot_keys={"first_audio_timeout": "700ms"}),
    Tenant("reject", "reject"),
    Tenant("refused", "ws://127.0.0.1:9/nobody-listens"),
    Tenant("second-url", ["ws://127.0.0.1:9/nobody-listens", "talk?listen_ms=100"]),
    Tenant("junk", "junk?listen_ms=100"),
    Tenant("hostile", "properties-hostile"),
    Tenant("impatient", "hold", workspace={"max_duration": "2s"}),
    Tenant("small", "hold", workspace={"max_calls": 1}),
    Tenant("other", "talk?listen_ms=100", sources=[OTHER_SOURCE]),
    Tenant("speaks-24k", "talk?listen_ms=100&rate=24000"),
    Tenant("speaks-wav", "talk?listen_ms=100&rate=16000&format=wav"),
    Tenant("speaks-pcma", "talk?listen_ms=100&format=pcma"),
    Tenant("at-16k", "talk?listen_ms=200&rate=16000&format=binary", bot_keys={"sample_rate": 16000}),
    Tenant("at-24k", "talk?listen_ms=200&rate=24000&format=binary", bot_keys={"sample_rate": 24000}),
    Tenant("twilio", "twilio?listen_ms=300", bot_keys={"protocol": "twilio"}),
    Tenant("exotel", "exotel?listen_ms=300", bot_keys={"protocol": "exotel"}),
    Tenant("plivo", "plivo?listen_ms=300", bot_keys={"protocol": "plivo"}),
    Tenant("waits-with-tone", "hold", workspace={"hold_sound": "tone"}),
    Tenant("once-more", "abort?once=1&listen_ms=100", bot_keys={"reconnect": True}),
    Tenant("keeps-close", "close?keep_tcp=1"),
    Tenant("keeps-error", "error-close?keep_tcp=1"),
    Tenant("keeps-error-twice", "error-close?keep_tcp=1", bot_keys={"reconnect": True}),
    Tenant("keeps-answer", "talk?keep_tcp=1&listen_ms=100"),
    Tenant("keeps-403", "reject?keep_tcp=1"),
    Tenant("keeps-500", "reject?keep_tcp=1&status=500"),
    Tenant("keeps-last-words", "close?keep_tcp=1&greeting_ms=8000&ahead_ms=8000"),
    Tenant("half-closed", "half-closed"),
    Tenant("frozen", "frozen", workspace={"max_duration": "2s"}),
    Tenant("flood", "flood"),
    Tenant("oversized", "oversized?listen_ms=100"),
    Tenant("zeros", "zeros", bot_keys={"first_audio_timeout": "700ms"}),
    Tenant("unusable-audio", "unusable-audio?listen_ms=100"),
    Tenant("bad-frames", "bad-frames"),
    Tenant("huge-header", "huge-header"),
    Tenant("huge-frame", "huge-header?size=67108864&follow=4194304"),
    Tenant("speech-flood", "speech-flood?seconds=1000"),
    Tenant("speech-queue", "speech-flood?seconds=601&format=pcmu"),
    Tenant("mark-flood", "mark-flood"),
    Tenant("unread", "drone?unread=1", workspace={"max_duration": "2s"}),
    Tenant("recorded", "hold", workspace={"record": True}),
    Tenant(
        "announced",
        "talk?listen_ms=200",
        workspace={"record": True, "recording": {"announcement": "beep", "key": "0f" * 32}},
    ),
]

#: Bots that nobody here wrote: what becomes of their calls, and the seconds to the hand-off.
UNKIND = [
    ("keeps-close", "bot_closed", 4.0),
    ("keeps-error", "bot_failed", 4.0),
    ("keeps-error-twice", "bot_failed", 6.0),  # the second stream must wait for the first, and does not come
    ("keeps-answer", "bot_ended", 4.0),
    ("keeps-403", "bot_unreachable", 2.0),
    ("keeps-500", "bot_unreachable", 2.0),
    ("half-closed", "bot_failed", 4.0),
    ("frozen", "max_duration", 5.0),
    ("flood", "bot_ended", 6.0),
    ("oversized", "bot_ended", 4.0),
    ("abort", "bot_failed", 4.0),
    ("silent", "bot_silent", 4.0),
    ("impatient", "max_duration", 5.0),
    ("zeros", "bot_silent", 4.0),
    ("unusable-audio", "bot_ended", 4.0),
    ("bad-frames", "bot_failed", 4.0),
    ("huge-header", "bot_failed", 4.0),
    ("huge-frame", "bot_failed", 4.0),
    ("speech-flood", "bot_failed", 6.0),
    ("mark-flood", "bot_failed", 15.0),  # as fast as the bot can: it has 6,000 at once, and 300 a second
    ("unread", "max_duration", 5.0),
]


@cache
def kinds() -> list[object]:
    """Both switches: for what is about the switch, and for what holds the stand-in to the real one."""
    found = freeswitch.find()
    missing = pytest.mark.skipif(
        found is None, reason="no FreeSWITCH with mod_audio_stream on this machine; the stand-in is tested"
    )
    return ["stand-in", pytest.param("freeswitch", marks=missing)]


@cache
def one_kind() -> list[object]:
    """The real switch where this machine has one, else the stand-in: for all but the switch."""
    return ["freeswitch" if freeswitch.find() else "stand-in"]


def pytest_report_header() -> str:
    found = freeswitch.find()
    real = f"and a real FreeSWITCH {found.version} ({found.binary})" if found else "only: no FreeSWITCH here"
    return f"end to end: the stand-in switch {real}"


class Labs:
    """A laboratory for each kind of switch, made when it is first asked for, and kept: a start takes 8 s."""

    def __init__(self, make: Callable[[str], Lab]) -> None:
        self._make = make
        self._stack = ExitStack()
        self._labs: dict[str, Lab] = {}

    def of(self, kind: str) -> Lab:
        if kind not in self._labs:
            self._labs[kind] = self._stack.enter_context(self._make(kind))
        return self._labs[kind]

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="package")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    def make(kind: str) -> Lab:
        folder: Path = tmp_path_factory.mktemp(f"lab-{kind}")
        return Lab(folder, TENANTS, switch=kind, workers=2, ledger=True, refreshes=True)

    labs = Labs(make)
    yield labs
    labs.close()


@pytest.fixture(params=kinds())
def lab(request: pytest.FixtureRequest, labs: Labs) -> Lab:
    return labs.of(request.param)


@pytest.fixture
def crt() -> str:
    return f"d444-{uuid4().hex[:12]}-vce"
