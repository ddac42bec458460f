"""From facts to rows: what a call has come to, as far as is known.

Pure: no database, no clock. Facts may come late, in any order and from several hosts. Journals come from this
service's own workers, but what stands in them comes from callers, bots and Ameyos, and their last line may be
half a line: every value is checked, and cut to what its column holds.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import String

from eslbot.ledger.facts import What
from eslbot.ledger.percentile import percentile
from eslbot.ledger.schema import calls
from eslbot.outcome import Fault, Outcome, Stage, fault_of
from eslbot.turns import MAX_TURNS, By, Kind

Row = dict[str, Any]

#: The stage of a call that was never taken.
REFUSED = "refused"
#: Characters of a text without a column's own bound.
MAX_TEXT = 500
#: Further fields of a fact that are kept, and characters of their names.
MAX_FIELDS, MAX_NAME = 40, 64
#: Epoch seconds from 2001 to 2286. What is outside is no time of a call.
FIRST, LAST = 1e9, 1e10
MAX_COUNT = 2**31 - 1
#: Seconds within which an attempt's answer may be read before its beginning, from another journal.
LATE = 600.0
#: Turns of a call that are kept: those of two relays. Seconds between two tellings of one.
MAX_TURNS_KEPT, SAME_TURN = 2 * MAX_TURNS, 2.0

_decode = json.JSONDecoder().decode
_CALL_ID = re.compile(r"[!-~]{1,64}")
#: What no database takes: NUL, and halves of a character.
_UNWRITABLE = re.compile("[\x00\ud800-\udfff]")
_ORDER = {str(stage): place for place, stage in enumerate(Stage)}
_STAGES = {str(stage): stage for stage in Stage}
_OUTCOMES = {str(outcome): outcome for outcome in Outcome}
_WHATS = {str(what): what for what in What}
_IDENTITY = (
    *("workspace_id", "workspace", "did", "crt_object_id", "caller", "called", "source", "sip_call_id"),
)
_LENGTHS = {c.name: c.type.length or MAX_TEXT for c in calls.columns if isinstance(c.type, String)}
#: Fields that stand in the call's row, and need not stand in its timeline again.
_IN_ROW = frozenset({*_IDENTITY, "call", "at", "what", "invited_at", "media"})
_NOT_ACCEPTED = frozenset({"failed", "rejected"})

_EMPTY: Row = {
    **{column.name: None for column in calls.columns},
    "stage": str(Stage.ADMITTED),
    "attempts": 0,
    "take_overs": 0,
    "byes_overdue": 0,
    "restarts": 0,
    "answers": 0,
    "barge_ins": 0,
    "end_unseen": False,
    "attention": False,
}


class BadFact(ValueError):
    """A line of a journal that is no fact."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One line: ``call``, ``at`` and ``what`` are sound; ``more`` is all of it, and else unchecked."""

    call: str
    at: float
    what: What
    more: Mapping[str, Any]


def read_fact(line: bytes) -> Fact | None:
    """The fact of a line; None where it tells nothing that this version knows. Raises :class:`BadFact`."""
    try:
        more = _decode(line.decode())
    except (ValueError, RecursionError) as error:
        raise BadFact(type(error).__name__) from None
    word = more.get("what") if isinstance(more, dict) else None
    if not isinstance(word, str):
        raise BadFact("no fact")
    what = _WHATS.get(word)
    if what is None:
        return None  # the journal's first line, or a later version's word
    call, at = more.get("call"), _time(more.get("at"))
    if not isinstance(call, str) or not _CALL_ID.fullmatch(call) or at is None:
        raise BadFact("no call, or no time")
    return Fact(call, at, what, more)


