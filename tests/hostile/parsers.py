"""The table of what reads bytes that somebody else chose: one entry a parser.

To add one: a :class:`Parser` with a name, a few sound inputs (``seeds``), a function that drives it with one
hostile input, and the exceptions that it may answer with. A drive that is a generator yields between the
steps of the event loop (one read of a socket, one event of a call's): each step has its own time.
"""

from __future__ import annotations

import json
import random
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from http.client import HTTPException
from io import BytesIO
from ipaddress import ip_address
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote as quote_url
from urllib.parse import unquote

import gevent
from flask import Request
from gevent import socket
from waitress.adjustments import Adjustments
from waitress.parser import HTTPRequestParser

from eslbot.ameyo.answer import Answer
from eslbot.ameyo.client import AmeyoClient
from eslbot.ameyo.notification import notification
from eslbot.ameyo.properties import allowed
from eslbot.ameyo.proxy import Proxy, ProxyFailed
from eslbot.ameyo.retry import MAX_RETRY_AFTER, parse_retry_after
from eslbot.ameyo.sockets import MAX_BYTES, PIECE
from eslbot.audio import UnusableAudio
from eslbot.caller.identity import Signer
from eslbot.caller.invite import Invite, Refused, parse
from eslbot.calls.bot import stream
from eslbot.calls.bot.lines import BadLines
from eslbot.calls.bot.lines import lines_of as lines_of_relay
from eslbot.calls.channel_state import ChannelState
from eslbot.calls.media import media_facts
from eslbot.config import Ameyo, ConfigError, Secret, load
from eslbot.config.placeholders import fill
from eslbot.esl.commands import check_line, execute_message, quote
from eslbot.esl.connection import READ_BYTES
from eslbot.esl.errors import ProtocolError, UnsafeArgument
from eslbot.esl.events import Event
from eslbot.esl.frames import MAX_HEADER_BYTES, FrameReader, Headers
from eslbot.esl.session import Session
from eslbot.ledger.filters import Filter
from eslbot.ledger.journal_reader import JournalDirectory
from eslbot.ledger.parsing import BadFact, Fact, read_fact
from eslbot.ledger.record import CallRecord
from eslbot.relay import control, protocols
from eslbot.relay.control import BadText, News, read_news
from eslbot.relay.protocols.base import BadMessage
from eslbot.server.probes import Probes
from eslbot.sim.bot.wavfiles import wav
from eslbot.telemetry import masking
from eslbot.telemetry.redaction import Redactor, printable
from eslbot.telemetry.trace_context import traceparent
from eslbot.web.errors import ApiError
from eslbot.web.schemas import CallsQuery, ChartsQuery, SignInForm, form, query
from eslbot.web.server import MAX_HEAD
from eslbot.web.sessions import COOKIE, Access, require_same_site
from tests.hostile import bots
from tests.support import wire
from tests.support.protocols import bot_of
from tests.support.switch import CRT, DID, UUID, WORKSPACE

#: What a drive gives back: nothing, or the end of each step of the event loop.
Steps = Iterator[None] | None


@dataclass(frozen=True, slots=True)
class Parser:
    """One row. ``share`` is how many of the inputs it gets, against the others' 1.

    ``in_loop``: it runs where calls wait for it. ``most``: bytes that it is given in one piece at most, where
    something in front of it bounds them.
    """

    name: str
    seeds: Sequence[bytes]
    drive: Callable[[bytes], Steps]
    expected: tuple[type[Exception], ...] = ()
    share: float = 1.0
    in_loop: bool = True
    most: int | None = None


# -- the event socket ---------------------------------------------------------------------------------------

