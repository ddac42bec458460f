"""POSTs a notification, and retries until Ameyo accepts it or nobody waits for it any more.

What is retried, and when, is :mod:`eslbot.ameyo.retry`'s.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException

import gevent
import structlog
from gevent.event import Event as Flag
from urllib3.exceptions import HTTPError

import eslbot
from eslbot.ameyo.answer import Answer
from eslbot.ameyo.connections import CallOver, Connections
from eslbot.ameyo.deadline import OutOfTime, deadline
from eslbot.ameyo.notification import PATH, headers
from eslbot.ameyo.proxy import Proxy
from eslbot.ameyo.retry import MAX_RETRY_AFTER, Verdict, delay, parse_retry_after, verdict_of
from eslbot.ameyo.semaphore import FifoSemaphore
from eslbot.config.model import Ameyo
from eslbot.config.secrets import texts_in
from eslbot.telemetry import redaction

log = structlog.get_logger()

#: POSTs of one client (a workspace of a worker) at one time, and the connections it keeps.
MAX_POSTS = 32
#: Seconds an attempt that is under way when the PBX hangs up may still take: its answer is often the reason.
LAST_ANSWER = 2.0
#: Seconds for the rest of an answer once its status is there: it may tell why Ameyo refuses. Where Ameyo
#: accepts it tells nothing, and until the call has noted that, a controller that dies has it told again.
MAX_ANSWER_SECONDS = 2.0
#: Characters of it, or of an error, that are told.
MAX_DETAIL = 200
MAX_ACCEPTED_SECONDS = 0.25

#: Seconds between two connections that are opened before they are needed, and between two looks for one.
WARM_PAUSE, WARM_LOOK = 1.0, 0.05

#: Set: whoever wants a slot with it gets one at once, or none.
_AT_ONCE = Flag()
_AT_ONCE.set()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One POST: ``status`` is None where no answer came, ``seconds`` how long it took.

    ``delay`` is how many seconds later the next one follows, jitter and ``retry_after`` included; 0.0 where
    none follows. ``sent`` says whether Ameyo can have got it.
    """

    number: int
    verdict: Verdict
    status: int | None
    detail: str
    seconds: float
    retry_after: float | None = None
    delay: float = 0.0
    sent: bool = True


def _unnoted(number: int) -> None:
    """Nobody notes that attempt ``number`` begins."""


