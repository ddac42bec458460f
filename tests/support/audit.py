"""The account: after a run, what became of every call, and whether the promises were kept.

An answered call ends in a notification that Ameyo accepted, or its caller hung up first. Nobody but the PBX
ends it. A notification comes once; a second one is excused only where a fault of the call's own controller
fell between the moment the first one could have been on its way and that at which its acceptance could have
been written down. Where FreeSWITCH itself dies, what it could not have written down goes with it: calls that
were not answered, and calls of the last second. Of those, and of callers whose BYE fell into its absence,
Ameyo is told later, when they may be gone. Nothing stays behind.

Here is only judging, over plain records: what was seen is gathered by :mod:`tests.support.chaos.witness`.
Times are epoch seconds.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Any

#: Seconds before its arrival in which a notification may have been on its way: a fault may then
#: have kept the next controller from knowing of it.
ON_ITS_WAY = 0.5
#: Seconds after Ameyo's 2xx went out in which a fault may keep it from being written down.
RECORD_LIMIT = 0.5
#: Seconds a caller may wait for a notification behind the bot's end while everything works.
PATIENCE = 10.0
#: Seconds behind a fault of eslbot's in which a new call may still be refused: workers have to come up.
RECOVERY_LIMIT = 5.0
#: Seconds behind the answer until FreeSWITCH has written a call down for whoever comes after it.
YOUNG = 1.0
#: Seconds around FreeSWITCH's absence in which a BYE may reach no controller: it still says what it heard
#: last, and the next one has yet to connect.
UNHEARD = (0.5, 2.0)
#: Seconds behind its death until Ameyo is told of a call that does not come back with it.
STRANDED_LIMIT = 22.0
#: Seconds in which the second death of FreeSWITCH takes the bot's part from a call that was up at both.
CRASHES_WITHIN = 60.0
#: Seconds without a relay, from which on a call goes to an agent.
RELAY_LIMIT = 5.0
#: Seconds before the bot's end and behind the call's in which the death of a relay may leave its files.
AT_ITS_END = 1.0
#: Outcomes that say that a take-over did not know where the call was, or that eslbot failed.
LOST_OUTCOMES = ("controller_lost", "relay_lost", "switch_lost", "internal_error")
#: Sockets of a worker, beyond the switch's: two listeners, and pools of connections to Ameyo.
SOCKETS_LIMIT = 60


class Ending(StrEnum):
    """How a call of the account ended."""

    HANDED_OFF = "handed off"
    CALLER_FIRST = "caller hung up first"
    REFUSED = "refused"
    LOST_WITH_SWITCH = "lost with FreeSWITCH, as documented"
    LOST = "lost"


class Duplicate(StrEnum):
    """Why a call was notified again."""

    CONTROLLER_LOST = "its controller was lost before it could write the acceptance down"
    ANSWER_LOST = "Ameyo went away while it answered"
    UNEXCUSED = "no excuse"


@dataclass(frozen=True)
class Fault:
    """Something done to the lab from ``at`` to ``until``; ``calls`` are the CRT Object IDs hit, None for all.

    ``hits`` is ``controller`` (kill, stop, stall or reset of eslbot), ``reload`` (of its workers, which
    excuses nothing), ``ameyo``, ``bot``, ``relay``, ``switch`` (a command), ``crash`` (FreeSWITCH dies,
    until the next one takes calls) or ``disk`` (no room for line files).
    """

    kind: str
    at: float
    until: float
    hits: str
    calls: frozenset[str] | None = None
    detail: str = ""

    def touches(self, crt_object_id: str, begin: float, end: float) -> bool:
        """Whether it hit the call at a time from ``begin`` to ``end``."""
        return self.at <= end and self.until >= begin and (self.calls is None or crt_object_id in self.calls)


@dataclass(frozen=True)
class Post:
    """A notification at Ameyo; ``tenant`` is whose host it named, ``problem`` what Ameyo found wrong with it.

    ``cut_off``: its body was shorter than it said, because its sender died. ``properties`` are those of the
    body; ``outcome`` among them is eslbot's word for how the bot's part ended.
    """

    at: float
    answered_at: float | None
    accepted: bool
    status: int | None = None
    crt_object_id: str | None = None
    tenant: str | None = None
    problem: str | None = None
    cut_off: bool = False
    properties: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Placed:
    """A call as the PBX saw it, with what the bot and eslbot said of it.

    Attributes:
        ended_by, cause, error: of :class:`eslbot.sim.pbx.CallResult`; ``ended_by`` None while it is up.
        bot_ended_at: when the bot had sent ``end`` or its connection was gone; None where it never was.
        promised: what the bot gave for Ameyo with its ``end``; None where it did not say ``end``.
        dispositions: ``sip_hangup_disposition`` of each ``call_ended`` line of eslbot's.
        call_id: the channel's UUID, where eslbot has told it.
        invited_at: when it was placed; None where nobody knows.
        bye_at: when the PBX first sent BYE; None where it did not.
    """

    crt_object_id: str
    tenant: str
    answered: bool
    status: int | None = None
    ended_by: str | None = None
    cause: str | None = None
    error: str | None = None
    answered_at: float | None = None
    ended_at: float | None = None
    bot_ended_at: float | None = None
    promised: Mapping[str, str] | None = None
    dispositions: Sequence[str] = ()
    take_overs: int = 0
    call_id: str | None = None
    invited_at: float | None = None
    bye_at: float | None = None


@dataclass(frozen=True)
class Leftovers:
    """What is still there when all calls are over.

    Attributes:
        channels: of the switch.
        calls_active: eslbot's own count.
        files: in the switch's temp directory.
        event_sockets: connections of the switch that workers still have open.
        sockets: of each worker, those included, by process id.
        internal_errors: lines in eslbot's log with a traceback.
    """

    channels: int = 0
    calls_active: float = 0
    files: Sequence[str] = ()
    event_sockets: int = 0
    sockets: dict[int, int] = field(default_factory=dict)
    internal_errors: int = 0


@dataclass(frozen=True)
class Entry:
    """One call's line of the account."""

    call: Placed
    ending: Ending
    accepted: int
    attempts: int
    outcome: str | None
    duplicates: Sequence[Duplicate]
    faults: int
    guilty: Sequence[str]


