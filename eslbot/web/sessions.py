"""Who may see the call page: the tokens of ``[web.tokens.NAME]``, and the sessions that they begin.

A session is a cookie, signed by itsdangerous and stored nowhere else: the token's name and the time of the
sign-in, signed with a key that is made of the token. So no cookie holds the token, and the sessions of a
token end when it is taken out of the configuration.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus

import structlog
from flask import Request, Response
from itsdangerous import BadSignature, TimestampSigner

from eslbot.config.model import Config, PageToken
from eslbot.web.errors import ApiError

log = structlog.get_logger()

COOKIE = "eslbot_session"
#: Seconds of a session.
SESSION_SECONDS = 12 * 3600
#: Characters of a cookie's value; a longer one is not ours.
MAX_COOKIE = 256
#: Seconds that a wrong token costs, and how many may wait at a time: each has a thread of the server's.
WRONG_TOKEN_DELAY = 1.0
MAX_WRONG_TOKENS = 4

NO_TOKENS = """[web.tokens.operator]
token = "${ESLBOT_PAGE_TOKEN}"     # at least 16 characters; make one with: openssl rand -hex 24
# numbers = true                   # this token may see phone numbers in full
# recordings = true                # and hear recordings of calls
# workspaces = ["acme"]            # and no other tenants' calls"""


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks at the page, and what they may see. ``workspaces``: ids of tenants, None for all.

    ``recordings``: whether they may hear recordings.
    """

    name: str
    numbers: bool
    workspaces: frozenset[str] | None
    #: Epoch seconds.
    until: float
    recordings: bool = False


class Access:
    """Tells viewers from others. ``pause`` is how a wrong token waits."""

    def __init__(
        self,
        config: Config,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._tokens = {token.name: token for token in config.web.tokens}
        self._ids = {workspace.name: workspace.id for workspace in config.workspaces.values()}
        self._clock = clock
        self._pause = pause
        self._lock = threading.Lock()
        self._wrong = 0

    def require_tokens(self) -> None:
        """Raises ApiError where no token is configured, so that nobody is let in."""
        if not self._tokens:
            raise ApiError(
                HTTPStatus.FORBIDDEN,
                "no_tokens",
                "Nobody may see the call page: the configuration has no token for it.",
                f"Add one, and reload (HUP):\n\n{NO_TOKENS}",
            )

    def viewer(self, request: Request) -> Viewer:
        """Who sent ``request``. Raises ApiError."""
        self.require_tokens()
        authorization = request.headers.get("Authorization", "")
        if authorization:
            scheme, _, token = authorization.partition(" ")
            if scheme.lower() != "bearer":
                raise _unauthorized("expected Authorization: Bearer TOKEN")
            return self._viewer(
                self._check(token.strip(), request.remote_addr), self._clock() + SESSION_SECONDS
            )
        session = request.cookies.get(COOKIE, "")
        found = self._read(session) if 0 < len(session) <= MAX_COOKIE else None
        if found is None:
            raise _unauthorized("sign in first, or send Authorization: Bearer TOKEN")
        return found

    def sign_in(self, token: str, request: Request, response: Response) -> None:
        """Have ``response`` begin a session. Raises ApiError."""
        self.require_tokens()
        found = self._check(token, request.remote_addr)
        log.info("page_sign_in", token_name=found.name, peer=request.remote_addr)
        _set_cookie(response, self._signer(found).sign(found.name).decode(), SESSION_SECONDS, request)

    @staticmethod
    def sign_out(request: Request, response: Response) -> None:
        """Have ``response`` end it in this browser."""
        _set_cookie(response, "", 0, request)

    # -----------------------------------------------------------------------------------------------------

    def _check(self, text: str, peer: str | None) -> PageToken:
        """The token of this text. A wrong one is logged, without its text, and costs time."""
        if self._wrong >= MAX_WRONG_TOKENS:
            raise _too_many()
        given, found = _digest(text), None
        for token in self._tokens.values():  # each is compared, whichever it is
            if hmac.compare_digest(_digest(token.token.reveal()), given):
                found = token
        if found is None:
            log.warning("page_sign_in_failed", peer=peer, remedy="[web.tokens] holds the tokens")
            with self._waiting():
                self._pause(WRONG_TOKEN_DELAY)
            raise _unauthorized("no token is this one")
        return found

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        with self._lock:
            if self._wrong >= MAX_WRONG_TOKENS:
                raise _too_many()
            self._wrong += 1
        try:
            yield
        finally:
            with self._lock:
                self._wrong -= 1

    def _read(self, session: str) -> Viewer | None:
        token = self._tokens.get(session.rsplit(".", 2)[0])
        if token is None:
            return None
        try:
            _, given = self._signer(token).unsign(session, max_age=SESSION_SECONDS, return_timestamp=True)
        except BadSignature:  # SignatureExpired, too
            return None
        until = given.timestamp() + SESSION_SECONDS
        return self._viewer(token, until) if self._clock() < until else None

    def _signer(self, token: PageToken) -> TimestampSigner:
        return _Signer(token.token.reveal(), self._clock)

    def _viewer(self, token: PageToken, until: float) -> Viewer:
        # A token that names workspaces never sees all, also where none of them is left.
        ids = (self._ids.get(name) for name in token.workspaces)
        workspaces = frozenset(found for found in ids if found) if token.workspaces else None
        return Viewer(token.name, token.numbers, workspaces, until, token.recordings)


class _Signer(TimestampSigner):
    """With HMAC-SHA-256, and a clock of its own."""

    def __init__(self, secret: str, clock: Callable[[], float]) -> None:
        super().__init__(secret, salt=b"eslbot call page session", digest_method=hashlib.sha256)
        self._clock = clock

    def get_timestamp(self) -> int:
        return int(self._clock())


def require_same_site(request: Request) -> None:
    """Raises ApiError for a request that another site's page has made the browser send."""
    if site := request.headers.get("Sec-Fetch-Site"):
        ours = site in ("same-origin", "none")
    else:  # a browser that is older
        origin = request.headers.get("Origin", "")
        ours = not origin or origin.partition("://")[2] == request.headers.get("Host", "")
    if not ours:
        raise ApiError(
            HTTPStatus.FORBIDDEN,
            "foreign_page",
            "another site's page sent this",
            "Behind a proxy, let it pass the Host header on.",
        )


def _too_many() -> ApiError:
    return ApiError(
        HTTPStatus.TOO_MANY_REQUESTS,
        "too_many_wrong_tokens",
        "Too many wrong tokens are being tried.",
        "Try again in a few seconds.",
        (("Retry-After", "2"),),
    )


def _unauthorized(problem: str) -> ApiError:
    return ApiError(
        HTTPStatus.UNAUTHORIZED,
        "not_signed_in",
        problem,
        "a token of [web.tokens] is needed",
        (("WWW-Authenticate", 'Bearer realm="eslbot"'),),
    )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="replace")).digest()


def _set_cookie(response: Response, value: str, seconds: int, request: Request) -> None:
    # Whether the browser has TLS is known to a proxy in front.
    secure = "https" in (request.scheme, request.headers.get("X-Forwarded-Proto", ""))
    response.set_cookie(
        COOKIE, value, max_age=seconds, path="/", secure=secure, httponly=True, samesite="Strict"
    )