CHANNEL = {
    "Event-Name": "CHANNEL_DATA",
    "Event-Date-Timestamp": "1795808733437487",
    "Caller-Channel-Created-Time": "1795808731437487",
    "Caller-Channel-Answered-Time": "1795808732437487",
    "Unique-ID": UUID,
    "Answer-State": "answered",
    "Channel-Read-Codec-Name": "PCMA",
    "variable_uuid": UUID,
    "variable_sip_from_display": f"{DID}|{CRT}",
    "variable_sip_from_user": "0401234567",
    "variable_sip_to_user": "bot",
    "variable_sip_network_ip": "127.0.0.4",
    "variable_sip_h_x-workspace-id": WORKSPACE,
    "variable_sip_h_X-Source-IP": "203.0.113.10",
    "variable_eslbot_stage": "handing_off",
    "variable_eslbot_take_overs": "3",
    "variable_eslbot_outcome": "bot_ended",
    "variable_eslbot_reason": "the customer wants a human",
    "variable_eslbot_properties": '{"summary": "a b", "score": 4.5}',
    "variable_eslbot_attempts": "2",
    "variable_eslbot_next_attempt": "1795808741.25",
    "variable_eslbot_held_at": "42.5",
}
HANGUP = {
    "Event-Name": "CHANNEL_HANGUP_COMPLETE",
    "Unique-ID": UUID,
    "Hangup-Cause": "NORMAL_CLEARING",
    "Channel-Read-Codec-Name": "PCMU",
    "variable_sip_hangup_disposition": "recv_bye",
    "variable_rtp_audio_in_media_packet_count": "1500",
    "variable_rtp_audio_in_jitter_max_variance": "3.25",
    "variable_rtp_audio_in_mos": "4.50",
}
CLOSED = b'{"status":"disconnected","message":{"code":1000,"reason":"Normal closure"}}'
REFUSED = b'{"status":"error","message":{"code":6,"error":"Connection refused (system error 111)"}}'
NEWS = tuple(
    told.encode()
    for told in (
        control.news(
            News.STATE,
            acked=7,
            bot="connected",
            lines=[{"path": f"/var/lib/eslbot/lines/{UUID}.a.r8", "on": False}],
        ),
        control.news(
            News.ENDED,
            8,
            outcome="bot_ended",
            reason="done",
            properties={"summary": "paid", "score": 4.5, "agent_group": None},
            dropped=[],
        ),
        control.news(News.MARK, 9, name="m-1", cleared=False),
        control.news(News.BEGAN, 10, ago=0.02),
    )
)


def custom(verb: str, body: bytes) -> bytes:
    headers = {"Event-Name": "CUSTOM", "Event-Subclass": f"mod_audio_stream::{verb}", "Unique-ID": UUID}
    return wire.event(headers, body)


EVENTS = (
    wire.event(
        {"Event-Name": "CHANNEL_EXECUTE_COMPLETE", "Application": "answer", "Application-UUID": "e-1"}
    ),
    wire.event({"Event-Name": "DTMF", "DTMF-Digit": "5", "DTMF-Duration": "960"}),
    wire.event(HANGUP),
    custom("connect", b'{"status":"connected"}'),
    custom("disconnect", CLOSED),
    custom("error", REFUSED),
    *(custom("json", message) for message in NEWS),
)
STREAMS = (
    wire.reply("+OK", CHANNEL) + wire.reply(f"{DID}|{CRT}") + wire.reply("+OK") * 3 + EVENTS[0],
    wire.reply("+OK", CHANNEL) + wire.api_response("+OK Success\n") + EVENTS[4] + EVENTS[5] + EVENTS[8],
    b"".join(EVENTS),
    EVENTS[3] + wire.linger_notice(UUID, b"bye"),
    b"Content-Type: text/rude-rejection\nContent-Length: 24\n\nAccess Denied, go away.\n",
    b"Content-Type: log/data\nContent-Length: 5\n\nhello" + wire.api_response("-ERR no such command\n"),
)


def pieces(content: bytes) -> Iterator[bytes]:
    """As a socket may cut it, up to what is read in a turn; the same for the same content."""
    rng = random.Random(zlib.crc32(content))
    way = rng.randrange(4)
    at = 0
    while at < len(content):
        size = READ_BYTES
        if way == 1 and len(content) < 4000:
            size = rng.choice((1, 1, 2, 3, 7, 40))
        elif way == 2:
            size = rng.randrange(1, READ_BYTES)
        yield content[at : at + size]
        at += size


def frames(content: bytes) -> Iterator[None]:
    """Cut, and looked at as the session and the stories do."""
    reader = FrameReader()
    for piece in pieces(content):
        events = [Event.of(frame) for frame in reader.feed(piece)]
        yield
        for event in events:
            look(event)
            yield


