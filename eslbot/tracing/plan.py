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

No number of a caller's or callee's is in them: traces go to others, for whom there is no masking.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from eslbot.ledger.fold import REFUSED, Row
from eslbot.ledger.queries import Story
from eslbot.tracing.context import BOT

CALL, HAND_OFF = "call", "hand_off"
#: What an attribute can be.
Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Plan:
    """One span. ``key`` is its name within the call, ``parent`` its parent's key; times are epoch seconds."""

    key: str
    name: str
    parent: str | None
    begin: float
    end: float
    attributes: dict[str, Value] = field(default_factory=dict)
    #: Why it has failed, where it has.
    error: str | None = None


def spans_of(story: Story) -> Iterator[Plan]:
    """The spans of a call that is over, each behind its parent."""
    call = story.call
    begin = call["invited_at"]
    end = max(begin, call["ended_at"] or begin)
    bad = call["fault"] not in (None, "none")
    refusal = call["refusal"]
    yield Plan(
        CALL,
        CALL,
        None,
        begin,
        end,
        _known(
            call,
            ("eslbot.call_id", "call_id"),
            ("eslbot.workspace_id", "workspace_id"),
            ("eslbot.workspace", "workspace"),
            ("eslbot.crt_object_id", "crt_object_id"),
            ("eslbot.stage", "stage"),
            ("eslbot.outcome", "outcome"),
            ("eslbot.fault", "fault"),
            ("eslbot.reason", "reason"),
            ("eslbot.take_overs", "take_overs"),
            ("eslbot.restarts", "restarts"),
            ("eslbot.hangup_disposition", "sip_hangup_disposition"),
            ("eslbot.hangup_cause", "hangup_cause"),
            ("eslbot.host", "host"),
        ),
        (refusal or call["outcome"] or "failed") if bad else None,
    )
    if call["stage"] == REFUSED:
        status = call["refusal_status"]
        attributes: dict[str, Value] = {} if status is None else {"eslbot.status": status}
        yield Plan("admit", "admit", CALL, begin, end, attributes, refusal if bad else None)
        return
    answered, connected, bot_ended = call["answered_at"], call["bot_connected_at"], call["bot_ended_at"]
    yield _span("admit", CALL, begin, answered or end)
    connecting = next((one["at"] for one in story.timeline if one["what"] == "bot_connecting"), None)
    if connecting is not None or answered is not None:
        since = answered if connecting is None else connecting
        failed = None if connected is not None else call["outcome"]
        yield _span("connect", CALL, since, connected or bot_ended or end, error=failed)
    if connected is not None:
        yield _span(
            BOT, CALL, connected, bot_ended or end, error=call["outcome"] if call["fault"] == "bot" else None
        )
        yield from _turns(story)
    yield from _hand_off(story, end)
    if (handed_off := call["handed_off_at"]) is not None:
        yield _span("hold", CALL, handed_off, end, _known(call, ("eslbot.byes_overdue", "byes_overdue")))


def _turns(story: Story) -> Iterator[Plan]:
    for number, turn in enumerate(story.turns, 1):
        attributes = _known(turn, ("eslbot.bot_seconds", "bot"), ("eslbot.by", "by"))
        yield Plan(f"turn {number}", turn["kind"], BOT, turn["at"] - turn["seconds"], turn["at"], attributes)


def _hand_off(story: Story, end: float) -> Iterator[Plan]:
    call, sent = story.call, story.notifications
    if not sent:
        return
    begin = min(one["began_at"] for one in sent)
    accepted = call["handed_off_at"]
    error = None if accepted is not None else "not accepted"
    yield _span(HAND_OFF, CALL, begin, accepted or end, {"eslbot.attempts": call["attempts"]}, error)
    for number, one in enumerate(sent, 1):
        attributes = _known(
            one,
            ("eslbot.number", "number"),
            ("eslbot.verdict", "verdict"),
            ("http.response.status_code", "status"),
            ("eslbot.detail", "detail"),
            ("eslbot.sent_by", "sent_by"),
        )
        failed = None if one["verdict"] == "accepted" else one["verdict"] or "no answer known"
        until = one["began_at"] + (one["seconds"] or 0.0)
        yield Plan(f"attempt {number}", "attempt", HAND_OFF, one["began_at"], until, attributes, failed)


def _span(
    key: str,
    parent: str,
    begin: float,
    end: float,
    attributes: dict[str, Value] | None = None,
    error: str | None = None,
) -> Plan:
    return Plan(key, key, parent, begin, max(begin, end), attributes or {}, error)


def _known(row: Row, *names: tuple[str, str]) -> dict[str, Value]:
    return {name: row[column] for name, column in names if row.get(column) not in (None, "")}
