"""A service as its users run it, and peers of its event-socket listener that are no FreeSWITCH."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import gevent
from gevent import socket

from tests.hostile.parsers import CHANNEL, EVENTS, STREAMS
from tests.support import wire
from tests.support.ameyo_server import AmeyoServer
from tests.support.mutation import made_up
from tests.support.peer import Peer, bounded, eventually, fields
from tests.support.processes import EslbotService, descriptors, tree, until
from tests.support.switch import CRT, UUID, WORKSPACE, Channel

#: Seconds for which the hostile ones go on beside a good call.
FOR = 4.0
#: Calls of nobody's.
STRANGERS_CRT = "stranger-crt-1"


def some(number: int) -> str:
    """Another channel's UUID."""
    return f"{UUID[:-12]}{number:012x}"


def says_nothing(peer: Peer, rng: random.Random) -> None:
    gevent.sleep(FOR)


def never_answers(peer: Peer, rng: random.Random) -> None:
    """The channel it tells of, and not a word more."""
    peer.connected({**CHANNEL, "Unique-ID": some(rng.randrange(1 << 40)), "Answer-State": "ringing"})
    gevent.sleep(FOR)


def answers_what_nobody_asked(peer: Peer, rng: random.Random) -> None:
    peer.send(wire.reply("+OK") * 3 + wire.api_response("-ERR no") * 3 + wire.linger_notice(UUID))
    gevent.sleep(FOR)


def strange_frames(peer: Peer, rng: random.Random) -> None:
    while True:
        peer.send(b"hello: you\n\n" * 5000)


def nameless_events(peer: Peer, rng: random.Random) -> None:
    while True:
        peer.send(wire.event({}) * 2000)


def events_without_end(peer: Peer, rng: random.Random) -> None:
    peer.connected({**CHANNEL, "Unique-ID": some(rng.randrange(1 << 40))})
    while True:
        peer.send(b"".join(EVENTS[3:]) * 100)


def absurd_length(peer: Peer, rng: random.Random) -> None:
    """A body that never comes to its end, a little at a time."""
    peer.send(b"Content-Type: text/event-plain\nContent-Length: 4194304\n\n")
    while True:
        peer.send(b"x" * 50_000)
        gevent.sleep(0.02)


def no_end_of_headers(peer: Peer, rng: random.Random) -> None:
    while True:
        peer.send(b"a: b\n" * 2000)


def one_byte_at_a_time(peer: Peer, rng: random.Random) -> None:
    for byte in rng.choice(STREAMS):
        peer.send(bytes((byte,)))
        gevent.sleep(0.001)


def closes_early(peer: Peer, rng: random.Random) -> None:
    content = rng.choice(STREAMS)
    peer.send(content[: rng.randrange(len(content))])
    peer.reset()


def anything(peer: Peer, rng: random.Random) -> None:
    peer.send(made_up(rng, STREAMS)[:200_000])


HOSTILE: tuple[Callable[[Peer, random.Random], None], ...] = (
    says_nothing,
    never_answers,
    answers_what_nobody_asked,
    strange_frames,
    nameless_events,
    events_without_end,
    absurd_length,
    no_end_of_headers,
    one_byte_at_a_time,
    closes_early,
    anything,
)


def cookies(peer: Peer, rng: random.Random) -> None:
    """2.7 s of http.cookies' time, each."""
    peer.send(b"GET /api/session HTTP/1.1\r\nHost: x\r\nCookie: " + b"=" * 7900 + b"\r\n\r\n")
    peer.sock.recv(100)


def pipelined(peer: Peer, rng: random.Random) -> None:
    while True:
        peer.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 100)


