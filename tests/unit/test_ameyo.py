"""The notification, against a real HTTP server: its bytes, its verdicts, its patience, its discretion."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import gevent.resolver.thread
import pytest
import trustme
from gevent.event import Event as Flag
from hypothesis import given
from hypothesis import strategies as st

from eslbot.ameyo import answer as answer_module
from eslbot.ameyo import client as client_module
from eslbot.ameyo import sockets
from eslbot.ameyo.client import AmeyoClient, Attempt
from eslbot.ameyo.connections import Connections
from eslbot.ameyo.notification import PATH, notification
from eslbot.ameyo.retry import FIRST_DELAY, SLOW_CAP, Verdict, parse_retry_after
from eslbot.config.model import Ameyo, Secret
from eslbot.sim.addresses import free_port
from tests.support.ameyo_server import AmeyoServer, Answer
from tests.support.patched import run_patched
from tests.unit.test_redaction import SPELLINGS

TOKEN = "ameyo-token-77c2-" + "x" * 300
CRT = "d444-6a1c8f2e-vce-3883"


def settings(url: str, **changes: Any) -> Ameyo:
    values: dict[str, Any] = {
        "url": url,
        "tenant_host": "acme.ameyo.app",
        "token": Secret(TOKEN),
        "ca_file": None,
        "bot_properties": (),
        "properties": {},
        "connect_timeout": 1.0,
        "timeout": 2.0,
        "insecure": True,
        **changes,
    }
    return Ameyo(**values)


class Over(Flag):
    """The end of a call, which notes how long it was waited for, and waits for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:  # type: ignore[override]
        assert timeout is not None
        self.waited.append(timeout)
        return self.is_set()


def attempts(
    server: AmeyoServer, count: int = 50, over: Flag | None = None, jitter: float = 0.0, **changes: Any
) -> list[Attempt]:
    client = AmeyoClient(settings(**{"url": server.url, **changes}), jitter=lambda: jitter)
    try:
        return list(islice(client.notify(notification(CRT, {}), over or Over()), count))
    finally:
        client.close()


# -- what goes over the wire ------------------------------------------------------------------------------


def test_the_bytes_of_the_contract() -> None:
    body = notification(CRT, {"DID": "00919990152080", "campaign": "support"})
    assert body == (
        b'{"notificationId": "95", "uniqueId": "d444-6a1c8f2e-vce-3883", "callResponse": true, '
        b'"sessionId": "na", "properties": {"DID": "00919990152080", "campaign": "support"}}'
    )


@given(st.text(), st.dictionaries(st.text(), st.text() | st.integers() | st.booleans() | st.none()))
def test_the_body_is_json_with_the_five_fields(crt: str, properties: dict[str, Any]) -> None:
    assert json.loads(notification(crt, properties)) == {
        "notificationId": "95",
        "uniqueId": crt,
        "callResponse": True,
        "sessionId": "na",
        "properties": properties,
    }


def test_the_request_of_the_contract() -> None:
    with AmeyoServer() as server:
        (attempt,) = attempts(server)
    (request,) = server.requests
    assert request.path == "/ameyorestapi/voice/sendAgentResponseForCallNotification"
    assert request.header("Authorization") == [TOKEN]
    assert request.header("Host") == ["acme.ameyo.app"]
    assert request.header("policy-name") == ["token"]
    assert request.header("Content-Type") == ["application/json"]
    assert request.body == notification(CRT, {})
    assert (attempt.number, attempt.verdict, attempt.status) == (1, Verdict.ACCEPTED, 200)


def test_the_environment_changes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login nobody password nothing\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with AmeyoServer() as server:
        (attempt,) = attempts(server)
    assert attempt.verdict is Verdict.ACCEPTED
    assert server.requests[0].header("Authorization") == [TOKEN]