def look(event: Event) -> None:
    assert len(event.name) >= 0
    event.headers.get("Unique-ID", "")
    assert "Application-UUID" in event.headers or event.headers.get("Application-UUID") is None
    assert event.age >= 0.0
    assert isinstance(event.data, str)
    assert isinstance(event.headers, Headers)
    event.headers.raw("Reply-Text")
    for name, value in event.headers.items():
        assert event.headers[name] == value


def cut_anywhere(content: bytes) -> None:
    """However a stream is cut, its frames are the same."""

    def read(parts: Iterator[bytes]) -> tuple[list[tuple[bytes, bytes]], bool]:
        reader = FrameReader()
        found: list[tuple[bytes, bytes]] = []
        try:
            for part in parts:
                for frame in reader.feed(part):
                    found.append((frame.block, frame.body))
        except ProtocolError:
            return found, True
        return found, False

    if len(content) <= 65536:
        assert read(pieces(content)) == read(iter((content,)))


class FakeSocket:
    """A socket whose other end is a list; it has a descriptor, as the loop wants one."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts

    def fileno(self) -> int:
        return _descriptor().fileno()

    def setblocking(self, flag: bool) -> None:
        pass

    def recv(self, size: int) -> bytes:
        return next(self._parts, b"")

    def send(self, data: bytes) -> int:
        return len(data)

    def shutdown(self, how: int) -> None:
        pass

    def close(self) -> None:
        pass


@cache
def _descriptor() -> socket.socket:
    ends = socket.socketpair()
    _kept.extend(ends)
    return ends[0]


_kept: list[socket.socket] = []


def session(content: bytes) -> Iterator[None]:
    """A session that has asked for this and that, and what comes for it."""
    peer = Session(("127.0.0.1", 1), FakeSocket(pieces(content)))  # type: ignore[arg-type]
    wanted = [peer.ask("connect"), peer.ask("getvar sip_from_display")]
    peer.subscribe("DTMF", "mod_audio_stream::json")
    execution = peer.execute("answer", tell=True)
    peer._executions["e-1"] = execution
    while peer.connected:
        peer.receive_events()
        yield
        while peer._inbox:
            look(peer._inbox.popleft())
            yield
    assert peer.reason is not None, "who waits has to be told"
    assert peer.finished.is_set()
    assert all(answer.ready for answer in wanted)
    assert execution.done
    media_facts(peer.hangup)
    peer.stop()
    gevent.sleep(0)  # the loop lets go of it


def block(content: bytes) -> Headers:
    """The headers of a reply to ``connect``, from their lines."""
    return Headers(b"\n" + content.replace(b"\n\n", b"\n").strip(b"\n") + b"\n")


def lines_of(headers: Mapping[str, str]) -> bytes:
    return wire.block(headers).strip(b"\n")


CHANNELS = (
    lines_of(CHANNEL),
    lines_of({**CHANNEL, "variable_sip_h_X-Workspace-ID": WORKSPACE.upper(), "Reply-Text": f"{DID}|{CRT}"}),
    lines_of({name: value for name, value in CHANNEL.items() if "eslbot" not in name}),
)
EDGES = (ip_address("127.0.0.4"),)


def invite(content: bytes) -> None:
    """From the channel's headers to who calls, and on to what the relay is told of it."""
    channel = block(content)
    found = parse(channel, channel.get("Reply-Text"), EDGES)
    assert found.did.isascii() and found.did.isdigit()
    assert found.crt_object_id.isascii() and found.crt_object_id.isprintable()
    assert len(found.caller) <= 128
    headers = protocols.headers(found, bot_of("eslbot"), traceparent(found.call_id, 1.0))
    assert all(value.isascii() and value.isprintable() for value in headers.values())
    for name in protocols.PROTOCOLS:
        protocol = protocols.speak(found, bot_of(name), headers["traceparent"])
        assert all(json.loads(told) for told in protocol.start(resumed=False))
    masking.masked(found.caller)