@dataclass(frozen=True)
class Account:
    """All of it; ``guilty`` is empty where every promise was kept."""

    entries: Sequence[Entry]
    faults: Sequence[Fault]
    leftovers: Leftovers
    to_be_swept: Sequence[str]
    cut_off_posts: int
    general: Sequence[str]

    @property
    def guilty(self) -> list[str]:
        """Every broken promise, a line each."""
        of_calls = [f"{e.call.crt_object_id}: {text}" for e in self.entries for text in e.guilty]
        return [*of_calls, *self.general]

    @property
    def duplicates(self) -> list[tuple[str, Duplicate]]:
        """Each notification that was accepted again: CRT Object ID and why."""
        return [(e.call.crt_object_id, why) for e in self.entries for why in e.duplicates]

    def count(self, ending: Ending) -> int:
        """Calls that ended so."""
        return sum(entry.ending is ending for entry in self.entries)

    @property
    def outcomes(self) -> list[str]:
        """eslbot's word for how the bot's part ended, of every call that was handed off."""
        return [entry.outcome or "none" for entry in self.entries if entry.ending is Ending.HANDED_OFF]

    @property
    def byes(self) -> int:
        """Calls that our side ended with BYE."""
        return sum(entry.call.ended_by == "switch" for entry in self.entries)

    # -- telling ------------------------------------------------------------------------------------------

    def table(self) -> str:
        """For people: the sums, and a line for each call that is guilty or was notified more than once."""
        excused = [why for _, why in self.duplicates if why is not Duplicate.UNEXCUSED]
        answered = sum(entry.call.answered for entry in self.entries)
        silent = sum(entry.call.answered and not entry.call.dispositions for entry in self.entries)
        left, sockets = self.leftovers, self.leftovers.event_sockets
        rows = [
            ("calls", f"{len(self.entries)}, {answered} answered"),
            *((str(ending), str(self.count(ending))) for ending in Ending),
            ("refused with", counts(str(e.call.status) for e in self.entries if e.ending is Ending.REFUSED)),
            ("outcomes told to Ameyo", counts(self.outcomes)),
            ("BYE from our side", str(self.byes)),
            ("notified again", f"{len(self.duplicates)}, excused {len(excused)}"),
            ("take-overs told", str(sum(entry.call.take_overs for entry in self.entries))),
            ("ended while no controller had them", f"{silent} (no last line in eslbot's log)"),
            ("notifications cut off by a fault", str(self.cut_off_posts)),
            ("faults", counts(fault.kind for fault in self.faults)),
            (
                "channels, calls, event sockets left",
                f"{left.channels}, {left.calls_active:g}, {sockets}",
            ),
            ("files left", f"{len(left.files)}, of which eslbot sweeps {len(self.to_be_swept)} by age"),
            ("sockets of the workers", ", ".join(map(str, left.sockets.values())) or "–"),
        ]
        lines = [table(rows)]
        for crt, why in self.duplicates:
            lines.append(f"  {crt} notified again: {why}")
        lines += [f"  GUILTY {text}" for text in self.guilty]
        lines.append("the account is clean" if not self.guilty else f"{len(self.guilty)} broken promises")
        return "\n".join(lines)

    def document(self) -> dict[str, Any]:
        """Everything, for a JSON file."""
        document = dataclasses.asdict(self)
        for fault in document["faults"]:
            fault["calls"] = sorted(fault["calls"]) if fault["calls"] is not None else None
        return {"clean": not self.guilty, "guilty": self.guilty, **document}

    def json(self) -> str:
        """:meth:`document` as text."""
        return json.dumps(self.document(), indent=1, default=str)


