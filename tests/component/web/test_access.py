"""Who gets in, and what every answer carries."""

from __future__ import annotations

import threading
from base64 import b64decode, urlsafe_b64encode
from concurrent.futures import ThreadPoolExecutor
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from structlog.testing import capture_logs

from eslbot.web import schemas, sessions, static_files
from tests.component.web.conftest import Got, Page, make_page
from tests.support.fake_ledger import FakeLedger
from tests.support.page import TOKENS, page_tree

ASKED = ("/api/session", "/api/calls", "/api/calls/x", "/api/tenants", "/api/live")


def sign_in(page: Page, token: str = TOKENS["operator"], **environ: Any) -> Got:
    return page.post("/sign-in", f"token={quote(token)}".encode(), **environ)


def cookie_of(got: Got) -> str:
    morsel = SimpleCookie(got.headers["Set-Cookie"])[sessions.COOKIE]
    return f"{sessions.COOKIE}={morsel.value}"


@pytest.mark.parametrize("path", ["/", *ASKED])
def test_without_tokens_nobody_gets_in_and_is_told_how(journal: Path, ledger: FakeLedger, path: str) -> None:
    tree = page_tree(journal)
    del tree["web"]
    got = make_page(tree, ledger).get(path, HTTP_AUTHORIZATION=f"Bearer {TOKENS['operator']}")
    assert got.status == 403
    assert "[web.tokens.operator]" in (got.text if path == "/" else got.json["remedy"])
    assert ledger.asked == []


@pytest.mark.parametrize("path", ASKED)
def test_without_a_session_the_api_says_401(page: Page, journal: Path, ledger: FakeLedger, path: str) -> None:
    assert page.get(path).status == 401
    assert ledger.asked == []


def test_healthz_is_open(page: Page) -> None:
    assert page.get("/healthz").json == {"status": "ok"}


def test_signing_in_and_out(page: Page, journal: Path, ledger: FakeLedger) -> None:
    form = page.get("/")
    assert (form.status, "Sign in" in form.text) == (200, True)
    got = sign_in(page)
    assert (got.status, got.headers["Location"]) == (303, "/")
    for word in ("HttpOnly", "SameSite=Strict", "Path=/", f"Max-Age={12 * 3600}"):
        assert word in got.headers["Set-Cookie"]
    assert "Secure" not in got.headers["Set-Cookie"]
    assert TOKENS["operator"] not in got.headers["Set-Cookie"]
    cookie = cookie_of(got)
    assert "/static/main.js" in page.get("/", HTTP_COOKIE=cookie).text
    # Any process knows it.
    other = make_page(page_tree(journal), ledger)
    assert other.get("/api/session", HTTP_COOKIE=f"a=b; {cookie}").json["name"] == "operator"
    out = page.post("/sign-out", b"", HTTP_COOKIE=cookie)
    assert "Max-Age=0" in out.headers["Set-Cookie"]


@pytest.mark.parametrize(
    "environ", [{"HTTP_X_FORWARDED_PROTO": "https"}, {"wsgi.url_scheme": "https"}], ids=["proxy", "tls"]
)
def test_behind_tls_the_cookie_is_secure(page: Page, environ: dict[str, str]) -> None:
    assert "; Secure" in sign_in(page, **environ).headers["Set-Cookie"]


def test_a_session_ends(page: Page) -> None:
    cookie = cookie_of(sign_in(page))
    page.clock.offset = sessions.SESSION_SECONDS - 2
    assert page.get("/api/session", HTTP_COOKIE=cookie).status == 200
    page.clock.offset = sessions.SESSION_SECONDS
    assert page.get("/api/session", HTTP_COOKIE=cookie).status == 401
    page.clock.offset = -10  # a session of the future
    assert page.get("/api/session", HTTP_COOKIE=cookie).status == 401


def test_a_session_ends_with_its_token(page: Page, journal: Path, ledger: FakeLedger) -> None:
    cookie = cookie_of(sign_in(page))
    tree = page_tree(journal)
    tree["web"]["tokens"]["operator"]["token"] = "another-token-0123456789"
    assert make_page(tree, ledger).get("/api/session", HTTP_COOKIE=cookie).status == 401