SIGNER = Signer([b"a key of the test's own", b"the key before"])
OURS = Invite(UUID, DID, CRT, WORKSPACE, "203.0.113.10", "0401234567", "bot")
SIGNED = f"{UUID}\n{SIGNER.sign(OURS)}".encode()


def identity(content: bytes) -> None:
    """A channel that claims to be somebody's: it is what was signed for it, or nobody's."""
    call_id, _, token = content.decode("utf-8", "replace").partition("\n")
    found = SIGNER.identity({"Unique-ID": call_id, "variable_eslbot_identity": token})
    assert found in (None, OURS), "forged"


def notes(content: bytes) -> None:
    """What a controller before may have noted on the channel."""
    noted = ChannelState(block(content))
    assert noted.attempts >= 0 and noted.take_overs >= 0
    assert noted.invited_for >= 0.0 and noted.answered_for >= 0.0
    json.dumps([noted.stage, noted.next_attempt, noted.held_at, noted.summary()], allow_nan=False)
    ended = noted.ended
    assert isinstance(ended.properties, dict)


def media(content: bytes) -> None:
    json.dumps(media_facts(block(content)), allow_nan=False)


# -- the relay ----------------------------------------------------------------------------------------------


def news(content: bytes) -> None:
    """A relay's text; an end goes on to Ameyo's notification, and back from the channel."""
    told = read_news(content)
    if told.what == News.STATE:
        for line in lines_of_relay(told.facts.get("lines"), UUID):
            check_line(f"api uuid_displace {UUID} start {line.path} 0 mfl")
    properties = told.facts.get("properties")
    if told.what == News.ENDED and isinstance(properties, dict):
        taken, dropped = allowed(properties, list(properties)[::2])
        assert len(taken) + len(dropped) == len(properties)
        reason = printable(str(told.facts.get("reason")))
        json.loads(notification(CRT, {**taken, **fill({"why": "{reason}"}, {"reason": reason})}))
        noted = json.dumps(taken)
        quote_or_refuse(noted)
        quote_or_refuse(reason)
        back = ChannelState(
            {"variable_eslbot_properties": noted, "variable_eslbot_outcome": "bot_ended"}
        ).ended
        assert json.dumps(back.properties) == noted


def quote_or_refuse(text: str) -> None:
    try:
        check_line(f"api uuid_setvar {UUID} x {quote(text)}").encode("utf-8", "replace")
    except UnsafeArgument:
        assert "\0" in text


def module(content: bytes) -> None:
    """The module's own JSON."""
    text = stream.describe(Event(Headers(b"\n"), content, "mod_audio_stream::error"))
    assert text.isprintable() and len(text) <= 300


def argument(content: bytes) -> None:
    """What we quote, of others' words, never becomes a second command."""
    text = content.decode("utf-8", "replace")
    for line in (check_line(quote(text)), execute_message("set", text, "e-1")):
        assert "\n\n" not in line


# -- Ameyo --------------------------------------------------------------------------------------------------

ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n" + b'{"status":"ok"}',
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 503 Busy\r\nRetry-After: Fri, 27 Nov 2026 20:00:00 GMT\r\nConnection: close\r\n\r\ntry again",
    b"HTTP/1.1 429 No\r\nRetry-After: 120\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;ext=1\r\nhello\r\n0\r\nX-Trailer: a\r\n\r\n",
    b"HTTP/1.0 401 Unauthorized\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
)
AMEYO = Ameyo(
    "http://127.0.0.1:9", "acme.ameyo.app", Secret("ameyo-token-77c2"), None, (), {}, 1.0, 1.0, True
)


class Wire:
    """The receiving half of the socket that an answer is read from."""

    def __init__(self, content: bytes) -> None:
        self._pieces = pieces(content[:MAX_BYTES])
        self._held = b""

    def recv(self, size: int) -> bytes:
        if not self._held:
            self._held = next(self._pieces, b"")
        data, self._held = self._held[: min(size, PIECE)], self._held[min(size, PIECE) :]
        return data

    def sendall(self, data: bytes) -> None:
        """What we ask is not looked at."""

    def settimeout(self, seconds: float) -> None:
        """Nothing waits."""


