"""One outbound event-socket session: FreeSWITCH asks us what to do with one call.

The names are greenswitch's (``connect``, ``call_command``, ``answer``, ``hangup`` …). What differs, besides
what :mod:`eslbot.esl.connection` says:

* an executed application is matched by its ``Application-UUID``, never by its name;
* what may be slow is a job of its own (:meth:`Session.background`), since FreeSWITCH tells and does nothing
  on a connection whose ``api`` has not come back.
"""

from __future__ import annotations

import re
import socket as std_socket
from collections.abc import Callable, Iterable, Mapping
from os import urandom
from typing import Any
from uuid import uuid4

from eslbot.esl.commands import check_line, execute_message, quote
from eslbot.esl.connection import TIMEOUT, Connection
from eslbot.esl.errors import CommandFailed, CommandTimeout
from eslbot.esl.events import Event
from eslbot.esl.executions import Execution, RefusalOnly
from eslbot.esl.frames import Headers
from eslbot.esl.gone import ConnectionLost
from eslbot.esl.waiting import Future

#: Variables that cannot be mistaken for anything else in a list of them.
_PLAIN_PAIR = re.compile(r"[A-Za-z0-9_.-]+=[A-Za-z0-9_.:/-]*")

#: Seconds FreeSWITCH keeps the socket after the hang-up; plain ``linger`` never expires.
LINGER = 5
#: Seconds for FreeSWITCH to have done what it was told before a connection is given up: that is best effort.
SETTLE = 1.0


