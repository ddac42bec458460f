"""A channel of FreeSWITCH's with mod_audio_stream, as far as a call of ours uses it, on one event socket.

It answers by itself what every call asks; a test says what the bot and the caller do. What must never
happen to a living call is noted in :attr:`Channel.violations`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gevent
from gevent import socket

from eslbot.caller.identity import VARIABLE, Signer
from eslbot.caller.invite import Invite
from tests.support import wire
from tests.support.peer import Peer, bounded, fields
from tests.support.relay import ScriptedRelay

WORKSPACE = "2b37ba17-7b20-4b3e-b138-1161e351d5c5"
UUID = "6e7cd1a1-0b1a-4ad5-8a2c-000000000001"
DID, CRT = "00919990152080", "d444-6a1c8f2e-vce-3883"
#: The service's key, and what signs with it.
KEY = bytes(range(32))
SIGNER = Signer([KEY])
#: The call of these.
INVITE = Invite(UUID, DID, CRT, WORKSPACE, "127.0.0.1", "0401234567", "bot")


class Channel:
    """One call as FreeSWITCH has it."""

    def __init__(
        self,
        sock: socket.socket,
        variables: dict[str, str] | None = None,
        *,
        answered: bool = False,
        uuid: str = UUID,
        age: float = 0.0,
        mute: tuple[str, ...] = (),
    ) -> None:
        self.peer = Peer(sock)
        self.uuid = uuid
        #: Which FreeSWITCH has it.
        self.core = "7b0e8f0a-0000-4000-8000-000000000001"
        #: The variables that FreeSWITCH keeps through its own death: as they were at the answer.
        self.tracked: dict[str, str] = {}
        self.answered = answered
        self.variables = {
            "uuid": uuid,
            "sip_from_display": f"{DID}|{CRT}",
            "sip_from_user": "0401234567",
            "sip_to_user": "bot",
            "sip_network_ip": "127.0.0.1",
            "sip_h_X-Workspace-ID": WORKSPACE,
            **(variables or {}),
        }
        if answered:  # a controller has admitted it
            self.variables.setdefault(VARIABLE, SIGNER.sign(replace(INVITE, call_id=uuid)))
        self.created = time.time() - age
        #: Of the answer to `connect`.
        self.more_headers: dict[str, str] = {}
        #: Everything the controller did, in order and in short; see :meth:`_handle`.
        self.story: list[str] = []
        self.commands: list[str] = []
        self.violations: list[str] = []
        self.applications: list[tuple[str, str]] = []
        self.starts: list[dict[str, Any]] = []
        self.texts: list[str] = []
        self.stages: list[str] = []
        self.attached = False
        #: The files that FreeSWITCH reads besides, and those that it cannot.
        self.displaced: list[str] = []
        #: How often it was made to flush the caller's packets, by silence that ends by itself.
        self.flushes = 0
        self.unreadable: tuple[str, ...] = ()
        self.down = False
        self.relay = ScriptedRelay(self)
        #: What happens on a start of a stream (its number, from 0).
        self.on_start: Callable[[int], None] = lambda number: self.relay.stream_up(number)
        #: The peer has sent its close frame and leaves TCP open: `stop` never comes back.
        self.stuck = False
        #: Commands (by their beginning) that FreeSWITCH never answers.
        self.mute = mute
        self.filters: set[str] = set()
        self._greenlet = gevent.spawn(self._run)

    # -- what a test does ---------------------------------------------------------------------------------

    def wait(self, condition: Callable[[], object], seconds: float = 5.0) -> None:
        """Until ``condition`` holds; the story so far is in the failure."""
        try:
            with bounded(seconds):
                while not condition():
                    if self._greenlet.ready():
                        self._greenlet.get()
                        if not condition():
                            raise AssertionError("the controller closed the connection")
                        return
                    gevent.sleep(0.002)
        except AssertionError as error:
            raise AssertionError(f"{error}; the story so far: {self.story}") from error

    def wait_stage(self, stage: str, seconds: float = 5.0) -> None:
        self.wait(lambda: stage in self.stages, seconds)

    def wait_closed(self, seconds: float = 5.0) -> None:
        """Until the controller has closed its connection."""
        with bounded(seconds):
            self._greenlet.get()

    def event(self, name: str, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.peer.send(wire.event({"Event-Name": name, "Unique-ID": self.uuid, **(headers or {})}, body))

    def custom(self, verb: str, body: Any) -> None:
        """An event of mod_audio_stream's."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.event("CUSTOM", {"Event-Subclass": f"mod_audio_stream::{verb}"}, content)

    def ends(self, properties: dict[str, Any] | None = None, reason: str = "done", **more: Any) -> None:
        """The bot's part is over."""
        self.relay.ends(properties, reason, **more)

    def complete(self, application: str, event_uuid: str, **more: str) -> None:
        self.event(
            "CHANNEL_EXECUTE_COMPLETE",
            {
                "Application": application,
                "Application-UUID": event_uuid,
                "Answer-State": "answered" if self.answered else "ringing",
                "variable_current_application": application,
                "variable_read_codec": "PCMU",
                **more,
            },
        )

    def hang_up(self, disposition: str = "recv_bye", cause: str = "NORMAL_CLEARING") -> None:
        """The channel ends; linger keeps the socket until the controller closes it."""
        self.down = True
        self.event("CHANNEL_HANGUP", {"Hangup-Cause": cause})
        self.peer.send(wire.linger_notice(self.uuid))
        self.event(
            "CHANNEL_HANGUP_COMPLETE",
            {"Hangup-Cause": cause, "variable_sip_hangup_disposition": disposition},
        )

    def lose_controller(self) -> None:
        """The connection breaks; the channel lives on."""
        self._greenlet.kill()
        self.peer.close()

    # -- what FreeSWITCH does -----------------------------------------------------------------------------

    def headers(self) -> dict[str, str]:
        return {
            "Event-Name": "CHANNEL_DATA",
            "Unique-ID": self.uuid,
            "Core-UUID": self.core,
            "Answer-State": "answered" if self.answered else "ringing",
            "Event-Date-Timestamp": str(int(time.time() * 1e6)),
            "Caller-Channel-Created-Time": str(int(self.created * 1e6)),
            "variable_read_codec": "PCMU",
            **{f"variable_{name}": value for name, value in self.variables.items()},
            **self.more_headers,
        }

    def _answer(self) -> None:
        if not self.answered:
            self.tracked = dict(self.variables)
        self.answered = True

    def _run(self) -> None:
        while command := self._next():
            self.commands.append(command)
            if not command.startswith(self.mute or ("\0",)):
                try:
                    self._handle(command)
                except ConnectionError:  # the controller went away; its last commands count all the same
                    continue
        self.peer.close()

    def _next(self) -> str:
        try:
            return self.peer.command(60)
        except ConnectionError:
            return ""

    def _handle(self, command: str) -> None:
        verb, _, rest = command.partition(" ")
        if verb == "connect":
            self.story.append("connect")
            self.peer.send(wire.reply("+OK", self.headers()))
        elif command.startswith("sendmsg\n"):
            self._execute(command)
        elif verb == "api":
            self._api(rest)
        elif verb == "getvar":
            self.story.append(f"get {rest}")
            self.peer.send(wire.reply(self.variables.get(rest, "")))
        elif verb in ("linger", "filter", "event", "noevents"):
            self.filters.update([rest.partition(" ")[2]] if verb == "filter" else [])
            self.story.append(command)
            self.peer.send(wire.reply("+OK"))
        else:
            self.violations.append(command)
            self.peer.send(wire.reply("-ERR command not found"))

    def _api(self, command: str) -> None:
        name, _, rest = command.partition(" ")
        if name == "uuid_setvar":
            self._set(*wire.separate(rest, 3))
            self.peer.send(wire.api_response("+OK\n"))
        elif name == "uuid_setvar_multi":
            uuid, _, listed = rest.partition(" ")
            pairs = listed.split(";")
            if len(pairs) > 64:  # FreeSWITCH separates no further
                self.violations.append(f"{len(pairs)} variables in one command")
            for pair in pairs:
                variable, _, value = pair.partition("=")
                self._set(uuid, variable, value or None)
            self.peer.send(wire.api_response("+OK\n"))
        elif name == "uuid_answer":
            self.story.append("answer at once")
            self._answer()
            self.peer.send(wire.api_response("+OK\n"))
        elif name == "uuid_getvar":
            self.peer.send(wire.api_response(self.variables.get(rest.split(" ")[1], "_undef_")))
        elif name == "uuid_jitterbuffer":
            self.story.append(f"jitter buffer {rest.split(' ')[1]}")
            self.peer.send(wire.api_response("+OK Success\n"))
        elif name == "uuid_displace":
            self.peer.send(wire.api_response(self._displace(*rest.split(" "))))
        elif name == "uuid_audio_stream":
            if wire.separate(rest, 5)[1] == "stop":
                self.violations.append(f"{command}, by which a bot can block the call's own connection")
            self._stream(lambda answer: self.peer.send(wire.api_response(answer)), *wire.separate(rest, 5))
        elif name == "bgapi":
            self._background(rest)
        else:
            self.violations.append(command)
            self.peer.send(wire.api_response("-ERR no such command\n"))

    def _background(self, command: str) -> None:
        job = "made-by-freeswitch"
        if command.startswith("uuid:"):
            job, _, command = command.removeprefix("uuid:").partition(" ")
        name, _, rest = command.partition(" ")
        self.peer.send(wire.api_response(f"+OK Job-UUID: {job}\n"))
        if name != "uuid_audio_stream":
            self.violations.append(f"bgapi {command}")
            return

        def done(answer: str) -> None:
            if not self.stuck and job in self.filters:
                self.peer.send(wire.event({"Event-Name": "BACKGROUND_JOB", "Job-UUID": job}, answer.encode()))

        self._stream(done, *wire.separate(rest, 5))

    def _set(self, uuid: str, name: str, value: str | None = None) -> None:
        if uuid != self.uuid:
            self.violations.append(f"setvar on {uuid}")
        if value:
            self.variables[name] = value
        else:
            self.variables.pop(name, None)
        if name == "eslbot_stage":
            self.stages.append(value or "")
            self.story.append(f"stage {value}")
        else:
            self.story.append(f"{'set' if value else 'unset'} {name}")

    def _stream(self, answer: Callable[[str], None], uuid: str, verb: str, *arguments: str) -> None:
        if uuid != self.uuid:
            self.violations.append(f"uuid_audio_stream on {uuid}")
        self.story.append(f"stream {verb}")
        taken = self.attached != (verb == "start")
        answer("+OK Success\n" if taken else "-ERR Operation Failed\n")
        if not taken:
            return
        if verb == "start":
            self.attached = True
            self.starts.append(
                {
                    "url": arguments[0],
                    "rest": list(arguments[1:]),
                    "headers": json.loads(self.variables.get("STREAM_EXTRA_HEADERS", "null")),
                    "settings": {k: v for k, v in self.variables.items() if k.startswith("STREAM_")},
                }
            )
            self.on_start(len(self.starts) - 1)
        elif verb == "send_text":
            self.texts.append(arguments[0])
            self.relay.ordered(arguments[0])
        elif verb == "stop":
            self.attached = False

    def _displace(self, uuid: str, verb: str, path: str, *flags: str) -> str:
        if (uuid, verb, path, flags) == (self.uuid, "start", "silence_stream://1", ("0", "mf")):
            self.flushes += 1
            self.story.append("flush")
            return "+OK Success\n"
        if uuid != self.uuid or flags not in ((), ("0", "mfl")):
            self.violations.append(f"uuid_displace {uuid} {verb} {path} {flags}")
        self.story.append(f"displace {verb}")
        if verb == "start" and path not in self.displaced and path not in self.unreadable:
            self.displaced.append(path)
            return "+OK Success\n"
        if verb == "stop" and path in self.displaced:
            self.displaced.remove(path)
            return "+OK Success\n"
        return "-ERR Operation failed\n"

    def lose_stream(self, how: str = "error") -> None:
        """The relay is gone, and with it the stream."""
        if how == "error":
            self.refuse_stream(1, "Connection closed without WebSocket CLOSE (abnormal EOF)")
        else:
            self.custom("disconnect", {"status": "disconnected", "message": {"code": 1001, "reason": ""}})

    def refuse_stream(self, code: int = 6, error: str = "Connection refused (system error 111)") -> None:
        """An ``::error``: the module takes itself off."""
        self.attached = False
        self.custom("error", {"status": "error", "message": {"code": code, "error": error}})

    def _execute(self, command: str) -> None:
        lines = fields(command)
        application, argument = lines["execute-app-name"], lines.get("execute-app-arg", "")
        event_uuid = lines.get("Event-UUID", "made-by-freeswitch")
        self.applications.append((application, argument))
        self.story.append(f"{application} {argument}".strip())
        if self.down:
            self.peer.send(wire.reply("-ERR invalid session id"))
            return
        self.peer.send(wire.reply("+OK"))
        if application == "answer":
            self._answer()
            self.complete(application, event_uuid)
        elif application == "endless_playback":
            return
        elif application == "set":
            name, _, value = argument.partition("=")
            self.variables[name] = value
            self.complete(application, event_uuid)
        elif application == "respond":
            if self.answered:
                self.violations.append(f"respond {argument} on an answered call")
            self.hang_up("send_refuse", "CALL_REJECTED")
        else:
            self.violations.append(f"{application} {argument}")
            self.complete(application, event_uuid)
        if application != "respond" and re.search(r"hangup|park|transfer|bridge", application):
            self.violations.append(application)