def answered(content: bytes) -> None:
    """What comes for a notification, to what is said of it in the log."""
    answer = Answer(Wire(content))
    answer.begin()
    status = answer.status
    assert 200 <= status <= 999 or status == 101
    answer.read()
    assert answer.status == status, "it was the verdict already"
    told = _client()._detail(answer)
    assert len(told) <= 200 and "ameyo-token-77c2" not in told
    after = parse_retry_after(answer.field("Retry-After"))
    assert after is None or 0.0 <= after <= MAX_RETRY_AFTER


TUNNELS = (
    b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n",
    b"HTTP/1.0 200 OK\n\n",
    b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\n\r\n<html>",
)
PROXY = Proxy("10.0.0.9", 3128, Secret("eslbot:proxy-password-5c1e"))


def tunnelled(content: bytes) -> None:
    """What a proxy says before TLS: through, or refused in words of our own."""
    try:
        PROXY.open_tunnel(Wire(content), "management.ameyo.app", 8887, 60.0)  # type: ignore[arg-type]
    except ProxyFailed as failed:
        told = str(failed)
        assert len(told) <= 250 and told.isascii() and told.isprintable() and "5c1e" not in told
        raise


@cache
def _client() -> AmeyoClient:
    return AmeyoClient(AMEYO)


# -- logs ---------------------------------------------------------------------------------------------------

HIDDEN = ("Bearer 9f8e7d6c5b4a39281706", "p&ss w/rd\\+%41", "amëyo-tökèn-0001")
REDACTOR = Redactor(HIDDEN)
QUOTED = (
    f"you sent {HIDDEN[0]} to us".encode(),
    f"Authorization=Bearer%209f8e7d6c5b4a39281706&x={quote_url(HIDDEN[1])}".encode(),
    json.dumps({"error": json.dumps({"token": HIDDEN[1], "other": HIDDEN[2]})}).encode(),
    f"<p>{escape(HIDDEN[1])} {b64encode(HIDDEN[0].encode()).decode()}</p>".encode(),
)


def redacted(content: bytes) -> None:
    """A text that may quote a secret of ours, on its way to log, ledger and page; a line of those."""
    text = content.decode("utf-8", "replace")
    shown = REDACTOR.redact(text)
    assert not any(secret in view for secret in HIDDEN for view in (shown, unquote(shown)))


# -- the ledger ---------------------------------------------------------------------------------------------

AT = b'"at":1795808733.125'
FACTS = tuple(
    b'{"call":"%s",%s,%s}' % (UUID.encode(), AT, more)
    for more in (
        b'"what":"admitted","invited_at":1795808733.1,"workspace_id":"w","workspace":"acme","did":"0091","source":"::1"',
        b'"what":"refused","status":403,"why":"foreign_source","detail":"no","crt_object_id":"c-1"',
        b'"what":"answered"',
        b'"what":"bot_connected"',
        b'"what":"bot_ended","outcome":"bot_ended","reason":"done"',
        b'"what":"attempt_began","number":1',
        b'"what":"attempt","number":1,"verdict":"failed","status":500,"seconds":0.25,"detail":"x"',
        b'"what":"attempt","number":2,"verdict":"accepted","status":200,"seconds":0.5',
        b'"what":"bye_overdue"',
        b'"what":"taken_over","stage":"talking","take_overs":2,"attempts":1,"held_since":1795808733,"answered_for":3.5',
        b'"what":"switch_restarted","restarts":2,"gap":1.7',
        b'"what":"ended","disposition":"recv_bye","cause":"NORMAL_CLEARING","outcome":"bot_ended","handed_off":true,'
        b'"stage":"held","media":{"packets_in":7,"codec":"PCMU"}',
        b'"what":"mark","name":"m","cleared":false',
    )
)
JOURNAL = b'{"what":"journal","version":1,"host":"h","pid":7,"at":1795808733.0}\n' + b"\n".join(FACTS) + b"\n"


def facts(content: bytes) -> None:
    """Lines of a journal, and the story of a call from all that are facts."""
    told: list[Fact] = []
    for line in content.split(b"\n")[:200]:
        try:
            fact = read_fact(line)
        except BadFact:
            continue
        if fact is not None:
            told.append(fact)
    story = CallRecord.new(UUID)
    story.apply(told)
    story.close_unseen(1795808800.0)
    story.apply(told[::-1])
    for row in (story.row, *story.notifications, *story.timeline):
        json.dumps(row, allow_nan=False, ensure_ascii=False).encode()  # halves of a character, say, fail here