def forged(cookie: str) -> list[str]:
    name, _, value = cookie.partition("=")
    token, given, mac = value.split(".")
    other = b64(int.from_bytes(b64decode(given + "==", b"-_"), "big") + 1)
    return [
        f"{name}={token}.{other}.{mac}",
        f"{name}=seer.{given}.{mac}",
        f"{name}={token}.{given}.{'0' * len(mac)}",
        f"{name}={token}.{given}.",
        f"{name}={token}.{given}",
        f"{name}={token}..{mac}",
        f"{name}={token}.{'9' * 4000}.{mac}",
        f"{name}={token}.{'A' * 200}.{mac}",
        f"{name}={token}.²³.{mac}",
        f"{name}={token}.-1.{mac}",
        f"{name}={token}.{given}.é",
        f"{name}=",
        f"{name}=....",
        f"{name}=nobody.{given}.{mac}",
        f"{name}={TOKENS['operator']}",
        "\x00\x01;;;===,,,",
        f"{name}; {name}",
    ]


def b64(number: int) -> str:
    return urlsafe_b64encode(number.to_bytes(4, "big")).decode().rstrip("=")


def test_a_forged_or_broken_cookie_is_none(page: Page) -> None:
    good = cookie_of(sign_in(page))
    for cookie in forged(good):
        assert page.get("/api/session", HTTP_COOKIE=cookie).status == 401, cookie
    assert page.get("/api/session", HTTP_COOKIE=good).status == 200


@pytest.mark.parametrize("wrong", ["", "x" * 3000, TOKENS["operator"][:-1], "ü" * 30, "\x00", "operator"])
def test_a_wrong_token_is_told_without_it(page: Page, wrong: str) -> None:
    with capture_logs() as logs:
        got = sign_in(page, wrong)
        bearer = page.get("/api/session", HTTP_AUTHORIZATION=f"Bearer {wrong}")
    assert (got.status, bearer.status) == (401, 401)
    assert "none of the tokens" in got.text
    assert "Set-Cookie" not in got.headers
    assert [(line["event"], line["peer"]) for line in logs] == [("page_sign_in_failed", "127.0.0.1")] * 2
    if len(wrong) > 10:
        assert wrong not in str(logs)
        assert wrong not in got.text + bearer.text


@pytest.mark.parametrize("header", ["Basic b3BlcmF0b3I6", "Bearer", TOKENS["operator"], "\x00", "Bearer  "])
def test_other_authorizations(page: Page, header: str) -> None:
    got = page.get("/api/session", HTTP_AUTHORIZATION=header)
    assert (got.status, got.headers["WWW-Authenticate"]) == (401, 'Bearer realm="eslbot"')
    assert page.get("/", HTTP_AUTHORIZATION=header).status == 401


def test_wrong_tokens_cost_time_and_only_so_many_may_wait(page: Page) -> None:
    release = threading.Event()
    waiting = threading.Semaphore(0)

    def wait(seconds: float) -> None:
        waiting.release()
        release.wait(5)

    page.clock.pause_by = wait
    with ThreadPoolExecutor(sessions.MAX_WRONG_TOKENS) as pool:
        tries = [pool.submit(sign_in, page, "wrong") for _ in range(sessions.MAX_WRONG_TOKENS)]
        for _ in tries:
            assert waiting.acquire(timeout=5)
        for token in ("wrong", TOKENS["operator"]):
            one_more = sign_in(page, token)
            assert (one_more.status, one_more.headers["Retry-After"]) == (429, "2")
            assert "Too many" in one_more.text
        release.set()
        assert {got.result(5).status for got in tries} == {401}
    assert page.clock.pauses == [sessions.WRONG_TOKEN_DELAY] * sessions.MAX_WRONG_TOKENS
    assert sign_in(page).status == 303


FOREIGN = [
    {"HTTP_ORIGIN": "https://evil.example"},
    {"HTTP_ORIGIN": "null"},
    {"HTTP_SEC_FETCH_SITE": "cross-site"},
    {"HTTP_SEC_FETCH_SITE": "same-site", "HTTP_ORIGIN": "http://eslbot.example"},
]


