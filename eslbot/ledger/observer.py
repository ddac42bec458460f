"""The journal's observer of calls: writes a fact for each event."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from eslbot.calls import events
from eslbot.ledger.facts import MAX_TIMELINE, OF_TIMELINE, What

if TYPE_CHECKING:
    from eslbot.calls.events import CallEvent, CallFacts, Who
    from eslbot.ledger.journal import FactSink

Fields = dict[str, Any]


class JournalObserver:
    """Writes the facts of one call. Of what bot and caller do there are at most MAX_TIMELINE."""

    def __init__(self, journal: FactSink) -> None:
        self._journal = journal
        self._timeline_left = MAX_TIMELINE

    def __call__(self, call: CallFacts, event: CallEvent) -> None:
        """Write the event's fact, if it has one; never waits."""
        if type(event) not in _FACTS:
            return
        what, fields_of = _FACTS[type(event)]
        fields = fields_of(call, event)
        if fields is None:
            return
        if what in OF_TIMELINE:
            self._timeline_left -= 1
            if self._timeline_left < 0:
                return
            if self._timeline_left == 0:
                what, fields = What.TIMELINE_FULL, {}
        self._journal.append(call.call_id, what, fields, event.ago)


def _nothing(call: CallFacts, event: CallEvent) -> Fields:
    return {}


def _who(who: Who) -> Fields:
    """Who calls whom, as far as it is known."""
    fields: Fields = {"source": who.source, "sip_call_id": who.sip_call_id}
    if (invite := who.invite) is None:
        return fields
    identity = {"crt_object_id": invite.crt_object_id, "caller": invite.caller, "called": invite.to}
    fields |= {"source": invite.source_ip, "did": invite.did, **identity}
    if who.workspace is not None:
        fields["workspace"] = who.workspace
    if who.workspace_id is not None:
        fields["workspace_id"] = who.workspace_id
    return fields


def _refused(call: CallFacts, event: events.RefusalSent) -> Fields | None:
    if not event.reported:
        return None
    return {
        **_who(event.who),
        "invited_at": event.invited_at,
        "status": event.status,
        "why": event.why,
        "detail": event.detail,
    }


def _turn(call: CallFacts, event: events.TurnTaken) -> Fields:
    turn = event.turn
    fields = {"kind": turn.kind, "seconds": turn.seconds, "bot": turn.bot, "by": turn.by}
    return {"number": event.number, **{name: value for name, value in fields.items() if value is not None}}


def _attempt(call: CallFacts, event: events.AttemptEnded) -> Fields:
    attempt = event.attempt
    return {
        "number": attempt.number,
        "verdict": attempt.verdict,
        "status": attempt.status,
        "seconds": round(attempt.seconds, 4),
        "detail": attempt.detail,
    }


def _ended(call: CallFacts, event: events.Ended) -> Fields:
    return {
        "disposition": event.hang_up.disposition,
        "cause": event.hang_up.cause or None,
        "outcome": event.outcome,
        "handed_off": event.handed_off,
        "stage": call.stage,
        "media": event.media,
    }


_FACTS: dict[type[CallEvent], tuple[What, Callable[[CallFacts, Any], Fields | None]]] = {
    events.Admitted: (What.ADMITTED, lambda call, it: {**_who(it.who), "invited_at": it.invited_at}),
    events.RefusalSent: (What.REFUSED, _refused),
    events.Answered: (What.ANSWERED, _nothing),
    events.TakenOver: (
        What.TAKEN_OVER,
        lambda call, it: {**_who(it.who), "take_overs": it.take_overs, **it.state},
    ),
    events.NotVerified: (
        What.NOT_VERIFIED,
        lambda call, it: {"take_overs": it.take_overs, "sip_call_id": it.sip_call_id},
    ),
    events.SwitchRestarted: (
        What.SWITCH_RESTARTED,
        lambda call, it: {"restarts": it.restarts, "gap": it.gap},
    ),
    events.BotConnecting: (What.BOT_CONNECTING, _nothing),
    events.BotConnected: (What.BOT_CONNECTED, _nothing),
    events.BotReconnected: (What.BOT_RECONNECTED, lambda call, it: {"why": it.why}),
    events.SpeechBegan: (What.SPEECH_BEGAN, _nothing),
    events.SpeechEnded: (What.SPEECH_ENDED, lambda call, it: {"cut": it.cut}),
    events.CallerSpeech: (What.CALLER_SPEAKS, lambda call, it: {"speaking": it.speaking}),
    events.Cleared: (What.CLEARED, _nothing),
    events.MarkReached: (What.MARK, lambda call, it: {"name": it.name, "cleared": it.cleared}),
    events.TurnTaken: (What.TURN, _turn),
    events.HoldChanged: (What.HOLD, lambda call, it: {"on": it.on}),
    events.KeyPressed: (What.KEY, _nothing),
    events.RecordingBegan: (What.RECORDING_BEGUN, _nothing),
    events.RecordingFailed: (What.RECORDING_FAILED, lambda call, it: {"why": it.why}),
    events.BotEnded: (
        What.BOT_ENDED,
        lambda call, it: {"outcome": it.end.outcome, "reason": it.end.reason},
    ),
    events.AttemptBegan: (What.ATTEMPT_BEGAN, lambda call, it: {"number": it.number}),
    events.AttemptEnded: (What.ATTEMPT, _attempt),
    events.ByeOverdue: (What.BYE_OVERDUE, _nothing),
    events.HandedOver: (What.LEFT, lambda call, it: {"why": "handed_over"}),
    events.ConnectionBroken: (What.LEFT, lambda call, it: {"why": "connection_lost"}),
    events.Failed: (What.LEFT, lambda call, it: {"why": "fault"}),
    events.Ended: (What.ENDED, _ended),
}
