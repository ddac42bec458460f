"""The API commands a controller may call (mod_commands.c, mod_audio_stream.c), each with FreeSWITCH's own
replies."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

from . import audio_stream
from .causes import named
from .channel import Channel
from .core import Core
from .session import Command
from .wire import ENCODING, ERRORS, leading_number, separate, serialise

_NO_CHANNEL = "-ERR No such channel!\n"
_DISPLACE_USAGE = "-USAGE: <uuid> [start|stop] <path> [<limit>] [mux]\n"


#: An API command's reply: its text, or what takes its time until there is one.
Reply = str | Coroutine[Any, Any, str]


#: What `fsctl` tells of a switch that is neither paused nor going; and what `sofia` does of its one profile.
CHECKS = ("pause_check", "pause_check inbound", "pause_check outbound", "shutdown_check")
PROFILES = "ameyo\tprofile\tsip:stand-in\tRUNNING (0)\n1 profile 0 aliases\n"


class Api:
    """Runs API commands. All but ``uuid_audio_stream … stop`` end at once."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._commands: dict[str, Callable[[str], Reply]] = {
            "bgapi": self._bgapi,
            "uuid_setvar": self._setvar,
            "uuid_setvar_multi": self._setvar_multi,
            "uuid_getvar": self._getvar,
            "uuid_answer": self._answer,
            "uuid_exists": lambda arguments: "true" if arguments in core.channels else "false",
            "uuid_dump": self._dump,
            "uuid_break": self._break,
            "break": self._break,
            "uuid_kill": self._kill,
            "uuid_broadcast": self._broadcast,
            "uuid_displace": self._displace,
            "uuid_jitterbuffer": self._jitterbuffer,
            "uuid_audio_stream": lambda arguments: audio_stream.command(core, arguments),
            "global_getvar": self._global_getvar,
            "status": self._status,
            "fsctl": lambda arguments: "false" if arguments in CHECKS else "-ERR this is the stand-in\n",
            "sofia": lambda arguments: PROFILES if arguments == "status" else "-ERR this is the stand-in\n",
            "uptime": lambda _: f"{time.time() - core.started:.0f}\n",
        }

    def run(self, name: str, arguments: str) -> Reply:
        """The text of the reply; an empty one is ``-ERR no reply`` on the wire."""
        command = self._commands.get(name.lower())
        return command(arguments) if command is not None else f"-ERR {name} Command not found!\n"

    async def job(self, name: str, arguments: str, fields: list[tuple[str, str]]) -> None:
        """Run a command in the background and fire BACKGROUND_JOB with ``fields`` when it is done."""
        reply = self.run(name, arguments)
        content = reply if isinstance(reply, str) else await reply
        about = [*fields, ("Job-Command", name), *([("Job-Command-Arg", arguments)] if arguments else [])]
        self._core.fire(self._core.event("BACKGROUND_JOB", about, content))

    def _bgapi(self, arguments: str) -> str:
        """mod_commands' own, which any connection may use and none waits for."""
        job = str(uuid.uuid4())
        if arguments.lower().startswith("uuid:"):
            job, _, arguments = arguments[5:].partition(" ")
        if not arguments:
            return "-ERR Invalid syntax\n"
        name, _, rest = arguments.partition(" ")
        self._core.tasks.start(self.job(name, rest, [("Job-UUID", job)]), f"job {job}")
        return f"+OK Job-UUID: {job}\n"

    def _setvar(self, arguments: str) -> str:
        argv = separate(arguments, limit=3)
        if len(argv) < 2 or not argv[0]:
            return "-USAGE: <uuid> <var> [value]\n"
        channel = self._core.channels.get(argv[0])
        if channel is None:
            return _NO_CHANNEL
        if not argv[1]:
            return "-ERR No variable specified\n"
        channel.variables.set(argv[1], argv[2] if len(argv) > 2 else None)
        return "+OK\n"

    def _setvar_multi(self, arguments: str) -> str:
        identifier, space, pairs = arguments.partition(" ")
        if not space:
            return ""
        usage = "-USAGE: <uuid> <var>=<value>;<var>=<value>...\n"
        channel = self._core.channels.get(identifier)
        if channel is None:
            return _NO_CHANNEL + usage
        done, complaints = False, ""
        for pair in separate(pairs, ";"):
            name, _, value = pair.partition("=")
            if name:
                channel.variables.set_from_network(name, value)
                done = True
            else:
                complaints += "-ERR No variable specified\n"
        return complaints + ("+OK\n" if done else usage)

    def _getvar(self, arguments: str) -> str:
        argv = separate(arguments, limit=4)
        if len(argv) < 2 or not argv[0]:
            return "-USAGE: <uuid> <var>\n"
        channel = self._core.channels.get(argv[0])
        return channel.variables.get(argv[1], "_undef_") if channel is not None else _NO_CHANNEL

    def _answer(self, identifier: str) -> str:
        channel = self._core.channels.get(identifier)
        if channel is None:
            return "-ERROR\n"
        channel.answer()
        return "+OK\n" if channel.answered and not channel.down else "-ERROR\n"

    def _dump(self, arguments: str) -> str:
        argv = separate(arguments, limit=2)
        if not argv:
            return "-USAGE: <uuid> [format]\n"
        channel = self._core.channels.get(argv[0])
        if channel is None:
            return _NO_CHANNEL
        return serialise(self._core.event("CHANNEL_DATA", channel.headers()).headers).decode(ENCODING, ERRORS)

    def _break(self, arguments: str) -> str:
        if not arguments:
            return "-USAGE: <uuid> [all]\n"
        identifier, _, flag = arguments.partition(" ")
        channel = self._core.channels.get(identifier)
        if channel is None:
            return _NO_CHANNEL
        channel.stop_application(flush="all" in flag)
        return "+OK\n"

    def _kill(self, arguments: str) -> str:
        if not arguments:
            return "-USAGE: <uuid> [cause]\n"
        identifier, _, cause = arguments.partition(" ")
        channel = self._core.channels.get(identifier)
        if channel is None:
            return _NO_CHANNEL
        channel.hangup(named(cause))
        return "+OK\n"

    def _broadcast(self, arguments: str) -> str:
        argv = separate(arguments, limit=4)
        if len(argv) < 2:
            return "-USAGE: <uuid> <path> [aleg|bleg|holdb|both]\n"
        channel: Channel | None = self._core.channels.get(argv[0])
        if channel is None:
            return "-ERR invalid uuid\n"
        app, separator, rest = argv[1].partition("::")
        command = (app.partition("!")[0], rest) if separator else ("playback", argv[1])
        channel.enqueue(Command("execute", *command, locked=True))  # as switch_ivr_broadcast: event-lock true
        return "+OK Message sent\n"

    def _displace(self, arguments: str) -> str:
        argv = separate(arguments, limit=5)
        action = argv[1].lower() if len(argv) > 1 else ""
        if len(argv) < 3 or not all(argv[:3]):
            return _DISPLACE_USAGE
        channel = self._core.channels.get(argv[0])
        if channel is None:
            return "-ERR Cannot locate session!\n"
        path, limit, flags = argv[2], leading_number(argv[3]) if len(argv) > 3 else 0, "".join(argv[4:])
        if action == "start":
            return (
                "+OK Success\n" if channel.displace(path, flags, limit) else "-ERR Cannot displace session!\n"
            )
        if action == "stop":
            stopped = channel.media.stop_displace(path)
            return "+OK Success\n" if stopped else "-ERR Cannot stop displace session!\n"
        return _DISPLACE_USAGE

    def _jitterbuffer(self, arguments: str) -> str:
        argv = separate(arguments, limit=2)
        if len(argv) < 2:
            return "-USAGE: <uuid> [0|<min_msec>[:<max_msec>]]\n"
        channel = self._core.channels.get(argv[0])
        if channel is None:
            return "-ERR Operation failed\n"
        channel.media.buffer(leading_number(argv[1]))  # whatever it is, FreeSWITCH says OK; `off` is none
        return "+OK Success\n"

    def _global_getvar(self, arguments: str) -> str:
        if not arguments:
            return "".join(f"{name}={value}\n" for name, value in self._core.globals.items())
        return self._core.globals.get(arguments, "")

    def _status(self, arguments: str) -> str:
        up = int(time.time() - self._core.started)
        days, hours, minutes, seconds = up // 86400, up // 3600 % 24, up // 60 % 60, up % 60
        return (
            f"UP 0 years, {days} days, {hours} hours, {minutes} minutes, {seconds} seconds\n"
            "eslbot stand-in switch is ready\n"
            f"{len(self._core.channels)} session(s)\n"
        )
