"""Which spans a call has, by what the ledger knows of it. Pure: no OpenTelemetry, no clock.

::

    call                         from the INVITE to the end
    ├── admit                    until the 200, or the refusal
    ├── connect                  the bot is dialled
    ├── bot                      its part; a bot's own spans are under this one
    │   └── answer, barge_in, overlap    each of the turns
    ├── hand_off                 until Ameyo has accepted
    │   └── attempt              each notification
    └── hold                     the customer waits for Ameyo's BYE

They have no number of a caller or callee: traces leave the house, and nobody masks them there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from eslbot.ledger.queries import CallDetails
from eslbot.ledger.schema import REFUSED, Row
from eslbot.telemetry.trace_context import BOT

CALL, HAND_OFF = "call", "hand_off"
#: What an attribute can be.
Value = str | int | float | bool

#: Columns of `calls` that are attributes of the call's span, as "eslbot." and the column's name.
_CALL_ATTRIBUTES = (
    *("call_id", "workspace_id", "workspace", "crt_object_id", "stage", "outcome", "fault", "reason"),
    *("take_overs", "restarts", "hangup_cause", "host"),
)


@dataclass(frozen=True, slots=True)
class SpanSpec:
    """One span. ``key`` is its name within the call, ``parent`` its parent's key; times are epoch seconds."""

    key: str
    name: str
    parent: str | None
    begin: float
    end: float
    attributes: dict[str, Value] = field(default_factory=dict)
    #: Why it has failed, where it has.
    error: str | None = None


def spans_of(details: CallDetails) -> Iterator[SpanSpec]:
    """The spans of a call that has ended, each after its parent."""
    call = details.call
    begin = call["invited_at"]
    end = max(begin, call["ended_at"] or begin)
    bad = call["fault"] not in (None, "none")
    refusal = call["refusal"]
    error = (refusal or call["outcome"] or "failed") if bad else None
    attributes = _known(call, {f"eslbot.{name}": name for name in _CALL_ATTRIBUTES})
    attributes |= _known(call, {"eslbot.hangup_disposition": "sip_hangup_disposition"})
    yield SpanSpec(CALL, CALL, None, begin, end, attributes, error)
    if call["stage"] == REFUSED:
        attributes = _known(call, {"eslbot.status": "refusal_status"})
        yield _span("admit", CALL, begin, end, attributes, refusal if bad else None)
        return
    answered, connected, bot_ended = call["answered_at"], call["bot_connected_at"], call["bot_ended_at"]
    yield _span("admit", CALL, begin, answered or end)
    dialled = next((fact["at"] for fact in details.timeline if fact["what"] == "bot_connecting"), answered)
    if dialled is not None:
        error = None if connected is not None else call["outcome"]
        yield _span("connect", CALL, dialled, connected or bot_ended or end, error=error)
    if connected is not None:
        error = call["outcome"] if call["fault"] == "bot" else None
        yield _span(BOT, CALL, connected, bot_ended or end, error=error)
        yield from _turns(details)
    yield from _hand_off(details, end)
    if (handed_off := call["handed_off_at"]) is not None:
        yield _span("hold", CALL, handed_off, end, _known(call, {"eslbot.byes_overdue": "byes_overdue"}))


def _turns(details: CallDetails) -> Iterator[SpanSpec]:
    for number, turn in enumerate(details.turns, 1):
        attributes = _known(turn, {"eslbot.bot_seconds": "bot", "eslbot.by": "by"})
        begin = turn["at"] - turn["seconds"]
        yield SpanSpec(f"turn {number}", turn["kind"], BOT, begin, turn["at"], attributes)


def _hand_off(details: CallDetails, end: float) -> Iterator[SpanSpec]:
    call, sent = details.call, details.notifications
    if not sent:
        return
    begin = min(one["began_at"] for one in sent)
    accepted = call["handed_off_at"]
    error = None if accepted is not None else "not accepted"
    yield _span(HAND_OFF, CALL, begin, accepted or end, {"eslbot.attempts": call["attempts"]}, error)
    names = {f"eslbot.{name}": name for name in ("number", "verdict", "detail", "sent_by")}
    names["http.response.status_code"] = "status"
    for number, one in enumerate(sent, 1):
        failed = None if one["verdict"] == "accepted" else one["verdict"] or "no answer known"
        until = one["began_at"] + (one["seconds"] or 0.0)
        attributes = _known(one, names)
        yield SpanSpec(f"attempt {number}", "attempt", HAND_OFF, one["began_at"], until, attributes, failed)


def _span(
    key: str,
    parent: str,
    begin: float,
    end: float,
    attributes: dict[str, Value] | None = None,
    error: str | None = None,
) -> SpanSpec:
    return SpanSpec(key, key, parent, begin, max(begin, end), attributes or {}, error)


def _known(row: Row, names: dict[str, str]) -> dict[str, Value]:
    """The attributes by their columns' names, without those that the row does not have."""
    return {name: row[column] for name, column in names.items() if row.get(column) not in (None, "")}
