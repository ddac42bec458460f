"""The figures, and what they are against the bars of issues 4 and 14."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.frame import About
from benchmarks.outcome import Verdict
from benchmarks.reliability.results import Away, Death, Deploys, Storm, TakeOvers
from benchmarks.report import verdict_table
from eslbot.sim.loadtest.tables import ms, percentile
from tests.support.audit import Account, Duplicate, Ending, Entry

#: The bars.
GAP_MEDIAN, GAP_P99 = 0.020, 0.100
#: Seconds from FreeSWITCH's death to audio, with one call and with many.
BACK, ALL_BACK = 2.0, 3.0


@dataclass
class Report:
    """One run. ``failures`` are cases that could not be measured."""

    about: About
    workers: int
    seed: int
    speaking: TakeOvers | None = None
    parked: TakeOvers | None = None
    away: Away | None = None
    storm: Storm | None = None
    deploys: list[Deploys] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def accounts(self) -> list[tuple[str, Account]]:
        """The account of each case that was run."""
        named: list[tuple[str, Account | None]] = [
            ("kills, the bot speaking", self.speaking and self.speaking.account),
            ("kills, parked", self.parked and self.parked.account),
            ("no eslbot", self.away and self.away.account),
            ("storm", self.storm and self.storm.account),
            *((case.name, case.account) for case in self.deploys),
            *((f"FreeSWITCH dies: {case.name}", case.account) for case in self.deaths),
        ]
        return [(name, account) for name, account in named if account is not None]

    # -- against the bars ---------------------------------------------------------------------------------

    def verdicts(self) -> list[Verdict]:
        """Every bar of the issue, in its order."""
        return [
            self._gap(),
            self._uplink(),
            self._survived(),
            self._away(),
            self._storm(),
            *(self._deploys(name) for name in ("hup", "rolling")),
            *(self._death(case) for case in self.deaths),
            self._duplicates(),
        ]

    def _death(self, case: Death) -> Verdict:
        bar = BACK if case.calls == 1 else ALL_BACK
        accepted = sum(case.outcomes.values())
        text = f"{len(case.back)} of {case.calls} back, {_spread(case.back) if case.back else ''}; "
        text += f"{case.byes} BYE from us, {case.done} handed off ({case.posts} POSTs), "
        text += ", ".join(f"{count} × {outcome}" for outcome, count in sorted(case.outcomes.items()))
        text += f"; {case.unbroken} of {case.bots} WebSockets unbroken" if case.bots else ""
        met = (
            len(case.back) == case.done == accepted == case.calls
            and case.back[-1] <= bar
            and case.unbroken == case.bots
        )
        met = met and not (case.byes or (case.account is not None and case.account.guilty))
        return Verdict(
            f"FreeSWITCH dies and starts again, {case.calls} calls {case.name}",
            f"all back ≤ {ms(bar)}, 0 BYE, 0 duplicates, bots unbroken",
            text,
            met and set(case.outcomes) == {"bot_ended"},
        )

    def _gap(self) -> Verdict:
        measure = "SIGKILL while the bot talks → the next worker's `connect` is answered"
        bar = f"p50 ≤ {ms(GAP_MEDIAN)}, p99 ≤ {ms(GAP_P99)} of 200"
        if self.speaking is None or not self.speaking.kills:
            return Verdict(measure, bar, "", None)
        gaps = [kill.answered for kill in self.speaking.kills]
        met = percentile(gaps, 50) <= GAP_MEDIAN and percentile(gaps, 99) <= GAP_P99
        text = f"{_spread(gaps)} of {len(gaps)}"
        return Verdict(measure, bar, text, met and len(gaps) == self.speaking.wanted)

    def _uplink(self) -> Verdict:
        measure, bar = "uplink frames lost per take-over while parked", "median 0"
        case = self.parked
        if case is None:
            return Verdict(measure, bar, "", None)
        if not case.lost:
            return Verdict(measure, bar, "the bot's stream survived no take-over", False)
        median = percentile(case.lost, 50)
        text = f"median {median:g}, p99 {percentile(case.lost, 99):g}, most {max(case.lost)} "
        text += f"of {len(case.lost)} take-overs that the bot's stream survived (of {len(case.kills)}); "
        text += f"{case.lost_elsewhere} lost at no kill"
        text += f", {case.left_out} were never sent, this machine being too busy" if case.left_out else ""
        return Verdict(measure, bar, text, median == 0 and len(case.lost) == case.wanted)

    def _survived(self) -> Verdict:
        measure, bar = "kills survived in one call", "all"
        case = self.speaking
        if case is None:
            return Verdict(measure, bar, "", None)
        stays = sum(kill.bot_stays for kill in case.kills)
        text = f"{len(case.kills)} of {case.wanted}, the bot's stream unbroken after {stays}; "
        text += f"{'handed off by order' if case.handed_off else 'NOT handed off'}"
        text += f"; {case.error}" if case.error else ""
        met = len(case.kills) == stays == case.wanted and case.handed_off
        return Verdict(measure, bar, text, met)

    def _away(self) -> Verdict:
        case = self.away
        measure = f"no eslbot for {case.seconds if case else 5:g} s in mid-call, then back"
        bar = "call alive, hand-off done"
        if case is None:
            return Verdict(measure, bar, "", None)
        done = case.account.count(Ending.HANDED_OFF)
        text = f"{case.alive} of {case.calls} alive, {done} handed off; "
        text += f"taken over {_spread(case.back)} after the start of `eslbot serve`"
        return Verdict(measure, bar, text, case.alive == done == case.calls and not case.account.guilty)

    def _storm(self) -> Verdict:
        measure, bar = "calls under a SIGKILL of a random worker every 500 ms", "all notified, 0 BYE from us"
        if self.storm is None:
            return Verdict(measure, bar, "", None)
        account = self.storm.account
        done, calls = account.count(Ending.HANDED_OFF), len(account.entries)
        text = f"{done} of {calls} notified and ended by the PBX, {account.byes} BYE from us, "
        text += f"{self.storm.kills} kills"
        return Verdict(measure, bar, text, done == calls and not account.byes)

    def _deploys(self, name: str) -> Verdict:
        measure = {"hup": "HUP under load", "rolling": "rolling restart (TERM) under load"}[name]
        bar = "0 failed calls, 0 gaps > 60 ms"
        case = next((case for case in self.deploys if case.name == name), None)
        if case is None:
            return Verdict(measure, bar, "", None)
        return Verdict(measure, bar, deploys_text(case), not failed(case) and not case.gaps)

    def _duplicates(self) -> Verdict:
        measure = "duplicate notifications in all of the above"
        bar = "0, except where the kill fell between Ameyo's 2xx and the record of it"
        accounts = self.accounts()
        if not accounts:
            return Verdict(measure, bar, "", None)
        whys = [why for _, account in accounts for _, why in account.duplicates]
        calls = sum(len(account.entries) for _, account in accounts)
        text = f"{len(whys)} in {calls} calls" + "".join(
            f"; {whys.count(why)}: {why}" for why in Duplicate if why in whys
        )
        return Verdict(measure, bar, text, Duplicate.UNEXCUSED not in whys)

    # -- telling ------------------------------------------------------------------------------------------

    def text(self) -> str:
        """All of it, as Markdown."""
        parts = [
            self.about.head("Reliability", f"{self.workers} workers, seed {self.seed}"),
            verdict_table(self.verdicts(), "not measured"),
            *self._details(),
        ]
        parts += [f"could not be measured: {failure}\n" for failure in self.failures]
        return "\n".join(parts)

    def _details(self) -> Iterable[str]:
        for name, case in (("speaking", self.speaking), ("parked", self.parked)):
            if case is not None and case.kills:
                yield f"Kills while {name}, from the signal, min / p50 / p99 / max:\n"
                yield f"* the worker's connection closed: {_spread([k.released for k in case.kills])}"
                yield f"* connection of the next controller: {_spread([k.opened for k in case.kills])}"
                yield f"* its `connect`: {_spread([k.connected for k in case.kills])}"
                yield f"* FreeSWITCH's answer to it: {_spread([k.answered for k in case.kills])}"
                yield f"* the bot's WebSockets in the call: {case.bots}\n"
        for case in self.deploys:
            yield f"Under `{case.name}`: {deploys_text(case)}."
            for entry in failed(case)[:20]:
                call = entry.call
                yield f"* {call.crt_object_id}: {entry.ending} ({call.status}, {call.cause}, {call.error})"
            for crt, gap in case.gaps[:20]:
                yield f"* {crt}: {ms(gap.seconds)} inside {gap.tone:g} Hz, {_behind(gap.at, case.deploys)}"
            yield ""
        for name, account in self.accounts():
            yield f"The account of {name}:\n\n```\n{account.table()}\n```\n"

    def json(self) -> str:
        """All of it, every raw figure, as JSON."""
        document: dict[str, Any] = {
            "verdicts": [dataclasses.asdict(verdict) for verdict in self.verdicts()],
            **dataclasses.asdict(self),
        }
        return json.dumps(document, indent=1, default=_plain)


def failed(case: Deploys) -> list[Entry]:
    """The calls that were not answered and handed off as if nothing had happened."""
    return [entry for entry in case.account.entries if entry.guilty or entry.ending is not Ending.HANDED_OFF]


def deploys_text(case: Deploys) -> str:
    """One line of figures."""
    lost = failed(case)
    text = f"{len(case.account.entries)} calls, {len(case.deploys)} deploys; {len(lost)} failed, "
    text += f"{len(case.gaps)} gaps > 60 ms"
    if case.gaps:
        text += f" (longest {ms(max(gap.seconds for _, gap in case.gaps))})"
    text += f", {len(case.cut)} calls heard more than 60 ms less than was said"
    if case.cut:
        text += f" (most {ms(max(missing for _, missing in case.cut))})"
    return text


def _behind(at: float, deploys: Sequence[float]) -> str:
    before = [deploy for deploy in deploys if deploy <= at]
    return f"{at - before[-1]:.2f} s behind a deploy" if before else "before any deploy"


def _spread(values: Sequence[float]) -> str:
    return "min / p50 / p99 / max " + " / ".join(ms(percentile(values, p)) for p in (0, 50, 99, 100))


def _plain(value: object) -> object:
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)
