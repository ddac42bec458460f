"""What the ledger gets to know of calls: each event becomes a fact of the journal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from eslbot.calls import events
from eslbot.ledger.facts import MAX_TIMELINE, OF_TIMELINE, What

if TYPE_CHECKING:
    from eslbot.calls.events import CallEvent, CallFacts, Who
    from eslbot.ledger.journal import Notebook

Facts = dict[str, Any]


class JournalObserver:
    """One call's facts. What the bot and the caller do is told up to a bound."""

    def __init__(self, journal: Notebook) -> None:
        self._journal = journal
        self._timeline_left = MAX_TIMELINE

    def __call__(self, call: CallFacts, event: CallEvent) -> None:
        """Note it; never waits."""
        known = _FACTS.get(type(event))
        if known is None:
            return
        what, facts_of = known
        facts = facts_of(call, event)
        if facts is None:
            return
        if what in OF_TIMELINE:
            self._timeline_left -= 1
            if self._timeline_left < 0:
                return
            if self._timeline_left == 0:
                what, facts = What.TIMELINE_FULL, {}
        self._journal.note(call.call_id, what, facts, event.ago)


def _nothing(call: CallFacts, event: CallEvent) -> Facts:
    return {}


def _who(who: Who) -> Facts:
    """Who calls whom; what is not known is left out."""
    invite = who.invite
    if invite is None:
        return {"source": who.source, "sip_call_id": who.sip_call_id}
    facts: Facts = {
        "source": invite.source_ip,
        "did": invite.did,
        "crt_object_id": invite.crt_object_id,
        "caller": invite.caller,
        "called": invite.to,
        "sip_call_id": who.sip_call_id,
    }
    if who.workspace is not None:
        facts["workspace"] = who.workspace
    if who.workspace_id is not None:
        facts["workspace_id"] = who.workspace_id
    return facts


def _refused(call: CallFacts, event: events.RefusalSent) -> Facts | None:
    if not event.reported:
        return None
    return {
        **_who(event.who),
        "invited_at": event.invited_at,
        "status": event.status,
        "why": event.why,
        "detail": event.detail,
    }


def _turn(call: CallFacts, event: events.TurnTaken) -> Facts:
    turn = event.turn
    facts = {
        "number": event.number,
        "kind": turn.kind,
        "seconds": turn.seconds,
        "bot": turn.bot,
        "by": turn.by,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _attempt(call: CallFacts, event: events.AttemptEnded) -> Facts:
    attempt = event.attempt
    return {
        "number": attempt.number,
        "verdict": attempt.verdict,
        "status": attempt.status,
        "seconds": round(attempt.seconds, 4),
        "detail": attempt.detail,
    }


def _ended(call: CallFacts, event: events.Ended) -> Facts:
    return {
        "disposition": event.hang_up.disposition,
        "cause": event.hang_up.cause or None,
        "outcome": event.outcome,
        "handed_off": event.handed_off,
        "stage": call.stage,
        "media": event.media,
    }


_FACTS: dict[type[CallEvent], tuple[What, Callable[[CallFacts, Any], Facts | None]]] = {
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
