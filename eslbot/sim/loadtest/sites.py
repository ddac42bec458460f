"""What is called: a laboratory on this machine, or an installation that exists."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from eslbot.sim.lab import Lab, Tenant
from eslbot.sim.loadtest.figures import BOT, ESLBOT, FREESWITCH
from eslbot.sim.loadtest.profiles import Plan
from eslbot.sim.pbx import AmeyoServer, Pbx
from eslbot.sim.processes import children
from eslbot.sim.service import LabError

TENANT = "load"
#: RTP ports of a laboratory begin here, and stay below those that the kernel gives out.
FIRST_RTP, LAST_RTP = 10_000, 31_999
#: Seconds for the bot to start.
START_LIMIT = 10.0


def nothing() -> list[dict[str, Any]]:
    """Where nobody tells."""
    return []


@dataclass(frozen=True)
class Site:
    """Where the calls go, and who can tell about them.

    Attributes:
        name: for people.
        hand_off: whether each call has to be handed off to ``ameyo``.
        hangup_after: seconds from the answer until the caller hangs up; None where he waits.
        bot_events: lines of our own bot.
        eslbot_lines: eslbot's log since the start; None where it cannot be read.
        complaints: FreeSWITCH's errors since the start.
        watched: the processes that are here, by group.
    """

    name: str
    pbx: Pbx
    ameyo: AmeyoServer | None
    workspace: str
    hand_off: bool
    hangup_after: float | None = None
    local_ip: str = "127.0.0.1"
    bot_events: Callable[[], list[dict[str, Any]]] = nothing
    eslbot_lines: Callable[[], list[dict[str, Any]]] | None = None
    complaints: Callable[[], Counter[str]] = Counter
    watched: Callable[[], dict[str, list[int]]] = dict
    details: Sequence[str] = field(default_factory=list)


class BotProcess:
    """``python -m eslbot.sim.loadtest.bot``; ``events`` is what it has told. A context manager."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.port = 0
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "eslbot.sim.loadtest.bot"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._read, name="bot's events", daemon=True)
        self._reader.start()
        if not self._ready.wait(START_LIMIT):
            self.__exit__(None, None, None)
            raise LabError(f"the load's bot did not start within {START_LIMIT:g} s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
        self._reader.join(5)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                event = json.loads(line)
                if event["event"] == "ready":
                    self.port = event["port"]
                    self._ready.set()
                else:
                    self.events.append(event)


@contextmanager
def laboratory(
    folder: Path, plan: Plan, *, switch: str, workers: int, max_calls: int, hangup_after: float | None
) -> Iterator[Site]:
    """A whole contact centre on loopback, its bot made for the plan. Raises LabError, FreeSwitchError."""
    with ExitStack() as stack:
        bot = stack.enter_context(BotProcess())
        url = f"ws://127.0.0.1:{bot.port}/?seconds={plan.call_seconds:g}"
        tenant = Tenant(
            TENANT, url, workspace={"max_calls": max_calls * workers, "max_duration": _duration(plan)}
        )
        lab = Lab(folder, [tenant], switch=switch, workers=workers, max_calls=max_calls)
        lab.rtp_ports = rtp_ports(plan.at_once, lab.rtp_ports)
        stack.enter_context(lab)
        arbiter = lab.service
        assert arbiter is not None

        def watched() -> dict[str, list[int]]:
            own = [arbiter.pid, *children(arbiter.pid)]
            return {FREESWITCH: [lab.switch.pid], ESLBOT: own, BOT: [bot.pid]}

        log = lab.real_switch.log_file if lab.real_switch is not None else None
        yield Site(
            name=f"a laboratory on this machine: {lab.switch_name}",
            pbx=lab.pbx,
            ameyo=lab.ameyo,
            workspace=tenant.id,
            hand_off=hangup_after is None,
            hangup_after=hangup_after,
            bot_events=lambda: list(bot.events),
            eslbot_lines=lab.log_lines,
            complaints=lambda: complaints(log.read_text(errors="replace") if log is not None else ""),
            watched=watched,
            details=[
                f"eslbot: {workers} workers of {max_calls} calls each; {_ports(lab.rtp_ports)}",
                f"bot: speaks 2 s and pauses 1 s by turns, ends after {plan.call_seconds:g} s",
            ],
        )


def _duration(plan: Plan) -> str:
    return f"{int(plan.call_seconds) + 600}s"


def _ports(ports: tuple[int, int]) -> str:
    return f"RTP ports {ports[0]}-{ports[1]} (two a call)"


def rtp_ports(at_once: int, given: tuple[int, int]) -> tuple[int, int]:
    """A range that is wide enough for so many calls at once; ``given`` where it is."""
    wanted = 2 * (at_once + at_once // 4 + 20)  # those of ended calls are not free at once
    if given[1] - given[0] + 1 >= wanted:
        return given
    last = min(LAST_RTP, FIRST_RTP + wanted - 1)
    return FIRST_RTP, last


@contextmanager
def installation(
    target: tuple[str, int],
    workspace: str,
    local_ip: str,
    *,
    ameyo: AmeyoServer | None,
    hangup_after: float | None,
    eslbot_log: Path | None,
    watch: Mapping[str, int],
) -> Iterator[Site]:
    """What is there already; ``watch`` are processes of it that run on this machine. Raises OSError."""
    offset = eslbot_log.stat().st_size if eslbot_log is not None else 0
    with ExitStack() as stack:
        if ameyo is not None:
            try:
                stack.enter_context(ameyo)
            except OSError as error:  # a certificate that cannot be read, too
                raise OSError(f"nobody can be Ameyo at {ameyo.host}:{ameyo.port}: {error}") from error
        pbx = stack.enter_context(Pbx(target, local_ip, ameyo))

        def lines() -> list[dict[str, Any]]:
            assert eslbot_log is not None
            return json_lines(eslbot_log, offset)

        def watched() -> dict[str, list[int]]:
            return {name: [pid, *children(pid)] for name, pid in watch.items()}

        ends = (
            f"callers hang up after {hangup_after:g} s"
            if hangup_after is not None
            else "calls end by Ameyo's BYE, at " + (ameyo.url if ameyo is not None else "nobody's word")
        )
        yield Site(
            name=f"the installation at {target[0]}:{target[1]}, called from {local_ip}",
            pbx=pbx,
            ameyo=ameyo,
            workspace=workspace,
            hand_off=ameyo is not None and hangup_after is None,
            hangup_after=hangup_after,
            local_ip=local_ip,
            eslbot_lines=lines if eslbot_log is not None else None,
            watched=watched,
            details=[ends],
        )


def source_for(target: tuple[str, int]) -> str:
    """The address of this machine from which ``target`` is reached. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(target)  # sends nothing
        address: str = probe.getsockname()[0]
        return address


def is_own(ip: str) -> bool:
    """Whether calls can come from this address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((ip, 0))
        except OSError:
            return False
    return True


def json_lines(path: Path, offset: int) -> list[dict[str, Any]]:
    """The JSON objects of a log behind ``offset`` bytes, from its beginning where it was rotated since."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) >= offset:
            file.seek(offset)
        else:
            file.seek(0)
        text = file.read().decode(errors="replace")
    found = []
    for line in text.splitlines():
        if line.startswith("{"):
            with suppress(ValueError):  # its end is not written yet
                found.append(json.loads(line))
    return found


def complaints(log: str) -> Counter[str]:
    """FreeSWITCH's errors, without what differs from call to call."""
    found: Counter[str] = Counter()
    for match in re.finditer(r"\[(?:ERR|CRIT|ALERT)\] (\S+?):\d+ (.*)", log):
        text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|sofia/\S+|\d{4,}", "…", match[2]).strip()
        found[text] += 1
    return found


def wait_for(done: Callable[[], bool], seconds: float) -> bool:
    """Whether ``done`` came true within so many seconds: other processes do it, there is no event."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
