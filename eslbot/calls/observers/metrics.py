"""What Prometheus gets to know of calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eslbot.calls import events
from eslbot.calls.events import Attention, CallEvent, CallFacts
from eslbot.outcome import Stage
from eslbot.telemetry import metrics
from eslbot.turns import Kind


class MetricsObserver:
    """One call's share of the counters, histograms and gauges of :mod:`eslbot.telemetry.metrics`."""

    def __init__(self) -> None:
        #: The gauges of calls that need attention, in which this one counts.
        self._attention: dict[Attention, metrics.Gauge] = {}

    def __call__(self, call: CallFacts, event: CallEvent) -> None:
        """Count it."""
        count = _COUNTS.get(type(event))
        if count is not None:
            count(self, call, event)

    def _refused(self, call: CallFacts, event: events.RefusalSent) -> None:
        metrics.REFUSALS.labels(event.why).inc()

    def _answered(self, call: CallFacts, event: events.Answered) -> None:
        metrics.SETUP_SECONDS.labels(_name(call)).observe(event.setup)

    def _stage(self, call: CallFacts, event: events.StageEntered) -> None:
        """Count the call among those in its stage, and no longer among those in the one before."""
        name = _name(call)
        if event.before is not None:
            metrics.CALLS_BY_STAGE.labels(name, event.before).dec()
        elif event.stage is not None:
            metrics.CALLS_ACTIVE.labels(name).inc()
        if event.stage is not None:
            metrics.CALLS_BY_STAGE.labels(name, event.stage).inc()
        elif event.before is not None:
            metrics.CALLS_ACTIVE.labels(name).dec()

    def _arrived(self, call: CallFacts, event: events.Arrived) -> None:
        metrics.TAKE_OVERS.labels(event.stage).inc()

    def _not_verified(self, call: CallFacts, event: events.NotVerified) -> None:
        metrics.NOT_VERIFIED.inc()

    def _switch_restarted(self, call: CallFacts, event: events.SwitchRestarted) -> None:
        if call.workspace is not None:
            metrics.CALLS_RECOVERED.labels(call.workspace.name).inc()

    def _ended_call_came_back(self, call: CallFacts, event: events.EndedCallCameBack) -> None:
        metrics.ENDED_CALLS_RECOVERED.inc()

    def _stream_lost(self, call: CallFacts, event: events.RelayStreamLost) -> None:
        metrics.RELAY_STREAMS_RESTARTED.inc()

    def _text_ignored(self, call: CallFacts, event: events.RelayTextIgnored) -> None:
        metrics.RELAY_TEXTS_IGNORED.inc()

    def _speech_began(self, call: CallFacts, event: events.SpeechBegan) -> None:
        if event.first is not None:
            metrics.FIRST_AUDIO_SECONDS.labels(_name(call)).observe(event.first)

    def _turn(self, call: CallFacts, event: events.TurnTaken) -> None:
        name, turn = _name(call), event.turn
        if turn.kind is Kind.OVERLAP:
            metrics.OVERLAP_SECONDS.labels(name, turn.by or "").observe(turn.seconds)
            return
        whole, share = (
            (metrics.TURN_SECONDS, metrics.TURN_BOT_SECONDS)
            if turn.kind is Kind.ANSWER
            else (metrics.BARGE_IN_SECONDS, metrics.BARGE_IN_BOT_SECONDS)
        )
        whole.labels(name).observe(turn.seconds)
        if turn.bot is not None:
            share.labels(name).observe(turn.bot)

    def _talk_failed(self, call: CallFacts, event: events.TalkFailed) -> None:
        metrics.INTERNAL_ERRORS.inc()

    def _attention_changed(self, call: CallFacts, event: events.AttentionChanged) -> None:
        if event.needed and event.cause not in self._attention:
            gauge = self._attention[event.cause] = _gauge(event.cause, call)
            gauge.inc()
        elif not event.needed and event.cause in self._attention:
            self._attention.pop(event.cause).dec()

    def _left(self, call: CallFacts, event: events.Left) -> None:
        for gauge in self._attention.values():
            gauge.dec()
        self._attention.clear()

    def _attempt_began(self, call: CallFacts, event: events.AttemptBegan) -> None:
        if event.waited is not None:
            metrics.BOT_END_TO_POST_SECONDS.labels(_name(call)).observe(event.waited)

    def _attempt_ended(self, call: CallFacts, event: events.AttemptEnded) -> None:
        attempt = event.attempt
        metrics.ATTEMPTS.labels(_name(call), attempt.verdict).inc()
        metrics.NOTIFICATION_SECONDS.labels(_name(call), attempt.verdict).observe(attempt.seconds)

    def _in_doubt(self, call: CallFacts, event: events.HandOffInDoubt) -> None:
        metrics.IN_DOUBT.labels(_name(call)).inc()

    def _stranded(self, call: CallFacts, event: events.Stranded) -> None:
        metrics.CALLS_STRANDED.labels(_name(call)).inc()

    def _bye_overdue(self, call: CallFacts, event: events.ByeOverdue) -> None:
        metrics.BYE_OVERDUE.labels(_name(call)).inc()

    def _handed_over(self, call: CallFacts, event: events.HandedOver) -> None:
        metrics.HAND_OVERS.inc()

    def _ended(self, call: CallFacts, event: events.Ended) -> None:
        if call.workspace is not None and call.stage not in (None, Stage.ADMITTED):
            metrics.CALLS.labels(call.workspace.name, event.outcome).inc()
            if event.handed_off:
                metrics.HOLD_SECONDS.labels(call.workspace.name).observe(event.held_for)
        if event.hang_up.vanished:
            metrics.MEDIA_TIMEOUTS.labels(_name(call)).inc()
        if event.hang_up.alarm:
            metrics.SEND_BYE.inc()


