"""Asks the keeper of the call ledger, over its Unix socket: one JSON object a line each way.

Nothing here waits for long or reads without end: a ledger that hangs makes a page that says so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

from gevent import socket
from gevent.lock import BoundedSemaphore

#: Seconds for an answer.
ANSWER = 5.0
#: Seconds without a line after which a watched keeper is taken for dead; it gives a sign of life every ten.
SILENCE = 25.0
#: Bytes of a line. Only the first one of `watch`, with every live call, comes near.
MAX_LINE = 4 * 1024 * 1024
#: Questions of one worker under way at one time; more wait for as long as for an answer.
MAX_QUESTIONS = 16

_CHUNK = 65536


class LedgerDown(Exception):
    """The keeper gives no answer; ``error`` is a fixed word, ``remedy`` what an operator can do."""

    def __init__(self, error: str, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.error, self.problem, self.remedy = error, problem, remedy


class KeeperClient:
    """One worker's way to the keeper, whose socket is in the directory ``journal``."""

    def __init__(self, journal: str) -> None:
        self._path = f"{journal}/keeper.sock"
        self._questions = BoundedSemaphore(MAX_QUESTIONS)

    def ask(self, question: Mapping[str, Any], seconds: float = ANSWER) -> dict[str, Any]:
        """The answer to one question. Raises LedgerDown."""
        if not self._questions.acquire(timeout=seconds):
            raise _slow(seconds)
        try:
            with closing(self._connect(question, seconds)) as sock:
                for answer in _lines(sock, seconds):
                    return answer
                raise _gone()
        finally:
            self._questions.release()

    def watch(self, question: Mapping[str, Any], silence: float = SILENCE) -> Iterator[dict[str, Any]]:
        """What happens, for as long as one asks. Raises LedgerDown when the keeper goes away."""
        with closing(self._connect(question, ANSWER)) as sock:
            yield from _lines(sock, silence)
        raise _gone()

    def _connect(self, question: Mapping[str, Any], seconds: float) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(seconds)
        try:
            sock.connect(self._path)
            sock.sendall(json.dumps(question).encode() + b"\n")
        except TimeoutError:
            sock.close()
            raise _slow(seconds) from None
        except OSError as error:
            sock.close()
            raise LedgerDown(
                "ledger_not_running",
                f"The call ledger is not running ({self._path}: {error.strerror or error}).",
                "Calls go on, and are recorded later. Look for ledger_ lines in the service's log.",
            ) from None
        except BaseException:
            sock.close()
            raise
        return sock


def _lines(sock: socket.socket, seconds: float) -> Iterator[dict[str, Any]]:
    """JSON objects, each complete within ``seconds``; ends where the keeper closes the connection."""
    buffer = bytearray()
    while True:
        deadline = time.monotonic() + seconds  # how long a reader took for the last one is not the keeper's
        searched = 0
        while (end := buffer.find(b"\n", searched)) < 0:
            if len(buffer) > MAX_LINE:
                raise _bad(f"a line of more than {MAX_LINE} bytes")
            searched = len(buffer)
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = sock.recv(_CHUNK)
            except TimeoutError:
                raise _slow(seconds) from None
            except OSError:
                raise _gone() from None
            if not data:
                return
            buffer += data
        line = bytes(buffer[:end])
        del buffer[: end + 1]
        yield _read(line)


def _read(line: bytes) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        raise _bad("a line that is not JSON") from None
    if not isinstance(document, dict):
        raise _bad("a line that is not an object")
    return document


def _slow(seconds: float) -> LedgerDown:
    return LedgerDown(
        "ledger_slow",
        f"The call ledger did not answer within {seconds:g} s.",
        "Calls go on. Look at the database, and for ledger_ lines in the service's log.",
    )


def _gone() -> LedgerDown:
    return LedgerDown(
        "ledger_not_running", "The call ledger has gone away.", "The service starts it again by itself."
    )


def _bad(what: str) -> LedgerDown:
    return LedgerDown(
        "ledger_not_understood",
        f"The call ledger sent {what}.",
        "Restart the service, so that both are of one version.",
    )