def test_one_connection_serves_call_after_call() -> None:
    with AmeyoServer(Answer(500, b"x" * 1000), Answer(404, b"not here"), Answer()) as server:
        client = AmeyoClient(settings(server.url), jitter=lambda: 0.0)
        for _ in range(3):
            assert list(client.notify(notification(CRT, {}), Over()))[-1].verdict is Verdict.ACCEPTED
        client.close()
    assert len(server.requests) == 5
    assert len({request.peer for request in server.requests}) == 1


def test_a_connection_that_ameyo_has_closed_meanwhile_costs_no_call() -> None:
    def say_ok_and_close(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        handler.close_connection = True

    with AmeyoServer(Answer(write=say_ok_and_close), Answer()) as server:
        client = AmeyoClient(settings(server.url), jitter=lambda: 0.0)
        for _ in range(2):
            assert list(client.notify(notification(CRT, {}), Over()))[-1].verdict is Verdict.ACCEPTED
        client.close()


# -- verdicts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        *((status, Verdict.ACCEPTED) for status in (200, 201, 202, 204, 299)),
        *((status, Verdict.FAILED) for status in (408, 425, 429, 500, 502, 503, 504, 599)),
        *((status, Verdict.REJECTED) for status in (300, 301, 302, 304, 400, 401, 403, 404, 409, 422)),
    ],
)
def test_a_status_is_a_verdict(status: int, verdict: Verdict) -> None:
    with AmeyoServer(Answer(status, b"" if status in (204, 304) else b"words")) as server:
        (attempt,) = attempts(server, count=1)
    assert (attempt.verdict, attempt.status) == (verdict, status)
    if status not in (204, 304):
        assert attempt.detail == "words"


def test_nobody_listens() -> None:
    with AmeyoServer() as server:
        url = server.url
    client = AmeyoClient(settings(url))
    (attempt,) = islice(client.notify(b"{}", Over()), 1)
    assert (attempt.verdict, attempt.status) == (Verdict.FAILED, None)
    assert "refused" in attempt.detail


@pytest.mark.parametrize(
    "write",
    [
        lambda handler: handler.wfile.write(b"SMTP is this\r\n\r\n"),
        lambda handler: handler.wfile.write(b"HTTP/1.1 999999 OK\r\n\r\n"),
        lambda handler: handler.connection.shutdown(2),
    ],
    ids=["not HTTP", "a status that is none", "nothing"],
)
def test_what_is_no_answer_is_tried_again(write: Any) -> None:
    with AmeyoServer(Answer(write=write), Answer()) as server:
        first, second = attempts(server)
    assert (first.verdict, first.status) == (Verdict.FAILED, None)
    assert second.verdict is Verdict.ACCEPTED


def test_a_ca_file_that_is_gone_is_a_failure_like_another() -> None:
    client = AmeyoClient(settings("https://127.0.0.1:1", ca_file="/nowhere/ca.pem"))
    (attempt,) = islice(client.notify(b"{}", Over()), 1)
    assert attempt.verdict is Verdict.FAILED
    assert "/nowhere/ca.pem" in attempt.detail


