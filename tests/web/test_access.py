"""Who gets in, and what every answer carries."""

from __future__ import annotations

import time
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gevent
import pytest
from structlog.testing import capture_logs

from eslbot.web import http, tokens
from tests.support.fake_keeper import FakeKeeper
from tests.support.page import TOKENS, page_tree
from tests.web.conftest import Got, Site, make_site

ASKED = ("/api/session", "/api/calls", "/api/calls/x", "/api/tenants", "/api/live")


def sign_in(site: Site, token: str = TOKENS["operator"], **environ: Any) -> Got:
    return site.post("/sign-in", f"token={quote(token)}".encode(), **environ)


def cookie_of(got: Got) -> str:
    morsel = SimpleCookie(got.headers["Set-Cookie"])[tokens.COOKIE]
    return f"{tokens.COOKIE}={morsel.value}"


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "WRONG_PAUSE", 0.0)


@pytest.mark.parametrize("path", ["/", *ASKED])
def test_without_tokens_nobody_gets_in_and_is_told_how(keeper: FakeKeeper, path: str) -> None:
    tree = page_tree(keeper.journal)
    del tree["web"]
    got = make_site(tree).get(path, HTTP_AUTHORIZATION=f"Bearer {TOKENS['operator']}")
    assert got.status == 403
    assert "[web.tokens.operator]" in (got.text if path == "/" else got.json["remedy"])
    assert keeper.asked == []


@pytest.mark.parametrize("path", ASKED)
def test_without_a_session_the_api_says_401(site: Site, keeper: FakeKeeper, path: str) -> None:
    assert site.get(path).status == 401
    assert keeper.asked == []


def test_healthz_and_readyz_are_open(site: Site) -> None:
    assert site.get("/healthz").json == {"status": "ok"}
    assert site.get("/readyz").json == {"status": "ready"}
    site.controller.draining = True
    assert (site.get("/readyz").status, site.get("/readyz").json) == (503, {"status": "draining"})


def test_signing_in_and_out(site: Site, keeper: FakeKeeper) -> None:
    form = site.get("/")
    assert (form.status, "Sign in" in form.text) == (200, True)
    got = sign_in(site)
    assert (got.status, got.headers["Location"]) == (303, "/")
    for word in ("HttpOnly", "SameSite=Strict", "Path=/", f"Max-Age={12 * 3600}"):
        assert word in got.headers["Set-Cookie"]
    assert "Secure" not in got.headers["Set-Cookie"]
    assert TOKENS["operator"] not in got.headers["Set-Cookie"]
    cookie = cookie_of(got)
    assert "/static/main.js" in site.get("/", HTTP_COOKIE=cookie).text
    # Any worker knows it.
    other = make_site(page_tree(keeper.journal))
    assert other.get("/api/session", HTTP_COOKIE=f"a=b; {cookie}").json["name"] == "operator"
    out = site.post("/sign-out", b"", HTTP_COOKIE=cookie)
    assert "Max-Age=0" in out.headers["Set-Cookie"]


@pytest.mark.parametrize(
    "environ", [{"HTTP_X_FORWARDED_PROTO": "https"}, {"wsgi.url_scheme": "https"}], ids=["proxy", "tls"]
)
def test_behind_tls_the_cookie_is_secure(site: Site, environ: dict[str, str]) -> None:
    assert "; Secure" in sign_in(site, **environ).headers["Set-Cookie"]