def tailed(content: bytes) -> Iterator[None]:
    """A journal's file, read to its end in pieces."""
    place = _folder() / "journals"
    place.mkdir(exist_ok=True)
    (place / "host-1-1.jsonl").write_bytes(content)
    folder = JournalDirectory(place)
    folder.scan({})
    for journal in folder.unread_journals():
        while (piece := folder.read(journal)) is not None:
            assert piece.end > journal.offset
            assert not any(b"\n" in line for line in piece.lines)
            journal.offset, journal.within_line = piece.end, piece.within_line
            yield
        list(islice(folder.replay(journal), 10_000))


@cache
def _folder() -> Path:
    folder = TemporaryDirectory(
        prefix="eslbot-hostile-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None
    )
    _folders.append(folder)
    return Path(folder.name)


_folders: list[TemporaryDirectory[str]] = []


# -- what workers and the page process are asked over HTTP --------------------------------------------------


def probe(content: bytes) -> None:
    """The head of a request to a worker."""
    worker, switch = SimpleNamespace(draining=False), SimpleNamespace(is_gone=False)
    assert Probes(worker, switch)._answer(content).startswith(b"HTTP/1.1 ")  # type: ignore[arg-type]


@cache
def _access() -> Access:
    path = _folder() / "page.toml"
    path.write_bytes(SMALL.replace(b"${file:/nowhere}", b"of-ameyo"))
    return Access(load(path, {"NAME": "x", "PAGE_TOKEN": "y" * 20}), pause=lambda seconds: None)


def received(content: bytes) -> Steps:
    """Bytes of requests, as the page's server reads them, piece by piece."""
    settings = Adjustments(max_request_header_size=MAX_HEAD, max_request_body_size=4097)
    parser = HTTPRequestParser(settings)
    for at in range(0, len(content), settings.recv_bytes):
        data = content[at : at + settings.recv_bytes]
        while data:
            taken = parser.received(data)
            data = data[taken:]
            if parser.completed:
                if parser.error is not None:
                    return
                parser.close()
                parser = HTTPRequestParser(settings)
            yield


