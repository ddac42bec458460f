"""Each defect of greenswitch 0.0.19's session (DESIGN section 8): ours passes, the released one fails.

Every test runs twice. ``eslbot`` must pass; ``greenswitch`` is the released ``OutboundSession`` and must fail
by the defect: a script that does not fit raises ScriptError, which is no expected failure.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import gevent
import greenlet
import pytest
from gevent import socket
from gevent.server import StreamServer
from greenswitch import esl as greenswitch

from eslbot.config.model import Config, FreeSwitch, Server, Web, loopback
from eslbot.esl.gone import CallerHungUp, ConnectionLost
from eslbot.esl.session import Session
from eslbot.server.call_counts import CallCounts
from eslbot.server.controller import Controller
from eslbot.server.ended_calls import EndedCalls
from eslbot.server.token_buckets import TokenBuckets
from eslbot.sim.addresses import free_port
from tests.support import wire
from tests.support.peer import Hung, Peer, bounded, eventually, fields, tcp_pair
from tests.support.switch import SIGNER

ROOT = Path(__file__).parents[3]


def defect(raises: Any = AssertionError) -> pytest.MarkDecorator:
    """Both sessions; the released one fails, by ``raises``."""
    released = pytest.mark.xfail(strict=True, raises=raises, reason="greenswitch 0.0.19 as released")
    return pytest.mark.parametrize(
        "kind", ["eslbot", pytest.param("greenswitch", marks=released)], scope="function"
    )


class Line:
    """A session of either kind and its FreeSWITCH."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        ours, theirs = tcp_pair()
        self.ours = ours
        self.peer = Peer(theirs)
        self.session: Any = (
            Session(("127.0.0.1", 1), ours, 2.0)
            if kind == "eslbot"
            else greenswitch.OutboundSession(("127.0.0.1", 1), ours)
        )
        self._events: gevent.queue.Queue[Any] = gevent.queue.Queue()
        if kind == "greenswitch":
            for name in ("*", "CHANNEL_HANGUP_COMPLETE", "DTMF"):
                self.session.register_handle(name, self._events.put)

    def connect(self, reply: bytes | None = None) -> None:
        greenlet = gevent.spawn(self.session.connect)
        self.peer.expect("connect")
        self.peer.send(reply or wire.reply("+OK", {"Unique-ID": "real", "variable_uuid": "real"}))
        with bounded(2):
            greenlet.get()

    def next_event(self) -> Any:
        """The next event that the session gives to its user."""
        with bounded(2):
            return self.session.next_event(2) if self.kind == "eslbot" else self._events.get()

    def close(self) -> None:
        self.peer.close()
        if self.kind == "eslbot":
            self.session.stop()
        else:  # its own stop may wait for what never comes
            gevent.killall(
                [self.session._receive_events_greenlet, self.session._process_events_greenlet], timeout=1
            )
            self.ours.close()


@pytest.fixture
def line(kind: str) -> Iterator[Line]:
    made = Line(kind)
    yield made
    made.close()


def later(function: Callable[[], Any]) -> gevent.Greenlet:
    greenlet = gevent.spawn(function)
    gevent.sleep(0)
    return greenlet


def completion(event_uuid: str, which: str) -> bytes:
    return wire.event(
        {
            "Event-Name": "CHANNEL_EXECUTE_COMPLETE",
            "Application": "playback",
            "Application-UUID": event_uuid,
            "variable_current_application": "playback",
            "Which": which,
        }
    )


# -- parsing ----------------------------------------------------------------------------------------------


@defect()
def test_a_caller_cannot_put_headers_into_an_event(line: Line) -> None:
    """ "0091|a%0Avariable_uuid: …": FreeSWITCH does not encode a ``%0A`` again."""
    display = "0091|a%0Avariable_uuid: another-tenants-call%0AUnique-ID: another-tenants-call"
    reply = (
        "Content-Type: command/reply\nReply-Text: +OK\nUnique-ID: real\nvariable_uuid: real\n"
        f"variable_sip_from_display: {display}\n\n"
    )
    line.connect(reply.encode())
    assert line.session.session_data["variable_uuid"] == "real"
    greenlet = later(line.session.uuid_break)
    command = line.peer.expect("api uuid_break ")
    line.peer.send(wire.api_response("+OK"))
    greenlet.get()
    assert "another-tenants-call" not in command