@dataclass(slots=True)
class Story:
    """One call: its row of ``calls``, those of ``notifications`` and ``turns``, new ones of its ``timeline``.

    All but the last are what the database has, of the turns where any are told; :meth:`tell` changes them.
    """

    row: Row
    notifications: list[Row] = field(default_factory=list)
    turns: list[Row] = field(default_factory=list)
    timeline: list[Row] = field(default_factory=list)

    @classmethod
    def new(cls, call_id: str) -> Story:
        """A call of which nothing is known yet."""
        return cls({**_EMPTY, "call_id": call_id})

    def tell(self, facts: Iterable[Fact]) -> None:
        """Fold facts into it."""
        row = self.row
        for fact in facts:
            row["invited_at"] = _first(row["invited_at"], fact.at)
            if row["end_unseen"] and row["ended_at"] is not None and fact.at > row["ended_at"]:
                self._reopen()
            _TELLERS[fact.what](self, fact)
            if fact.what is What.TURN:
                continue  # has rows of its own
            self.timeline.append(
                {
                    "call_id": row["call_id"],
                    "at": fact.at,
                    "what": fact.what.value,
                    "facts": plain(fact.more) or None,
                }
            )
        self._judge()

    def close_unseen(self, last: float) -> None:
        """Nobody saw its end; ``last`` (epoch seconds) is when it was heard of."""
        row = self.row
        row["ended_at"], row["end_unseen"] = last, True
        if row["outcome"] is None and row["answered_at"] is not None:
            row["outcome"] = str(Outcome.CONTROLLER_LOST)
        self._judge()

    def _reopen(self) -> None:
        """It lives: another controller has it, after all."""
        row = self.row
        row["ended_at"], row["end_unseen"], row["fault"] = None, False, None
        if row["bot_ended_at"] is None:
            row["outcome"] = None

    def _judge(self) -> None:
        """Whose fault its end was, by all that is known now."""
        row = self.row
        if row["stage"] == REFUSED:
            theirs = row["refusal_status"] is not None and row["refusal_status"] < 500
            row["fault"] = str(Fault.PBX if theirs else Fault.ESLBOT)
        elif row["ended_at"] is not None and (outcome := _OUTCOMES.get(row["outcome"])) is not None:
            tried = any(sent["verdict"] in _NOT_ACCEPTED for sent in self._sent())
            row["fault"] = str(
                fault_of(
                    outcome,
                    handed_off=row["handed_off_at"] is not None,
                    ameyo_failed=tried,
                    disposition=row["sip_hangup_disposition"] or "",
                )
            )
        row["attention"] = needs_attention(row)

    # -- what each fact says --------------------------------------------------------------------------------

    def _admitted(self, fact: Fact) -> None:
        row, more = self.row, fact.more
        for column in _IDENTITY:
            if row[column] is None:
                row[column] = _text(more.get(column), column)
        row["invited_at"] = _first(row["invited_at"], _time(more.get("invited_at")))

    def _at_least(self, stage: Stage | None) -> None:
        """Stages are passed in one direction; a fact may come late."""
        row = self.row
        if stage is not None and row["stage"] != REFUSED and _ORDER[stage] > _ORDER.get(row["stage"], -1):
            row["stage"] = str(stage)

    def _refused(self, fact: Fact) -> None:
        row, more = self.row, fact.more
        self._admitted(fact)
        row["stage"], row["ended_at"], row["end_unseen"] = REFUSED, fact.at, False
        row["refusal_status"] = _count(more.get("status"))
        row["refusal"] = _text(more.get("why"), "refusal")
        row["reason"] = _text(more.get("detail"), "reason")

    def _answered(self, fact: Fact) -> None:
        self.row["answered_at"] = _first(self.row["answered_at"], fact.at)
        self._at_least(Stage.ANSWERED)

    def _bot_connecting(self, fact: Fact) -> None:
        self._at_least(Stage.CONNECTING)

    def _bot_connected(self, fact: Fact) -> None:
        self.row["bot_connected_at"] = _first(self.row["bot_connected_at"], fact.at)
        self._at_least(Stage.TALKING)

    def _speech_began(self, fact: Fact) -> None:
        self.row["first_audio_at"] = _first(self.row["first_audio_at"], fact.at)

    def _bot_ended(self, fact: Fact) -> None:
        self.row["bot_ended_at"] = _first(self.row["bot_ended_at"], fact.at)
        self._over(fact)
        self._at_least(Stage.ENDED)

    def _over(self, fact: Fact) -> None:
        self.row["outcome"] = _outcome(fact.more.get("outcome")) or self.row["outcome"]
        self.row["reason"] = _text(fact.more.get("reason"), "reason") or self.row["reason"]

    def _attempt_began(self, fact: Fact) -> None:
        self.row["notified_at"] = _first(self.row["notified_at"], fact.at)
        number = self._attempted(fact)
        sent = self._sent(number)
        if not any(abs(one["began_at"] - fact.at) < 0.001 for one in sent):
            # An answer that was read first has its beginning by a guess.
            guessed = next(
                (one for one in sent if abs(one["began_at"] - fact.at) < 1 and one["verdict"]), None
            )
            if guessed is not None:
                guessed["began_at"] = fact.at
            else:
                self._notification(number, fact.at)
        self._at_least(Stage.HANDING_OFF)

    def _attempt(self, fact: Fact) -> None:
        row, more = self.row, fact.more
        number, verdict = self._attempted(fact), _cut(more.get("verdict"), 16)
        seconds = _seconds(more.get("seconds"))
        same = self._sent(number)
        if any(one["verdict"] == verdict and one["seconds"] == seconds for one in same):
            return  # told twice
        open_ = [one for one in same if one["verdict"] is None and 0 <= fact.at - one["began_at"] < LATE]
        sent = open_[-1] if open_ else self._notification(number, fact.at - (seconds or 0.0))
        row["notified_at"] = _first(row["notified_at"], sent["began_at"])
        sent["verdict"], sent["seconds"] = verdict, seconds
        sent["status"] = _count(more.get("status"))
        sent["detail"] = _cut(more.get("detail"), MAX_TEXT)
        if number >= row["attempts"]:
            row["attempt_verdict"], row["attempt_status"] = verdict, sent["status"]
            row["attempt_detail"] = sent["detail"]
        if verdict == "accepted":
            row["handed_off_at"] = _first(row["handed_off_at"], fact.at)
            self._at_least(Stage.HELD)

    def _attempted(self, fact: Fact) -> int:
        number = _count(fact.more.get("number")) or self.row["attempts"] or 1
        self.row["attempts"] = max(self.row["attempts"], number)
        return number

    def _sent(self, number: int | None = None) -> list[Row]:
        """The service's own notifications, not those that an operator has sent."""
        return [
            sent
            for sent in self.notifications
            if sent["sent_by"] is None and (number is None or sent["number"] == number)
        ]

    def _notification(self, number: int, began_at: float) -> Row:
        sent: Row = {
            "id": None,
            "call_id": self.row["call_id"],
            "number": number,
            "began_at": began_at,
            "verdict": None,
            "status": None,
            "seconds": None,
            "detail": None,
            "sent_by": None,
        }
        self.notifications.append(sent)
        return sent

    def _bye_overdue(self, fact: Fact) -> None:
        self.row["byes_overdue"] = min(self.row["byes_overdue"] + 1, MAX_COUNT)

    def _not_verified(self, fact: Fact) -> None:
        row = self.row
        row["unverified_at"] = _first(row["unverified_at"], fact.at)
        row["sip_call_id"] = row["sip_call_id"] or _text(fact.more.get("sip_call_id"), "sip_call_id")

    def _taken_over(self, fact: Fact) -> None:
        row, more = self.row, fact.more
        if row["unverified_at"] is not None and fact.at >= row["unverified_at"]:
            row["unverified_at"] = None  # this one knows whose it is
        self._admitted(fact)
        row["take_overs"] = max(row["take_overs"], _count(more.get("take_overs")) or 1)
        row["attempts"] = max(row["attempts"], _count(more.get("attempts")) or 0)
        if row["answered_at"] is None and (ago := _seconds(more.get("answered_for"))) is not None:
            row["answered_at"] = fact.at - ago
            row["invited_at"] = _first(row["invited_at"], row["answered_at"])
        if row["handed_off_at"] is None:
            row["handed_off_at"] = _time(more.get("held_since"))
        if row["outcome"] is None:
            self._over(fact)
        self._at_least(_stage(more.get("stage")))

    def _switch_restarted(self, fact: Fact) -> None:
        row, more = self.row, fact.more
        row["restarts"] = max(row["restarts"], _count(more.get("restarts")) or 1)
        row["restarted_at"] = _last(row["restarted_at"], fact.at)
        row["restart_gap"] = _last(row["restart_gap"], _seconds(more.get("gap")))

    def _ended(self, fact: Fact) -> None:
        row, more = self.row, fact.more
        row["ended_at"], row["end_unseen"] = fact.at, False
        row["sip_hangup_disposition"] = _text(more.get("disposition"), "sip_hangup_disposition")
        row["hangup_cause"] = _text(more.get("cause"), "hangup_cause")
        row["outcome"] = _outcome(more.get("outcome")) or row["outcome"]
        if more.get("handed_off") is True and row["handed_off_at"] is None:
            row["handed_off_at"] = fact.at  # when, nobody has told; not later
        if isinstance(media := more.get("media"), dict):
            row["media"] = plain(media)
        self._at_least(_stage(more.get("stage")))

    def _turn(self, fact: Fact) -> None:
        row, more = self.row, fact.more
        kind, seconds = _word(Kind, more.get("kind")), _seconds(more.get("seconds"))
        if kind is None or seconds is None or len(self.turns) >= MAX_TURNS_KEPT:
            return
        number = _count(more.get("number")) or 0
        if any(one["number"] == number and abs(one["at"] - fact.at) < SAME_TURN for one in self.turns):
            return  # told twice: who told it first has died over it
        self.turns.append(
            {
                "id": None,
                "call_id": row["call_id"],
                "number": number,
                "at": fact.at,
                "kind": kind,
                "seconds": seconds,
                "bot": _seconds(more.get("bot")),
                "by": _word(By, more.get("by")),
            }
        )
        answers = sorted(one["seconds"] for one in self.turns if one["kind"] == Kind.ANSWER)
        row["answers"] = len(answers)
        row["answer_p50"], row["answer_p95"], row["answer_worst"] = (
            percentile(answers, share) for share in (50, 95, 100)
        )
        row["barge_ins"] = sum(one["kind"] == Kind.BARGE_IN for one in self.turns)

    def _only_shown(self, fact: Fact) -> None:
        """The timeline says it."""