def chunked(peer: Peer, rng: random.Random) -> None:
    peer.send(b"POST /sign-in HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        peer.send(b"1\r\nx\r\n" * 1000)


def loris(peer: Peer, rng: random.Random) -> None:
    peer.send(b"GET /readyz HTTP/1.1\r\n")
    while True:
        peer.send(b"X")
        gevent.sleep(0.01)


def wrong_tokens(peer: Peer, rng: random.Random) -> None:
    peer.send(b"GET /api/session HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\n\r\n")
    peer.sock.recv(100)


HOSTILE_HTTP = (says_nothing, cookies, pipelined, chunked, loris, wrong_tokens, closes_early, anything)


def again_and_again(port: int, manner: Callable[[Peer, random.Random], None], end: float) -> int:
    """Connections of one kind to ``port``, one after the other; how many there were."""
    rng, count = random.Random(manner.__name__), 0
    while time.monotonic() < end:
        count += 1
        sock = socket.create_connection(("127.0.0.1", port), 5)
        sock.settimeout(FOR)
        with suppress(OSError), gevent.Timeout(FOR, False):  # type: ignore[arg-type]  # the stubs forget False
            manner(Peer(sock), rng)
        sock.close()
        gevent.sleep(0.005)
    return count


def handed_off(call: Channel) -> None:
    """From wherever it is to its BYE."""
    call.wait_stage("talking", 15)
    call.ends()
    call.wait_stage("held", 15)
    call.hang_up()
    call.wait_closed(15)


def test_beside_peers_that_are_no_freeswitch_a_call_goes_on(tmp_path: Path) -> None:
    with (
        AmeyoServer() as ameyo,
        EslbotService(tmp_path, tree(ameyo.url)) as service,
        bounded(60),
    ):
        handed_off(service.call(uuid=some(1)))  # what a worker opens at its first call is there
        workers = service.children()
        until(lambda: service.metric("eslbot_calls_active") == 0)
        before = descriptors(workers)
        call = service.call()
        call.wait_stage("talking", 15)
        end = time.monotonic() + FOR
        hostile = [gevent.spawn(again_and_again, service.port, manner, end) for manner in HOSTILE]
        waits: list[float] = []
        while time.monotonic() < end:
            asked, texts = time.monotonic(), len(call.texts)
            call.event("DTMF", {"DTMF-Digit": "5", "DTMF-Duration": "800"})
            call.wait(lambda so_far=texts: len(call.texts) > so_far, 5)
            waits.append(time.monotonic() - asked)
            gevent.sleep(0.02)
        new = service.call(uuid=some(2))
        handed_off(call)
        new.wait_stage("talking", 15)
        new.hang_up()
        new.wait_closed(15)
        gevent.joinall(hostile, timeout=20, raise_error=True)
        assert all(greenlet.ready() for greenlet in hostile)
        print(f"a key took {sorted(waits)[len(waits) // 2]:.3f} s, at most {max(waits):.3f}, of {len(waits)}")
        assert waits

        assert service.children() == workers, "no worker was killed for it"
        until(lambda: service.metric("eslbot_calls_active") == 0)
        assert service.metric("eslbot_internal_errors_total") == 0
        until(lambda: descriptors(workers) <= before, what="the end of what they had open")
        assert [request for request in ameyo.requests if CRT.encode() in request.body]
    assert "Traceback" not in service.log
    assert service.log.count("esl_unknown_frame") <= sum(greenlet.value for greenlet in hostile)
    assert call.violations == []


def test_beside_those_who_abuse_page_and_probes_a_call_goes_on(tmp_path: Path) -> None:
    configuration = tree()
    configuration["web"] = {"tokens": {"operator": {"token": "operator-token-0123456789"}}}
    with EslbotService(tmp_path, configuration) as service, bounded(60):
        assert service.get("/healthz")[0] == 200  # it is up
        workers, page = service.children(), service.page()
        call = service.call()
        call.wait_stage("talking", 15)
        before = descriptors(workers)
        end = time.monotonic() + FOR
        ports = (service.web_port, service.health_port)
        hostile = [
            gevent.spawn(again_and_again, port, manner, end) for port in ports for manner in HOSTILE_HTTP
        ]
        keys, answers = 0, 0
        while time.monotonic() < end:
            texts = len(call.texts)
            call.event("DTMF", {"DTMF-Digit": "5", "DTMF-Duration": "800"})
            call.wait(lambda so_far=texts: len(call.texts) > so_far, 5)
            keys += 1
            with socket.create_connection(("127.0.0.1", service.health_port), 5) as sock:
                sock.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
                answers += sock.recv(100).startswith(b"HTTP/1.1 200 ")
            gevent.sleep(0.02)
        gevent.joinall(hostile, timeout=20, raise_error=True)
        assert answers == keys > 0, "who asks whether it lives was kept out"
        assert (service.children(), service.page()) == (workers, page), "no process was killed for it"
        until(lambda: descriptors(workers) <= before, what="the end of what they had open")
        assert service.get("/healthz")[0] == 200
        call.hang_up()
        call.wait_closed(15)
        assert call.violations == []
    assert "Traceback" not in service.log


def test_a_peer_that_claims_to_have_an_answered_call_gets_nothing(tmp_path: Path) -> None:
    """It did: a bot with its Bearer, and hand-offs with the token of whichever tenant it named."""
    claims = {
        "sip_from_display": f"00919990152080|{STRANGERS_CRT}",
        "sip_network_ip": "127.0.0.1",
        "sip_h_X-Workspace-ID": WORKSPACE,
    }
    stages = ("answered", "connecting", "talking", "ended", "handing_off", "held")
    said: list[str] = []

    def claim(number: int, stage: str) -> None:
        peer = Peer(service.connect())
        variables = {
            **claims,
            "eslbot_stage": stage,
            "eslbot_outcome": "bot_ended",
            "eslbot_properties": "{}",
        }
        channel = {"Unique-ID": some(number), "Answer-State": "answered"}
        channel |= {f"variable_{name}": value for name, value in variables.items()}
        with suppress(ConnectionError):
            peer.connected(channel)
            while command := peer.command(2):
                said.append(command)
                if command.startswith("api"):
                    peer.send(wire.api_response("+OK Success\n"))
                else:
                    peer.send(
                        wire.reply("+OK" if not command.startswith("getvar") else f"0091|{STRANGERS_CRT}")
                    )
                if command.startswith("sendmsg"):
                    done = {"Event-Name": "CHANNEL_EXECUTE_COMPLETE", "Unique-ID": some(number)}
                    done |= {"Answer-State": "answered", "Application-UUID": fields(command)["Event-UUID"]}
                    peer.send(wire.event(done))

    with (
        AmeyoServer() as ameyo,
        EslbotService(tmp_path, tree(ameyo.url)) as service,
        bounded(60),
    ):
        claimers = [gevent.spawn(claim, 16 + n, stage) for n, stage in enumerate(stages)]
        eventually(lambda: service.log.count('"identity_not_verified"') >= len(stages), 20)
        handed_off(service.call())
        gevent.killall(claimers)
        asked = b"".join(request.body for request in ameyo.requests)
    assert CRT.encode() in asked
    assert STRANGERS_CRT.encode() not in asked
    told = "\n".join(said)
    assert said, "it was talked to, as a customer might be on that line"
    for never in ("secret-of-", "STREAM_EXTRA_HEADERS", " start ", "send_text", "hangup", "respond"):
        assert never not in told