@defect()
def test_the_body_of_an_event_is_untouched(line: Line) -> None:
    line.connect()
    body = b'{"type": "end", "reason": "100%41\\n: x",\n"Event-Name": "CHANNEL_HANGUP"}\n\n  '
    headers = {"Event-Name": "CUSTOM", "Event-Subclass": "mod_audio_stream::json"}
    line.peer.send(wire.event(headers, body))
    event = line.next_event()
    assert event.headers["Event-Name"] == "CUSTOM"
    assert getattr(event, "body", None) == body


@defect(Hung)
def test_a_byte_that_is_not_utf8_ends_nothing(line: Line) -> None:
    line.connect()
    greenlet = later(lambda: line.session.send("api status"))
    line.peer.expect("api status")
    line.peer.send(wire.api_response(b"caf\xe9"))
    with bounded(1):
        assert greenlet.get().data == "caf�"


@defect(Hung)
def test_a_block_without_content_type_ends_nothing(line: Line) -> None:
    line.connect()
    greenlet = later(lambda: line.session.send("api status"))
    line.peer.expect("api status")
    line.peer.send(b"X-Something: new\n\n" + wire.api_response("up"))
    with bounded(1):
        assert greenlet.get().data == "up"


@defect(Hung)
def test_the_body_of_a_disconnect_notice_is_not_the_next_header(line: Line) -> None:
    line.connect()
    line.peer.send(wire.linger_notice("real", b"Disconnected, goodbye.\nSee you at ClueCon!\n"))
    line.peer.send(
        wire.event({"Event-Name": "CHANNEL_HANGUP_COMPLETE", "variable_sip_hangup_disposition": "recv_bye"})
    )
    if line.kind == "eslbot":
        assert line.session.finished.wait(2)
        assert line.session.hangup["variable_sip_hangup_disposition"] == "recv_bye"
    else:
        while line.next_event().headers.get("Event-Name") != "CHANNEL_HANGUP_COMPLETE":
            pass


# -- ends -------------------------------------------------------------------------------------------------


@defect(Hung)
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_pending_command_ends_with_the_socket(line: Line, how: str) -> None:
    line.connect()
    greenlet = later(lambda: line.session.send("api status"))
    line.peer.expect("api status")
    getattr(line.peer, how)()
    with bounded(1), pytest.raises(greenswitch.OutboundSessionHasGoneAway):
        greenlet.get()


@defect(Hung)
def test_a_wait_for_an_application_ends_with_the_socket(line: Line) -> None:
    line.connect()
    greenlet = later(lambda: line.session.call_command("playback", "x", block=True, response_timeout=60))
    line.peer.expect("sendmsg")
    line.peer.send(wire.reply())
    line.peer.close()
    with bounded(1), pytest.raises(greenswitch.OutboundSessionHasGoneAway):
        greenlet.get()