def counts(words: Iterable[str]) -> str:
    """``3 × this, 1 × that``; of a Counter, what it has counted."""
    return ", ".join(f"{number} × {word}" for word, number in sorted(Counter(words).items())) or "none"


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Two columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)


def account(
    calls: Iterable[Placed],
    posts: Iterable[Post],
    faults: Sequence[Fault],
    leftovers: Leftovers,
    *,
    patience: float = PATIENCE,
) -> Account:
    """Judge a run. ``posts`` are all that Ameyo had, in order of arrival."""
    calls = list(calls)
    known = {call.crt_object_id: call for call in calls}
    of_call: dict[str, list[Post]] = {call.crt_object_id: [] for call in calls}
    general: list[str] = []
    cut_off = 0
    for post in posts:
        if post.cut_off:
            cut_off += 1
        elif post.crt_object_id not in known:
            general.append(f"Ameyo was told of an unknown call {post.crt_object_id!r}: {post.problem}")
        else:
            of_call[known[post.crt_object_id].crt_object_id].append(post)
    entries = [_entry(call, of_call[call.crt_object_id], faults, patience) for call in calls]
    swept, problems = _left(leftovers, calls, faults)
    return Account(entries, faults, leftovers, swept, cut_off, [*general, *problems])


def _entry(call: Placed, posts: Sequence[Post], faults: Sequence[Fault], patience: float) -> Entry:
    guilty: list[str] = []
    accepted = [post for post in posts if post.accepted]
    caller_first = call.answered and call.ended_by == "pbx" and call.cause in ("hang_up", "hangup_after")
    if call.ended_by == "switch":
        guilty.append("our side sent BYE")
    if "send_bye" in call.dispositions:
        guilty.append("eslbot itself saw our side's BYE")
    for post in posts:
        if post.problem is not None:
            guilty.append(f"Ameyo refused a notification: {post.problem}")
        if post.tenant != call.tenant:
            guilty.append(f"it was notified as a call of tenant {post.tenant!r}, and is of {call.tenant!r}")
    if accepted and not call.answered:
        guilty.append("it was notified and never answered")
    if not call.answered:
        ending = Ending.REFUSED if call.status is not None and call.status >= 300 else Ending.LOST
        if ending is Ending.LOST and _died_with_switch(call, faults):
            ending = Ending.LOST_WITH_SWITCH
        elif ending is Ending.LOST:
            guilty.append(f"no final response to the INVITE: {call.error}")
        elif not _down(call, faults):
            guilty.append(f"refused with {call.status}, and eslbot was well")
    elif accepted:
        lost = _lost_by_switch(call, faults)
        ending = Ending.HANDED_OFF
        if lost and call.bye_at is not None and call.bye_at < accepted[0].at:
            ending = Ending.CALLER_FIRST if caller_first else Ending.LOST_WITH_SWITCH
        guilty += _story(call, accepted[0], faults)
        waited = _waited(call, accepted[0].at, faults, lost=lost)
        if waited > patience + (STRANDED_LIMIT if lost else 0.0):
            guilty.append(f"its caller waited {waited:.1f} s behind the bot's end until Ameyo accepted")
    elif caller_first:
        ending = Ending.CALLER_FIRST
        waited = _waited(call, call.ended_at or 0.0, faults)
        if waited > patience and not posts:
            guilty.append(f"its caller waited {waited:.1f} s behind the bot's end, and nobody told Ameyo")
    elif _died_with_switch(call, faults):
        ending = Ending.LOST_WITH_SWITCH
    else:
        ending = Ending.LOST
        guilty.append(f"answered and never accepted by Ameyo ({len(posts)} attempts); ended: {call.cause}")
    if accepted and call.answered and call.ended_by is None:
        guilty.append(f"handed off, and not ended by the PBX: {call.error}")
    duplicates = [_judge(call, earlier, faults) for earlier in accepted[:-1]]
    guilty += [f"notified again: {why}" for why in duplicates if why is Duplicate.UNEXCUSED]
    begin, end = call.answered_at or 0.0, call.ended_at or float("inf")
    hit = sum(fault.touches(call.crt_object_id, begin, end) for fault in faults)
    outcome = accepted[0].properties.get("outcome") if accepted else None
    return Entry(call, ending, len(accepted), len(posts), outcome, duplicates, hit, guilty)