_TELLERS: dict[What, Callable[[Story, Fact], None]] = dict.fromkeys(What, Story._only_shown)
_TELLERS |= {
    What.ADMITTED: Story._admitted,
    What.REFUSED: Story._refused,
    What.ANSWERED: Story._answered,
    What.BOT_CONNECTING: Story._bot_connecting,
    What.BOT_CONNECTED: Story._bot_connected,
    What.BOT_RECONNECTED: Story._bot_connected,
    What.SPEECH_BEGAN: Story._speech_began,
    What.BOT_ENDED: Story._bot_ended,
    What.ATTEMPT_BEGAN: Story._attempt_began,
    What.ATTEMPT: Story._attempt,
    What.BYE_OVERDUE: Story._bye_overdue,
    What.NOT_VERIFIED: Story._not_verified,
    What.TURN: Story._turn,
    What.TAKEN_OVER: Story._taken_over,
    What.SWITCH_RESTARTED: Story._switch_restarted,
    What.ENDED: Story._ended,
}


def needs_attention(row: Row) -> bool:
    """Whether somebody should look at a call: a living one that cannot go on, or one that did not go well.

    An INVITE that was none of ours is the PBX's own affair.
    """
    if row["stage"] == REFUSED:
        return bool(row["fault"] == Fault.ESLBOT)
    if row["byes_overdue"] or row["end_unseen"] or row["sip_hangup_disposition"] == "send_bye":
        return True
    if row["ended_at"] is None:
        waits = row["handed_off_at"] is None
        refused = row["attempts"] > 1 or row["attempt_verdict"] in ("failed", "rejected")
        return bool(row["unverified_at"] is not None or (waits and refused))
    return row["fault"] not in (None, Fault.NONE)