def broken_off(handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbut")
    handler.close_connection = True


def not_gzip(handler: Any) -> None:
    handler.wfile.write(
        b"HTTP/1.1 202 Accepted\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnot gzip!"
    )


@pytest.mark.parametrize("write", [broken_off, not_gzip])
def test_2xx_is_accepted_even_if_its_text_breaks_off(write: Any) -> None:
    with AmeyoServer(Answer(write=write)) as server:
        (attempt,) = attempts(server)
    assert attempt.verdict is Verdict.ACCEPTED
    assert len(server.requests) == 1


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    sent = []

    def endless(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        handler.close_connection = True
        while True:
            handler.wfile.write(b"x" * 65536)
            sent.append(65536)

    with AmeyoServer(Answer(write=endless)) as server:
        (attempt,) = attempts(server)
        deadline = time.monotonic() + 5
        while (before := len(sent)) < 10_000 and time.monotonic() < deadline:
            time.sleep(0.05)
            if len(sent) == before:
                break
    assert attempt.verdict is Verdict.ACCEPTED
    assert len(attempt.detail) == 200
    assert sum(sent) < 32 * 1024 * 1024, "what fits into the kernel's buffers, and no more"


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    with AmeyoServer() as elsewhere:
        far = {"Location": elsewhere.url + "/take-the-token", "Refresh": f"0; url={elsewhere.url}"}
        near = {"Location": "/take-the-token"}
        with AmeyoServer(Answer(status, b"gone", far), Answer(status, b"", near)) as server:
            first, second = attempts(server, count=2)
    assert (first.verdict, first.status, first.detail) == (Verdict.REJECTED, status, "gone")
    assert first.delay == SLOW_CAP, "as any other that somebody has to mend"
    assert (second.verdict, second.status) == (Verdict.REJECTED, status)
    assert {request.path for request in server.requests} == {PATH}
    assert elsewhere.connections == []


@pytest.mark.parametrize(
    "before", [b"", b"x" * 150, b"\xff" * 120], ids=["at once", "over the edge", "not UTF-8"]
)
def test_a_token_that_the_server_echoes_is_not_shown(before: bytes) -> None:
    with AmeyoServer(Answer(401, before + TOKEN.encode() + b" is unknown")) as server:
        (attempt,) = attempts(server, count=1)
    assert attempt.verdict is Verdict.REJECTED
    assert "ameyo-token" not in repr(attempt)
    assert "xxx" not in attempt.detail.lstrip("x")
    assert "********" in attempt.detail


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("before", [0, 150, 195])
def test_nor_in_any_other_spelling_or_without_its_first_word(spelling: str, before: int) -> None:
    secret = TOKEN.removesuffix("x" * 300)
    spelt = SPELLINGS[spelling](secret)
    answer = "." * before + spelt + "! " + "." * 4000
    with AmeyoServer(Answer(401, answer.encode())) as server:
        (attempt,) = attempts(server, count=1, token=Secret(f"Bearer {secret}"))
    assert attempt.detail.startswith("." * before)
    # The first characters of a login's base64 are the user's name.
    pieces = {spelt[place : place + 5] for place in range(8 * ("login" in spelling), len(spelt) - 5)}
    assert not {attempt.detail[place : place + 5] for place in range(200)} & pieces


# -- TLS --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, str]:
    authority = trustme.CA()
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return authority, str(path)


@pytest.fixture
def tls(authority: tuple[trustme.CA, str], request: pytest.FixtureRequest) -> Iterator[AmeyoServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority[0].issue_cert(request.param).configure_cert(context)
    with AmeyoServer(tls=context) as server:
        yield server


@pytest.mark.parametrize("tls", ["127.0.0.1"], indirect=True)
def test_tls_is_verified_against_the_urls_host_whatever_host_says(
    tls: AmeyoServer, authority: tuple[trustme.CA, str]
) -> None:
    (attempt,) = attempts(tls, ca_file=authority[1])
    assert attempt.verdict is Verdict.ACCEPTED
    assert tls.requests[0].header("Host") == ["acme.ameyo.app"]


@pytest.mark.parametrize("tls", ["acme.ameyo.app"], indirect=True)
def test_a_certificate_of_the_tenants_name_is_not_the_urls(
    tls: AmeyoServer, authority: tuple[trustme.CA, str]
) -> None:
    (attempt,) = attempts(tls, count=1, ca_file=authority[1])
    assert (attempt.verdict, attempt.status) == (Verdict.FAILED, None)
    assert tls.requests == []


@pytest.mark.parametrize("tls", ["127.0.0.1"], indirect=True)
def test_a_ca_file_is_read_once_and_one_that_comes_late_is_found(
    tls: AmeyoServer, authority: tuple[trustme.CA, str], tmp_path: Path
) -> None:
    """Reading it for each connection would hold all calls up each time."""
    late = tmp_path / "ca.pem"
    connections = Connections(f"https://127.0.0.1:{tls.port}", str(late), 2, {})
    with pytest.raises(FileNotFoundError, match=r"ca\.pem"):
        connections.open_one(5.0)
    late.write_bytes(Path(authority[1]).read_bytes())
    connections.open_one(5.0)
    first = connections._pool._get_conn()
    late.unlink()
    connections.open_one(5.0)
    second = connections._pool._get_conn()
    assert first is not second and not first.is_closed and not second.is_closed
    first.close()
    second.close()
    connections.close()


@pytest.mark.parametrize("tls", ["127.0.0.1"], indirect=True)
def test_without_a_ca_file_an_unknown_authority_is_refused(tls: AmeyoServer) -> None:
    (attempt,) = attempts(tls, count=1, ca_file=None)
    assert (attempt.verdict, attempt.status) == (Verdict.FAILED, None)
    assert "CERTIFICATE_VERIFY_FAILED" in attempt.detail
    assert tls.requests == []


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What the name server knows: names and their addresses."""
    known: dict[str, list[str]] = {}

    def getaddrinfo(host: str, port: int, family: int, kind: int) -> list[Any]:
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, kind, 6, "", (address, port)) for address in known[host]]

    monkeypatch.setattr(
        gevent.resolver.thread,
        "_socket",
        SimpleNamespace(getaddrinfo=getaddrinfo, gaierror=socket.gaierror, herror=socket.herror),
    )
    return known


@pytest.mark.parametrize(
    ("tls", "verdict"), [("ameyo.test", "accepted"), ("127.0.0.1", "failed")], indirect=["tls"]
)
def test_tls_is_verified_against_the_name_not_against_its_address(
    tls: AmeyoServer, verdict: str, authority: tuple[trustme.CA, str], names: dict[str, list[str]]
) -> None:
    names["ameyo.test"] = ["127.0.0.1"]
    (attempt,) = attempts(tls, count=1, url=f"https://ameyo.test:{tls.port}", ca_file=authority[1])
    assert attempt.verdict == verdict, attempt


def test_every_address_of_a_name_is_tried(names: dict[str, list[str]]) -> None:
    names["ameyo.test"] = ["127.0.0.2", "127.0.0.1"]  # nobody listens on the first
    with AmeyoServer() as server:
        (attempt,) = attempts(server, count=1, url=f"http://ameyo.test:{server.port}")
        names["ameyo.test"] = ["127.0.0.2", "127.0.0.3"]
        (failed,) = attempts(server, count=1, url=f"http://ameyo.test:{server.port}")
    assert attempt.verdict is Verdict.ACCEPTED, attempt
    assert failed.verdict is Verdict.FAILED
    assert "refused" in failed.detail


def test_a_name_that_nobody_knows_is_told_by_the_attempt_alone(
    names: dict[str, list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    with AmeyoServer() as server:
        (attempt,) = attempts(server, count=1, url="http://ameyo.test")
    assert (attempt.verdict, attempt.detail) == (
        Verdict.FAILED,
        "NameResolutionError: [Errno -2] no such name",
    )
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("tls", ["127.0.0.1"], indirect=True)
def test_an_authority_nobody_has_configured_is_not_trusted(
    tls: AmeyoServer, authority: tuple[trustme.CA, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority[1])
    (attempt,) = attempts(tls, count=1)
    assert attempt.verdict is Verdict.FAILED
    assert "certificate" in attempt.detail.lower()
    assert tls.requests == []


# -- patience ---------------------------------------------------------------------------------------------


def test_delays_double_up_to_the_cap() -> None:
    over = Over()
    with AmeyoServer(Answer(500)) as server:
        found = attempts(server, count=10, over=over)
    assert [attempt.number for attempt in found] == list(range(1, 11))
    assert over.waited == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert (FIRST_DELAY, SLOW_CAP) == (0.5, 30.0)


def test_jitter_takes_up_to_half_off() -> None:
    over = Over()
    with AmeyoServer(Answer(500)) as server:
        attempts(server, count=4, over=over, jitter=1.0)
    assert over.waited == [0.25, 0.5, 1.0]


def test_what_was_rejected_is_tried_again_at_the_slow_cap() -> None:
    over = Over()
    with AmeyoServer(Answer(401), Answer(403), Answer()) as server:
        found = attempts(server, over=over)
    assert [attempt.verdict for attempt in found] == ["rejected", "rejected", "accepted"]
    assert over.waited == [30.0, 30.0]


def test_ameyo_comes_back() -> None:
    over = Over()
    with AmeyoServer(Answer(503), Answer(429), Answer()) as server:
        found = attempts(server, over=over)
    assert [attempt.verdict for attempt in found] == ["failed", "failed", "accepted"]
    assert len(server.requests) == 3


@pytest.mark.parametrize("status", [429, 503, 401])
def test_retry_after_is_honoured(status: int) -> None:
    over = Over()
    with AmeyoServer(Answer(status, headers={"Retry-After": "77"}), Answer()) as server:
        found = attempts(server, over=over)
    assert found[0].retry_after == 77.0
    assert over.waited == [77.0]


def test_retry_after_may_be_a_date() -> None:
    over = Over()
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    with AmeyoServer(Answer(429, headers={"Retry-After": date}), Answer()) as server:
        attempts(server, over=over)
    assert 55 < over.waited[0] <= 60


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("0", 0.0),
        ("120", 120.0),
        ("86400", 300.0),
        ("9" * 400, 300.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 300.0),
        ("Fri, 31 Dec 9999 23:59:59 +99999999999999999999", None),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    assert parse_retry_after(text) == seconds


@given(
    st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d+ (Jan|Oct) \d+ \d+:\d+:\d+ ([+-]\d+|GMT|)", fullmatch=True)
)
def test_any_retry_after_is_a_bounded_wait_or_none(text: str) -> None:
    seconds = parse_retry_after(text)
    assert seconds is None or 0 <= seconds <= 300


def test_retry_after_never_shortens_a_wait() -> None:
    over = Over()
    with AmeyoServer(Answer(500, headers={"Retry-After": "0"}), Answer()) as server:
        attempts(server, over=over)
    assert over.waited == [0.5]


def test_nothing_is_sent_for_a_call_that_is_over() -> None:
    over = Flag()
    over.set()
    with AmeyoServer() as server:
        assert attempts(server, over=over) == []
    assert server.requests == []


def test_a_hang_up_ends_the_wait_at_once() -> None:
    over = Flag()
    began = time.monotonic()
    with AmeyoServer(Answer(401)) as server:
        client = AmeyoClient(settings(server.url))
        found = []
        for attempt in client.notify(b"{}", over):
            found.append(attempt)
            over.set()
    assert [attempt.verdict for attempt in found] == ["rejected"]
    assert time.monotonic() - began < 5


def test_attempts_go_on_where_another_controller_left_off() -> None:
    over = Over()
    with AmeyoServer(Answer(500), Answer(500), Answer()) as server:
        client = AmeyoClient(settings(server.url), jitter=lambda: 0.0)
        found = list(client.notify(b"{}", over, before=3))
    assert [attempt.number for attempt in found] == [4, 5, 6]
    assert over.waited == [4.0, 8.0]


@pytest.mark.parametrize(
    ("wait", "waited"), [(0.0, []), (-1.0, []), (float("nan"), []), (7.5, [7.5]), (1e9, [300.0])]
)
def test_the_rest_of_a_delay_is_waited_for_first(wait: float, waited: list[float]) -> None:
    over = Over()
    with AmeyoServer() as server:
        client = AmeyoClient(settings(server.url))
        assert [attempt.number for attempt in client.notify(b"{}", over, before=1, wait=wait)] == [2]
    assert over.waited == waited


def test_a_hang_up_ends_the_rest_of_a_delay_at_once() -> None:
    over = Flag()
    gevent.spawn_later(0.05, over.set)
    began = time.monotonic()
    with AmeyoServer() as server:
        client = AmeyoClient(settings(server.url))
        assert list(client.notify(b"{}", over, wait=60.0)) == []
    assert server.requests == []
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("status", [500, 401])
def test_the_delay_that_an_attempt_tells_is_the_one_that_is_waited_for(status: int) -> None:
    over = Over()
    jitter = iter([0.1, 0.7, 0.4])
    with AmeyoServer(Answer(status), Answer(status), Answer(status), Answer()) as server:
        client = AmeyoClient(settings(server.url), jitter=lambda: next(jitter))
        found = list(client.notify(b"{}", over))
    assert [attempt.delay for attempt in found] == [*over.waited, 0.0]
    assert len(set(over.waited)) == 3


def test_begin_is_told_each_number_before_its_post_goes_out() -> None:
    begun: list[tuple[int, int]] = []
    with AmeyoServer(Answer(500), Answer(401), Answer()) as server:
        client = AmeyoClient(settings(server.url))

        def begin(number: int) -> None:
            begun.append((number, len(server.requests)))

        assert len(list(client.notify(b"{}", Over(), before=2, begin=begin))) == 3
    assert begun == [(3, 0), (4, 1), (5, 2)]


def test_what_begin_raises_ends_it_and_nothing_is_sent() -> None:
    def begin(number: int) -> None:
        raise ConnectionResetError(f"attempt {number} cannot be written down")

    with AmeyoServer() as server:
        client = AmeyoClient(settings(server.url))
        with pytest.raises(ConnectionResetError, match="attempt 1 "):
            next(client.notify(b"{}", Over(), begin=begin))
    assert server.requests == []


def test_nothing_is_sent_when_the_call_ended_while_the_attempt_was_written_down() -> None:
    over = Flag()
    with AmeyoServer() as server:
        client = AmeyoClient(settings(server.url))
        (attempt,) = client.notify(b"{}", over, begin=lambda number: over.set())
    assert (attempt.verdict, attempt.sent) == (Verdict.INTERRUPTED, False)
    assert server.requests == []


# -- an attempt that does not end -------------------------------------------------------------------------
# A worker's sockets are gevent's. This process's are not, so these run in one of their own.

NOTIFY = """
import time, gevent, requests
from gevent.event import Event
from eslbot.ameyo import client as module
from eslbot.config.model import Ameyo, Secret
module.LAST_ANSWER = last_answer
module.MAX_ANSWER_SECONDS = 0.3
settings = Ameyo(url, "h", Secret("token"), None, (), {}, 1.0, timeout, True)
over = Event()
if over_after is not None:
    gevent.spawn_later(over_after, over.set)
began = time.monotonic()
client = module.AmeyoClient(settings, jitter=lambda: 0.0)
attempt = next(client.notify(b"{}", over))
result = [attempt.verdict, attempt.status, attempt.detail, time.monotonic() - began]
"""


def one_attempt(
    server: AmeyoServer, over_after: float | None = None, last_answer: float = 0.2, timeout: float = 30.0
) -> tuple[str, int | None, str, float]:
    verdict, status, detail, seconds = run_patched(
        NOTIFY, url=server.url, over_after=over_after, last_answer=last_answer, timeout=timeout
    )
    return verdict, status, detail, seconds


def wait_for_ever(handler: Any) -> None:
    handler.close_connection = True
    handler.connection.settimeout(20)
    handler.rfile.read(1)


@pytest.mark.slow
def test_an_attempt_is_interrupted_when_the_call_is_over() -> None:
    with AmeyoServer(Answer(write=wait_for_ever)) as server:
        verdict, status, detail, seconds = one_attempt(server, over_after=0.3)
    assert (verdict, status, detail) == ("interrupted", None, "the call was over")
    assert seconds < 5


WENT = """
import socket, ssl, gevent
from gevent.event import Event
from eslbot.ameyo.client import AmeyoClient
from eslbot.config.model import Ameyo, Secret

def serve():
    plain, _ = listener.accept()
    if not asked_first:
        over.set()
    with context.wrap_socket(plain, server_side=True) as connection:
        said = ""
        try:
            while not said.endswith("{}") and (data := connection.recv(65536)):
                said += data.decode()
        except ConnectionResetError:  # it left without having read what TLS tells unasked
            return said
        if said:
            over.set()
            gevent.sleep(0)
            connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
        return said[:4]

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate)
listener, over = socket.create_server(("127.0.0.1", 0)), Event()
url = f"https://127.0.0.1:{listener.getsockname()[1]}"
server = gevent.spawn(serve)
settings = Ameyo(url, "h", Secret("token"), ca_file, (), {}, 5.0, 5.0, False)
attempt = next(AmeyoClient(settings).notify(b"{}", over))
result = [server.get(timeout=10), attempt.verdict, attempt.status, attempt.detail]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked_first", "found"),
    [
        # Another controller may have the call by then, and tell Ameyo itself.
        (False, ["", "interrupted", None, "the call was over"]),
        # Ameyo makes the PBX send BYE, and answers 200: the BYE may be faster.
        (True, ["POST", "accepted", 200, ""]),
    ],
    ids=["while the connection was made", "while Ameyo answered"],
)
def test_a_call_that_went_is_not_told_any_more_but_an_answer_is_heard(
    asked_first: bool, found: list[Any], authority: tuple[trustme.CA, str], tmp_path: Path
) -> None:
    certificate = tmp_path / "ameyo.pem"
    authority[0].issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))

    result = run_patched(WENT, certificate=str(certificate), ca_file=authority[1], asked_first=asked_first)

    assert result == found