def _down(call: Placed, faults: Sequence[Fault]) -> bool:
    """Whether a fault may have left nobody to take this new call."""
    at = call.ended_at or 0.0
    down = [fault for fault in faults if fault.hits in ("controller", "crash")]
    return any(fault.at <= at <= fault.until + RECOVERY_LIMIT for fault in down)


def _died_with_switch(call: Placed, faults: Sequence[Fault]) -> bool:
    """Whether FreeSWITCH died before it could have written the call down."""
    if call.answered_at is not None:
        begin, end = call.answered_at, call.answered_at + YOUNG
    elif call.invited_at is not None:
        begin, end = call.invited_at, call.ended_at or float("inf")
    else:
        return False
    # A young one's answer may have been under way when it died.
    return any(f.hits == "crash" and f.at <= end and f.until >= begin for f in faults)


def _lost_by_switch(call: Placed, faults: Sequence[Fault]) -> bool:
    """Whether it may have ended with FreeSWITCH and no controller know: then Ameyo is told all the same.

    It was not written down, or its BYE came when nobody was there to hear it.
    """
    before, behind = UNHEARD
    unheard = call.bye_at is not None and any(
        f.hits == "crash" and f.at - before <= call.bye_at <= f.until + behind for f in faults
    )
    return unheard or _died_with_switch(call, faults)


def _twice_dead(call: Placed, until: float, faults: Sequence[Fault]) -> bool:
    """Whether FreeSWITCH died twice under the call within a minute."""
    begin = call.answered_at or 0.0
    deaths = sorted(f.at for f in faults if f.hits == "crash" and f.touches(call.crt_object_id, begin, until))
    return any(later - earlier <= CRASHES_WITHIN for earlier, later in pairwise(deaths))


