"""FreeSWITCH's inbound event socket as somebody asks who only wants to know whether it is there.

Blocking, and bounded in all: so many seconds from the first to the last byte, however it drips, and so many
bytes. It knows nothing of :mod:`eslbot.esl`, whose greenlets belong to the processes that carry calls.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from eslbot.config.model import Address, Secret

#: Bytes of one answer: `status` has some 500, `sofia status` a line a profile and gateway.
MAX_ANSWER = 64 * 1024

_TYPE = re.compile(rb"^Content-Type: *([\w/-]+)", re.MULTILINE | re.IGNORECASE)
_LENGTH = re.compile(rb"^Content-Length: *([0-9]{1,9})\r?$", re.MULTILINE | re.IGNORECASE)
_REPLY = re.compile(rb"^Reply-Text: *([^\r\n]*)", re.MULTILINE | re.IGNORECASE)


class Silent(Exception):
    """It took the connection and did not answer in time; the text says to what."""


class Odd(Exception):
    """What answers is no event socket, or breaks off."""


class Denied(Exception):
    """It is there, and does not let us in: its ACL, or the password."""


class EventSocket:
    """One connection; a context manager that connects and reads the greeting.

    ``seconds`` are for everything together. Entering raises OSError where nobody accepts, :class:`Silent`,
    :class:`Odd`, :class:`Denied`; so does every question.
    """

    def __init__(self, address: Address, seconds: float) -> None:
        self._address, self._seconds = address, seconds
        self._until = 0.0
        self._socket: socket.socket | None = None
        self._received = b""

    def __enter__(self) -> Self:
        self._until = time.monotonic() + self._seconds
        try:
            self._socket = socket.create_connection(self._address.pair, self._seconds)
        except TimeoutError:
            raise Silent("nobody takes the connection") from None
        try:
            head, _ = self._answer("the connection")
            kind = _found(_TYPE, head)
            if kind == "text/rude-rejection":
                raise Denied("it refuses this host before it asks for a password (its list `event-socket`)")
            if kind != "auth/request":
                raise Odd(f"it greets with {kind[:40] or 'something else'!r}")
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()

    def sign_in(self, password: Secret) -> None:
        """Raises :class:`Denied` where it does not take the password."""
        word = password.reveal()
        if any(end in word for end in "\r\n\0"):
            raise Denied("the password holds a line end")
        head, _ = self._ask(f"auth {word}", "the password")
        if not _found(_REPLY, head).startswith("+OK"):
            raise Denied("it does not take the password")

    def api(self, command: str) -> str:
        """The reply to ``api <command>``, which must be a constant of ours."""
        return self._ask(f"api {command}", f"`{command}`")[1].decode("utf-8", "replace").strip()

    def _ask(self, line: str, what: str) -> tuple[bytes, bytes]:
        assert self._socket is not None, "use it in a with statement"
        self._socket.settimeout(max(0.001, self._until - time.monotonic()))
        try:
            self._socket.sendall(f"{line}\n\n".encode())
        except TimeoutError:
            raise Silent(f"it does not read {what}") from None
        return self._answer(what)

    def _answer(self, what: str) -> tuple[bytes, bytes]:
        while b"\n\n" not in self._received:
            self._more(what)
        head, _, self._received = self._received.partition(b"\n\n")
        length = int(_found(_LENGTH, head) or 0)
        if length > MAX_ANSWER:
            raise Odd(f"it answers {what} with {length} bytes")
        while len(self._received) < length:
            self._more(what)
        body, self._received = self._received[:length], self._received[length:]
        return head, body

    def _more(self, what: str) -> None:
        assert self._socket is not None
        left = self._until - time.monotonic()
        if left <= 0:
            raise Silent(f"no answer to {what} within {self._seconds:g} s")
        self._socket.settimeout(left)
        try:
            data = self._socket.recv(8192)
        except TimeoutError:
            raise Silent(f"no answer to {what} within {self._seconds:g} s") from None
        if not data:
            raise Odd(f"it closed the connection instead of answering {what}")
        self._received += data
        if len(self._received) > 2 * MAX_ANSWER:
            raise Odd(f"it answers {what} without an end")


def why_unreachable(address: Address, seconds: float) -> str:
    """Why FreeSWITCH cannot be reached there; empty where it greets, whether it would let us in or not."""
    try:
        with EventSocket(address, seconds):
            return ""
    except Denied:
        return ""
    except (Silent, Odd) as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)


def ask(address: Address, password: Secret, commands: Sequence[str], seconds: float) -> list[str]:
    """The replies to ``commands``, within ``seconds`` all together. Raises as :class:`EventSocket`."""
    with EventSocket(address, seconds) as connection:
        connection.sign_in(password)
        return [connection.api(command) for command in commands]


def _found(pattern: re.Pattern[bytes], head: bytes) -> str:
    match = pattern.search(head)
    return match[1].decode("utf-8", "replace") if match else ""