class Session(Connection):
    """FreeSWITCH's end of one call. :meth:`connect` first; :meth:`stop` always."""

    def __init__(self, client_address: tuple[str, int], sock: std_socket.socket, timeout: float = TIMEOUT):
        super().__init__(client_address, sock, timeout)
        #: See :meth:`connect`.
        self.plain: dict[str, str] = {}

    def connect(self, *plain: str) -> Mapping[str, str]:
        """Take the call over: the channel's headers and variables.

        Those named ``plain`` are then in :attr:`plain` besides, as they are: FreeSWITCH's URL-encoding does
        not say whether a ``%7C`` was one before. It takes no further round trip.
        """
        connected = self.ask("connect")  # the first command must be this one
        replies = {name: self.ask(f"getvar {check_line(name)}") for name in plain}
        channel = self._reply(connected, "connect").headers
        assert isinstance(channel, Headers)
        self.session_data = channel.index()
        self._uuid = self.session_data.get("Unique-ID") or self.session_data.get("variable_uuid", "")
        self._outbound_connected = True
        for name, reply in replies.items():
            headers = self._awaited(reply, "getvar").headers
            assert isinstance(headers, Headers)
            value = headers.raw("Reply-Text")
            if not value.startswith(("+OK", "-ERR")):  # no value, but a peer that does not know the command
                self.plain[name] = value
        return self.session_data

    def forget_channel(self) -> None:
        """Let go of what :meth:`connect` gave, some ten kilobytes; the :attr:`uuid` stays."""
        self.session_data = {}
        self.plain.clear()

    def subscribe(self, *names: str) -> None:
        """Ask for this channel's events of these names (and subclasses, when they hold ``::``), and linger.

        ``myevents`` would leave out CUSTOM and bring what nobody reads. Does not wait: commands take effect
        in their order. A refusal ends the session, since its story would be deaf.
        """
        plain = [name for name in names if "::" not in name]
        custom = [name for name in names if "::" in name]
        ours = ("CHANNEL_EXECUTE_COMPLETE", "CHANNEL_HANGUP", "CHANNEL_HANGUP_COMPLETE", "BACKGROUND_JOB")
        wanted = [*ours, *plain]
        if custom:
            wanted += ["CUSTOM", *custom]
        events = check_line(f"event plain {' '.join(wanted)}")
        for command in (f"linger {LINGER}", f"filter Unique-ID {self.uuid}", events):
            self._post(command, RefusalOnly(self._not_subscribed))

    def _not_subscribed(self, text: str) -> None:
        self._leave(ConnectionLost(f"FreeSWITCH refused the subscription: {text}"))

    def settle(self) -> None:
        """Wait until FreeSWITCH has done all that it was told; it tells no more events from then on.

        Raises :class:`CommandTimeout` after a short while, OutboundSessionHasGoneAway.
        """
        settled = self.ask("noevents")
        self.flush()
        if settled.wait(SETTLE) is None:
            raise CommandTimeout(f"not settled within {SETTLE:g} s")

    def execute(self, application: str, argument: str = "", *, tell: bool = False) -> Execution:
        """Queue an application on the channel and do not wait; :meth:`Execution.wait` does.

        With ``tell`` the completion also comes by :meth:`next_event`, in its place among the events.
        """
        event_uuid = urandom(12).hex()
        message = execute_message(application, argument, event_uuid)
        execution = Execution(application, event_uuid, tell, self._drop)
        self._post(message, RefusalOnly(execution.refused))
        self._executions[event_uuid] = execution
        return execution

    def _drop(self, event_uuid: str) -> None:
        self._executions.pop(event_uuid, None)

    def call_command(
        self,
        app_name: str,
        app_args: str | None = None,
        block: bool = False,
        response_timeout: float | None = None,
    ) -> Any:
        """greenswitch's own way to execute: the Execution, or its completion when ``block``."""
        execution = self.execute(app_name, app_args or "")
        return execution.wait(response_timeout or self.timeout) if block else execution

    def begin_answer(self, *, at_once: bool = True) -> Execution:
        """Have the call answered and do not wait; what is returned completes when it is.

        A channel without media looks only every 20 ms for what it is to execute (``switch_ivr.c:
        switch_ivr_park``), and the caller would wait for that. ``uuid_answer`` is done at once, by the event
        socket's own thread. The application then finds the call answered; its completion is what counts.
        An INVITE without an offer is answered by the application alone: the caller's SDP comes with the ACK,
        and who waits for that has to be the channel's own thread (``sofia_answer_channel``).
        """
        if at_once:
            self.post(f"api uuid_answer {self.uuid}")
        return self.execute("answer")

    def answer(self) -> Event:
        """Answer the call and wait until FreeSWITCH has: starting a stream earlier would send a 183."""
        return self.begin_answer().wait(self.timeout)

    def respond(self, status: int, phrase: str, retry_after: int | None = None) -> None:
        """Refuse an unanswered call with a final response, and wait for its end.

        ``hangup SERVICE_UNAVAILABLE`` would send 480 instead of 503 (measured). Raises
        :class:`CommandTimeout` when the call does not end.
        """
        if retry_after is not None:
            self.execute("set", f"sip_rh_Retry-After={retry_after}")
        refusal = self.execute("respond", f"{status} {phrase}")
        if not self.gone.wait(self.timeout):
            self._drop(refusal.uuid)
            raise CommandTimeout(f"the call goes on after {status}")

    def set_variables(self, variables: Mapping[str, str | None]) -> None:
        """Set channel variables (None unsets), whatever they hold, in this order and without waiting.

        Plain ones of one moment share one command. A variable cannot fail to be set on a channel that exists;
        when it does not, the next wait says so.
        """
        self.raise_if_disconnected()
        for name, value in variables.items():
            pair = f"{name}={value or ''}"
            if _PLAIN_PAIR.fullmatch(pair):
                self._pairs.append(pair)
            else:
                self.post(f"api uuid_setvar {self.uuid} {check_line(name)} {quote(value or '')}")
        self._send_soon()

    def uuid_break(self) -> None:
        """Stop the application that runs, and drop those that are queued; does not wait."""
        self.post(f"api uuid_break {self.uuid} all")

    def forget_variables(self, names: Iterable[str]) -> None:
        """Unset channel variables: each of them is in every event of the channel."""
        self.raise_if_disconnected()
        self._pairs += [f"{name}=" for name in names]
        self._send_soon()

    def background(self, command: str) -> Callable[[float], str | None]:
        """Have an API command that may be slow, or never come back, done by a thread of its own.

        What is returned waits so many seconds for the command's answer, None where there is none by then. It
        goes by the API command ``bgapi``: with the event socket's own one FreeSWITCH does not let go of this
        connection before the job has ended (``mod_event_socket.c: listener_run`` waits for the lock that
        ``api_exec`` holds), and no other controller would be called. Jobs know no order among themselves.
        """
        job, answer = str(uuid4()), Future[str]()  # FreeSWITCH has room for 36 characters
        self.post(f"filter Job-UUID {job}")  # of different headers, any that matches lets an event through
        self._post(f"api bgapi uuid:{job} {check_line(command)}", RefusalOnly(self._not_begun(job)))
        self._jobs[job] = answer

        def wait(seconds: float) -> str | None:
            self.flush()
            return answer.wait(seconds)

        return wait

    def _not_begun(self, job: str) -> Callable[[str], None]:
        def refused(text: str) -> None:
            if (answer := self._jobs.pop(job, None)) is not None:
                answer.set_exception(CommandFailed(f"bgapi: {text}"))

        return refused
