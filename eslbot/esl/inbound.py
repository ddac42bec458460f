"""FreeSWITCH's inbound event socket, asked as a plain program asks: no events, and whoever asks waits.

Every command has a bound in time, and frames have those of :mod:`eslbot.esl.frames`, whoever answers.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from eslbot.config.model import Address, Secret
from eslbot.esl.commands import check_line
from eslbot.esl.errors import CommandFailed, CommandTimeout, EslError, ProtocolError
from eslbot.esl.frames import Frame, FrameReader
from eslbot.telemetry import redaction


class Refused(EslError):
    """FreeSWITCH closes the door before it asks for the password: ``apply-inbound-acl``."""


class WrongPassword(EslError):
    """FreeSWITCH does not take the password."""


class InboundClient:
    """One connection, authenticated; a context manager. Without a password only the greeting is waited for.

    ``timeout``: seconds a command, also to connect. ``total``: seconds for all of them together.

    Entering raises OSError where nobody answers, :class:`Refused`, :class:`WrongPassword`,
    :class:`~eslbot.esl.errors.CommandTimeout`, or :class:`~eslbot.esl.errors.ProtocolError` where what
    answers is no event socket.
    """

    def __init__(
        self, address: Address, password: Secret | None, timeout: float = 5.0, total: float = math.inf
    ) -> None:
        self._address = address
        self._password = password
        self._timeout = timeout
        self._total = total
        self._end = math.inf
        self._socket: socket.socket | None = None
        self._frames: Iterator[Frame] = iter(())
        self._reader = FrameReader()

    def __enter__(self) -> Self:
        self._end = time.monotonic() + self._total
        self._socket = socket.create_connection(self._address.pair, min(self._timeout, self._total))
        try:
            self._authenticate()
        except BaseException:
            self._socket.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()

    def api(self, command: str) -> str:
        """The reply to ``api <command>`` without the white space around it.

        Raises OSError, CommandFailed where FreeSWITCH does not know the command, CommandTimeout,
        ProtocolError, UnsafeArgument. What a command itself says, ``-ERR`` included, is its reply.
        """
        frame = self._ask(f"api {check_line(command)}", f"`{command}`")
        if frame.content_type != "api/response":
            raise CommandFailed(redaction.beginning(frame.headers.get("Reply-Text", frame.content_type), 200))
        if frame.oversized:
            raise ProtocolError(f"it answers `{command}` with {frame.oversized} bytes")
        reply = frame.body.decode("utf-8", "replace").strip()
        if reply.endswith("Command not found!"):
            raise CommandFailed(redaction.beginning(reply, 200))
        return reply

    def _authenticate(self) -> None:
        greeting = self._next(self._deadline(), "the connection")
        if greeting.content_type == "text/rude-rejection":
            raise Refused(redaction.beginning(greeting.body.decode("utf-8", "replace").strip(), 200))
        if greeting.content_type != "auth/request":
            raise ProtocolError(f"it greets with {greeting.content_type[:60]!r} instead of auth/request")
        if self._password is None:
            return
        reply = self._ask(f"auth {check_line(self._password.reveal())}", "the password")
        if not reply.headers.get("Reply-Text", "").startswith("+OK"):
            raise WrongPassword("the event socket does not take the password")

    def _deadline(self) -> float:
        return min(time.monotonic() + self._timeout, self._end)

    def _ask(self, line: str, what: str) -> Frame:
        assert self._socket is not None, "use it in a with statement"
        deadline = self._deadline()
        self._socket.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            self._socket.sendall(f"{line}\n\n".encode())
        except TimeoutError:
            raise CommandTimeout(f"it does not read {what}") from None
        return self._next(deadline, what)

    def _next(self, deadline: float, what: str) -> Frame:
        assert self._socket is not None
        while True:
            for frame in self._frames:
                return frame
            left = deadline - time.monotonic()
            if left <= 0:
                raise CommandTimeout(f"no answer to {what} within {min(self._timeout, self._total):g} s")
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                continue  # the deadline says so
            if not data:
                raise ProtocolError(f"it closed the connection instead of answering {what}")
            self._frames = self._reader.feed(data)


def why_unreachable(address: Address, seconds: float) -> str:
    """Why FreeSWITCH cannot be reached there; empty where it greets, whether it would let us in or not."""
    try:
        with InboundClient(address, None, seconds, seconds):
            return ""
    except Refused:
        return ""
    except EslError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
