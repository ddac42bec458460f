"""Cases on :class:`eslbot.sim.lab.Lab` with a real FreeSWITCH."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.machine import Cpu, memory
from benchmarks.outcome import CannotRun, Data
from benchmarks.plan import Plan
from eslbot.sim import freeswitch
from eslbot.sim.lab import Tenant
from eslbot.sim.pbx import LoadResult, SippMissing
from eslbot.sim.pbx.sipp import find_sipp
from tests.support.lab import Lab

#: Bots that say nothing, that never stop talking, and that talk and listen in turns and then end.
LISTENS, SPEAKS, CONVERSES = "listens", "speaks", "converses"
#: Seconds that a bot of CONVERSES speaks, and listens, in a turn.
TURN = 3.0
#: Who is called where the dialplan only answers, and seconds that a call for its set-up lasts.
ONLY_ANSWER, SHORT = "only-answer", 1.0
#: Calls before the ones that count.
WARM_UP = 10
#: Calls a second where many are to be up together, and where they come and go.
RATE, CONVERSATION_RATE = 15.0, 2.0
#: Seconds: for calls to come up, until they are at rest, and for all of a load to be over.
UP_LIMIT, SETTLE, LOAD_LIMIT = 30.0, 2.0, 180.0

_ONLY_ANSWER = f"""
  <extension name="{ONLY_ANSWER}">
    <condition field="destination_number" expression="^{ONLY_ANSWER}$">
      <action application="answer"/>
      <action application="park"/>
    </condition>
  </extension>
