"""What the log gets to know of calls: one line an event, with what an operator can do about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from eslbot.ameyo.retry import Verdict
from eslbot.calls import events, hangup
from eslbot.calls.events import CallEvent, CallFacts

log = structlog.get_logger()

_SWITCH_DIED = "FreeSWITCH has died: see its log, and `dmesg`"


def log_observer(call: CallFacts, event: CallEvent) -> None:
    """Write the line of ``event``, if it has one. Whose it is, :mod:`eslbot.telemetry.logs` adds."""
    write = _LINES.get(type(event))
    if write is not None:
        write(call, event)


# -- admission and answer ---------------------------------------------------------------------------------


def _admitted(call: CallFacts, event: events.Admitted) -> None:
    invite = event.who.invite
    log.info("call_admitted", source=event.who.source, caller=invite.caller if invite else None)


def _refused(call: CallFacts, event: events.RefusalSent) -> None:
    if event.reported:
        log.warning(
            "call_refused",
            status=event.status,
            why=event.why,
            detail=event.detail,
            source=event.who.source,
        )


def _caller_left(call: CallFacts, event: events.CallerLeftBeforeRefusal) -> None:
    log.info("caller_left_before_refusal")


def _answered(call: CallFacts, event: events.Answered) -> None:
    log.info("call_answered", seconds=call.seconds)


# -- take-over --------------------------------------------------------------------------------------------


def _taken_over(call: CallFacts, event: events.TakenOver) -> None:
    log.info("call_taken_over", stage=call.stage, take_overs=event.take_overs)


def _workspace_missing(call: CallFacts, event: events.WorkspaceMissing) -> None:
    log.error(
        "workspace_gone",
        remedy="put the workspace back into the configuration and reload: the customer waits",
    )


def _not_verified(call: CallFacts, event: events.NotVerified) -> None:
    log.error(
        "identity_not_verified",
        carries=event.carries,
        peer=event.peer,
        keys=event.keys,
        remedy="a customer may wait on this call: have the same server.key_file on every host "
        "(`eslbot key` shows which is which) and reload; a call of an eslbot before there were keys "
        "can only be ended by its PBX",
    )


def _switch_restarted(call: CallFacts, event: events.SwitchRestarted) -> None:
    log.error(
        "switch_restarted",
        restarts=event.restarts,
        gap=event.gap,
        stage=call.stage,
        known=event.resumed,
        remedy=_SWITCH_DIED,
    )


def _ended_call_came_back(call: CallFacts, event: events.EndedCallCameBack) -> None:
    log.warning("ended_call_came_back", remedy=_SWITCH_DIED)


def _ended_call_stays(call: CallFacts, event: events.EndedCallStays) -> None:
    log.error(
        "ended_call_stays", after_seconds=event.after, remedy="its PBX has accepted it, so the call continues"
    )


# -- the bot ----------------------------------------------------------------------------------------------


def _no_media(call: CallFacts, event: events.NoMedia) -> None:
    log.error("no_media", remedy="have the PBX send its offer in the INVITE, or an answer in its ACK")


def _bot_connected(call: CallFacts, event: events.BotConnected) -> None:
    log.info("bot_connected", seconds=call.seconds)


def _bot_reconnected(call: CallFacts, event: events.BotReconnected) -> None:
    log.warning("bot_reconnected", reason=event.why)


def _relay_stream_lost(call: CallFacts, event: events.RelayStreamLost) -> None:
    log.warning("relay_stream_lost", reason=event.why)


def _relay_text_ignored(call: CallFacts, event: events.RelayTextIgnored) -> None:
    if event.first:
        log.warning("relay_text_ignored", why=event.why)


def _relay_news_missing(call: CallFacts, event: events.RelayNewsMissing) -> None:
    log.warning("relay_news_missing", number=event.number, came=event.came)


def _relay_lost(call: CallFacts, event: events.RelayLost) -> None:
    log.error("relay_lost", reason=event.why, relay=event.url, remedy=event.remedy)


def _relay_outcome_unknown(call: CallFacts, event: events.RelayOutcomeUnknown) -> None:
    log.error("relay_outcome_unknown", remedy="run relay and controllers of one version")


def _hold(call: CallFacts, event: events.HoldChanged) -> None:
    if event.seen:
        log.info("hold", on=event.on)


def _short_packets(call: CallFacts, event: events.ShortPackets) -> None:
    log.warning(
        "short_packets",
        jitter_buffer=event.jitter_buffer,
        answer=event.answer,
        remedy="have the PBX send packets as long as its SDP says",
    )


def _caller_audio_late(call: CallFacts, event: events.CallerAudioLate) -> None:
    log.warning("caller_audio_late", seconds=event.late, flush=event.answer)


def _properties_dropped(call: CallFacts, event: events.PropertiesDropped) -> None:
    log.warning("bot_properties_dropped", names=list(event.names))


def _talk_failed(call: CallFacts, event: events.TalkFailed) -> None:
    log.exception("talk_failed")


def _last_words_cut(call: CallFacts, event: events.LastWordsCut) -> None:
    log.warning("last_words_cut", after_seconds=event.after)


def _bot_leg_not_closed(call: CallFacts, event: events.BotLegNotClosed) -> None:
    log.warning("bot_leg_not_closed", error=event.error)


def _bot_part_over(call: CallFacts, event: events.BotPartOver) -> None:
    log.info("bot_part_over", outcome=event.end.outcome, reason=event.end.reason, seconds=call.seconds)


# -- the hand-off -----------------------------------------------------------------------------------------


def _attempt_ended(call: CallFacts, event: events.AttemptEnded) -> None:
    attempt = event.attempt
    write = log.info if attempt.verdict is Verdict.ACCEPTED else log.warning
    write(
        "hand_off_" + attempt.verdict,
        attempt=attempt.number,
        status=attempt.status,
        answer=attempt.detail,
        seconds=round(attempt.seconds, 3),
    )


def _in_doubt(call: CallFacts, event: events.HandOffInDoubt) -> None:
    log.warning("hand_off_in_doubt", attempt=event.attempt)


def _was_accepted(call: CallFacts, event: events.HandOffWasAccepted) -> None:
    log.info("hand_off_was_accepted", attempt=event.attempt)


def _stranded(call: CallFacts, event: events.Stranded) -> None:
    log.error(
        "call_stranded",
        workspace=call.workspace.name if call.workspace is not None else None,
        crt_object_id=event.crt_object_id,
        stage=event.stage,
        remedy="FreeSWITCH has died and does not have it any more; its customer goes to an agent",
    )


def _came_back(call: CallFacts, event: events.CameBack) -> None:
    log.info("call_came_back")


def _bye_overdue(call: CallFacts, event: events.ByeOverdue) -> None:
    log.error(
        "bye_overdue",
        held_for=round(event.held_for, 1),
        remedy="the notification was accepted: ask Ameyo why the call stays",
    )


# -- the end ----------------------------------------------------------------------------------------------


def _handed_over(call: CallFacts, event: events.HandedOver) -> None:
    log.info("call_handed_over", stage=call.stage)


def _not_settled(call: CallFacts, event: events.NotSettled) -> None:
    log.warning("call_not_settled", error=event.error)


def _connection_broken(call: CallFacts, event: events.ConnectionBroken) -> None:
    log.warning("controller_connection_lost", stage=call.stage, error=event.error)


def _ended(call: CallFacts, event: events.Ended) -> None:
    end = event.hang_up
    write = log.error if end.alarm else log.info if end.by is hangup.By.PBX else log.warning
    write(
        "call_ended",
        outcome=event.outcome,
        fault=event.fault,
        handed_off=event.handed_off,
        stage=call.stage,
        sip_hangup_disposition=end.disposition,
        hangup_cause=end.cause or None,
        take_overs=event.take_overs,
        attempts=event.attempts,
        seconds=call.seconds,
        **({"why": end.why.words, "remedy": end.why.remedy} if end.by is hangup.By.US else {}),
        **event.media,
    )


_LINES: dict[type[CallEvent], Callable[[CallFacts, Any], None]] = {
    events.Admitted: _admitted,
    events.RefusalSent: _refused,
    events.CallerLeftBeforeRefusal: _caller_left,
    events.Answered: _answered,
    events.TakenOver: _taken_over,
    events.WorkspaceMissing: _workspace_missing,
    events.NotVerified: _not_verified,
    events.SwitchRestarted: _switch_restarted,
    events.EndedCallCameBack: _ended_call_came_back,
    events.EndedCallStays: _ended_call_stays,
    events.NoMedia: _no_media,
    events.BotConnected: _bot_connected,
    events.BotReconnected: _bot_reconnected,
    events.RelayStreamLost: _relay_stream_lost,
    events.RelayTextIgnored: _relay_text_ignored,
    events.RelayNewsMissing: _relay_news_missing,
    events.RelayLost: _relay_lost,
    events.RelayOutcomeUnknown: _relay_outcome_unknown,
    events.HoldChanged: _hold,
    events.ShortPackets: _short_packets,
    events.CallerAudioLate: _caller_audio_late,
    events.PropertiesDropped: _properties_dropped,
    events.TalkFailed: _talk_failed,
    events.LastWordsCut: _last_words_cut,
    events.BotLegNotClosed: _bot_leg_not_closed,
    events.BotPartOver: _bot_part_over,
    events.AttemptEnded: _attempt_ended,
    events.HandOffInDoubt: _in_doubt,
    events.HandOffWasAccepted: _was_accepted,
    events.Stranded: _stranded,
    events.CameBack: _came_back,
    events.ByeOverdue: _bye_overdue,
    events.HandedOver: _handed_over,
    events.NotSettled: _not_settled,
    events.ConnectionBroken: _connection_broken,
    events.Ended: _ended,
}