def drip_headers(handler: Any) -> None:
    handler.close_connection = True
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        handler.wfile.write(b"X-More: x\r\n")
        time.sleep(0.3)


def drip_text(handler: Any) -> None:
    handler.close_connection = True
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        handler.wfile.write(b"x")
        time.sleep(0.05)


def drip_interim(handler: Any) -> None:
    handler.close_connection = True
    while True:
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.3)


@pytest.mark.slow
def test_an_answer_that_never_comes_to_its_status_is_bounded() -> None:
    with AmeyoServer(Answer(write=drip_interim)) as server:
        verdict, status, detail, seconds = one_attempt(server, timeout=1.0)
    assert (verdict, status, detail) == ("failed", None, "no answer within 1 s")
    assert seconds < 5


@pytest.mark.slow
@pytest.mark.parametrize("write", [drip_headers, drip_text])
@pytest.mark.parametrize("timeout", [0.6, 10.0], ids=["beyond its time", "within its time"])
def test_a_2xx_whose_headers_or_text_drip_is_accepted_all_the_same(write: Any, timeout: float) -> None:
    with AmeyoServer(Answer(write=write)) as server:
        verdict, status, _, seconds = one_attempt(server, timeout=timeout)
    assert (verdict, status) == ("accepted", 200)
    assert seconds < 5


@pytest.mark.slow
@pytest.mark.parametrize("status", [500, 401, 302])
def test_another_status_counts_too_whatever_becomes_of_its_text(status: int) -> None:
    def drip(handler: Any) -> None:
        handler.close_connection = True
        handler.wfile.write(b"HTTP/1.1 %d Because\r\nRetry-After: 7\r\n\r\n" % status)
        while True:
            handler.wfile.write(b"of ")
            time.sleep(0.05)

    with AmeyoServer(Answer(write=drip)) as server:
        verdict, found, detail, seconds = one_attempt(server, timeout=10.0)
    assert (verdict, found) == ("failed" if status == 500 else "rejected", status)
    assert detail.startswith("of of ") and detail.endswith("(broken off)")
    assert seconds < 5


def test_the_bounds_are_the_documented_ones() -> None:
    assert client_module.LAST_ANSWER == 2.0
    assert client_module.MAX_ANSWER_SECONDS == 2.0
    assert client_module.MAX_ACCEPTED_SECONDS == 0.25
    assert answer_module.MAX_TEXT == 64 * 1024
    assert answer_module.MAX_LINES == 512
    assert sockets.MAX_BYTES == 128 * 1024