def request(content: bytes) -> None:
    """A request's query, cookies and form, each refused for itself."""
    path, _, rest = content.decode("latin-1").partition("\n")
    fields, _, rest = rest.partition("\n")
    cookie, _, posted = rest.partition("\n")
    body = posted.encode("latin-1")
    asked = Request(
        {
            "REQUEST_METHOD": "POST",
            "SERVER_NAME": "x",
            "SERVER_PORT": "80",
            "wsgi.url_scheme": "http",
            "PATH_INFO": path[:MAX_HEAD],
            "QUERY_STRING": fields[:MAX_HEAD],
            "HTTP_COOKIE": cookie[:MAX_HEAD],
            "HTTP_ORIGIN": path[:MAX_HEAD],
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_TYPE": "application/x-www-form-urlencoded",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": BytesIO(body),
        }
    )

    def refused(ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except ApiError as refusal:
            assert 400 <= refusal.status < 500
            json.dumps(refusal.document)

    values = refused(lambda: query(asked, CallsQuery()))
    if values is not None:
        Filter(
            **{name: value for name, value in values.items() if name not in ("limit", "before")}
        )._conditions()
    refused(lambda: query(asked, ChartsQuery()))
    refused(lambda: form(asked, SignInForm()))
    refused(lambda: _access().viewer(asked))
    refused(lambda: require_same_site(asked))
    assert len(asked.cookies.get(COOKIE, "")) <= MAX_HEAD


# -- the configuration --------------------------------------------------------------------------------------

SAMPLE = (Path(__file__).parents[2] / "deploy" / "eslbot.toml").read_bytes()
SMALL = b"""[server]
listen = "127.0.0.1:8084"
switches = ["127.0.0.1/32"]
switch_user = "freeswitch"
workers = 2
[edge]
sip_ip = "10.0.0.4"
switches = ["10.0.0.5:5060"]
[web.tokens.me]
token = "${PAGE_TOKEN}"
workspaces = ["acme"]
[ledger]
url = "postgresql+psycopg://u:p@h/d"
retention = "90d"
[workspaces.2b37ba17-7b20-4b3e-b138-1161e351d5c5]
name = "acme"
sources = ["203.0.113.64/28"]
max_duration = "30m"
[workspaces.2b37ba17-7b20-4b3e-b138-1161e351d5c5.bot]
url = ["wss://bot.example.com/stream", "wss://b/"]
headers = { Authorization = "${NAME}" }
[workspaces.2b37ba17-7b20-4b3e-b138-1161e351d5c5.ameyo]
url = "https://management.ameyo.app:8887"
tenant_host = "acme.ameyo.app"
token = "${file:/nowhere}"
properties = { DID = "{did}" }
"""


def configured(content: bytes) -> None:
    path = _folder() / "eslbot.toml"
    path.write_bytes(content)
    load(path, {"NAME": "x", "PAGE_TOKEN": "y" * 20})


PARSERS = (
    Parser("esl frames", STREAMS, frames, (ProtocolError,), share=2),
    Parser("esl frames, cut anywhere", STREAMS, cut_anywhere, in_loop=False),  # it reads all of it twice
    Parser("esl session", STREAMS, session, share=2),
    Parser("invite", CHANNELS, invite, (Refused,), share=2, most=MAX_HEADER_BYTES),
    Parser("signed identity", (SIGNED, SIGNED.replace(b".", b"=.")), identity),
    Parser("channel notes", CHANNELS, notes, most=MAX_HEADER_BYTES),
    Parser("media of a hang-up", (lines_of(HANGUP),), media, most=MAX_HEADER_BYTES),
    Parser("relay's news", NEWS, news, (BadText, BadLines), share=2),
    Parser("bot message", bots.MESSAGES, bots.message, (BadMessage,), share=2),
    Parser("mod_audio_stream's JSON", (CLOSED, REFUSED), module),
    Parser(
        "bot audio",
        (wav(b"\1\0" * 80), wav(b"\1\0" * 9, channels=2), b"\x7f\x80" * 200),
        bots.audio,
        (UnusableAudio,),
        share=0.5,
    ),
    Parser("Ameyo's answer", ANSWERS, answered, (HTTPException, OSError), share=2),
    Parser("a proxy's answer to CONNECT", TUNNELS, tunnelled, (ProxyFailed,)),
    Parser("secrets to redact", QUOTED, redacted, most=8192),
    Parser(
        "command arguments", (b"a b", b'it\'s \\ "x"'), argument, (UnsafeArgument,), share=0.5, most=65536
    ),
    Parser(
        "numbers to mask",
        (b"call 00919990152080 from +91 999", b"\xf0\x9f\x98\x80 12345678"),
        lambda content: len(masking.masked_text(content.decode("utf-8", "replace"))) and None,
        share=0.5,
        most=65536,
    ),
    Parser("journal facts", (JOURNAL, *FACTS), facts, in_loop=False),
    Parser("journal file", (JOURNAL,), tailed, share=0.5, in_loop=False),
    Parser("probe of a worker", (b"GET /readyz HTTP/1.1\r\nHost: x",), probe, share=0.5, most=2048),
    Parser(
        "page's server",
        (
            b"GET /api/calls?live=true HTTP/1.1\r\nHost: x\r\nCookie: a=b; c=d\r\n\r\n",
            b"POST /sign-in HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\ntoken=abc",
            b"POST /sign-in HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"9;x=y\r\ntoken=abc\r\n0\r\nT: r\r\n\r\n",
        ),
        received,
        share=0.5,
        in_loop=False,
        most=65536,
    ),
    Parser(
        "page request",
        (
            b"/api/calls\nworkspace=acme&since=1.5&limit=20&live=true\n"
            b'eslbot=abc; other="x\\073"\ntoken=abc&next=%2F',
        ),
        request,
        share=0.5,
        in_loop=False,
        most=65536,
    ),
    Parser("configuration", (SMALL, SAMPLE), configured, (ConfigError,), share=0.05, in_loop=False),
)