@defect(subprocess.TimeoutExpired)
def test_an_end_inside_a_body_does_not_freeze_the_process(kind: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.eof_in_body", kind],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "begun\n":
            raise RuntimeError("the script itself failed")
        out, _ = process.communicate(timeout=2)
        assert out == "alive\n"
    finally:
        process.kill()
        process.wait()


@defect((AssertionError, greenswitch.OutboundSessionHasGoneAway))
def test_a_hang_up_is_told_from_a_lost_connection(line: Line) -> None:
    """A linger notice fails what is pending in both; ours tells the call's end from the socket's."""
    line.connect()
    greenlet = later(lambda: line.session.send("api status"))
    line.peer.expect("api status")
    line.peer.send(wire.linger_notice("real"))
    with bounded(1), pytest.raises(CallerHungUp) as caught:
        greenlet.get()
    assert not isinstance(caught.value, ConnectionLost)


@pytest.mark.timed
@defect()
def test_stop_does_not_wait_for_a_polling_greenlet(line: Line) -> None:
    line.connect()

    def say_goodbye() -> None:
        if line.peer.command() == "exit":  # greenswitch says so, we just close
            line.peer.send(wire.reply("+OK bye"))
        line.peer.close()

    later(say_goodbye)
    began = time.monotonic()
    with bounded(5):
        line.session.stop()
    assert time.monotonic() - began < 0.3


# -- sending ----------------------------------------------------------------------------------------------


@defect()
def test_a_long_command_is_sent_to_its_end(line: Line) -> None:
    line.connect()
    command = "api echo " + "x" * 8_000_000
    greenlet = later(lambda: line.session.send(command))
    received = 0
    with gevent.Timeout(1, False):  # type: ignore[arg-type]  # the stubs forget False
        while received < len(command) + 2:
            gevent.sleep(0)
            received += len(line.peer.sock.recv(1 << 20))
    assert received == len(command) + 2
    line.peer.send(wire.api_response("x"))
    greenlet.get()


@defect()
def test_an_argument_cannot_become_a_command(line: Line) -> None:
    line.connect()

    def evil() -> None:
        try:
            line.session.call_command("playback", "x\n\napi hupall")
        except ValueError:
            line.session.send("noop")

    greenlet = later(evil)
    first = line.peer.command()
    line.peer.send(wire.reply())
    greenlet.get()
    greenlet = later(lambda: line.session.send("the next"))
    assert [first.split("\n")[0], line.peer.command()] == ["noop", "the next"]
    line.peer.send(wire.reply())
    greenlet.get()


@defect()
def test_a_stale_completion_of_the_same_application_ends_no_wait(line: Line) -> None:
    line.connect()
    greenlet = later(lambda: line.session.call_command("playback", "b", block=True, response_timeout=2))
    command = fields(line.peer.expect("sendmsg"))
    line.peer.send(wire.reply())
    line.peer.send(completion("of-a-playback-before", "stale"))
    line.peer.send(completion(command.get("Event-UUID", "unknown"), "ours"))
    assert greenlet.get().headers["Which"] == "ours"


# -- serving (what needs a process of its own is in test_greenswitch_server.py) -----------------------------


class Serving:
    """A server of either kind in this process."""

    def __init__(self, kind: str) -> None:
        if kind == "eslbot":
            server = StreamServer(("127.0.0.1", 0), controller().take)
            server.start()
            self.port, self.stop = server.server_port, server.stop
        else:
            self.port = free_port()
            application = type("Application", (), {"__init__": lambda *_: None, "run": lambda _: None})
            server = greenswitch.OutboundESLServer("127.0.0.1", self.port, application)
            listening = gevent.spawn(server.listen)
            eventually(lambda: server._running)
            self.stop = lambda: (listening.kill(), server.server.close())


def controller() -> Controller:
    server = Server(loopback(8084), (ip_network("127.0.0.1/32"),), 1, 10)
    switch = FreeSwitch(None, 5060, None, (10000, 60000), loopback(8021), None, "/tmp", ())
    config = Config(server, switch, Web(loopback(8085)), {})
    return Controller(config, SIGNER, CallCounts(), 0, buckets=TokenBuckets(), ended=EndedCalls())


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def greenlets() -> int:
    gc.collect()
    return sum(isinstance(thing, greenlet.greenlet) and bool(thing) for thing in gc.get_objects())


@defect(Hung)
def test_a_port_probe_leaves_nothing_behind(kind: str) -> None:
    serving = Serving(kind)
    try:
        before = descriptors(), greenlets()
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", serving.port)) as probe:
                assert probe.recv(100).startswith(b"connect\n\n")
        eventually(lambda: descriptors() < before[0] + 5, 2)
        eventually(lambda: greenlets() < before[1] + 5, 2)
    finally:
        serving.stop()