def _name(call: CallFacts) -> str:
    return call.workspace.name if call.workspace is not None else ""


def _gauge(cause: Attention, call: CallFacts) -> metrics.Gauge:
    match cause:
        case Attention.HAND_OFF_FAILING:
            return metrics.CALLS_HAND_OFF_FAILING.labels(_name(call))
        case Attention.BYE_OVERDUE:
            return metrics.CALLS_BYE_OVERDUE.labels(_name(call))
        case Attention.NOT_VERIFIED:
            return metrics.CALLS_NOT_VERIFIED


_COUNTS: dict[type[CallEvent], Callable[[MetricsObserver, CallFacts, Any], None]] = {
    events.RefusalSent: MetricsObserver._refused,
    events.Answered: MetricsObserver._answered,
    events.StageEntered: MetricsObserver._stage,
    events.Arrived: MetricsObserver._arrived,
    events.NotVerified: MetricsObserver._not_verified,
    events.SwitchRestarted: MetricsObserver._switch_restarted,
    events.EndedCallCameBack: MetricsObserver._ended_call_came_back,
    events.RelayStreamLost: MetricsObserver._stream_lost,
    events.RelayTextIgnored: MetricsObserver._text_ignored,
    events.SpeechBegan: MetricsObserver._speech_began,
    events.TurnTaken: MetricsObserver._turn,
    events.TalkFailed: MetricsObserver._talk_failed,
    events.AttentionChanged: MetricsObserver._attention_changed,
    events.Left: MetricsObserver._left,
    events.AttemptBegan: MetricsObserver._attempt_began,
    events.AttemptEnded: MetricsObserver._attempt_ended,
    events.HandOffInDoubt: MetricsObserver._in_doubt,
    events.Stranded: MetricsObserver._stranded,
    events.ByeOverdue: MetricsObserver._bye_overdue,
    events.HandedOver: MetricsObserver._handed_over,
    events.Ended: MetricsObserver._ended,
}