def test_a_session_ends(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    site.app._access._clock = lambda: now
    cookie = cookie_of(sign_in(site))
    now += tokens.SESSION - 2
    assert site.get("/api/session", HTTP_COOKIE=cookie).status == 200
    now += 2
    assert site.get("/api/session", HTTP_COOKIE=cookie).status == 401


def test_a_session_ends_with_its_token(site: Site, keeper: FakeKeeper) -> None:
    cookie = cookie_of(sign_in(site))
    tree = page_tree(keeper.journal)
    tree["web"]["tokens"]["operator"]["token"] = "another-token-0123456789"
    assert make_site(tree).get("/api/session", HTTP_COOKIE=cookie).status == 401


def forged(cookie: str) -> list[str]:
    name, _, value = cookie.partition("=")
    token, until, mac = value.split(".")
    return [
        f"{name}={token}.{int(until) + 1}.{mac}",
        f"{name}=seer.{until}.{mac}",
        f"{name}={token}.{until}.{'0' * 64}",
        f"{name}={token}.{until}.",
        f"{name}={token}.{'9' * 4000}.{mac}",
        f"{name}={token}.²³.{mac}",
        f"{name}={token}.-1.{mac}",
        f"{name}={token}.{until}.é\udcff",
        f"{name}=",
        f"{name}=....",
        f"{name}=nobody.{until}.{mac}",
        f"{name}={TOKENS['operator']}",
        "\x00\x01;;;===,,,",
        f"{name}; {name}",
    ]


def test_a_forged_or_broken_cookie_is_none(site: Site) -> None:
    good = cookie_of(sign_in(site))
    for cookie in forged(good):
        assert site.get("/api/session", HTTP_COOKIE=cookie).status == 401, cookie
    assert site.get("/api/session", HTTP_COOKIE=good).status == 200


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize("wrong", ["", "x" * 3000, TOKENS["operator"][:-1], "ü" * 30, "\x00", "operator"])
def test_a_wrong_token_is_told_without_it(site: Site, wrong: str) -> None:
    with capture_logs() as logs:
        got = sign_in(site, wrong)
        bearer = site.get("/api/session", HTTP_AUTHORIZATION=f"Bearer {wrong}")
    assert (got.status, bearer.status) == (401, 401)
    assert "none of the tokens" in got.text
    assert "Set-Cookie" not in got.headers
    assert [(line["event"], line["peer"]) for line in logs] == [("page_sign_in_failed", "127.0.0.1")] * 2
    if len(wrong) > 10:
        assert wrong not in str(logs)
        assert wrong not in got.text + bearer.text


@pytest.mark.parametrize("header", ["Basic b3BlcmF0b3I6", "Bearer", TOKENS["operator"], "\x00", "Bearer  "])
@pytest.mark.usefixtures("no_pause")
def test_other_authorizations(site: Site, header: str) -> None:
    got = site.get("/api/session", HTTP_AUTHORIZATION=header)
    assert (got.status, got.headers["WWW-Authenticate"]) == (401, 'Bearer realm="eslbot"')
    assert site.get("/", HTTP_AUTHORIZATION=header).status == 401


def test_wrong_tokens_cost_time_and_only_so_many_may_wait(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = gevent.event.Event()
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        release.wait(5)

    monkeypatch.setattr(tokens.gevent, "sleep", sleep)
    tries = [gevent.spawn(sign_in, site, "wrong") for _ in range(tokens.MAX_WRONG)]
    gevent.idle()
    assert pauses == [tokens.WRONG_PAUSE] * tokens.MAX_WRONG
    one_more = sign_in(site, "wrong")
    assert (one_more.status, one_more.headers["Retry-After"]) == (429, "2")
    assert "Too many" in one_more.text
    release.set()
    gevent.joinall(tries, timeout=5, raise_error=True)
    assert {got.value.status for got in tries} == {401}
    assert sign_in(site).status == 303


FOREIGN = [
    {"HTTP_ORIGIN": "https://evil.example"},
    {"HTTP_ORIGIN": "null"},
    {"HTTP_SEC_FETCH_SITE": "cross-site"},
    {"HTTP_SEC_FETCH_SITE": "same-site", "HTTP_ORIGIN": "http://eslbot.example"},
]


@pytest.mark.parametrize("environ", FOREIGN, ids=str)
def test_what_another_sites_page_sends_changes_nothing(site: Site, environ: dict[str, str]) -> None:
    for path in ("/sign-in", "/sign-out"):
        got = site.post(path, f"token={TOKENS['operator']}".encode(), **environ)
        assert (got.status, "Set-Cookie" in got.headers) == (403, False)


def test_our_own_page_may(site: Site) -> None:
    assert sign_in(site, HTTP_ORIGIN="http://eslbot.example").status == 303
    assert sign_in(site, HTTP_SEC_FETCH_SITE="same-origin", HTTP_ORIGIN="null").status == 303


class Endless:
    """A body that never ends; ``given`` is how much of it was taken."""

    def __init__(self) -> None:
        self.given = 0

    def read(self, size: int) -> bytes:
        self.given += size
        return b"x" * size


def test_the_body_of_a_form_is_bounded(site: Site) -> None:
    body = Endless()
    got = site.post("/sign-in", b"", **{"wsgi.input": body, "HTTP_TRANSFER_ENCODING": "chunked"})
    assert (got.status, body.given) == (413, http.MAX_FORM + 1)
    for length in (str(http.MAX_FORM + 1), "9" * 400, "-1", "²", "x"):
        body = Endless()
        got = site.post("/sign-in", b"", **{"wsgi.input": body, "CONTENT_LENGTH": length})
        assert (got.status, body.given) == (413, 0)


def test_a_form_that_does_not_come_is_not_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "FORM_SECONDS", 0.01)

    class Slow:
        def read(self, size: int) -> bytes:
            gevent.event.Event().wait()
            return b""

    assert site.post("/sign-in", b"", **{"wsgi.input": Slow()}).status == 408


BAD_FORMS = [
    (b"token", 400),
    (b"token=a&token=b", 400),
    (b"token=%ff%fe", 400),
    (b"token=\xff", 400),
    (b"&".join(b"a%d=1" % number for number in range(http.MAX_FIELDS + 1)), 400),
]


@pytest.mark.parametrize(("body", "status"), BAD_FORMS)
def test_bad_forms(site: Site, body: bytes, status: int) -> None:
    assert site.post("/sign-in", body).status == status


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x", "text/plain", ""])
def test_other_kinds_of_bodies(site: Site, kind: str) -> None:
    assert site.post("/sign-in", b"token=x", CONTENT_TYPE=kind).status == 415


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "X"])
@pytest.mark.parametrize("path", ["/", "/healthz", "/api/calls", "/static/main.js", "/sign-in"])
def test_other_methods(site: Site, path: str, method: str) -> None:
    got, _ = site.open(path, method)
    assert got.status == 405
    assert got.headers["Allow"] == ("POST" if path == "/sign-in" else "GET, HEAD")