@pytest.mark.parametrize("environ", FOREIGN, ids=str)
def test_what_another_sites_page_sends_changes_nothing(page: Page, environ: dict[str, str]) -> None:
    for path in ("/sign-in", "/sign-out"):
        got = page.post(path, f"token={TOKENS['operator']}".encode(), **environ)
        assert (got.status, "Set-Cookie" in got.headers) == (403, False)


def test_our_own_page_may(page: Page) -> None:
    assert sign_in(page, HTTP_ORIGIN="http://eslbot.example").status == 303
    assert sign_in(page, HTTP_SEC_FETCH_SITE="same-origin", HTTP_ORIGIN="null").status == 303


def test_the_body_of_a_form_is_bounded(page: Page) -> None:
    """The server refuses such a one before; see test_server.py."""
    body = b"token=" + b"x" * schemas.MAX_FORM
    assert page.post("/sign-in", body).status == 413


BAD_FORMS = [
    (b"token", 400),
    (b"token=a&token=b", 400),
    (b"token=%ff%fe", 400),
    (b"token=\xff", 400),
    (b"&".join(b"a%d=1" % number for number in range(schemas.MAX_FIELDS + 1)), 400),
]


@pytest.mark.parametrize(("body", "status"), BAD_FORMS)
def test_bad_forms(page: Page, body: bytes, status: int) -> None:
    assert page.post("/sign-in", body).status == status


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x", "text/plain", ""])
def test_other_kinds_of_bodies(page: Page, kind: str) -> None:
    assert page.post("/sign-in", b"token=x", CONTENT_TYPE=kind).status == 415


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "X"])
@pytest.mark.parametrize("path", ["/", "/healthz", "/api/calls", "/static/main.js", "/sign-in"])
def test_other_methods(page: Page, path: str, method: str) -> None:
    got, _ = page.open(path, method)
    assert got.status == 405
    assert got.headers["Allow"] == ("POST" if path == "/sign-in" else "GET, HEAD")


HOSTILE_PATHS = [
    *("/static/", "/static/../app.py", "/static/page.html", "/static/sign-in.html", "/static/..%2fapp.py"),
    *("/static//etc/passwd", "/static/main.js/", "/static/\x00", "//", "/nothing", "", "/index.html"),
]


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_paths_that_are_none(page: Page, path: str) -> None:
    assert page.get(path).status == 404


def test_a_path_that_is_no_utf8(page: Page) -> None:
    assert page.get("/static/\xff\xfe").status == 404


def test_every_answer_has_the_headers(page: Page, journal: Path, ledger: FakeLedger) -> None:
    paths = ["/", "/healthz", "/nothing", "/static/main.js", "/api/calls", "/api/session"]
    for got in [*(page.get(path) for path in paths), *(page.get(path, "operator") for path in paths)]:
        policy = got.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'self'; ")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert got.headers["X-Content-Type-Options"] == "nosniff"
        assert got.headers["Referrer-Policy"] == "same-origin"
        assert got.headers["X-Frame-Options"] == "DENY"
        assert got.headers["Cache-Control"] in ("no-store", "no-cache")


def test_static_files(page: Page) -> None:
    folder = Path(static_files.__file__).parent / "static"
    for file in folder.iterdir():
        if file.suffix == ".html":
            assert "style=" not in file.read_text()
            assert "http" not in file.read_text().replace("http-equiv", "")
            continue
        got = page.get(f"/static/{file.name}")
        assert (got.status, got.body) == (200, file.read_bytes())
        again = page.get(f"/static/{file.name}", HTTP_IF_NONE_MATCH=got.headers["ETag"])
        assert (again.status, again.body) == (304, b"")
    head, parts = page.open("/static/main.js", "HEAD")
    assert (int(head.headers["Content-Length"]) > 1000, list(parts)) == (True, [])


def test_no_script_makes_markup_of_a_text() -> None:
    folder = Path(static_files.__file__).parent / "static"
    for file in folder.glob("*.js"):
        text = file.read_text()
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
            assert word not in text, file.name
