"""What a log line must not tell, and what it always says."""

from __future__ import annotations

import html
import io
import json
import logging
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_network
from typing import Any
from urllib.parse import quote

import gevent
import gevent.event
import pytest
import structlog

from eslbot.config import (
    Ameyo,
    Bot,
    Config,
    FreeSwitch,
    Ledger,
    Logs,
    PageToken,
    Secret,
    Server,
    Web,
    Workspace,
)
from eslbot.config.model import loopback
from eslbot.config.secrets import secrets_of
from eslbot.config.urls import MASK
from eslbot.runtime.greenlets import spawn
from eslbot.telemetry import logs, redaction

NUMBER = "00919990152080"
CRT = "d444-69139035-vce-1234567"
CALL = "2b37ba17-7b20-4b3e-b138-116123456789"
BOT_TOKEN, AMEYO_TOKEN, PASSWORD = "bot-token-91ab", 'ameyo"token\\77', "p@ss/word"
BOT = Bot(
    urls=("wss://bot.example.com/stream?key=in-the-url",),
    sample_rate=8000,
    connect_timeout=3.0,
    first_audio_timeout=10.0,
    headers={"Authorization": Secret(f"Bearer {BOT_TOKEN}"), "X-Env": Secret("prod")},
    insecure=False,
)
AMEYO = Ameyo(
    url="https://ameyo.example",
    tenant_host="acme.ameyo.app",
    token=Secret(AMEYO_TOKEN),
    ca_file=None,
    bot_properties=(),
    properties={"campaign": "no secret"},
    connect_timeout=1.0,
    timeout=2.0,
    insecure=False,
)
WORKSPACE = Workspace(
    "2b37ba17-7b20-4b3e-b138-1161e351d5c5", "acme", (ip_network("127.0.0.1/32"),), 10, 60.0, BOT, AMEYO
)
CONFIG = Config(
    Server(loopback(8084), (), 2, 1000),
    FreeSwitch(None, 5060, None, (1, 2), loopback(8021), Secret("esl-password"), "/tmp", ()),
    Web(loopback(8085), (PageToken("ops", Secret("page-token-1")),)),
    {WORKSPACE.id: WORKSPACE},
    Ledger(Secret("postgresql+psycopg://eslbot:p%40ss%2Fword@db/calls"), "/var/lib/eslbot", 1.0),
    Logs(mask_numbers=True),
)


@pytest.fixture(params=[True, False], ids=["json", "console"])
def stream(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Where the lines of a process so configured go."""
    before, handlers = structlog.get_config(), logging.getLogger().handlers[:]
    stream = io.StringIO()
    with monkeypatch.context() as patched:
        patched.setattr("sys.stderr", stream)
        patched.setattr(logs, "_mask_numbers", False)
        logs.configure(json_logs=request.param)
        logs.guard(CONFIG)
        yield stream
    structlog.configure(**before)
    logging.getLogger().handlers[:] = handlers


def lines(stream: io.StringIO) -> str:
    """All of it, JSON's escapes resolved."""
    text = stream.getvalue()
    if text.startswith("{"):
        text = "\n".join(json.dumps(json.loads(line), ensure_ascii=False) for line in text.splitlines())
    return text


def in_a_call(work: Callable[[], object]) -> None:
    def call() -> None:
        names = {"call_id": CALL, "workspace": "acme", "crt_object_id": CRT}
        logs.speak_of(logs.About(names, (NUMBER, "91-9990 x 152", "a")))
        work()

    gevent.spawn(call).get()


# -- numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["did", "caller", "called", "from", "to"])
def test_a_field_that_is_a_number_is_masked(stream: io.StringIO, key: str) -> None:
    structlog.get_logger().info("x", **{key: NUMBER})
    structlog.get_logger().info("x", **{key: "#1#"})
    assert "0091••••••••80" in lines(stream)
    assert "#1#" not in lines(stream)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"display name '{NUMBER}|x': wrong", "display name '0091••••••••80|x': wrong"),
        ("call +919990152080 back", "call +919•••••••80 back"),
        ("call 1234567!", "call •••••••!"),
        ("0091 9990 152-080", "0091•••••••••••80"),
        ("code 1006 after 3.25 s at 203.0.113.10:5060", "code 1006 after 3.25 s at 203.0.113.10:5060"),
        ("expired 2026-11-23T01:10:15", "expired 2026-11-23T01:10:15"),
        (f"file /tmp/{CALL}_1.r8", f"file /tmp/{CALL}_1.r8"),
        ("he is 91-9990 x 152.", "he is 91•9•••••••52."),
    ],
)
@pytest.mark.parametrize(
    "put",
    [str, lambda t: [t], lambda t: {"a": {"b": (t,)}}, ValueError],
    ids=["text", "list", "tree", "object"],
)
def test_a_number_in_a_text_is_masked_and_nothing_else(
    stream: io.StringIO, text: str, told: str, put: Callable[[str], Any]
) -> None:
    in_a_call(lambda: structlog.get_logger().warning("x", detail=put(text)))
    assert told in lines(stream).replace("\\'", "'")


def test_the_names_of_a_call_are_never_masked(stream: io.StringIO) -> None:
    in_a_call(lambda: structlog.get_logger().info("x", status=2001234567, seconds=1234567.5))
    for kept in (CRT, CALL, "2001234567", "1234567.5"):
        assert kept in lines(stream)