"""
_ARRIVAL = '<extension name="arrival">'


class SwitchCases:
    """The cases; ``say`` is told what goes on."""

    def __init__(self, plan: Plan, folder: Path, say: Callable[[str], None]) -> None:
        self.plan, self.folder, self._say = plan, folder, say

    @contextmanager
    def _lab(self, name: str) -> Iterator[Lab]:
        if freeswitch.find() is None:
            raise CannotRun(
                "no FreeSWITCH with mod_audio_stream on this machine; ESLBOT_FREESWITCH may name its binary"
            )
        try:
            find_sipp()
        except SippMissing as error:
            raise CannotRun(str(error)) from error
        folder = self.folder / name
        folder.mkdir()
        turns = f"speak_ms={TURN * 1000:g}&listen_ms={TURN * 1000:g}&turns={self.plan.turns}"
        keys = {"first_audio_timeout": "300s"}
        tenants = [
            Tenant(LISTENS, "hold?greeting_ms=0", bot_keys=keys),
            Tenant(SPEAKS, "drone?seconds=0&chunk_ms=100", bot_keys=keys),
            Tenant(CONVERSES, f"converse?{turns}&chunk_ms=100", bot_keys=keys),
        ]
        self._say(f"{name}: starting FreeSWITCH, eslbot, a bot, a PBX")
        with Lab(folder, tenants, switch="freeswitch", workers=2) as lab:
            yield lab

    # -- set-up -------------------------------------------------------------------------------------------

    def set_up(self) -> Data:
        """INVITE → 200 by eslbot, and by a dialplan that only answers, in turns on the same FreeSWITCH."""
        plan = self.plan
        rounds: dict[str, list[list[float]]] = {"eslbot": [], ONLY_ANSWER: []}
        with self._lab("set-up") as lab:
            _add_only_answer(lab)
            users = {"eslbot": "bot", ONLY_ANSWER: ONLY_ANSWER}
            for user in users.values():
                self._load(lab, user, WARM_UP)
            for number in range(plan.rounds):
                # Neither is always the one behind the other.
                for subject in sorted(users, reverse=bool(number % 2)):
                    self._say(f"set-up, round {number + 1}: {subject}")
                    found = self._load(lab, users[subject], plan.set_up)
                    times = [
                        (d.answered_at - d.invited_at) * 1000
                        for d in found.dialogs.values()
                        if d.answered_at is not None and d.invited_at is not None
                    ]
                    rounds[subject].append(times)
            name = lab.switch_name
        return {"switch": name, "rate": plan.set_up_rate, "rounds": rounds}

    def _load(self, lab: Lab, user: str, calls: int) -> LoadResult:
        found = lab.pbx.load(
            calls,
            self.plan.set_up_rate,
            workspace_id=lab.tenants[LISTENS].id,
            user=user,
            hangup_after=SHORT,
            timeout=LOAD_LIMIT,
        )
        return _complete(found)

    # -- what it uses -------------------------------------------------------------------------------------

    def media(self) -> Data:
        """Processor time and memory of eslbot beside FreeSWITCH's, with the caller's speech in every call."""
        plan = self.plan
        with self._lab("media") as lab:
            self._load(lab, "bot", WARM_UP)
            pids = _pids(lab)
            time.sleep(SETTLE)
            rest = _cores(pids, 3.0)
            before = {who: memory(of) for who, of in pids.items()}
            phases = []
            for name in (LISTENS, SPEAKS):
                self._say(f"media: {plan.media} calls, the bot {name}")
                with self._held(lab, name):
                    used = _cores(pids, plan.media_seconds)
                    grown = {who: (memory(of) - before[who]) / plan.media / 1000 for who, of in pids.items()}
                phases.append({"bot": name, "calls": plan.media, "cores": used, "kb_per_call": grown})
            self._say(f"media: {plan.conversations} conversations")
            whole = self._conversations(lab, pids)
            name = lab.switch_name
        return {"switch": name, "rest": rest, "phases": phases, "whole": whole}

    @contextmanager
    def _held(self, lab: Lab, tenant: str) -> Iterator[None]:
        """Calls of ``tenant`` are up, and at rest; leaving waits until they are over."""
        plan = self.plan
        known = len(lab.bot.calls)
        stays = plan.media / RATE + 2 * SETTLE + plan.media_seconds
        results: list[LoadResult | BaseException] = []

        def place() -> None:
            try:
                results.append(
                    lab.pbx.load(
                        plan.media,
                        RATE,
                        workspace_id=lab.tenants[tenant].id,
                        hangup_after=stays,
                        timeout=LOAD_LIMIT,
                    )
                )
            except BaseException as error:  # noqa: BLE001  # raised below, in the caller's thread
                results.append(error)

        thread = threading.Thread(target=place, name="load", daemon=True)
        thread.start()
        deadline = time.monotonic() + UP_LIMIT
        while len(lab.bot.calls) - known < plan.media and not results:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(lab.bot.calls) - known} of {plan.media} calls reached their bot")
            time.sleep(0.05)
        time.sleep(SETTLE)
        yield
        thread.join(LOAD_LIMIT)
        for result in results:
            if isinstance(result, BaseException):
                raise result
            _complete(result)

    def _conversations(self, lab: Lab, pids: dict[str, list[int]]) -> Data:
        plan = self.plan
        began = time.monotonic()
        used = {who: Cpu(of) for who, of in pids.items()}
        found = _complete(
            lab.pbx.load(
                plan.conversations,
                CONVERSATION_RATE,
                workspace_id=lab.tenants[CONVERSES].id,
                timeout=LOAD_LIMIT,
            )
        )
        cores = {who: cpu.cores() for who, cpu in used.items()}
        seconds = time.monotonic() - began
        lasted = [
            d.bye_at - d.answered_at
            for d in found.dialogs.values()
            if d.bye_at is not None and d.answered_at is not None
        ]
        return {
            "calls": plan.conversations,
            "seconds": seconds,
            "cores": cores,
            "call_seconds": statistics.fmean(lasted),
            "spoken_seconds": plan.turns * TURN,
        }


def _add_only_answer(lab: Lab) -> None:
    """Another extension in the lab's own copy of the configuration."""
    assert lab.real_switch is not None
    path = lab.real_switch.conf / "dialplan" / "ameyo.xml"
    path.write_text(with_only_answer(path.read_text()))
    told = lab.real_switch.api("reloadxml")
    if "+OK" not in told:
        raise RuntimeError(f"FreeSWITCH did not read the dialplan again: {told}")


def with_only_answer(dialplan: str) -> str:
    """``dialplan`` with an extension before ours that answers whoever calls ONLY_ANSWER, and no more."""
    if dialplan.count(_ARRIVAL) != 1:
        raise RuntimeError(f"the dialplan has no extension {_ARRIVAL!r} to put another one before")
    return dialplan.replace(_ARRIVAL, _ONLY_ANSWER + _ARRIVAL)


def _complete(found: LoadResult) -> LoadResult:
    if found.completed != found.calls:
        raise RuntimeError(
            f"{found.calls - found.completed} of {found.calls} calls did not go by the book: refused "
            f"{dict(found.refused)}, BYE from the switch {found.unexpected_byes}, failed {found.failed}: "
            f"{found.error}"
        )
    return found


def _pids(lab: Lab) -> dict[str, list[int]]:
    assert lab.real_switch is not None and lab.service is not None
    return {
        "eslbot": [lab.service.pid, *lab.services[0].worker_pids()],
        "FreeSWITCH": [lab.real_switch.pid],
    }


def _cores(pids: dict[str, list[int]], seconds: float) -> dict[str, float]:
    used = {who: Cpu(of) for who, of in pids.items()}
    time.sleep(seconds)
    return {who: cpu.cores() for who, cpu in used.items()}
