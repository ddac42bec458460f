"""A call whose controller went away: where it is, and what is known of it, is on its channel.

Behind a death of FreeSWITCH's it is in the resume state, which a controller has saved, too. Every stage of
the story then does what is not done yet.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from eslbot.caller import identity
from eslbot.calls.checkpoint import DEATHS_WITHIN, MOST_DEATHS
from eslbot.calls.context import CallContext
from eslbot.calls.events import (
    Arrived,
    Attention,
    BotEnd,
    EndedCallCameBack,
    EndedCallStays,
    NotVerified,
    SwitchRestarted,
    TakenOver,
    WorkspaceMissing,
)
from eslbot.outcome import Outcome, Stage

#: Seconds for FreeSWITCH to drop an ended call that it has taken up behind its own death. Where the PBX does
#: not answer the re-INVITE, its SIP stack gives it up behind 64 * T1 (RFC 3261, 17.1.1.2).
DROP_DUE = 40.0


def was_dropped(context: CallContext) -> bool:
    """Whether the call had ended before FreeSWITCH died and took it up again, and is gone once more.

    Its PBX refuses the re-INVITE. Meanwhile it gets no bot, Ameyo is told nothing, and the ledger has its
    end. One that stays lives after all, whatever we saw.
    """
    if not (context.state.restarted and context.host.has_seen_end(context.call_id)):
        return False
    if context.invite is not None:
        context.name_in_log()
    context.publish(EndedCallCameBack())
    dropped: bool = context.session.gone.wait(timeout=DROP_DUE)
    if not dropped:
        context.publish(EndedCallStays(DROP_DUE))
    return dropped


def take_over(context: CallContext, event_names: tuple[str, ...]) -> None:
    """Find out where the call is, and subscribe to its events: stage, workspace and channel are known then.

    One that nothing of ours says whose it is has no workspace.
    """
    state = context.state
    context.take_overs = state.take_overs + 1
    if context.invite is not None:
        context.channel = context.checkpoint.go_on(state, context.clock, context.channel)
    stage = context.stage = state.stage
    context.session.subscribe(*event_names)
    context.checkpoint.count_take_over(context.take_overs)
    assert stage is not None
    context.publish(Arrived(stage))
    if context.invite is None:
        _belongs_to_nobody(context)
        return
    context.workspace = context.host.resume(context.invite)
    context.name_in_log()
    context.show(stage)
    context.publish(TakenOver(context.who(), context.take_overs, state.summary()))
    if context.workspace is None:
        context.publish(WorkspaceMissing())
    if context.checkpoint.restarted:
        _publish_restart(context)


def bot_end_of(context: CallContext) -> BotEnd | None:
    """How the bot's part had ended, if it had."""
    over = context.stage in (Stage.ENDED, Stage.HANDING_OFF, Stage.HELD)
    return context.state.ended if over else None


def killed_by_its_bot(context: CallContext) -> BotEnd | None:
    """An end for a bot's part under which FreeSWITCH dies again and again: it may be what kills it."""
    if not context.checkpoint.dies_too_often:
        return None
    return BotEnd(Outcome.SWITCH_LOST, f"FreeSWITCH has died {MOST_DEATHS} times within {DEATHS_WITHIN:g} s")


def _publish_restart(context: CallContext) -> None:
    saved = context.state.resume_state
    gap = None if saved is None else round(max(0.0, time.monotonic() - saved.lost_at), 3)
    context.publish(SwitchRestarted(len(context.checkpoint.restarts), gap, resumed=saved is not None))


def _belongs_to_nobody(context: CallContext) -> None:
    """An answered channel that nothing of ours says whose it is: no bot, no token, and no hang-up either.

    Another host's key, or a peer that is no FreeSWITCH of ours. There is no refusing it any more.
    """
    context.needs_attention(Attention.NOT_VERIFIED)
    context.publish(
        NotVerified(
            context.take_overs,
            context.sip_call_id,
            _claim_in(context.channel),
            context.session.client_address[0],
            tuple(context.host.signer.fingerprints),
        )
    )


def _claim_in(channel: Mapping[str, str]) -> str:
    return identity.VARIABLE if f"variable_{identity.VARIABLE}" in channel else "nothing"