def test_a_number_in_a_traceback_and_in_a_library_s_line_is_masked(stream: io.StringIO) -> None:
    try:
        raise ValueError(f"no such number: {NUMBER}")
    except ValueError:
        structlog.get_logger().exception("x")
        logging.getLogger("urllib3").warning("about %s", NUMBER, exc_info=True)
    assert lines(stream).count("Traceback") == 2
    assert NUMBER not in lines(stream)
    assert lines(stream).count("0091••••••••80") == 3


def test_without_the_setting_numbers_are_told(stream: io.StringIO) -> None:
    logs.guard(replace(CONFIG, logs=Logs(mask_numbers=False)))
    structlog.get_logger().info("x", caller=NUMBER)
    assert NUMBER in lines(stream)


# -- secrets ----------------------------------------------------------------------------------------------


def test_every_secret_is_known_and_nothing_else() -> None:
    assert secrets_of(CONFIG) == {
        f"Bearer {BOT_TOKEN}",
        BOT_TOKEN,
        AMEYO_TOKEN,
        "esl-password",
        "page-token-1",
        PASSWORD,
        "p%40ss%2Fword",
        "key=in-the-url",
        "in-the-url",
    }


def test_the_path_of_a_database_is_no_secret() -> None:
    with_file = replace(CONFIG, ledger=Ledger(Secret("sqlite:////var/lib/eslbot/calls.db"), "", 1.0))
    assert secrets_of(with_file) == secrets_of(CONFIG) - {PASSWORD, "p%40ss%2Fword"}


@pytest.mark.parametrize("many", [0, 1000], ids=["few", "many"])
@pytest.mark.parametrize("secret", sorted(secrets_of(CONFIG)))
def test_no_line_holds_a_secret(stream: io.StringIO, secret: str, many: int) -> None:
    log = structlog.get_logger()
    others = {f"token-of-{number}" for number in range(many)}
    redaction.protect(secrets_of(CONFIG) | others)
    url = quote(secret, safe="")
    log.info("x", detail=f"?auth={url}&x=%20", more=f'{{"auth": "{url.lower()}"}}')
    log.info("x", detail=html.escape(secret), more=json.dumps(secret).replace("/", "\\/"))
    log.info("x", detail=b64encode(f"user:{secret}".encode()).decode())
    assert url not in stream.getvalue()
    assert b64encode(secret.encode()).decode()[4:-4] not in stream.getvalue()
    log.info("x", detail=f"Authorization: {secret}!", more={"a": [secret], secret: 1}, what=Exception(secret))
    log.info(secret, call_id=secret, crt_object_id=secret)
    try:
        raise ValueError(f"with {secret}")
    except ValueError:
        log.exception("x")
        logging.getLogger("gunicorn.error").error("told %s", secret, exc_info=True)
    assert lines(stream).count("Traceback") == 2
    assert secret not in lines(stream)
    assert secret not in stream.getvalue()
    assert MASK in lines(stream)
    log.info("nothing_secret")
    assert "nothing_secret" in lines(stream)


def test_a_hup_brings_new_secrets(stream: io.StringIO) -> None:
    other = replace(WORKSPACE, ameyo=replace(AMEYO, token=Secret("another-token")))
    logs.guard(replace(CONFIG, workspaces={other.id: other}))
    structlog.get_logger().info("x", detail="another-token")
    assert "another-token" not in lines(stream)


# -- whose line it is -------------------------------------------------------------------------------------


def test_greenlets_spawned_for_a_call_say_whose_they_are_also_what_is_known_later(
    stream: io.StringIO,
) -> None:
    about, told = logs.About(), gevent.event.Event()

    def reader() -> None:
        told.wait()
        structlog.get_logger().warning("odd_frame")

    def call() -> None:
        logs.speak_of(about)
        greenlet = spawn(reader)
        about.facts["crt_object_id"] = CRT
        told.set()
        greenlet.join()

    gevent.spawn(call).get()
    structlog.get_logger().info("another")
    odd, another = lines(stream).splitlines()
    assert CRT in odd
    assert CRT not in another


def test_what_ends_a_greenlet_is_a_line_of_its_call(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gevent.get_hub(), "print_exception", None, raising=False)
    logs.hear_gevent()

    def fails() -> None:
        raise ValueError(f"with {BOT_TOKEN} and {NUMBER}")

    in_a_call(lambda: spawn(fails).join())
    text = lines(stream)
    for told in ("greenlet_failed", "Traceback", "ValueError", CALL, CRT):
        assert told in text
    assert BOT_TOKEN not in text
    assert NUMBER not in text


def test_a_line_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers share standard error: a line that came in two writes was found glued to another's."""

    class Written(io.RawIOBase):
        def __init__(self) -> None:
            self.pieces: list[bytes] = []

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            self.pieces.append(bytes(data))  # type: ignore[call-overload]
            return len(self.pieces[-1])

    before, handlers = structlog.get_config(), logging.getLogger().handlers[:]
    written = Written()
    # As Python's own is with PYTHONUNBUFFERED, which containers like to set.
    stderr = io.TextIOWrapper(written, write_through=True)  # type: ignore[arg-type]
    try:
        with monkeypatch.context() as patched:
            patched.setattr("sys.stderr", stderr)
            logs.configure(json_logs=True)
            structlog.get_logger().info("first", text="x" * 5000)
            structlog.get_logger().info("second")
    finally:
        structlog.configure(**before)
        logging.getLogger().handlers[:] = handlers
    assert [json.loads(piece)["event"] for piece in written.pieces] == ["first", "second"]
    assert all(piece.endswith(b"\n") for piece in written.pieces)