HOSTILE_PATHS = [
    *("/static/", "/static/../app.py", "/static/page.html", "/static/sign-in.html", "/static/..%2fapp.py"),
    *("/static//etc/passwd", "/static/main.js/", "/static/\x00", "//", "/nothing", "", "/index.html"),
]


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_paths_that_are_none(site: Site, path: str) -> None:
    assert site.get(path).status == 404


def test_a_path_that_is_no_utf8(site: Site) -> None:
    assert site.get("/static/\xff\xfe").status == 400
    assert site.get("/static/\u20ac").status == 400


def test_every_answer_has_the_headers(site: Site, keeper: FakeKeeper) -> None:
    paths = ["/", "/healthz", "/nothing", "/static/main.js", "/api/calls", "/api/session"]
    for got in [*(site.get(path) for path in paths), *(site.get(path, "operator") for path in paths)]:
        policy = got.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'self'; ")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert got.headers["X-Content-Type-Options"] == "nosniff"
        assert got.headers["Referrer-Policy"] == "same-origin"
        assert got.headers["X-Frame-Options"] == "DENY"
        assert got.headers["Cache-Control"] in ("no-store", "no-cache")


def test_static_files(site: Site) -> None:
    folder = Path(http.__file__).parent / "static"
    for file in folder.iterdir():
        if file.suffix == ".html":
            assert "style=" not in file.read_text()
            assert "http" not in file.read_text().replace("http-equiv", "")
            continue
        got = site.get(f"/static/{file.name}")
        assert (got.status, got.body) == (200, file.read_bytes())
        again = site.get(f"/static/{file.name}", HTTP_IF_NONE_MATCH=got.headers["ETag"])
        assert (again.status, again.body) == (304, b"")
    head, parts = site.open("/static/main.js", "HEAD")
    assert (int(head.headers["Content-Length"]) > 1000, list(parts)) == (True, [])


def test_no_script_makes_markup_of_a_text() -> None:
    folder = Path(http.__file__).parent / "static"
    for file in folder.glob("*.js"):
        text = file.read_text()
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
            assert word not in text, file.name
