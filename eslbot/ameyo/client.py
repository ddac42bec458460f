"""POSTs a notification until Ameyo accepts it, or until nobody waits for it any more."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

import gevent
import requests
from gevent.event import Event as Flag

from eslbot.ameyo.connections import Connections
from eslbot.ameyo.notification import PATH, headers
from eslbot.ameyo.slots import Slots
from eslbot.config.model import MASK, Ameyo
from eslbot.greenlets import spawn

#: Seconds before the second attempt, doubled each time up to the cap; each with up to half taken off.
FIRST_DELAY = 0.5
SLOW_CAP = 30.0
#: A customer is waiting: a Retry-After beyond this is not waited for.
MAX_RETRY_AFTER = 300.0
#: POSTs of one client (a workspace of a worker) at one time, and the connections it keeps.
MAX_POSTS = 32
#: Seconds an attempt that is under way when the PBX hangs up may still take: its answer is often the reason.
LAST_ANSWER = 2.0
#: No answer of Ameyo's is longer than this that we would care to read, in bytes and in seconds.
MAX_ANSWER_BYTES = 64 * 1024
MAX_ANSWER_SECONDS = 2.0

_RETRIED = frozenset({408, 425, 429})


class Verdict(StrEnum):
    """What became of one attempt."""

    ACCEPTED = "accepted"
    FAILED = "failed"  # the network, a time-out, 408, 425, 429, 5xx: Ameyo may do better soon
    REJECTED = "rejected"  # any other answer: somebody must mend a token or a host first
    INTERRUPTED = "interrupted"  # the call was over before the answer came


@dataclass(frozen=True, slots=True)
class Attempt:
    """One POST: ``status`` is None where no answer came, ``seconds`` how long it took.

    ``delay`` is how many seconds later the next one follows, jitter and ``retry_after`` included; 0.0 where
    none follows.
    """

    number: int
    verdict: Verdict
    status: int | None
    detail: str
    seconds: float
    retry_after: float | None = None
    delay: float = 0.0


def _begun(number: int) -> None:
    """Attempt ``number`` begins, and nobody writes it down."""


class AmeyoClient:
    """The connection pool to one workspace's Ameyo. TLS is verified against the URL's host.

    Nothing in it is shared with another workspace's, so that one whose Ameyo is dead starves none but itself.
    """

    def __init__(self, settings: Ameyo, jitter: Callable[[], float] = random.random) -> None:
        self._settings = settings
        self._jitter = jitter
        self._url = settings.url + PATH
        self._http = requests.Session()
        # The environment's proxies and .netrc would change where a customer's token goes.
        self._http.trust_env = False
        self._http.verify = settings.ca_file or True
        adapter = Connections(MAX_POSTS)
        self._http.mount("https://", adapter)
        self._http.mount("http://", adapter)
        self._slots = Slots(MAX_POSTS)

    def notify(
        self,
        body: bytes,
        over: Flag,
        *,
        before: int = 0,
        wait: float = 0.0,
        begin: Callable[[int], None] = _begun,
    ) -> Iterator[Attempt]:
        """Attempt after attempt, with the waits between them, until one is accepted or ``over`` is set.

        ``before`` attempts were begun by controllers before this one: numbers and delays go on from there.
        ``wait`` is the rest, in seconds, of the delay that the one before was in, up to MAX_RETRY_AFTER.
        ``begin`` is called with an attempt's number just before its POST goes out; what it raises ends all.
        """
        if wait > 0:
            over.wait(timeout=min(wait, MAX_RETRY_AFTER))
        number = before
        while not over.is_set():
            number += 1
            with self._slots.slot(over) as held:
                if not held:
                    return
                begin(number)
                if over.is_set():
                    return
                attempt = self._attempt(number, body, over)
            yield attempt
            if attempt.verdict in (Verdict.ACCEPTED, Verdict.INTERRUPTED):
                return
            over.wait(timeout=attempt.delay)

    def _delay(self, number: int, verdict: Verdict, retry_after: float | None) -> float:
        if verdict in (Verdict.ACCEPTED, Verdict.INTERRUPTED):
            return 0.0
        if verdict is Verdict.REJECTED:
            delay = SLOW_CAP
        else:
            delay = min(SLOW_CAP, FIRST_DELAY * 2 ** min(number - 1, 16))
        delay *= 1 - self._jitter() / 2
        return max(delay, retry_after or 0.0)

    def _attempt(self, number: int, body: bytes, over: Flag) -> Attempt:
        """One POST, in a greenlet of its own, so that the end of the call need not wait for its time-out."""
        began = time.monotonic()
        post = spawn(self._outcome, body)
        try:
            waited_for: list[Any] = [post, over]
            gevent.wait(waited_for, timeout=self._settings.timeout, count=1)
            if over.is_set():
                post.join(timeout=LAST_ANSWER)
            in_time = post.ready()
        finally:
            post.kill()  # it must not outlive the slot that it has
        status: int | None = None
        retry_after: float | None = None
        if not in_time:
            verdict = Verdict.INTERRUPTED if over.is_set() else Verdict.FAILED
            detail = (
                "the call was over" if over.is_set() else f"no answer within {self._settings.timeout:g} s"
            )
        elif post.exception is not None:  # nobody thought of it; gevent has printed its traceback
            verdict, detail = Verdict.FAILED, _explain(post.exception)
        elif isinstance(outcome := post.get(), Exception):
            verdict, detail = Verdict.FAILED, _explain(outcome)
        else:
            status, detail, retry_after = outcome
            verdict = _judge(status)
        delay = self._delay(number, verdict, retry_after)
        return Attempt(number, verdict, status, detail, time.monotonic() - began, retry_after, delay)

    def _outcome(self, body: bytes) -> tuple[int, str, float | None] | OSError | ValueError:
        """What came of a POST; what the network did is no fault whose traceback anybody needs on stderr."""
        try:
            return self._post(body)
        except (
            OSError,
            ValueError,
        ) as error:  # requests' own are OSErrors, and a ca_file that is gone is one
            return error

    def _post(self, body: bytes) -> tuple[int, str, float | None]:
        with self._http.post(
            self._url,
            data=body,
            headers=headers(self._settings.tenant_host, self._settings.token.reveal()),
            timeout=(self._settings.connect_timeout, self._settings.timeout),
            allow_redirects=False,  # a redirect would carry the token elsewhere
            stream=True,
        ) as answer:
            text = self._shown(_read(answer))
            return answer.status_code, text, _retry_after(answer.headers.get("Retry-After"))

    def _shown(self, text: bytes) -> str:
        """The beginning of an answer, for the log; some servers echo what they were sent."""
        return text.decode("utf-8", "replace").replace(self._settings.token.reveal(), MASK)[:200]

    def close(self) -> None:
        """Close the pooled connections."""
        self._http.close()


def _read(answer: requests.Response) -> bytes:
    """The answer's text, to the end where it is within the bounds: the connection can serve the next call.

    What Ameyo decided is its status, which is here already; a text that breaks off changes nothing.
    """
    text = b""
    try:
        with gevent.Timeout(MAX_ANSWER_SECONDS, False):  # type: ignore[arg-type]  # its stubs forget False
            for chunk in answer.iter_content(8192):
                text += chunk
                if len(text) > MAX_ANSWER_BYTES:
                    break
    except requests.RequestException:
        text += b" (broken off)"
    return text


def _judge(status: int) -> Verdict:
    if 200 <= status < 300:
        return Verdict.ACCEPTED
    return Verdict.FAILED if status in _RETRIED or status >= 500 else Verdict.REJECTED


def _explain(error: BaseException) -> str:
    """The innermost cause, which is what an operator needs; none of them quotes our headers."""
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    return f"{type(error).__name__}: {cause}"[:300]


def _retry_after(text: str | None) -> float | None:
    """Seconds of a Retry-After (RFC 9110, 10.2.3), within bounds; None where it says nothing."""
    if not text:
        return None
    if text.isascii() and text.isdigit():
        seconds = float(text[:9])
    else:
        try:
            when = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        seconds = (when - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)