def plain(value: Mapping[str, Any]) -> Row:
    """``value`` as a database can keep it: names and texts cut, numbers finite, nothing nested.

    What stands in the call's row is left out.
    """
    kept: Row = {}
    for name, entry in value.items():
        if name in _IN_ROW:
            continue
        if len(kept) >= MAX_FIELDS:
            break
        if isinstance(entry, str):
            entry = _cut(entry, MAX_TEXT)
        elif isinstance(entry, bool | None):
            pass
        elif _number(entry) is None:
            continue
        kept[_cut(name, MAX_NAME) or ""] = entry
    return kept


def _cut(value: object, length: int) -> str | None:
    if not isinstance(value, str):
        return None
    return _UNWRITABLE.sub("�", value[:length])


def _text(value: object, column: str) -> str | None:
    return _cut(value, _LENGTHS[column]) or None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return float(value) if abs(value) <= 1e15 else None


def _time(value: object) -> float | None:
    number = _number(value)
    return number if number is not None and FIRST <= number <= LAST else None


def _seconds(value: object) -> float | None:
    number = _number(value)
    return number if number is not None and 0 <= number <= 1e8 else None


def _count(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and 0 <= number <= MAX_COUNT else None


def _outcome(value: object) -> str | None:
    return value if isinstance(value, str) and value in _OUTCOMES else None


def _word(words: type[StrEnum], value: object) -> str | None:
    return value if isinstance(value, str) and value in list(words) else None


def _stage(value: object) -> Stage | None:
    return _STAGES.get(value) if isinstance(value, str) else None


def _first(known: float | None, at: float | None) -> float | None:
    if known is None or at is None:
        return at if known is None else known
    return min(known, at)


def _last(known: float | None, value: float | None) -> float | None:
    if known is None or value is None:
        return value if known is None else known
    return max(known, value)
