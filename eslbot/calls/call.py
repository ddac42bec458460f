"""One call, told from the INVITE to the BYE by one greenlet.

    admit → answer → talk (until the bot ends) → hand off (until accepted) → hold (until BYE)

Three promises stand above everything here: an answered call ends in a notification to Ameyo; we never send
BYE to a living call; a tenant only ever reaches its own bot and Ameyo. So nothing below hangs up, and
whatever goes wrong between the answer and the bot's end leads to the hand-off.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog
from greenswitch.esl import OutboundSessionHasGoneAway

from eslbot.ameyo.client import Attempt, Verdict
from eslbot.ameyo.notification import notification_of
from eslbot.ameyo.told import tell
from eslbot.caller import identity
from eslbot.caller import invite as invites
from eslbot.caller.invite import Invite, Refused
from eslbot.calls import hangup, offer
from eslbot.calls.bot import EVENTS, PTIME, BotEnd, BotLeg, Found, Preparation, Way, leave_line, reachable
from eslbot.calls.media import media_facts
from eslbot.calls.notes import CallClock, Notes
from eslbot.calls.record import DEATHS_WITHIN, MOST_DEATHS, Record
from eslbot.config.model import Workspace
from eslbot.esl.errors import EslError
from eslbot.esl.frames import whole_number
from eslbot.esl.gone import CallerHungUp, ConnectionLost
from eslbot.esl.session import Session
from eslbot.ledger.facts import MAX_TIMELINE, OF_TIMELINE, What
from eslbot.outcome import Outcome, Stage, fault_of
from eslbot.telemetry import logs, metrics
from eslbot.turns import MAX_TURNS, Kind, Turn

if TYPE_CHECKING:
    from eslbot.server.controller import Controller

log = structlog.get_logger()

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
#: Seconds that a notification whose answer nobody noted waits for the BYE that would be the answer, or for
#: word of who sent it; and between two looks for that.
DOUBT, LOOK = 1.0, 0.05
#: Seconds behind Ameyo's 2xx in which its BYE usually comes.
BYE_DUE = 3.0
#: Seconds for CHANNEL_HANGUP_COMPLETE behind CHANNEL_HANGUP; 20 ms is usual.
LAST_EVENT = 1.5
#: Seconds for the ACK whose SDP answers our offer. Where none comes, the SIP stack ends the call after 32 s.
ACK_DUE = 40.0
#: Seconds between two looks for it, where nothing tells that it has come.
LOOK_FOR_MEDIA = 0.1
#: Seconds for FreeSWITCH to drop an ended call that it has taken up behind its own death. Where the PBX does
#: not answer the re-INVITE, its SIP stack gives it up behind 64 * T1 (RFC 3261, 17.1.1.2).
DROP_DUE = 40.0

#: Characters of a Call-ID that are told; whoever sends the INVITE chooses it.
MAX_SIP_CALL_ID = 255

#: The outcome where the bot's part was not over, by whose doing the end was.
_LEFT = {
    hangup.By.PBX: Outcome.CALLER_HANGUP,
    hangup.By.US: Outcome.OUR_BYE,
    hangup.By.LOST: Outcome.SWITCH_LOST,
    hangup.By.UNKNOWN: Outcome.CALLER_HANGUP,
}


class Call:
    """The story. What happened so far is also on the channel, so that another worker could go on."""

    def __init__(self, session: Session, controller: Controller, about: logs.About) -> None:
        self.session = session
        self.controller = controller
        #: What FreeSWITCH has said of the channel, until all of it that counts has been read.
        self.channel: Mapping[str, str] = {}
        self.notes = Notes({})
        self.clock = CallClock()
        self.workspace: Workspace | None = None
        self.invite: Invite | None = None
        self.ended: BotEnd | None = None
        self.handed_off = False
        self._source: str | None = None
        self.about = about
        self.began = time.monotonic()
        self.take_overs = 0
        self._record = Record(session, controller.survival)
        self._stage: Stage | None = None
        self._shown: Stage | None = None  # in the metrics
        self._attempts = 0
        self._held_at = 0.0  # by the call's clock
        self._preparation: Preparation | None = None
        self._leaving = False
        self._busy = False
        self._ameyo_failed = False
        #: The length of the packets, as the channel's variable says it.
        self._packets = ""
        #: Whether the line may still have no codec: the caller's SDP comes with the ACK.
        self._awaits_media = False
        # On the monotonic clock; what another controller has seen is not measured.
        self._answered_at: float | None = None
        self._connected_at = 0.0
        self._ended_at: float | None = None
        self._timeline_left, self._turns_left = MAX_TIMELINE, MAX_TURNS
        self._sip_call_id = ""
        #: The figures of calls that need somebody, in which this one counts.
        self._needs: set[metrics.Gauge] = set()

    def run(self) -> None:
        """The whole call. Returns when the channel is gone, or when another controller has to go on.

        Each stage goes on where the controller before has left it, and does nothing that was done already.
        """
        self.channel = self.session.connect(invites.DISPLAY)
        self.about.facts["call_id"] = self.session.uuid
        self.invite = self.controller.signer.identity(self.channel)
        self._sip_call_id = self.channel.get("variable_sip_call_id", "")[:MAX_SIP_CALL_ID]
        self.notes = Notes(self.channel)
        if self.notes.stage is not None and self.invite is not None:
            self.notes = Notes(self.channel, self.controller.survival.take(self.session.uuid))
        self.clock = CallClock(self.notes.invited_for)
        try:
            if self.notes.stage is None:
                self.admit()
                self.answer()
            elif self._was_dropped():
                return
            else:
                self.take_over()
            self.talk()
            self.hand_off()
            self.hold()
        except Refused as refusal:
            self.refuse(refusal)
        except CallerHungUp:
            self.say_how_it_ended()
        except ConnectionLost as error:
            if self._leaving or self.controller.draining:
                metrics.HAND_OVERS.inc()
                self.note(What.LEFT, why="handed_over")
                log.info("call_handed_over", stage=self._stage)
            else:
                self.note(What.LEFT, why="connection_lost")
                log.warning("controller_connection_lost", stage=self._stage, error=str(error))
        except Exception:
            self.note(What.LEFT, why="fault")
            raise
        finally:
            self._record.close()
            for figure in self._needs:
                figure.dec()
            if self.workspace is not None:
                self._show_stage(None)
                self.controller.leave(self.workspace)

    def leave(self) -> None:
        """Give the call to the next controller, at once, or as soon as nothing is lost by it."""
        logs.speak_of(self.about)
        self._leaving = True
        if not self._busy:
            self._part()

    # -- the stages ---------------------------------------------------------------------------------------

    def admit(self) -> None:
        """Find out who is calling, and whether they may. Raises Refused.

        That is the only time: from here on the signed variable says whose call it is, whatever the PBX sends.
        """
        edges = self.controller.config.edges
        self._source = invites.source_ip(self.channel, edges)
        self.session.subscribe(*EVENTS)
        self.controller.budget.charge(self._source)
        self._count_take_overs()
        if self.invite is None:  # else a controller before us has found out, and did not come to the answer
            self.invite = invites.parse(self.channel, self.session.plain.get(invites.DISPLAY), edges)
        self._name_in_log()
        self.workspace = self.controller.admit(self.invite)
        self._name_in_log()
        offer.check(self.channel)

    def answer(self) -> None:
        """Send the 200; who calls is told while FreeSWITCH does it."""
        assert self.invite is not None
        self._stage = Stage.ADMITTED
        signed = self.controller.signer.sign(self.invite)
        late = offer.is_late(self.channel)
        first = {"eslbot_late_offer": "true"} if late else {}
        first |= {identity.VARIABLE: signed, "eslbot_stage": self._stage}
        self._record.begin(self.notes, self.clock, **first)
        with self._undisturbed():
            if self.workspace is not None and self.workspace.nat:
                self.session.set_variables({"disable_rtp_auto_adjust": "false"})
            answer = self.session.begin_answer(at_once=not late)
            if not late:
                self._prepare(self.invite)
            try:
                self.session.flush()
            finally:
                self._tell_admitted()
            completed = answer.wait(ACK_DUE if late else self.session.timeout)
        if completed.headers.get("Answer-State", "answered") != "answered":
            raise Refused(500, "answer_failed", "FreeSWITCH could not answer the call")
        self._awaits_media = late and not offer.has_media(completed.headers)
        self._packets = completed.headers.get(f"variable_{PTIME}", "")
        self.enter(Stage.ANSWERED)
        ago = self._answered_ago(Notes(completed.headers))  # the 200 was sooner than the application's turn
        self.note(What.ANSWERED, ago)
        self._answered_at = time.monotonic() - ago
        self._record.answered(ago)
        if self.workspace is not None:
            setup = max(0.0, self.notes.invited_for + self._seconds() - ago)
            metrics.SETUP_SECONDS.labels(self.workspace.name).observe(setup)
        self.session.forget_variables(INFORMATIONAL)
        log.info("call_answered", seconds=self._seconds())
        self._forget_channel()

    def _answered_ago(self, told: Notes) -> float:
        """Seconds since the 200.

        An event is as old as its way to us was long, on a busy machine tens of milliseconds. So was
        FreeSWITCH's answer to `connect`; whichever says that it is longer ago came sooner.
        """
        invited, answered = told.counted
        if not (invited and answered):
            return told.answered_for
        return max(told.answered_for, self.clock.now() - (invited - answered))

    def _way(self, invite: Invite) -> Way:
        return Way.to(self.controller.config.relay.listen, self.controller.signer.sign(invite))

    def _prepare(self, invite: Invite) -> None:
        """Let the bot be dialled meanwhile, where its relay can be asked from here."""
        listen = self.controller.config.relay.listen
        if reachable(listen, self.session.client_address[0]):
            self._preparation = Preparation(self._way(invite), listen, self.session.uuid)

    def _tell_admitted(self) -> None:
        assert self.invite is not None
        self._show_stage(self._stage)
        self.note(What.ADMITTED, **self._who(), invited_at=time.time() - self.notes.invited_for)
        log.info("call_admitted", source=self.invite.source_ip, caller=self.invite.caller)

    def talk(self) -> None:
        """Give the caller to the bot until its part is over, in whatever way."""
        workspace = self.workspace
        over = self._stage in (Stage.HANDING_OFF, Stage.HELD)
        if self.ended is not None and self.ended.outcome is Outcome.SWITCH_LOST:
            over = True
        if workspace is None or self.invite is None or over:
            leave_line(self.session, self.channel)  # the controller before may have died before it did
            return
        if not self._media_comes():
            self.over(BotEnd(Outcome.INTERNAL_ERROR, "the PBX has not told where its audio is"))
            log.error("no_media", remedy="have the PBX send its offer in the INVITE, or an answer in its ACK")
            return
        way = self._preparation.way() if self._preparation is not None else self._way(self.invite)
        way = replace(way, ptime=self._ptime(), switch=self._record.switch, own=way.own or self.notes.relay)
        bot = BotLeg(self.session, workspace, way, self, self.channel)
        if self.take_overs:
            left = workspace.max_duration - self.notes.answered_for
            found = Found(self._stage in (Stage.TALKING, Stage.ENDED), self.ended, self._record.restarted)
            ended = self._whatever_happens(lambda: bot.go_on(left, found))
        else:
            ended = self._whatever_happens(lambda: bot.talk(workspace.max_duration))
        if self.ended is None:
            self.over(ended)
        log.info("bot_part_over", outcome=ended.outcome, reason=ended.reason, seconds=self._seconds())

    def _ptime(self) -> int:
        """Milliseconds of the packets that FreeSWITCH sends: what the PBX's SDP has asked for."""
        if not self._packets:
            self._packets = self.session.api(f"uuid_getvar {self.session.uuid} {PTIME}")
        return whole_number(self._packets) or 20

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
            if self._awaits_media and self.session.gone.wait(timeout=LOOK_FOR_MEDIA):
                self.session.raise_if_disconnected()
        return not self._awaits_media

    def hand_off(self) -> None:
        """Tell Ameyo, until it has accepted. The caller's hang-up ends it: there is nobody to hand over."""
        if self.handed_off or self.workspace is None or self.invite is None or self.ended is None:
            return
        self.enter(Stage.HANDING_OFF)
        self.play_hold_sound(self.workspace.hold_sound)
        wait = self._left_to_wait()
        if not self.handed_off:
            if wait > 0:  # the controller before has tried, and Ameyo has not accepted
                self._needs_somebody(metrics.CALLS_HAND_OFF_FAILING.labels(self.workspace.name))
            self._notify(wait)
        self._part_if_leaving()

    def hold(self) -> None:
        """Keep the line until the PBX sends BYE; nothing else ends it. One that does not come is told."""
        self._forget_channel()
        if self.workspace is None:
            self.session.gone.wait()
            self.session.raise_if_disconnected()
            return
        ameyo = self.workspace.ameyo
        told = self._held_for() // ameyo.bye_timeout  # alarms, by the controllers before
        overdue = metrics.CALLS_BYE_OVERDUE.labels(self.workspace.name)
        if told:
            self._needs_somebody(overdue)
        while not self.session.gone.wait(timeout=max(0.0, (told + 1) * ameyo.bye_timeout - self._held_for())):
            # Where we could not look for longer than that, it is one alarm all the same.
            told = max(told + 1, self._held_for() // ameyo.bye_timeout)
            metrics.BYE_OVERDUE.labels(self.workspace.name).inc()
            self._needs_somebody(overdue)
            self.note(What.BYE_OVERDUE)
            log.error(
                "bye_overdue",
                held_for=round(self._held_for(), 1),
                remedy="the notification was accepted: ask Ameyo why the call stays",
            )
            if ameyo.renotify:
                self._notify(0.0)
                self._part_if_leaving()
        self.session.raise_if_disconnected()

    def _held_for(self) -> float:
        """Seconds since Ameyo has accepted."""
        return max(0.0, self.clock.now() - self._held_at)

    def _forget_channel(self) -> None:
        """What was to be read of the channel has been read; it is most of what a held call would keep."""
        self.channel = {}
        self.notes = Notes({})
        self.session.forget_channel()

    def play_hold_sound(self, sound: str) -> None:
        """What the customer hears until the agent is there; silence flows by itself."""
        if sound != "silence":
            # FreeSWITCH paces it by its own clock instead of by what the caller sends.
            self.session.set_variables({"timer_name": "soft"})
            self.session.execute("endless_playback", HOLD_TONE if sound == "tone" else sound)

    # -- beside the story ---------------------------------------------------------------------------------

    def take_over(self) -> None:
        """Find out where a call is whose controller went away; all there is to know is on its channel."""
        self.take_overs = self.notes.take_overs + 1
        if self.invite is not None:
            self.channel = self._record.go_on(self.notes, self.clock, self.channel)
        stage = self._stage = self.notes.stage
        self._awaits_media = stage is Stage.ADMITTED and self.notes.late_offer
        self._packets = self.channel.get(f"variable_{PTIME}", "")
        self._attempts = self.notes.attempts
        self.session.subscribe(*EVENTS)
        self._count_take_overs()
        metrics.TAKE_OVERS.labels(str(stage)).inc()
        if self.invite is None:
            self._of_nobody()
            return
        self.workspace = self.controller.resume(self.invite)
        self._name_in_log()
        self._show_stage(stage)
        log.info("call_taken_over", stage=stage, take_overs=self.take_overs)
        if self.workspace is None:
            log.error("workspace_gone", remedy="put the workspace back and reload: its customer waits")
        self.note(What.TAKEN_OVER, **self._who(), take_overs=self.take_overs, **self.notes.all())
        if self._record.restarted:
            self._tell_restart()
        if stage in (Stage.ENDED, Stage.HANDING_OFF, Stage.HELD):
            self.ended = self.notes.ended
        if stage is Stage.HELD:
            self.handed_off = True
            self._held_at = self.clock.now() if self.notes.held_at is None else self.notes.held_at
            if self.workspace is not None:  # hand_off would have begun it
                self.play_hold_sound(self.workspace.hold_sound)
        elif self.ended is None and self._record.dies_too_often:
            self.over(
                BotEnd(
                    Outcome.SWITCH_LOST,
                    f"FreeSWITCH has died {MOST_DEATHS} times within {DEATHS_WITHIN:g} s",
                )
            )

    def _was_dropped(self) -> bool:
        """Whether the call had ended before FreeSWITCH died and took it up again, and is gone once more.

        Its PBX refuses the re-INVITE. Meanwhile it gets no bot, Ameyo is told nothing, and the ledger has its
        end. One that stays lives after all, whatever we saw.
        """
        if not (self.notes.restarted and self.controller.has_seen_end(self.session.uuid)):
            return False
        if self.invite is not None:
            self._name_in_log()
        metrics.ENDED_CALLS_RECOVERED.inc()
        log.warning("ended_call_came_back", remedy="FreeSWITCH has died: see its log, and `dmesg`")
        dropped: bool = self.session.gone.wait(timeout=DROP_DUE)
        if not dropped:
            log.error(
                "ended_call_stays", after_seconds=DROP_DUE, remedy="its PBX has accepted it: it goes on"
            )
        return dropped

    def _tell_restart(self) -> None:
        left = self.notes.left
        gap = None if left is None else round(max(0.0, time.monotonic() - left.lost_at), 3)
        if self.workspace is not None:
            metrics.CALLS_RECOVERED.labels(self.workspace.name).inc()
        self.note(What.SWITCH_RESTARTED, restarts=len(self._record.restarts), gap=gap)
        log.error(
            "switch_restarted",
            restarts=len(self._record.restarts),
            gap=gap,
            stage=self._stage,
            known=left is not None,
            remedy="FreeSWITCH has died: see its log, and `dmesg`",
        )

    def _of_nobody(self) -> None:
        """An answered channel that nothing of ours says whose it is: no bot, no token, and no hang-up either.

        Another host's key, or a peer that is no FreeSWITCH of ours. There is no refusing it any more.
        """
        metrics.NOT_VERIFIED.inc()
        self._needs_somebody(metrics.CALLS_NOT_VERIFIED)
        claimed = identity.VARIABLE if f"variable_{identity.VARIABLE}" in self.channel else "nothing"
        self.note(What.NOT_VERIFIED, take_overs=self.take_overs, sip_call_id=self._sip_call_id)
        log.error(
            "identity_not_verified",
            carries=claimed,
            peer=self.session.client_address[0],
            keys=self.controller.signer.fingerprints,
            remedy="a customer may wait on this call: have the same server.key_file on every host "
            "(`eslbot key` shows which is which) and reload; a call of an eslbot before there were keys "
            "can only be ended by its PBX",
        )

    def _count_take_overs(self) -> None:
        """For the next controller; and the dialplan sees by it that there was one, and calls it at once."""
        self._record.write(eslbot_take_overs=str(self.take_overs))

    # What the bot's leg notes (eslbot.calls.bot.leg.Story).

    def note(self, what: What, ago: float = 0.0, **facts: Any) -> None:
        """Tell the ledger; never waits. What the bot and the caller do is told up to a bound."""
        if what in OF_TIMELINE:
            self._timeline_left -= 1
            if self._timeline_left < 0:
                return
            if self._timeline_left == 0:
                what, facts = What.TIMELINE_FULL, {}
        self.controller.journal.note(self.session.uuid, what, facts, ago)

    def connecting(self) -> None:
        """A stream to the relay is about to be started."""
        self.enter(Stage.CONNECTING)
        self.note(What.BOT_CONNECTING)

    def connected(self, ago: float) -> None:
        """The bot is there."""
        self.enter(Stage.TALKING)
        self._connected_at = time.monotonic() - ago
        self.note(What.BOT_CONNECTED, ago)
        log.info("bot_connected", seconds=self._seconds())
        self._warm_ameyo()

    def audible(self, ago: float) -> None:
        """The caller begins to hear the bot.

        That is never before the bot was there, nor before the answer, though what tells of them may have been
        longer on its way.
        """
        sooner = max(self._connected_at, self._answered_at or 0.0)
        ago = min(ago, max(0.0, time.monotonic() - sooner))
        self.note(What.SPEECH_BEGAN, ago)
        if self._answered_at is not None and self.workspace is not None:
            first = time.monotonic() - ago - self._answered_at
            metrics.FIRST_AUDIO_SECONDS.labels(self.workspace.name).observe(first)
            self._answered_at = None

    def turn(self, turn: Turn, number: int, ago: float) -> None:
        """The caller stopped and the bot answered, or one spoke over the other."""
        self._turns_left -= 1
        if self._turns_left < 0 or self.workspace is None:
            return
        facts = {"number": number, "kind": turn.kind, "seconds": turn.seconds, "bot": turn.bot, "by": turn.by}
        self.note(What.TURN, ago, **{name: value for name, value in facts.items() if value is not None})
        name = self.workspace.name
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

    def relay_is(self, url: str) -> None:
        """The relay process at ``url`` has the call."""
        self._record.write(eslbot_relay=url)

    def over(self, ended: BotEnd) -> None:
        """The bot is done, and this is what Ameyo gets to know of it."""
        if self.workspace is None:
            return
        self.ended = ended
        self._ended_at = time.monotonic()
        self.enter(
            Stage.ENDED,
            eslbot_properties=json.dumps(dict(ended.properties)),
            eslbot_reason=ended.reason,
            eslbot_outcome=ended.outcome,
        )
        self.note(What.BOT_ENDED, outcome=ended.outcome, reason=ended.reason)
        self._warm_ameyo()  # what was opened at the beginning may be closed by now, and last words play

    # Telling Ameyo.

    def _warm_ameyo(self) -> None:
        if self.workspace is not None:
            self.controller.ameyo(self.workspace).warm()

    def _notify(self, wait: float) -> None:
        """Notify Ameyo until it has accepted, each attempt noted. Raises OutboundSessionHasGoneAway."""
        assert self.workspace is not None and self.invite is not None and self.ended is not None
        ended = self.ended
        body = notification_of(self.workspace, self.invite, ended.outcome, ended.reason, ended.properties)
        attempts = self.controller.ameyo(self.workspace).notify(
            body,
            self.session.gone,
            before=self._attempts,
            wait=wait,
            begin=self._attempt_begins,
            hung_up=self.session.hung_up,
        )
        for attempt in attempts:
            self._attempt_is_over(attempt)
        self.session.raise_if_disconnected()

    def _attempt_begins(self, number: int) -> None:
        self._attempts, self._busy, self._record.notifying = number, True, True
        self._record.write(eslbot_attempts=str(number), eslbot_next_attempt="")
        self.session.flush()  # before the POST goes out: else the next controller would not know of it
        self.note(What.ATTEMPT_BEGAN, number=number)
        if self._ended_at is not None and self.workspace is not None:
            waited = time.monotonic() - self._ended_at
            metrics.BOT_END_TO_POST_SECONDS.labels(self.workspace.name).observe(waited)
            self._ended_at = None

    def _attempt_is_over(self, attempt: Attempt) -> None:
        """Note it on the channel before anything else: what is not there, the next controller does again.

        Raises OutboundSessionHasGoneAway; the BYE may be here before Ameyo's answer. It is told all the same.
        """
        assert self.workspace is not None
        self._busy = self._record.notifying = False
        try:
            self._note_attempt(attempt)
        finally:
            self.note(What.ATTEMPT, **tell(attempt, self.workspace.name))
        if attempt.verdict is not Verdict.ACCEPTED:
            self._part_if_leaving()

    def _note_attempt(self, attempt: Attempt) -> None:
        assert self.workspace is not None
        if attempt.verdict is Verdict.ACCEPTED and not self.handed_off:
            self.handed_off = True
            self._held_at = self.clock.now()
            self.enter(Stage.HELD, eslbot_held_at=f"{self._held_at:.3f}")
            self.session.flush()
            self._needs_nobody(metrics.CALLS_HAND_OFF_FAILING.labels(self.workspace.name))
        elif not attempt.sent:
            self._record.write(eslbot_next_attempt=f"{self.clock.now():.3f}")
        elif attempt.verdict not in (Verdict.ACCEPTED, Verdict.INTERRUPTED):
            self._ameyo_failed = True
            if not self.handed_off:
                self._needs_somebody(metrics.CALLS_HAND_OFF_FAILING.labels(self.workspace.name))
            due = self.clock.now() + attempt.delay
            self._record.write(eslbot_next_attempt=f"{due:.3f}")

    def _needs_somebody(self, figure: metrics.Gauge) -> None:
        """Count in ``figure`` from now on, until it needs nobody any more or is over."""
        if figure not in self._needs:
            self._needs.add(figure)
            figure.inc()

    def _needs_nobody(self, figure: metrics.Gauge) -> None:
        if figure in self._needs:
            self._needs.discard(figure)
            figure.dec()

    def _left_to_wait(self) -> float:
        """Seconds until the next attempt, where a controller before us has begun with them.

        Where nobody knows what became of the last one, the BYE may still tell, or who has sent it; that it
        was accepted then is noted, and there is no next one. Raises OutboundSessionHasGoneAway.
        """
        assert self.workspace is not None
        if not self._attempts:
            return 0.0
        next_attempt = self.notes.next_attempt
        if next_attempt is None:
            metrics.IN_DOUBT.labels(self.workspace.name).inc()
            log.warning("hand_off_in_doubt", attempt=self._attempts)
            word = self._word_of_the_last()
            if word is not None and word.held_at is not None:
                self.handed_off, self._held_at = True, word.held_at
                self.enter(Stage.HELD, eslbot_held_at=f"{self._held_at:.3f}")
                log.info("hand_off_was_accepted", attempt=self._attempts)
                return 0.0
            next_attempt = None if word is None else word.next_attempt
        return 0.0 if next_attempt is None else max(0.0, next_attempt - self.clock.now())

    def _word_of_the_last(self) -> Notes | None:
        """What the controller that has begun the last attempt says became of it, if it comes to that.

        None behind DOUBT; while it waits for Ameyo's answer, behind that answer's time. Raises
        OutboundSessionHasGoneAway.
        """
        assert self.workspace is not None
        begun = time.monotonic()
        bound = DOUBT
        while (waited := time.monotonic() - begun) < bound:
            left = self.controller.survival.take(self.session.uuid)
            if left is not None and left.under_way:
                bound = self.workspace.ameyo.timeout + DOUBT
            elif left is not None and (word := Notes(self.channel, left)).left is not None:
                if word.held_at is not None or word.next_attempt is not None:
                    return word
                bound = DOUBT  # it does not know, either
            self.session.gone.wait(timeout=min(LOOK, max(0.0, bound - waited)))
            self.session.raise_if_disconnected()
        return None

    # Leaving.

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """What :meth:`leave` waits for."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
        self._part_if_leaving()

    def _part_if_leaving(self) -> None:
        if self._leaving:
            self._part()
            self.session.raise_if_disconnected()

    def _part(self) -> None:
        """Close the connection, FreeSWITCH having had all that was noted: it calls the next controller.

        Not where a BYE is due: between two controllers nobody would hear it, nor know how the call ended.
        """
        bye_due = BYE_DUE - self._held_for() if self._stage is Stage.HELD else 0.0
        if self.session.gone.wait(timeout=max(0.0, bye_due)):
            return
        if self.session.uuid:
            try:
                self.session.settle()
            except (EslError, OutboundSessionHasGoneAway) as error:
                log.warning("call_not_settled", error=str(error))
        if not self._busy:  # else it leaves when that is over
            self.session.stop()

    def enter(self, stage: Stage, **variables: str) -> None:
        """Write the stage, and what goes with it, to the channel."""
        self._show_stage(stage)
        self._stage = stage
        self._record.write(**variables, eslbot_stage=stage)

    def _show_stage(self, stage: Stage | None) -> None:
        """Count the call among those in ``stage``, and no longer among those in the one before."""
        if self.workspace is None:
            return
        name = self.workspace.name
        if self._shown is not None:
            metrics.CALLS_BY_STAGE.labels(name, self._shown).dec()
        elif stage is not None:
            metrics.CALLS_ACTIVE.labels(name).inc()
        if stage is not None:
            metrics.CALLS_BY_STAGE.labels(name, stage).inc()
        elif self._shown is not None:
            metrics.CALLS_ACTIVE.labels(name).dec()
        self._shown = stage

    def refuse(self, refusal: Refused) -> None:
        """Send the final response; the call was never answered."""
        metrics.REFUSALS.labels(refusal.why).inc()
        if self.controller.refusals.aloud(self._source or "", refusal.why):
            self._tell_refusal(refusal)
        try:
            self.session.respond(refusal.status, refusal.phrase, refusal.retry_after)
            self.session.finished.wait(timeout=self.session.timeout)
        except OutboundSessionHasGoneAway:
            log.info("caller_left_before_refusal")

    def _tell_refusal(self, refusal: Refused) -> None:
        self.note(
            What.REFUSED,
            **self._who(),
            invited_at=time.time() - self.notes.invited_for,
            status=refusal.status,
            why=refusal.why,
            detail=refusal.detail,
        )
        log.warning(
            "call_refused",
            status=refusal.status,
            why=refusal.why,
            detail=refusal.detail,
            source=self._source,
        )

    def say_how_it_ended(self) -> None:
        """One line that says how the call ended, and why."""
        # mod_audio_stream may hold the channel's thread for ever: the last event never comes then, and
        # CHANNEL_HANGUP has to do.
        self.session.finished.wait(timeout=LAST_EVENT)
        end = hangup.read(self.session.hangup, restarted=bool(self._record.restarts))
        if end.by is hangup.By.PBX:
            self.controller.remember_end(self.session.uuid)
        outcome = self.ended.outcome if self.ended else _LEFT[end.by]
        if end.vanished and not self.ended:
            outcome = Outcome.MEDIA_TIMEOUT
        if self.workspace is not None and self._stage not in (None, Stage.ADMITTED):
            metrics.CALLS.labels(self.workspace.name, outcome).inc()
            if self.handed_off:
                metrics.HOLD_SECONDS.labels(self.workspace.name).observe(self._held_for())
        if end.vanished:
            metrics.MEDIA_TIMEOUTS.labels(self.workspace.name if self.workspace else "").inc()
        if end.alarm:
            metrics.SEND_BYE.inc()
        if end.by is hangup.By.LOST and not self.handed_off:
            self._record.strand()
        fault = fault_of(
            outcome, handed_off=self.handed_off, ameyo_failed=self._ameyo_failed, disposition=end.disposition
        )
        media = media_facts(self.session.hangup)
        self.note(
            What.ENDED,
            disposition=end.disposition,
            cause=end.cause or None,
            outcome=outcome,
            handed_off=self.handed_off,
            stage=self._stage,
            media=media,
        )
        tell = log.error if end.alarm else log.info if end.by is hangup.By.PBX else log.warning
        tell(
            "call_ended",
            outcome=outcome,
            fault=fault,
            handed_off=self.handed_off,
            stage=self._stage,
            sip_hangup_disposition=end.disposition,
            hangup_cause=end.cause or None,
            take_overs=self.take_overs,
            attempts=self._attempts,
            seconds=self._seconds(),
            **({"why": end.why.words, "remedy": end.why.remedy} if end.by is hangup.By.US else {}),
            **media,
        )

    def _who(self) -> dict[str, Any]:
        """Who calls whom, for the ledger; what is not known is left out.

        A call that was refused is filed under the workspace it names only if it came from there: else anybody
        could write into another tenant's list.
        """
        invite = self.invite
        if invite is None:
            return {"source": self._source, "sip_call_id": self._sip_call_id}
        whose = self.workspace or self.controller.workspace_of(invite)
        who: dict[str, Any] = {
            "source": invite.source_ip,
            "did": invite.did,
            "crt_object_id": invite.crt_object_id,
            "caller": invite.caller,
            "called": invite.to,
            "sip_call_id": self._sip_call_id,
        }
        if whose is not None:
            who["workspace"] = whose.name
        if whose is not None or self._stage is not None:  # admitted once, though the workspace may be gone
            who["workspace_id"] = invite.workspace_id
        return who

    def _seconds(self) -> float:
        """Since this controller has the call."""
        return round(time.monotonic() - self.began, 3)

    def _name_in_log(self) -> None:
        """From here on every line about this call says whose it is."""
        assert self.invite is not None
        self.about.facts.update(
            workspace=self.workspace.name if self.workspace else None,
            crt_object_id=self.invite.crt_object_id,
        )
        self.about.numbers = (self.invite.did, self.invite.caller)

    def _whatever_happens(self, talk: Callable[[], BotEnd]) -> BotEnd:
        """``talk``'s own end; a fault of ours is one, too. Only the channel's going is not."""
        try:
            return talk()
        except OutboundSessionHasGoneAway:
            raise
        except Exception as error:  # whatever it is, the customer goes to a human
            metrics.INTERNAL_ERRORS.inc()
            log.exception("talk_failed")
            return BotEnd(Outcome.INTERNAL_ERROR, type(error).__name__)
