"""One call, told from the INVITE to the BYE by one greenlet.

    admit → answer → talk (until the bot ends) → hand off (until accepted) → hold (until BYE)

Three promises stand above everything here: an answered call ends in a notification to Ameyo; we never send
BYE to a living call; a tenant only ever reaches its own bot and Ameyo. So nothing below hangs up, and
whatever goes wrong between the answer and the bot's end leads to the hand-off.

::

    stage        entered when                      next                  behind a take-over
    –            the INVITE is here                ADMITTED, or refused  admit
    ADMITTED     it is signed whose call it is     ANSWERED              talk, from the start
    ANSWERED     the 200 is sent                   CONNECTING, ENDED     talk, from the start
    CONNECTING   a stream to the relay is started  TALKING, ENDED        talk, from the start
    TALKING      the bot is there                  ENDED                 talk, in mid-word
    ENDED        the bot is done, or has failed    HANDING_OFF           talk, for its last words
    HANDING_OFF  its last word is heard            HELD                  hand off
    HELD         Ameyo has accepted                –                     hold

The PBX's BYE ends it in any stage. :data:`NEXT` is this table; each stage is a channel variable, so that any
other controller can go on (:mod:`eslbot.calls.take_over`). What happens is published once, as an event
(:mod:`eslbot.calls.events`): nobody in here counts, logs or stores.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from greenswitch.esl import OutboundSessionHasGoneAway

from eslbot.caller import identity
from eslbot.caller import invite as invites
from eslbot.caller.invite import Invite, Refused
from eslbot.calls import events, hangup, offer
from eslbot.calls.bot import EVENTS, PTIME, BotLeg, Found, Preparation, Way, leave_line, reachable
from eslbot.calls.channel_state import ChannelState
from eslbot.calls.context import CallContext
from eslbot.calls.departure import Departure
from eslbot.calls.events import Attention, BotEnd, CallEvent
from eslbot.calls.hand_off import HandOff
from eslbot.calls.host import CallHost
from eslbot.calls.media import media_facts
from eslbot.calls.take_over import bot_end_of, killed_by_its_bot, take_over, was_dropped
from eslbot.esl.frames import whole_number
from eslbot.esl.gone import CallerHungUp, ConnectionLost
from eslbot.esl.session import Session
from eslbot.outcome import Outcome, Stage, fault_of
from eslbot.telemetry import logs

#: Which stages may follow which.
NEXT: Mapping[Stage | None, frozenset[Stage]] = {
    None: frozenset({Stage.ADMITTED}),
    Stage.ADMITTED: frozenset({Stage.ANSWERED, Stage.CONNECTING, Stage.ENDED}),
    Stage.ANSWERED: frozenset({Stage.CONNECTING, Stage.ENDED}),
    Stage.CONNECTING: frozenset({Stage.CONNECTING, Stage.TALKING, Stage.ENDED}),
    Stage.TALKING: frozenset({Stage.ENDED}),
    Stage.ENDED: frozenset({Stage.HANDING_OFF}),
    Stage.HANDING_OFF: frozenset({Stage.HANDING_OFF, Stage.HELD}),
    Stage.HELD: frozenset(),
}

#: Channel variables that only tell: of the INVITE, of the media. FreeSWITCH itself reads them when it bridges
#: calls, as it never does here; without them each event is a quarter shorter. Not among them are those it
#: reads when it takes a call up behind its own death (``sofia_recover_callback``,
#: ``switch_core_media_recover_session``): it writes them down anew at each transfer and re-INVITE, and a call
#: without them is lost ("Missing profile").
INFORMATIONAL = (
    *("sip_full_via", "sip_via_host", "sip_via_port", "sip_via_rport"),
    *("sip_from_port", "sip_from_host", "sip_from_user_stripped", "sip_from_tag"),
    *("sip_to_port", "sip_to_uri", "sip_to_host", "sip_req_port", "sip_req_uri", "sip_req_host"),
    *("sip_contact_user", "sip_contact_port", "sip_contact_host"),
    *("sip_local_network_addr", "sip_received_port", "sip_invite_stamp"),
    *("sip_user_agent", "sip_subject", "sip_P-Asserted-Identity", "sip_Remote-Party-ID", "sip_cid_type"),
    *("sofia_profile_url", "video_media_flow", "text_media_flow"),
    *("remote_video_media_flow", "remote_text_media_flow", "rtp_local_sdp_str"),
    *("original_read_codec", "original_read_rate", "read_codec", "read_rate", "write_codec", "write_rate"),
    *("audio_media_flow", "session_id", "socket_host"),
)
#: A short soft beep every three seconds: the line lives (FreeSWITCH's mod_tone_stream).
HOLD_TONE = "tone_stream://v=-20;%(150,2850,425);loops=-1"
#: Seconds for CHANNEL_HANGUP_COMPLETE behind CHANNEL_HANGUP; 20 ms is usual.
LAST_EVENT = 1.5
#: Seconds for the ACK whose SDP answers our offer. Where none comes, the SIP stack ends the call after 32 s.
ACK_DUE = 40.0
#: Seconds between two questions whether it has come, where nothing tells.
MEDIA_POLL_INTERVAL = 0.1

#: The outcome where the bot's part was not over, by whose doing the end was.
_UNFINISHED = {
    hangup.By.PBX: Outcome.CALLER_HANGUP,
    hangup.By.US: Outcome.OUR_BYE,
    hangup.By.LOST: Outcome.SWITCH_LOST,
    hangup.By.UNKNOWN: Outcome.CALLER_HANGUP,
}


class Call:
    """The story. What happened so far is also on the channel, so that another worker could go on."""

    def __init__(self, session: Session, host: CallHost, about: logs.About) -> None:
        self.session, self.host = session, host
        self.context = CallContext(session, host, about)
        self.bot_end: BotEnd | None = None
        self._departure = Departure(self.context)
        self._hand_off = HandOff(self.context, self._departure)
        self._preparation: Preparation | None = None
        #: The length of the packets, as the channel's variable says it.
        self._ptime = ""
        #: Whether the line may still have no codec: the caller's SDP comes with the ACK.
        self._awaits_media = False
        # On the monotonic clock; what another controller has seen is not measured.
        self._answered_at: float | None = None
        self._connected_at = 0.0

    def run(self) -> None:
        """The whole call. Returns when the channel is gone, or when another controller has to go on.

        Each stage goes on where the controller before has left it, and does nothing that was done already.
        """
        context = self.context
        context.connect()
        try:
            if context.state.stage is None:
                self.admit()
                self.answer()
            elif was_dropped(context):
                return
            else:
                self.take_over()
            self.talk()
            self.hand_off()
            self.hold()
        except Refused as refusal:
            self.refuse(refusal)
        except CallerHungUp:
            self.end()
        except ConnectionLost as error:
            leaving = self._departure.wanted or self.host.draining
            context.publish(events.HandedOver() if leaving else events.ConnectionBroken(str(error)))
        except Exception:
            context.publish(events.Failed())
            raise
        finally:
            context.checkpoint.close()
            if self._preparation is not None:
                self._preparation.close()
            context.publish(events.Left())
            if context.workspace is not None:
                context.show(None)
                self.host.leave(context.workspace)

    def leave(self) -> None:
        """Give the call to the next controller, at once, or as soon as nothing is lost by it."""
        logs.speak_of(self.context.about)
        self._departure.ask()

    # -- the stages ---------------------------------------------------------------------------------------

    def admit(self) -> None:
        """Find out who is calling, and whether they may. Raises Refused.

        That is the only time: from here on the signed variable says whose call it is, whatever the PBX sends.
        """
        context, edges = self.context, self.host.config.edges
        context.source = invites.source_ip(context.channel, edges)
        self.session.subscribe(*EVENTS)
        self.host.charge(context.source)
        context.checkpoint.count_take_over(0)
        if (
            context.invite is None
        ):  # else a controller before us has found out, and did not come to the answer
            display = self.session.plain.get(invites.DISPLAY)
            context.invite = invites.parse(context.channel, display, edges)
        context.name_in_log()
        context.workspace = self.host.admit(context.invite)
        context.name_in_log()
        offer.check(context.channel)

    def refuse(self, refusal: Refused) -> None:
        """Send the final response; the call was never answered."""
        context = self.context
        reported = self.host.reports_refusal(context.source or "", refusal.why)
        context.publish(
            events.RefusalSent(
                context.who(), self._invited_at(), refusal.status, refusal.why, refusal.detail, reported
            )
        )
        try:
            self.session.respond(refusal.status, refusal.phrase, refusal.retry_after)
            self.session.finished.wait(timeout=self.session.timeout)
        except OutboundSessionHasGoneAway:
            context.publish(events.CallerLeftBeforeRefusal())

    def answer(self) -> None:
        """Send the 200; who calls is told while FreeSWITCH does it."""
        context = self.context
        assert context.invite is not None and context.workspace is not None
        context.stage = Stage.ADMITTED
        way = self._way(context.invite)
        late = offer.is_late(context.channel)
        first = {"eslbot_late_offer": "true"} if late else {}
        first |= {identity.VARIABLE: way.identity, "eslbot_stage": context.stage}
        context.checkpoint.begin(context.state, context.clock, **first)
        with self._departure.not_now():
            if context.workspace.nat:
                self.session.set_variables({"disable_rtp_auto_adjust": "false"})
            answer = self.session.begin_answer(at_once=not late)
            if not late:
                self._prepare(way)
            try:
                self.session.flush()
            finally:
                context.show(context.stage)
                context.publish(events.Admitted(context.who(), self._invited_at()))
            completed = answer.wait(ACK_DUE if late else self.session.timeout)
        if completed.headers.get("Answer-State", "answered") != "answered":
            raise Refused(500, "answer_failed", "FreeSWITCH could not answer the call")
        self._awaits_media = late and not offer.has_media(completed.headers)
        self._ptime = completed.headers.get(f"variable_{PTIME}", "")
        context.enter(Stage.ANSWERED)
        ago = self._answered_ago(ChannelState(completed.headers))
        self._answered_at = time.monotonic() - ago
        context.checkpoint.answered(ago)
        setup = max(0.0, context.state.invited_for + context.seconds - ago)
        context.publish(events.Answered(setup, ago=ago))
        self.session.forget_variables(INFORMATIONAL)
        context.forget_channel()

    def take_over(self) -> None:
        """Go on with a call whose controller went away."""
        context = self.context
        take_over(context, EVENTS)
        self._awaits_media = context.stage is Stage.ADMITTED and context.state.late_offer
        self._ptime = context.channel.get(f"variable_{PTIME}", "")
        self._hand_off.resume(context.state.attempts, None)
        if context.invite is None:
            return
        self.bot_end = bot_end_of(context)
        if context.stage is Stage.HELD:
            accepted_at = context.state.held_at
            self._hand_off.resume(
                context.state.attempts, context.clock.now() if accepted_at is None else accepted_at
            )
            if context.workspace is not None:  # hand_off would have begun it
                self.play_hold_sound(context.workspace.hold_sound)
        elif self.bot_end is None and (end := killed_by_its_bot(context)) is not None:
            self._on_bot(events.BotEnded(end))

    def talk(self) -> None:
        """Give the caller to the bot until its part is over, in whatever way."""
        context, workspace = self.context, self.context.workspace
        over = context.stage in (Stage.HANDING_OFF, Stage.HELD)
        if self.bot_end is not None and self.bot_end.outcome is Outcome.SWITCH_LOST:
            over = True
        if workspace is None or context.invite is None or over:
            leave_line(self.session, context.channel)  # the controller before may have died before it did
            return
        if not self._media_comes():
            self._on_bot(
                events.BotEnded(BotEnd(Outcome.INTERNAL_ERROR, "the PBX has not told where its audio is"))
            )
            context.publish(events.NoMedia())
            return
        way = self._preparation.way() if self._preparation is not None else self._way(context.invite)
        way = replace(
            way,
            ptime=self._packet_length(),
            switch=context.checkpoint.switch,
            own=way.own or context.state.relay,
        )
        bot = BotLeg(self.session, workspace, way, self._on_bot, context.channel)
        if context.take_overs:
            left = workspace.max_duration - context.state.answered_for
            connected = context.stage in (Stage.TALKING, Stage.ENDED)
            found = Found(connected, self.bot_end, context.checkpoint.restarted)
            end = self._whatever_happens(lambda: bot.go_on(left, found))
        else:
            end = self._whatever_happens(lambda: bot.talk(workspace.max_duration))
        if self.bot_end is None:
            self._on_bot(events.BotEnded(end))
        context.publish(events.BotPartOver(end))

    def hand_off(self) -> None:
        """Tell Ameyo, until it has accepted."""
        context, workspace = self.context, self.context.workspace
        if self._hand_off.accepted or workspace is None or context.invite is None or self.bot_end is None:
            return
        context.enter(Stage.HANDING_OFF)
        self.play_hold_sound(workspace.hold_sound)
        self._hand_off.run(workspace, self.bot_end)

    def hold(self) -> None:
        """Keep the line until the PBX sends BYE; nothing else ends it. One that does not come is told."""
        context, workspace, session = self.context, self.context.workspace, self.session
        context.forget_channel()
        if workspace is None:
            session.gone.wait()
            session.raise_if_disconnected()
            return
        every = workspace.ameyo.bye_timeout
        alarms = self._hand_off.held_for // every  # by the controllers before
        if alarms:
            context.needs_attention(Attention.BYE_OVERDUE)
        while not session.gone.wait(timeout=max(0.0, (alarms + 1) * every - self._hand_off.held_for)):
            # Where we could not look for longer than that, it is one alarm all the same.
            alarms = max(alarms + 1, self._hand_off.held_for // every)
            context.needs_attention(Attention.BYE_OVERDUE)
            context.publish(events.ByeOverdue(self._hand_off.held_for))
            if workspace.ameyo.renotify and self.bot_end is not None:
                self._hand_off.notify(workspace, self.bot_end)
                self._departure.leave_if_wanted()
        session.raise_if_disconnected()

    def end(self) -> None:
        """The channel is gone: say how it ended, and why."""
        context, hand_off = self.context, self._hand_off
        # mod_audio_stream may hold the channel's thread for ever: the last event never comes then, and
        # CHANNEL_HANGUP has to do.
        self.session.finished.wait(timeout=LAST_EVENT)
        end = hangup.read(self.session.hangup, restarted=bool(context.checkpoint.restarts))
        if end.by is hangup.By.PBX:
            self.host.remember_end(context.call_id)
        outcome = self.bot_end.outcome if self.bot_end else _UNFINISHED[end.by]
        if end.vanished and not self.bot_end:
            outcome = Outcome.MEDIA_TIMEOUT
        if end.by is hangup.By.LOST and not hand_off.accepted:
            context.checkpoint.strand()
        fault = fault_of(
            outcome, handed_off=hand_off.accepted, ameyo_failed=hand_off.failed, disposition=end.disposition
        )
        context.publish(
            events.Ended(
                end,
                outcome,
                fault,
                hand_off.accepted,
                hand_off.held_for,
                context.take_overs,
                hand_off.attempts,
                media_facts(self.session.hangup),
            )
        )

    # -- the bot's leg ------------------------------------------------------------------------------------

    def _on_bot(self, event: CallEvent) -> None:
        """What the bot's leg publishes: the story moves on first, so that an observer sees the new stage."""
        context = self.context
        match event:
            case events.BotConnecting():
                context.enter(Stage.CONNECTING)
            case events.BotConnected():
                context.enter(Stage.TALKING)
                self._connected_at = time.monotonic() - event.ago
            case events.RelayFound():
                context.checkpoint.write(eslbot_relay=event.url)
            case events.SpeechBegan():
                event = self._heard(event)
            case events.BotEnded():
                if context.workspace is None:
                    return
                self._bot_ended(event.end)
        context.publish(event)
        if isinstance(event, events.BotConnected | events.BotEnded):
            # Behind the end once more: what was opened before may be closed, and last words play.
            self._hand_off.warm()

    def _heard(self, event: events.SpeechBegan) -> events.SpeechBegan:
        """When the caller began to hear the bot.

        That is never before the bot was there, nor before the answer, though what tells of them may have been
        longer on its way.
        """
        sooner = max(self._connected_at, self._answered_at or 0.0)
        ago = min(event.ago, max(0.0, time.monotonic() - sooner))
        first = None if self._answered_at is None else time.monotonic() - ago - self._answered_at
        self._answered_at = None
        return events.SpeechBegan(first, ago=ago)

    def _bot_ended(self, end: BotEnd) -> None:
        self.bot_end = end
        self._hand_off.bot_ended_at = time.monotonic()
        self.context.enter(
            Stage.ENDED,
            eslbot_properties=json.dumps(dict(end.properties)),
            eslbot_reason=end.reason,
            eslbot_outcome=end.outcome,
        )

    def _whatever_happens(self, talk: Callable[[], BotEnd]) -> BotEnd:
        """``talk``'s own end; a fault of ours is one, too. Only the channel's going is not."""
        try:
            return talk()
        except OutboundSessionHasGoneAway:
            raise
        except Exception as error:  # noqa: BLE001  # it is published, and the customer goes to a human
            self.context.publish(events.TalkFailed())
            return BotEnd(Outcome.INTERNAL_ERROR, type(error).__name__)

    def _way(self, invite: Invite) -> Way:
        return Way.to(self.host.config.relay.listen, self.host.signer.sign(invite))

    def _prepare(self, way: Way) -> None:
        """Let the bot be dialled meanwhile, where its relay can be asked from here."""
        listen = self.host.config.relay.listen
        if reachable(listen, self.session.client_address[0]):
            self._preparation = Preparation(way, listen, self.session.uuid)

    # -- FreeSWITCH ---------------------------------------------------------------------------------------

    def _invited_at(self) -> float:
        """Epoch seconds, by this host's clock."""
        return time.time() - self.context.state.invited_for

    def _answered_ago(self, told: ChannelState) -> float:
        """Seconds since the 200, which was sooner than the application's turn.

        An event is as old as its way to us was long, on a busy machine tens of milliseconds. So was
        FreeSWITCH's answer to `connect`; whichever says that it is longer ago came sooner.
        """
        invited, answered = told.counted
        if not (invited and answered):
            return told.answered_for
        return max(told.answered_for, self.context.clock.now() - (invited - answered))

    def _packet_length(self) -> int:
        """Milliseconds of the packets that FreeSWITCH sends: what the PBX's SDP has asked for."""
        if not self._ptime:
            self._ptime = self.session.api(f"uuid_getvar {self.session.uuid} {PTIME}")
        return whole_number(self._ptime) or 20

    def _media_comes(self) -> bool:
        """Whether the line has a codec, the ACK that may bring it having had its time.

        Where the INVITE had no offer and a controller left before the ACK, FreeSWITCH takes the call for
        answered and has no codec. No stream may be started then: mod_audio_stream asks the codec for its
        rate without looking whether there is one, and all of FreeSWITCH ends with SIGSEGV (measured).
        """
        deadline = time.monotonic() + ACK_DUE
        while self._awaits_media and time.monotonic() < deadline:
            codec = self.session.api(f"uuid_getvar {self.session.uuid} {offer.CODEC}")
            self._awaits_media = codec.startswith(("_undef_", "-ERR"))
            if self._awaits_media and self.session.gone.wait(timeout=MEDIA_POLL_INTERVAL):
                self.session.raise_if_disconnected()
        return not self._awaits_media

    def play_hold_sound(self, sound: str) -> None:
        """What the customer hears until the agent is there; silence flows by itself."""
        if sound != "silence":
            # FreeSWITCH paces it by its own clock instead of by what the caller sends.
            self.session.set_variables({"timer_name": "soft"})
            self.session.execute("endless_playback", HOLD_TONE if sound == "tone" else sound)
