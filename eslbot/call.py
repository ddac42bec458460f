"""One call, told from the INVITE to the BYE by one greenlet.

    admit → answer → talk (until the bot ends) → hand off (until accepted) → hold (until BYE)

Three promises stand above everything here: an answered call ends in a notification to Ameyo; we never send
BYE to a living call; a tenant only ever reaches its own bot and Ameyo. So nothing below hangs up, and
whatever goes wrong between the answer and the bot's end leads to the hand-off.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
from greenswitch.esl import OutboundSessionHasGoneAway

from eslbot import invite as invites
from eslbot import metrics
from eslbot.ameyo.client import Verdict
from eslbot.ameyo.notification import notification
from eslbot.ameyo.properties import allowed, fill
from eslbot.bot import EVENTS, BotEnd, BotLeg
from eslbot.config.model import Workspace
from eslbot.esl import CallerHungUp, ConnectionLost, Session
from eslbot.invite import Invite, Refused
from eslbot.outcome import Outcome, Stage

if TYPE_CHECKING:
    from eslbot.controller import Controller

log = structlog.get_logger()

#: Channel variables that only tell: of the INVITE, of the media. FreeSWITCH itself reads them when it bridges
#: or recovers a call, which never happens here; without them each event has half the size.
INFORMATIONAL = (
    *("sip_full_via", "sip_full_from", "sip_full_to", "sip_via_host", "sip_via_port", "sip_via_rport"),
    *("sip_from_port", "sip_from_uri", "sip_from_host", "sip_from_user_stripped", "sip_from_tag"),
    *(
        "sip_to_port",
        "sip_to_uri",
        "sip_to_host",
        "sip_req_user",
        "sip_req_port",
        "sip_req_uri",
        "sip_req_host",
    ),
    *("sip_contact_params", "sip_contact_user", "sip_contact_port", "sip_contact_uri", "sip_contact_host"),
    *("sip_local_network_addr", "sip_network_port", "sip_received_port", "sip_invite_stamp"),
    *("sip_user_agent", "sip_subject", "sip_P-Asserted-Identity", "sip_Remote-Party-ID", "sip_cid_type"),
    *("sofia_profile_url", "recovery_profile_name", "video_media_flow", "text_media_flow"),
    *("remote_video_media_flow", "remote_text_media_flow", "ep_codec_string", "rtp_local_sdp_str"),
    *("switch_r_sdp", "original_read_codec", "original_read_rate", "rtp_last_audio_codec_string"),
    *("read_codec", "read_rate", "write_codec", "write_rate", "rtp_use_codec_string", "sip_via_protocol"),
    *("rtp_use_codec_rate", "rtp_use_codec_ptime", "rtp_use_codec_channels", "rtp_use_timer_name"),
    *("rtp_use_pt", "rtp_use_ssrc", "rtp_audio_recv_pt", "rtp_2833_send_payload", "rtp_2833_recv_payload"),
    *("remote_audio_media_flow", "audio_media_flow", "session_id", "socket_host", "sofia_profile_name"),
    *("local_media_ip", "local_media_port", "advertised_media_ip", "remote_media_ip", "remote_media_port"),
)
#: A short soft beep every three seconds: the line lives (FreeSWITCH's mod_tone_stream).
HOLD_TONE = "tone_stream://v=-20;%(150,2850,425);loops=-1"


class Call:
    """The story. What happened so far is also on the channel, so that another worker could go on."""

    def __init__(self, session: Session, controller: Controller) -> None:
        self.session = session
        self.controller = controller
        self.channel: dict[str, str] = {}
        self.workspace: Workspace | None = None
        self.invite: Invite | None = None
        self.ended: BotEnd | None = None
        self.handed_off = False
        self.began = time.monotonic()
        self._stage: Stage | None = None

    def run(self) -> None:
        """The whole call. Returns when the channel is gone, or when another controller has to go on."""
        self.channel = self.session.connect()
        try:
            if self.stage is None:
                self.admit()
                self.answer()
                self.talk()
            else:
                self.take_over()
            self.hand_off()
            self.hold()
        except Refused as refusal:
            self.refuse(refusal)
        except CallerHungUp:
            self.say_how_it_ended()
        except ConnectionLost as error:
            log.warning("controller_connection_lost", stage=self._stage, error=str(error))
        finally:
            if self.workspace is not None:
                self.controller.leave(self.workspace)

    # -- the stages ---------------------------------------------------------------------------------------

    def admit(self) -> None:
        """Find out who is calling, and whether they may. Raises Refused."""
        self.session.subscribe(*EVENTS)
        raw_display = self.session.api(f"uuid_getvar {self.session.uuid} sip_from_display")
        structlog.contextvars.bind_contextvars(call_id=self.session.uuid)
        self.invite = invites.parse(self.channel, None if raw_display.startswith("-ERR") else raw_display)
        self._name_in_log()
        self.workspace = self.controller.admit(self.invite)
        self._name_in_log()
        log.info("call_admitted", source=self.invite.source_ip, caller=self.invite.caller)

    def answer(self) -> None:
        """Send the 200."""
        self.enter(Stage.ADMITTED)
        completed = self.session.answer()
        if completed.headers.get("Answer-State", "answered") != "answered":
            raise Refused(500, "answer_failed", "FreeSWITCH could not answer the call")
        self.enter(Stage.ANSWERED)
        kept = completed.headers
        self.session.forget_variables(name for name in INFORMATIONAL if f"variable_{name}" in kept)
        log.info("call_answered", seconds=round(time.monotonic() - self.began, 3))

    def talk(self) -> None:
        """Give the caller to the bot until its part is over, in whatever way."""
        assert self.invite is not None and self.workspace is not None
        bot = BotLeg(self.session, self.invite, self.workspace, self.controller.config.freeswitch.temp_dir)

        def connected() -> None:
            self.enter(Stage.TALKING)
            log.info("bot_connected", seconds=round(time.monotonic() - self.began, 3))

        self.ended = self._whatever_happens(lambda: bot.talk(connected))
        log.info(
            "bot_part_over",
            outcome=self.ended.outcome,
            reason=self.ended.reason,
            seconds=round(time.monotonic() - self.began, 3),
        )

    def hand_off(self) -> None:
        """Tell Ameyo, until it has accepted. The caller's hang-up ends it: there is nobody to hand over."""
        if self.handed_off or self.workspace is None or self.invite is None or self.ended is None:
            return
        of_bot, dropped = allowed(self.ended.properties, self.workspace.ameyo.bot_properties)
        if dropped:
            log.warning("bot_properties_dropped", names=[name[:64] for name in dropped[:20]])
        self.enter(
            Stage.HANDING_OFF,
            eslbot_outcome=self.ended.outcome,
            eslbot_reason=self.ended.reason,
            eslbot_properties=json.dumps(of_bot),
        )
        self.play_hold_sound(self.workspace.hold_sound)
        # What the operator has fixed, no bot changes.
        properties = {**of_bot, **fill(self.workspace.ameyo.properties, self._facts())}
        body = notification(self.invite.crt_object_id, properties)
        ameyo = self.controller.ameyo(self.workspace)
        for attempt in ameyo.notify(body, self.session.gone):
            metrics.ATTEMPTS.labels(self.workspace.name, attempt.verdict).inc()
            accepted = attempt.verdict is Verdict.ACCEPTED
            tell = log.info if accepted else log.warning
            tell(
                "hand_off_" + attempt.verdict,
                attempt=attempt.number,
                status=attempt.status,
                answer=attempt.detail,
                seconds=round(attempt.seconds, 3),
            )
            self.handed_off = accepted
        self.session.raise_if_disconnected()
        self.enter(Stage.HELD)

    def hold(self) -> None:
        """Keep the line until the PBX sends BYE; nothing else ends it."""
        self.session.gone.wait()
        self.session.raise_if_disconnected()

    def play_hold_sound(self, sound: str) -> None:
        """What the customer hears until the agent is there; silence flows by itself."""
        if sound != "silence":
            self.session.execute("endless_playback", HOLD_TONE if sound == "tone" else sound)

    # -- beside the story ---------------------------------------------------------------------------------

    def take_over(self) -> None:
        """Go on with a call whose controller went away in mid-story: a human takes over.

        The stage and who is calling are on the channel. (Going on with the bot is not told here yet.)
        """
        stage = self._stage = self.stage
        self.session.subscribe(*EVENTS)
        metrics.TAKE_OVERS.labels(str(stage)).inc()
        try:
            self.invite = invites.parse(self.channel)
        except Refused as refusal:  # answered is answered: there is no refusing it any more
            log.error("call_taken_over_of_nobody", call_id=self.session.uuid, detail=refusal.detail)
        else:
            self.workspace = self.controller.resume(self.invite)
            self._name_in_log()
            log.warning("call_taken_over", stage=stage)
            if self.workspace is None:
                log.error("workspace_gone", remedy="put the workspace back and reload: its customer waits")
        if stage in (Stage.HANDING_OFF, Stage.HELD):
            self.handed_off = stage is Stage.HELD
            self.ended = self._ended_before()
            if self.handed_off and self.workspace is not None:  # hand_off would have begun it
                self.play_hold_sound(self.workspace.hold_sound)
        else:
            self.session.uuid_break()
            self.session.api(f"uuid_audio_stream {self.session.uuid} stop")
            self.ended = BotEnd(Outcome.CONTROLLER_LOST, f"at the stage {stage}")

    def _ended_before(self) -> BotEnd:
        """The bot's end as the controller before us wrote it down in :meth:`hand_off`."""
        try:
            return BotEnd(
                Outcome(self.channel["variable_eslbot_outcome"]),
                self.channel.get("variable_eslbot_reason", ""),  # an empty text is no variable
                json.loads(self.channel["variable_eslbot_properties"]),
            )
        except (KeyError, ValueError) as error:
            log.warning("bot_end_unreadable", error=repr(error))
            return BotEnd(Outcome.CONTROLLER_LOST)

    @property
    def stage(self) -> Stage | None:
        """Where the channel's story is, None for a call that nobody has answered."""
        if self.channel.get("Answer-State") != "answered":
            return None
        try:
            return Stage(self.channel.get("variable_eslbot_stage", ""))
        except ValueError:
            return Stage.ANSWERED

    def enter(self, stage: Stage, **variables: str) -> None:
        """Write the stage, and what goes with it, to the channel."""
        self._stage = stage
        self.session.set_variables({**variables, "eslbot_stage": stage})

    def refuse(self, refusal: Refused) -> None:
        """Send the final response; the call was never answered."""
        metrics.REFUSALS.labels(refusal.why).inc()
        log.warning(
            "call_refused",
            status=refusal.status,
            why=refusal.why,
            detail=refusal.detail,
            source=self.channel.get("variable_sip_network_ip"),
        )
        try:
            self.session.respond(refusal.status, refusal.phrase, refusal.retry_after)
            self.session.finished.wait(timeout=self.session.timeout)
        except OutboundSessionHasGoneAway:
            log.info("caller_left_before_refusal")

    def say_how_it_ended(self) -> None:
        """One line that says how the call ended, and why."""
        self.session.finished.wait(timeout=self.session.timeout)
        disposition = self.session.hangup.get("variable_sip_hangup_disposition", "unknown")
        outcome = self.ended.outcome if self.ended else Outcome.CALLER_HANGUP
        if self.workspace is not None and self._stage not in (None, Stage.ADMITTED):
            metrics.CALLS.labels(self.workspace.name, outcome).inc()
        if disposition == "send_bye":
            metrics.SEND_BYE.inc()
        tell = log.error if disposition == "send_bye" else log.info
        tell(
            "call_ended",
            outcome=outcome,
            handed_off=self.handed_off,
            stage=self._stage,
            sip_hangup_disposition=disposition,
            hangup_cause=self.session.hangup.get("Hangup-Cause"),
            seconds=round(time.monotonic() - self.began, 3),
        )

    def _facts(self) -> dict[str, str]:
        """What a configured property may name."""
        assert self.invite is not None and self.workspace is not None and self.ended is not None
        return {
            "did": self.invite.did,
            "crt_object_id": self.invite.crt_object_id,
            "workspace_id": self.invite.workspace_id,
            "workspace": self.workspace.name,
            "call_id": self.invite.call_id,
            "from": self.invite.caller,
            "to": self.invite.to,
            "outcome": self.ended.outcome,
            "reason": self.ended.reason,
        }

    def _name_in_log(self) -> None:
        """From here on every line of this greenlet's says whose call it is."""
        assert self.invite is not None
        structlog.contextvars.bind_contextvars(
            call_id=self.invite.call_id,
            workspace=self.workspace.name if self.workspace else None,
            crt_object_id=self.invite.crt_object_id,
        )

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