def _story(call: Placed, told: Post, faults: Sequence[Fault]) -> list[str]:
    """What Ameyo was told of the bot's part, where that is not what happened."""
    outcome = told.properties.get("outcome")
    if outcome == "relay_lost" and _hit(call, faults, "disk"):
        return []  # there is nothing by which the caller could hear the bot
    if outcome == "relay_lost" and _hit(call, [f for f in faults if f.until - f.at >= RELAY_LIMIT], "relay"):
        return []
    if outcome == "switch_lost" and (_twice_dead(call, told.at, faults) or _lost_by_switch(call, faults)):
        return []
    if outcome in LOST_OUTCOMES:
        return [f"its place in the story was lost: outcome {outcome}"]
    bot_hit = any(f.hits == "bot" and f.touches(call.crt_object_id, 0.0, told.at) for f in faults)
    if call.promised is None or bot_hit:
        return []
    if outcome != "bot_ended":
        return [f"the bot's end was lost: outcome {outcome}"]
    missing = [name for name, value in call.promised.items() if told.properties.get(name) != value]
    return [f"what the bot gave for Ameyo was lost: {', '.join(missing)}"] if missing else []


def _waited(call: Placed, until: float, faults: Sequence[Fault], *, lost: bool = False) -> float:
    """Seconds from the bot's end, or the last fault behind it, to ``until``; 0 where it has none.

    The bot of a call that is lost with FreeSWITCH may end later, or never, as far as it knows.
    """
    begin = call.answered_at if lost else call.bot_ended_at
    if begin is None:
        return 0.0
    behind = [f.until for f in faults if f.touches(call.crt_object_id, begin, until)]
    return until - max([begin, *behind])


def _judge(call: Placed, first: Post, faults: Sequence[Fault]) -> Duplicate:
    """Why there was another notification after ``first`` had been accepted."""
    end = (first.answered_at if first.answered_at is not None else first.at) + RECORD_LIMIT

    def hit(by: str, begin: float) -> bool:
        return any(f.hits == by and f.touches(call.crt_object_id, begin, end) for f in faults)

    if hit("controller", first.at - ON_ITS_WAY):
        return Duplicate.CONTROLLER_LOST
    return Duplicate.ANSWER_LOST if hit("ameyo", first.at) else Duplicate.UNEXCUSED


def _left(left: Leftovers, calls: Sequence[Placed], faults: Sequence[Fault]) -> tuple[list[str], list[str]]:
    """The files that eslbot sweeps by age, and what is left that should not be."""
    problems = []
    if left.channels:
        problems.append(f"{left.channels} channels left in the switch")
    if left.calls_active:
        problems.append(f"eslbot still counts {left.calls_active:g} calls")
    if left.event_sockets:
        problems.append(f"{left.event_sockets} event sockets still open in the workers")
    if left.internal_errors:
        problems.append(f"{left.internal_errors} internal errors of eslbot's")
    for pid, count in left.sockets.items():
        if count > SOCKETS_LIMIT:
            problems.append(f"worker {pid} has {count} sockets open")
    swept = []
    for name in left.files:
        call = next((c for c in calls if c.call_id and name.startswith(c.call_id)), None)
        # A line's relay removes it when the call ends. Where there was none at that time, as without eslbot,
        # or where it was killed in that moment, the next one finds it by its age.
        unseen = (
            call is not None and not call.dispositions and _hit(call, faults, "controller", "reload", "crash")
        )
        if unseen or (call is not None and _relay_died_at_its_end(call, faults)):
            swept.append(name)
        else:
            problems.append(f"the file {name} is left")
    return swept, problems


def _relay_died_at_its_end(call: Placed, faults: Sequence[Fault]) -> bool:
    """Whether a relay was killed when the bot's part was over or about to be, its line not yet removed."""
    if call.ended_at is None:
        return False
    begin = (call.bot_ended_at or call.answered_at or call.ended_at) - AT_ITS_END
    return any(
        f.hits == "relay" and f.touches(call.crt_object_id, begin, call.ended_at + AT_ITS_END) for f in faults
    )


def _hit(call: Placed, faults: Sequence[Fault], *hits: str) -> bool:
    begin, end = call.answered_at or 0.0, call.ended_at or float("inf")
    return any(fault.hits in hits and fault.touches(call.crt_object_id, begin, end) for fault in faults)