class AmeyoClient:
    """The connection pool to one workspace's Ameyo. TLS is verified against the URL's host.

    Nothing in it is shared with another workspace's, so that one whose Ameyo is dead starves none but itself.
    ``until`` is told until when Ameyo's certificate counts, in epoch seconds, with each connection.
    """

    def __init__(
        self,
        settings: Ameyo,
        jitter: Callable[[], float] = random.random,
        *,
        until: Callable[[float], object] = float,
    ) -> None:
        self._settings = settings
        self._jitter = jitter
        #: This client keeps its token to itself, whatever else this process knows.
        self._own = redaction.Redactor(texts_in(settings.token))
        self._connections = Connections(
            settings.url + PATH,
            settings.ca_file,
            MAX_POSTS,
            {
                **headers(settings.tenant_host, settings.token.reveal()),
                "Accept": "*/*",
                "User-Agent": f"eslbot/{eslbot.__version__}",
            },
            source=settings.source_address,
            proxy=None if settings.proxy is None else Proxy.of(settings.proxy),
            until=until,
        )
        self._slots = FifoSemaphore(MAX_POSTS)
        self._warm_after = 0.0  # on the monotonic clock

    def warm(self) -> None:
        """Open a connection for the POST that is to come, in the background. Raises nothing.

        At most one is opened at a time, and nothing is sent on it. Where it fails, the POST will tell why.
        """
        now = time.monotonic()
        if now < self._warm_after:
            return
        try:
            if self._connections.one_waits():
                self._warm_after = now + WARM_LOOK
            else:
                self._warm_after = now + max(WARM_PAUSE, self._settings.connect_timeout)
                gevent.spawn(self._open_one)
        except (HTTPError, OSError, ValueError) as error:
            log.debug("ameyo_not_warmed", error=_explain(error))

    def _open_one(self) -> None:
        seconds = self._settings.connect_timeout
        try:
            with self._slots.slot(_AT_ONCE) as held, gevent.Timeout(seconds):
                if held:
                    self._connections.open_one(seconds)
        except (HTTPError, OSError, ValueError, gevent.Timeout) as error:
            log.debug("ameyo_not_warmed", error=_explain(error))

    def notify(
        self,
        body: bytes,
        over: Flag,
        *,
        before: int = 0,
        wait: float = 0.0,
        begin: Callable[[int], None] = _unnoted,
        hung_up: Flag | None = None,
    ) -> Iterator[Attempt]:
        """Attempt after attempt, with the waits between them, until one is accepted or ``over`` is set.

        What was not sent by then is not sent any more. What was is finished, but within LAST_ANSWER where
        ``hung_up`` (by default ``over``) is set: the caller has left.

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
                attempt = self._attempt(number, body, over, over if hung_up is None else hung_up)
            yield attempt
            if attempt.verdict in (Verdict.ACCEPTED, Verdict.INTERRUPTED):
                return
            over.wait(timeout=attempt.delay)

    def _attempt(self, number: int, body: bytes, over: Flag, hung_up: Flag) -> Attempt:
        """One POST; a caller's hang-up does not wait for its time-out.

        Once a status is there it is the verdict, whatever becomes of the rest.
        """
        began = time.monotonic()
        status: int | None = None
        retry_after: float | None = None
        verdict = Verdict.FAILED
        sent = True
        try:
            with deadline(self._settings.timeout, hung_up, LAST_ANSWER):
                answer = self._connections.post(
                    body, self._settings.connect_timeout, self._settings.timeout, over
                )
            status, verdict = answer.status, verdict_of(answer.status)
            accepted = verdict is Verdict.ACCEPTED
            self._connections.finish(answer, MAX_ACCEPTED_SECONDS if accepted else MAX_ANSWER_SECONDS)
            detail, retry_after = self._detail(answer), parse_retry_after(answer.field("Retry-After"))
        except CallOver:
            sent, verdict, detail = False, Verdict.INTERRUPTED, "the call was over"
        except OutOfTime:
            if hung_up.is_set():
                verdict, detail = Verdict.INTERRUPTED, "the call was over"
            else:
                detail = f"no answer within {self._settings.timeout:g} s"
        except (
            HTTPError,
            HTTPException,
            OSError,
            ValueError,
        ) as error:  # OSError: also a ca_file that is gone
            detail = _explain(error)
        except Exception as error:  # nobody thought of it; the customer is notified of again all the same
            log.exception("notification_failed")
            detail = _explain(error)
        seconds = time.monotonic() - began
        wait = delay(number, verdict, retry_after, self._jitter)
        return Attempt(number, verdict, status, detail, seconds, retry_after, wait, sent)

    def _detail(self, answer: Answer) -> str:
        """What to say of an answer besides its status."""
        coding = answer.field("Content-Encoding")
        if coding and coding.lower() != "identity":  # we asked for none, and unpack nobody's parcels
            return self._shown(f"(encoded: {coding})".encode())
        return self._shown(bytes(answer.text) + (b"" if answer.whole else b" (broken off)"))

    def _shown(self, text: bytes) -> str:
        """The beginning of an answer, for log and ledger; some servers echo what they were sent."""
        return redaction.beginning(text.decode("utf-8", "replace"), MAX_DETAIL, self._own)

    def close(self) -> None:
        """Close the pooled connections."""
        self._connections.close()


def _explain(error: BaseException) -> str:
    """The innermost cause, which is what an operator needs. No cause quotes our headers."""
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    return redaction.beginning(f"{type(error).__name__}: {cause}", MAX_DETAIL)
