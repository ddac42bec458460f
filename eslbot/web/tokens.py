"""Who may see the call page: the tokens of ``[web.tokens.NAME]``, and the sessions that come of them.

A session is a cookie that any worker can check and none has to remember: the token's name, when it ends, and
an HMAC over both with a key made of the token. So the token itself is in no cookie, and a token that is taken
out of the configuration takes its sessions with it.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

import gevent
import structlog

from eslbot.config.model import Config, PageToken
from eslbot.web.http import Headers, Refusal, Request

log = structlog.get_logger()

COOKIE = "eslbot_session"
#: Seconds until one has to sign in again.
SESSION = 12 * 3600
#: Seconds that a wrong token costs, and how many may wait so at a time in one worker.
WRONG_PAUSE = 1.0
MAX_WRONG = 10

NO_TOKENS = """[web.tokens.operator]
token = "${ESLBOT_PAGE_TOKEN}"     # at least 16 characters; make one with: openssl rand -hex 24
# numbers = true                   # this token may see phone numbers in full
# workspaces = ["acme"]            # and no other tenants' calls"""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks at the page, and what they may see. ``workspaces``: ids, None for all of them."""

    name: str
    numbers: bool
    workspaces: frozenset[str] | None
    #: Epoch seconds.
    until: float


class Access:
    """Tells viewers from others."""

    def __init__(self, config: Config, clock: Callable[[], float] = time.time) -> None:
        self._tokens = {token.name: token for token in config.web.tokens}
        self._ids = {workspace.name: workspace.id for workspace in config.workspaces.values()}
        self._clock = clock
        self._wrong = 0

    def require_tokens(self) -> None:
        """Raises Refusal where nobody is let in."""
        if not self._tokens:
            raise Refusal(
                HTTPStatus.FORBIDDEN,
                "no_tokens",
                "Nobody may see the call page: the configuration has no token for it.",
                f"Add one, and reload (HUP):\n\n{NO_TOKENS}",
            )

    def viewer(self, request: Request) -> Viewer:
        """Who sent ``request``. Raises Refusal."""
        self.require_tokens()
        authorization = request.header("Authorization")
        if authorization:
            scheme, _, token = authorization.partition(" ")
            if scheme.lower() != "bearer":
                raise _unauthorized("expected Authorization: Bearer TOKEN")
            return self._viewer(self._check(token.strip(), request.peer), self._clock() + SESSION)
        session = request.cookie(COOKIE)
        found = self._read(session) if session else None
        if found is None:
            raise _unauthorized("sign in first, or send Authorization: Bearer TOKEN")
        return found

    def sign_in(self, token: str, request: Request) -> Headers:
        """The header that begins a session. Raises Refusal."""
        self.require_tokens()
        found = self._check(token, request.peer)
        log.info("page_sign_in", token_name=found.name, peer=request.peer)
        until = math.floor(self._clock()) + SESSION
        return (("Set-Cookie", _cookie(f"{found.name}.{until}.{_mac(found, until)}", SESSION, request)),)

    def sign_out(self, request: Request) -> Headers:
        """The header that ends it in this browser."""
        return (("Set-Cookie", _cookie("", 0, request)),)

    # -----------------------------------------------------------------------------------------------------

    def _check(self, text: str, peer: str) -> PageToken:
        """The token of this text. A wrong one is told in the log, without it, and costs time."""
        if self._wrong >= MAX_WRONG:
            raise Refusal(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too_many_wrong_tokens",
                "Too many wrong tokens are being tried.",
                "Try again in a few seconds.",
                (("Retry-After", "2"),),
            )
        given, found = _digest(text), None
        for token in self._tokens.values():  # each is compared, whichever it is
            if hmac.compare_digest(_digest(token.token.reveal()), given):
                found = token
        if found is None:
            log.warning("page_sign_in_failed", peer=peer, remedy="[web.tokens] holds the tokens")
            with self._waiting():
                gevent.sleep(WRONG_PAUSE)
            raise _unauthorized("no token is this one")
        return found

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        self._wrong += 1
        try:
            yield
        finally:
            self._wrong -= 1

    def _read(self, session: str) -> Viewer | None:
        named, _, mac = session.rpartition(".")
        name, _, until = named.rpartition(".")
        token = self._tokens.get(name)
        if token is None or not (until.isascii() and until.isdigit() and len(until) <= 12):
            return None
        # Both as bytes: compare_digest takes no other text than ASCII.
        if not hmac.compare_digest(_mac(token, int(until)).encode(), mac.encode(errors="replace")):
            return None
        return self._viewer(token, int(until)) if self._clock() < int(until) else None

    def _viewer(self, token: PageToken, until: float) -> Viewer:
        # A token that names workspaces never sees all, also where none of them is left.
        ids = (self._ids.get(name) for name in token.workspaces)
        workspaces = frozenset(found for found in ids if found) if token.workspaces else None
        return Viewer(token.name, token.numbers, workspaces, until)


def _unauthorized(problem: str) -> Refusal:
    return Refusal(
        HTTPStatus.UNAUTHORIZED,
        "not_signed_in",
        problem,
        "a token of [web.tokens] is needed",
        (("WWW-Authenticate", 'Bearer realm="eslbot"'),),
    )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="replace")).digest()


def _mac(token: PageToken, until: int) -> str:
    key = hmac.digest(token.token.reveal().encode(), b"eslbot call page session", "sha256")
    return hmac.new(key, f"{token.name} {until}".encode(), "sha256").hexdigest()


def _cookie(value: str, seconds: int, request: Request) -> str:
    secure = "; Secure" if request.secure else ""
    return f"{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
