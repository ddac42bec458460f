"""Copies of SIP messages: what is a refusal of FreeSWITCH's own, and what is told of it."""

from __future__ import annotations

import socket
import struct
import threading
import time
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from eslbot.config.model import loopback
from eslbot.freeswitch import capture
from eslbot.freeswitch.capture import LINES, MARK, Refusals, refusal
from eslbot.sim.addresses import free_port
from eslbot.telemetry import metrics


def copied(message: str, peer: str = "192.0.2.7", version: int = 1, family: int = socket.AF_INET) -> bytes:
    kind = socket.AF_INET if family == socket.AF_INET else socket.AF_INET6
    ours = socket.inet_pton(kind, "127.0.0.1" if kind == socket.AF_INET else "::1")
    addresses = ours + socket.inet_pton(kind, peer)
    head = struct.pack("!BBBBHH", version, 8 + len(addresses), family, 17, 5060, 5060)
    return head + addresses + message.encode()


def response(
    status: str = "420 Bad Extension", method: str = "INVITE", more: str = "", branch: str = "b"
) -> str:
    return (
        f"SIP/2.0 {status}\r\nVia: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bK{branch};rport\r\n"
        f"Call-ID: {branch}@pbx\r\nCSeq: 1 {method}\r\n{more}Content-Length: 0\r\n\r\n"
    )


def test_a_refusal() -> None:
    found = refusal(copied(response(more="Unsupported: timer\r\n")))
    assert found is not None
    assert (found.status, found.phrase, found.peer) == (420, "Bad Extension", "192.0.2.7")
    assert (found.call_id, found.branch, found.unsupported) == ("b@pbx", "z9hG4bKb", "timer")


def test_ipv6() -> None:
    found = refusal(copied(response(), "2001:db8::7", family=socket.AF_INET6))
    assert found is not None
    assert found.peer == "2001:db8::7"


@pytest.mark.parametrize(
    "message",
    [
        response("200 OK"),
        response("100 Trying"),
        response("302 Moved"),
        response("487 Request Terminated"),
        response("401 Unauthorized"),
        response(method="OPTIONS"),
        response(more=f"{MARK}: true\r\n"),
        response(more=f"{MARK.lower()} : true\r\n"),
        "INVITE sip:bot@127.0.0.1 SIP/2.0\r\nCSeq: 1 INVITE\r\n\r\n",
        "SIP/2.0 420",
        "",
    ],
)
def test_what_is_none(message: str) -> None:
    assert refusal(copied(message)) is None


@pytest.mark.parametrize("size", range(24))
def test_a_datagram_that_is_cut_off(size: int) -> None:
    assert refusal(copied(response())[:size]) is None


@given(st.binary(max_size=400))
def test_anything_at_all(data: bytes) -> None:
    refusal(data)
    refusal(copied(response())[:16] + data)
    refusal(b"\x01\x10\x02" + data)


def test_what_is_told_is_printable_and_short() -> None:
    hostile = response(f"488 {'x' * 70}\x1b[31m", more="Unsupported: " + "\x07" * 500 + "\r\n")
    found = refusal(copied(hostile))
    assert found is not None
    assert found.phrase.isprintable()
    assert found.unsupported == "?" * 120


class Told:
    """A reader whose lines are kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        self.refusals = Refusals()
        self.before = self.count()
        self.lines: list[dict[str, Any]] = []

    def count(self) -> float:
        return float(metrics.REFUSALS.labels("switch_420")._value.get())

    def take(self, message: str) -> None:
        with structlog.testing.capture_logs() as lines:
            self.refusals.take(copied(message))
        self.lines += [dict(line) for line in lines]


def test_one_that_is_repeated_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch)
    for _ in range(7):
        told.take(response())
        told.now += 4.0
    assert len(told.lines) == 1
    assert told.lines[0]["event"] == "switch_refused"
    assert told.lines[0]["remedy"]
    assert told.count() == told.before + 1
    told.now += 60.0
    told.take(response())
    assert told.count() == told.before + 2


def test_a_flood_is_counted_and_not_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch)
    for number in range(2000):
        told.take(response(branch=str(number)))
    assert told.count() == told.before + 2000
    assert len(told.lines) == LINES
    told.now += 61.0
    told.take(response(branch="later"))
    assert [line["event"] for line in told.lines[LINES:]] == ["switch_refusals_untold", "switch_refused"]
    assert told.lines[LINES]["count"] == 2000 - LINES
    assert len(told.refusals._seen) <= capture.REMEMBERED


def test_a_thread_reads_the_port_once_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    address = loopback(free_port())
    tried = threading.Event()

    def wait(seconds: float) -> None:
        tried.set()
        threading.Event().wait(0.02)

    monkeypatch.setattr(capture.time, "sleep", wait)
    count = metrics.REFUSALS.labels("switch_422")._value
    before = count.get()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(address.pair)
        threading.Thread(target=capture.watch, args=(address,), daemon=True).start()
        assert tried.wait(5)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as switch:
        deadline = time.monotonic() + 10
        number = 0
        while count.get() == before:  # what is sent before it has the port is lost
            assert time.monotonic() < deadline
            number += 1
            switch.sendto(copied(response("422 Too Small", branch=f"bound{number}")), address.pair)
