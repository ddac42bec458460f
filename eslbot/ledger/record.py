"""A call's record: its rows in the database, and how each fact changes them.

Pure: no database, no clock. Facts may come late, in any order, and from several hosts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from eslbot.ledger import parsing
from eslbot.ledger.facts import What
from eslbot.ledger.parsing import IDENTITY, MAX_COUNT, Fact
from eslbot.ledger.percentile import percentile
from eslbot.ledger.schema import REFUSED, Row, calls
from eslbot.outcome import Fault, Outcome, Stage, fault_of
from eslbot.turns import MAX_TURNS, By, Kind

Fields = Mapping[str, Any]

#: Seconds within which an attempt's answer may be read before its beginning, from another journal.
MAX_ANSWER_TIME = 600.0
#: Turns of a call that are kept: those of two relays.
MAX_TURNS_KEPT = 2 * MAX_TURNS
#: Seconds within which two turns of the same number are one that was reported twice.
SAME_TURN = 2.0

_STAGE_ORDER = {str(stage): place for place, stage in enumerate(Stage)}
_NOT_ACCEPTED = frozenset({"failed", "rejected"})
_NEW_CALL: Row = {
    **{column.name: getattr(column.default, "arg", None) for column in calls.columns},
    "stage": str(Stage.ADMITTED),
}


@dataclass(slots=True)
class CallRecord:
    """One call: its row of ``calls``, and its rows of ``notifications``, ``turns`` and ``timeline``.

    ``timeline`` holds new rows only. The others are what the database has, as far as the facts to be applied
    need it; a row without an ``id`` is new.
    """

    row: Row
    notifications: list[Row] = field(default_factory=list)
    turns: list[Row] = field(default_factory=list)
    timeline: list[Row] = field(default_factory=list)

    @classmethod
    def new(cls, call_id: str) -> CallRecord:
        """A call of which nothing is known yet."""
        return cls({**_NEW_CALL, "call_id": call_id})

    def apply(self, facts: Iterable[Fact]) -> None:
        """Change the rows by ``facts``."""
        row = self.row
        for fact in facts:
            row["invited_at"] = _earliest(row["invited_at"], fact.at)
            if row["end_unseen"] and row["ended_at"] is not None and fact.at > row["ended_at"]:
                self._reopen()
            if (method := getattr(self, f"_on_{fact.what}", None)) is not None:
                method(fact, fact.fields)
            if fact.what is not What.TURN:  # which has rows of its own
                fields = parsing.timeline_fields(fact.fields) or None
                entry = {"call_id": row["call_id"], "at": fact.at, "what": str(fact.what), "facts": fields}
                self.timeline.append(entry)
        self._assess()

    def close_unseen(self, last_heard: float) -> None:
        """Nobody saw its end. ``last_heard``: epoch seconds of the last fact."""
        row = self.row
        row["ended_at"], row["end_unseen"] = last_heard, True
        if row["outcome"] is None and row["answered_at"] is not None:
            row["outcome"] = str(Outcome.CONTROLLER_LOST)
        self._assess()

    def _reopen(self) -> None:
        """It lives: another controller has it after all."""
        row = self.row
        row["ended_at"], row["end_unseen"], row["fault"] = None, False, None
        if row["bot_ended_at"] is None:
            row["outcome"] = None

    def _assess(self) -> None:
        """Whose fault its end was, and whether it needs attention, by all that is known now."""
        row = self.row
        if row["stage"] == REFUSED:
            theirs = row["refusal_status"] is not None and row["refusal_status"] < 500
            row["fault"] = str(Fault.PBX if theirs else Fault.ESLBOT)
        elif row["ended_at"] is not None and (outcome := parsing.word(Outcome, row["outcome"])) is not None:
            row["fault"] = str(
                fault_of(
                    outcome,
                    handed_off=row["handed_off_at"] is not None,
                    ameyo_failed=any(sent["verdict"] in _NOT_ACCEPTED for sent in self._own_notifications()),
                    disposition=row["sip_hangup_disposition"] or "",
                )
            )
        row["attention"] = needs_attention(row)

    def _set_identity(self, fields: Fields) -> None:
        for column in IDENTITY:
            if self.row[column] is None:
                self.row[column] = parsing.text(fields.get(column), column)
        self._set_earliest("invited_at", parsing.time(fields.get("invited_at")))

    def _set_outcome(self, fields: Fields) -> None:
        outcome = parsing.word(Outcome, fields.get("outcome"))
        self.row["outcome"] = self.row["outcome"] if outcome is None else str(outcome)
        self.row["reason"] = parsing.text(fields.get("reason"), "reason") or self.row["reason"]

    def _set_earliest(self, column: str, at: float | None) -> None:
        self.row[column] = _earliest(self.row[column], at)

    def _advance_to(self, stage: Stage | None) -> None:
        """Stages are passed in one direction, but facts may come late."""
        row = self.row
        if stage is None or row["stage"] == REFUSED:
            return
        if _STAGE_ORDER[stage] > _STAGE_ORDER.get(row["stage"], -1):
            row["stage"] = str(stage)

    # -- what each fact changes: `_on_` and the fact's name. A fact without a method is in the timeline alone.
    # --

    def _on_admitted(self, fact: Fact, fields: Fields) -> None:
        self._set_identity(fields)

    def _on_refused(self, fact: Fact, fields: Fields) -> None:
        row = self.row
        self._set_identity(fields)
        row["stage"], row["ended_at"], row["end_unseen"] = REFUSED, fact.at, False
        row["refusal_status"] = parsing.count(fields.get("status"))
        row["refusal"] = parsing.text(fields.get("why"), "refusal")
        row["reason"] = parsing.text(fields.get("detail"), "reason")

    def _on_answered(self, fact: Fact, fields: Fields) -> None:
        self._set_earliest("answered_at", fact.at)
        self._advance_to(Stage.ANSWERED)

    def _on_bot_connecting(self, fact: Fact, fields: Fields) -> None:
        self._advance_to(Stage.CONNECTING)

    def _on_bot_connected(self, fact: Fact, fields: Fields) -> None:
        self._set_earliest("bot_connected_at", fact.at)
        self._advance_to(Stage.TALKING)

    _on_bot_reconnected = _on_bot_connected

    def _on_speech_began(self, fact: Fact, fields: Fields) -> None:
        self._set_earliest("first_audio_at", fact.at)

    def _on_bot_ended(self, fact: Fact, fields: Fields) -> None:
        self._set_earliest("bot_ended_at", fact.at)
        self._set_outcome(fields)
        self._advance_to(Stage.ENDED)

    def _on_attempt_began(self, fact: Fact, fields: Fields) -> None:
        self._set_earliest("notified_at", fact.at)
        number = self._attempt_number(fields)
        sent = self._own_notifications(number)
        if not any(abs(one["began_at"] - fact.at) < 0.001 for one in sent):
            # Where its answer was read first, its beginning is an estimate.
            estimated = (one for one in sent if abs(one["began_at"] - fact.at) < 1 and one["verdict"])
            if (found := next(estimated, None)) is not None:
                found["began_at"] = fact.at
            else:
                self._add_notification(number, fact.at)
        self._advance_to(Stage.HANDING_OFF)

    def _on_attempt(self, fact: Fact, fields: Fields) -> None:
        row = self.row
        number, verdict = self._attempt_number(fields), parsing.cut(fields.get("verdict"), 16)
        seconds = parsing.seconds(fields.get("seconds"))
        same = self._own_notifications(number)
        if any(one["verdict"] == verdict and one["seconds"] == seconds for one in same):
            return  # reported twice
        pending = [
            one for one in same if one["verdict"] is None and 0 <= fact.at - one["began_at"] < MAX_ANSWER_TIME
        ]
        sent = pending[-1] if pending else self._add_notification(number, fact.at - (seconds or 0.0))
        self._set_earliest("notified_at", sent["began_at"])
        sent["verdict"], sent["seconds"] = verdict, seconds
        sent["status"] = parsing.count(fields.get("status"))
        sent["detail"] = parsing.cut(fields.get("detail"))
        if number >= row["attempts"]:
            for name in ("verdict", "status", "detail"):
                row[f"attempt_{name}"] = sent[name]
        if verdict == "accepted":
            self._set_earliest("handed_off_at", fact.at)
            self._advance_to(Stage.HELD)

    def _attempt_number(self, fields: Fields) -> int:
        number = parsing.count(fields.get("number")) or self.row["attempts"] or 1
        self.row["attempts"] = max(self.row["attempts"], number)
        return int(number)

    def _own_notifications(self, number: int | None = None) -> list[Row]:
        """The service's own, not those that an operator has sent."""
        return [
            sent
            for sent in self.notifications
            if sent["sent_by"] is None and (number is None or sent["number"] == number)
        ]

    def _add_notification(self, number: int, began_at: float) -> Row:
        unknown: Row = dict.fromkeys(("verdict", "status", "seconds", "detail", "sent_by"))
        sent = {"call_id": self.row["call_id"], "number": number, "began_at": began_at, **unknown}
        self.notifications.append(sent)
        return sent

    def _on_bye_overdue(self, fact: Fact, fields: Fields) -> None:
        self.row["byes_overdue"] = min(self.row["byes_overdue"] + 1, MAX_COUNT)

    def _on_not_verified(self, fact: Fact, fields: Fields) -> None:
        row = self.row
        self._set_earliest("unverified_at", fact.at)
        row["sip_call_id"] = row["sip_call_id"] or parsing.text(fields.get("sip_call_id"), "sip_call_id")

    def _on_taken_over(self, fact: Fact, fields: Fields) -> None:
        row = self.row
        if row["unverified_at"] is not None and fact.at >= row["unverified_at"]:
            row["unverified_at"] = None  # this controller knows whose it is
        self._set_identity(fields)
        row["take_overs"] = max(row["take_overs"], parsing.count(fields.get("take_overs")) or 1)
        row["attempts"] = max(row["attempts"], parsing.count(fields.get("attempts")) or 0)
        if row["answered_at"] is None and (ago := parsing.seconds(fields.get("answered_for"))) is not None:
            row["answered_at"] = fact.at - ago
            self._set_earliest("invited_at", row["answered_at"])
        if row["handed_off_at"] is None:
            row["handed_off_at"] = parsing.time(fields.get("held_since"))
        if row["outcome"] is None:
            self._set_outcome(fields)
        self._advance_to(parsing.word(Stage, fields.get("stage")))

    def _on_switch_restarted(self, fact: Fact, fields: Fields) -> None:
        row = self.row
        row["restarts"] = max(row["restarts"], parsing.count(fields.get("restarts")) or 1)
        row["restarted_at"] = _greatest(row["restarted_at"], fact.at)
        row["restart_gap"] = _greatest(row["restart_gap"], parsing.seconds(fields.get("gap")))

    def _on_ended(self, fact: Fact, fields: Fields) -> None:
        row = self.row
        row["ended_at"], row["end_unseen"] = fact.at, False
        row["sip_hangup_disposition"] = parsing.text(fields.get("disposition"), "sip_hangup_disposition")
        row["hangup_cause"] = parsing.text(fields.get("cause"), "hangup_cause")
        self._set_outcome({"outcome": fields.get("outcome")})
        if fields.get("handed_off") is True and row["handed_off_at"] is None:
            row["handed_off_at"] = fact.at  # the latest that it can have been
        if isinstance(media := fields.get("media"), dict):
            row["media"] = parsing.timeline_fields(media)
        self._advance_to(parsing.word(Stage, fields.get("stage")))

    def _on_turn(self, fact: Fact, fields: Fields) -> None:
        row = self.row
        kind, seconds = parsing.word(Kind, fields.get("kind")), parsing.seconds(fields.get("seconds"))
        if kind is None or seconds is None or len(self.turns) >= MAX_TURNS_KEPT:
            return
        number, by = parsing.count(fields.get("number")) or 0, parsing.word(By, fields.get("by"))
        if any(one["number"] == number and abs(one["at"] - fact.at) < SAME_TURN for one in self.turns):
            return  # reported twice: the first controller has died over it
        self.turns.append(
            {
                "call_id": row["call_id"],
                "number": number,
                "at": fact.at,
                "kind": str(kind),
                "seconds": seconds,
                "bot": parsing.seconds(fields.get("bot")),
                "by": None if by is None else str(by),
            }
        )
        answers = sorted(one["seconds"] for one in self.turns if one["kind"] == Kind.ANSWER)
        row["answers"] = len(answers)
        for name, share in (("p50", 50), ("p95", 95), ("worst", 100)):
            row[f"answer_{name}"] = percentile(answers, share)
        row["barge_ins"] = sum(one["kind"] == Kind.BARGE_IN for one in self.turns)


def needs_attention(row: Row) -> bool:
    """Whether somebody should look at a call: a live one that cannot go on, or one that did not go well.

    An INVITE that was refused as not valid is the PBX's own affair.
    """
    if row["stage"] == REFUSED:
        return bool(row["fault"] == Fault.ESLBOT)
    if row["byes_overdue"] or row["end_unseen"] or row["sip_hangup_disposition"] == "send_bye":
        return True
    if row["ended_at"] is None:
        waits = row["handed_off_at"] is None
        refused = row["attempts"] > 1 or row["attempt_verdict"] in _NOT_ACCEPTED
        return bool(row["unverified_at"] is not None or (waits and refused))
    return row["fault"] not in (None, Fault.NONE)


def _earliest(known: float | None, at: float | None) -> float | None:
    return min((one for one in (known, at) if one is not None), default=None)


def _greatest(known: float | None, value: float | None) -> float | None:
    return max((one for one in (known, value) if one is not None), default=None)
