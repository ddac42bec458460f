"""What all parts of one call's story share: its connection, whose it is, where it stands, and who is told."""

from __future__ import annotations

import time
from collections.abc import Mapping

from eslbot.caller import invite as invites
from eslbot.caller.invite import Invite
from eslbot.calls.channel_state import CallClock, ChannelState
from eslbot.calls.checkpoint import Checkpoint
from eslbot.calls.events import Attention, AttentionChanged, CallEvent, StageEntered, Who
from eslbot.calls.host import CallHost
from eslbot.config.model import Workspace
from eslbot.esl.session import Session
from eslbot.outcome import Stage
from eslbot.telemetry.logs import About

#: Characters of a Call-ID that are told; whoever sends the INVITE chooses it.
MAX_SIP_CALL_ID = 255


class CallContext:
    """One call in this controller; its observers read it as :class:`~eslbot.calls.events.CallFacts`."""

    def __init__(self, session: Session, host: CallHost, about: About) -> None:
        self.session, self.host, self.about = session, host, about
        self.began = time.monotonic()
        #: What FreeSWITCH has said of the channel, until all of it that counts has been read.
        self.channel: Mapping[str, str] = {}
        self.state = ChannelState({})
        self.clock = CallClock()
        self.checkpoint = Checkpoint(session, host.resume_states)
        self.workspace: Workspace | None = None
        self.invite: Invite | None = None
        #: The address that the INVITE came from.
        self.source: str | None = None
        self.stage: Stage | None = None
        self.take_overs = 0
        self.sip_call_id = ""
        self._observers = host.observers()
        self._published_stage: Stage | None = None

    @property
    def call_id(self) -> str:
        """The UUID of FreeSWITCH's channel."""
        return self.session.uuid

    @property
    def seconds(self) -> float:
        """Since this controller has the call."""
        return round(time.monotonic() - self.began, 3)

    def connect(self) -> None:
        """Ask FreeSWITCH for the channel, and read where the call is. Raises what the session raises."""
        self.channel = self.session.connect(invites.DISPLAY)
        self.about.facts["call_id"] = self.call_id
        self.invite = self.host.signer.identity(self.channel)
        self.sip_call_id = self.channel.get("variable_sip_call_id", "")[:MAX_SIP_CALL_ID]
        self.state = ChannelState(self.channel)
        if self.state.stage is not None and self.invite is not None:
            self.state = ChannelState(self.channel, self.host.resume_states.take(self.call_id))
        self.clock = CallClock(self.state.invited_for)

    def forget_channel(self) -> None:
        """What was to be read of the channel has been read; it is most of what a held call would keep."""
        self.channel, self.state = {}, ChannelState({})
        self.session.forget_channel()

    # -- what happens -------------------------------------------------------------------------------------

    def publish(self, event: CallEvent) -> None:
        """Tell the observers."""
        for observe in self._observers:
            observe(self, event)

    def enter(self, stage: Stage, **variables: str) -> None:
        """Be in ``stage`` from now on; it goes to the channel with ``variables``. Does not wait."""
        self.show(stage)
        self.stage = stage
        self.checkpoint.write(**variables, eslbot_stage=stage)

    def show(self, stage: Stage | None) -> None:
        """Publish the stage; None where this controller has the call no longer."""
        if self.workspace is not None:
            self.publish(StageEntered(self._published_stage, stage))
            self._published_stage = stage

    def needs_attention(self, cause: Attention, needed: bool = True) -> None:
        """From now on somebody should look at the call, or need no longer."""
        self.publish(AttentionChanged(cause, needed))

    # -- whose it is --------------------------------------------------------------------------------------

    def name_in_log(self) -> None:
        """From here on every line about this call says whose it is."""
        assert self.invite is not None
        self.about.facts.update(
            workspace=self.workspace.name if self.workspace else None,
            crt_object_id=self.invite.crt_object_id,
        )
        self.about.numbers = (self.invite.did, self.invite.caller)

    def who(self) -> Who:
        """Who calls whom.

        A call that was refused is filed under the workspace it names only if it came from there.
        """
        invite = self.invite
        if invite is None:
            return Who(self.source, self.sip_call_id)
        whose = self.workspace or self.host.workspace_of(invite)
        # Admitted once: its workspace counts, though it may be configured no longer.
        filed = whose is not None or self.stage is not None
        return Who(
            self.source or invite.source_ip,
            self.sip_call_id,
            invite,
            whose.name if whose is not None else None,
            invite.workspace_id if filed else None,
        )
