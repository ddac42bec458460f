"""What happens to a call, said once: a small typed event each, which metrics, log and ledger subscribe to.

The story (:mod:`eslbot.calls.call`) and the bot's leg (:mod:`eslbot.calls.bot.leg`) publish them. An
:class:`Observer` makes of them what it is there for. Traces are made of what the ledger stores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol

from eslbot.caller.invite import Invite
from eslbot.calls.hangup import HangUp
from eslbot.config.model import Workspace
from eslbot.outcome import Fault, Outcome, Stage
from eslbot.turns import Turn

if TYPE_CHECKING:
    from eslbot.ameyo.client import Attempt


@dataclass(frozen=True, slots=True)
class CallEvent:
    """Something happened to a call, ``ago`` seconds ago."""

    ago: float = field(default=0.0, kw_only=True)


class CallFacts(Protocol):
    """What an observer may read of the call that an event is about, as of now."""

    @property
    def call_id(self) -> str:
        """The UUID of FreeSWITCH's channel."""

    @property
    def workspace(self) -> Workspace | None:
        """Its workspace, once that is known."""

    @property
    def stage(self) -> Stage | None:
        """Where it is in its story."""

    @property
    def seconds(self) -> float:
        """Since this controller has it."""


class Observer(Protocol):
    """One call's subscriber. It must not wait, and must not raise."""

    def __call__(self, call: CallFacts, event: CallEvent) -> None:
        """``event`` has happened to ``call``."""


@dataclass(frozen=True, slots=True)
class Who:
    """Who calls whom, as far as it is known.

    ``workspace`` and ``workspace_id`` say under whom the call is filed: only under a workspace that it really
    came from, or anybody could write into another tenant's list.
    """

    source: str | None
    sip_call_id: str
    invite: Invite | None = None
    workspace: str | None = None
    workspace_id: str | None = None


# -- admission and answer ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Admitted(CallEvent):
    """It is taken, and its 200 is on the way. ``invited_at``: epoch seconds."""

    who: Who
    invited_at: float


@dataclass(frozen=True, slots=True)
class RefusalSent(CallEvent):
    """It is refused before the answer. ``reported``: whether it gets a line and a record of its own."""

    who: Who
    invited_at: float
    status: int
    why: str
    detail: str
    reported: bool


@dataclass(frozen=True, slots=True)
class CallerLeftBeforeRefusal(CallEvent):
    """It was gone before our final response."""


@dataclass(frozen=True, slots=True)
class Answered(CallEvent):
    """The 200 was sent, ``setup`` seconds after the INVITE."""

    setup: float


@dataclass(frozen=True, slots=True)
class StageEntered(CallEvent):
    """It is in another stage; None before the first, and when this controller has it no longer."""

    before: Stage | None
    stage: Stage | None


# -- take-over --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Arrived(CallEvent):
    """A call has come whose controller went away; whose it is is not known yet."""

    stage: Stage


@dataclass(frozen=True, slots=True)
class TakenOver(CallEvent):
    """This controller goes on with it. ``state`` is what the channel says of it, for the ledger."""

    who: Who
    take_overs: int
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WorkspaceMissing(CallEvent):
    """Its workspace is configured no longer: nobody can be told of its customer."""


@dataclass(frozen=True, slots=True)
class NotVerified(CallEvent):
    """Nothing of ours says whose an answered call is.

    ``carries``: the variable that claims it, or `nothing`.
    """

    take_overs: int
    sip_call_id: str
    carries: str
    peer: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SwitchRestarted(CallEvent):
    """FreeSWITCH has died and is back with the call, for the ``restarts``-th time.

    ``gap``: seconds without it, where they are known. ``resumed``: whether a controller had left its state.
    """

    restarts: int
    gap: float | None
    resumed: bool


@dataclass(frozen=True, slots=True)
class EndedCallCameBack(CallEvent):
    """FreeSWITCH has died and taken up a call that its PBX had ended."""


@dataclass(frozen=True, slots=True)
class EndedCallStays(CallEvent):
    """Such a call was not dropped within ``after`` seconds: it goes on."""

    after: float


# -- the bot ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NoMedia(CallEvent):
    """No ACK has brought the SDP that it owes."""


@dataclass(frozen=True, slots=True)
class BotConnecting(CallEvent):
    """A stream to the relay is about to be started."""


@dataclass(frozen=True, slots=True)
class BotConnected(CallEvent):
    """The bot is there."""


@dataclass(frozen=True, slots=True)
class BotReconnected(CallEvent):
    """It had gone, and is there again."""

    why: str


@dataclass(frozen=True, slots=True)
class RelayFound(CallEvent):
    """The relay process at ``url`` has the call."""

    url: str


@dataclass(frozen=True, slots=True)
class RelayStreamLost(CallEvent):
    """The stream to the relay broke in mid-call; another one follows."""

    why: str


@dataclass(frozen=True, slots=True)
class RelayTextIgnored(CallEvent):
    """A text of the relay's could not be read. ``first``: of this call."""

    why: str
    first: bool


@dataclass(frozen=True, slots=True)
class RelayNewsMissing(CallEvent):
    """News ``number`` was missing when ``came`` came."""

    number: int
    came: int


@dataclass(frozen=True, slots=True)
class RelayLost(CallEvent):
    """No relay carries the line any more; ``remedy`` is for whoever mends that."""

    why: str
    url: str
    remedy: str


@dataclass(frozen=True, slots=True)
class RelayOutcomeUnknown(CallEvent):
    """The relay has ended the bot's part in a way that this version does not know."""


@dataclass(frozen=True, slots=True)
class SpeechBegan(CallEvent):
    """The caller begins to hear the bot. ``first``: seconds from the answer to its first word."""

    first: float | None = None


@dataclass(frozen=True, slots=True)
class SpeechEnded(CallEvent):
    """The caller hears it no more; ``cut``: by barge-in."""

    cut: bool


@dataclass(frozen=True, slots=True)
class MarkReached(CallEvent):
    """The caller has heard everything up to a mark, or, ``cleared``, never will."""

    name: str
    cleared: bool


@dataclass(frozen=True, slots=True)
class Cleared(CallEvent):
    """Barge-in: the bot has asked for silence."""


@dataclass(frozen=True, slots=True)
class CallerSpeech(CallEvent):
    """The bot says that the caller speaks, or no longer does."""

    speaking: bool


@dataclass(frozen=True, slots=True)
class TurnTaken(CallEvent):
    """The caller stopped and the bot answered, or one spoke over the other; the relay's ``number``-th.

    The turn's own ``at`` says nothing.
    """

    turn: Turn
    number: int


@dataclass(frozen=True, slots=True)
class HoldChanged(CallEvent):
    """The PBX has put the caller on hold, or taken them off. ``seen``: by this controller as it happened."""

    on: bool
    seen: bool = True


@dataclass(frozen=True, slots=True)
class KeyPressed(CallEvent):
    """The caller pressed a key; which, is nobody's business."""


@dataclass(frozen=True, slots=True)
class ShortPackets(CallEvent):
    """The PBX's packets are shorter than its SDP says: FreeSWITCH was given a jitter buffer."""

    jitter_buffer: str
    answer: str


@dataclass(frozen=True, slots=True)
class CallerAudioLate(CallEvent):
    """The caller is heard ``late`` seconds late: FreeSWITCH was told to flush."""

    late: float
    answer: str


@dataclass(frozen=True, slots=True)
class RecordingBegan(CallEvent):
    """The relay records the call."""


@dataclass(frozen=True, slots=True)
class RecordingFailed(CallEvent):
    """The recording ends before the call does, or never began."""

    why: str


@dataclass(frozen=True, slots=True)
class PropertiesDropped(CallEvent):
    """The bot's ``end`` had properties that may not reach Ameyo."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BotEnd:
    """How the bot's part ended. ``reason`` is the bot's own word or the error's, ``properties`` the bot's."""

    outcome: Outcome
    reason: str = ""
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BotEnded(CallEvent):
    """The bot's part is over; its last words may still play."""

    end: BotEnd


@dataclass(frozen=True, slots=True)
class TalkFailed(CallEvent):
    """A fault of ours in the bot's part: the call goes on with its hand-off.

    Published while it is handled.
    """


@dataclass(frozen=True, slots=True)
class LastWordsCut(CallEvent):
    """They took longer than ``after`` seconds."""

    after: float


@dataclass(frozen=True, slots=True)
class BotLegNotClosed(CallEvent):
    """FreeSWITCH did not take our command to end the bot's leg."""

    error: str


@dataclass(frozen=True, slots=True)
class BotPartOver(CallEvent):
    """The bot's part is over, and its last word heard."""

    end: BotEnd


# -- the hand-off -----------------------------------------------------------------------------------------


class Attention(Enum):
    """Why a call needs somebody's attention now: it is red on the page."""

    HAND_OFF_FAILING = "its customer waits for an Ameyo that has not accepted"
    BYE_OVERDUE = "Ameyo has accepted it, and its BYE is overdue"
    NOT_VERIFIED = "nobody knows whose it is"


@dataclass(frozen=True, slots=True)
class AttentionChanged(CallEvent):
    """From now on it needs attention for ``cause``, or no longer does."""

    cause: Attention
    needed: bool


@dataclass(frozen=True, slots=True)
class AttemptBegan(CallEvent):
    """The ``number``-th notification goes out. ``waited``: seconds since the bot's end, of the first."""

    number: int
    waited: float | None


@dataclass(frozen=True, slots=True)
class AttemptEnded(CallEvent):
    """What became of it."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class HandOffInDoubt(CallEvent):
    """The controller before went away before it had noted Ameyo's answer to its ``attempt``-th."""

    attempt: int


@dataclass(frozen=True, slots=True)
class HandOffWasAccepted(CallEvent):
    """That controller says now that Ameyo had accepted it."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Stranded(CallEvent):
    """FreeSWITCH has lost the call in ``stage``, without a BYE: Ameyo is notified without it."""

    crt_object_id: str
    stage: Stage | None


@dataclass(frozen=True, slots=True)
class CameBack(CallEvent):
    """FreeSWITCH has a stranded call after all."""


@dataclass(frozen=True, slots=True)
class ByeOverdue(CallEvent):
    """Ameyo has accepted ``held_for`` seconds ago, and the PBX sends no BYE."""

    held_for: float


# -- the end ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HandedOver(CallEvent):
    """A worker that leaves has given it to the next controller."""


@dataclass(frozen=True, slots=True)
class NotSettled(CallEvent):
    """FreeSWITCH did not confirm what was noted before the call is handed over."""

    error: str


@dataclass(frozen=True, slots=True)
class ConnectionBroken(CallEvent):
    """The event socket's connection is gone; another controller has to take it over."""

    error: str


@dataclass(frozen=True, slots=True)
class Failed(CallEvent):
    """A fault of ours ended the story in this controller; whoever catches it logs it."""


@dataclass(frozen=True, slots=True)
class Left(CallEvent):
    """This controller has nothing to do with it any more. Always the last."""


@dataclass(frozen=True, slots=True)
class Ended(CallEvent):
    """The channel is gone.

    ``media``: what FreeSWITCH says of its RTP (:func:`eslbot.calls.media.media_facts`). ``held_for``: seconds
    since Ameyo had accepted, if it had.
    """

    hang_up: HangUp
    outcome: Outcome
    fault: Fault
    handed_off: bool
    held_for: float
    take_overs: int
    attempts: int
    media: Mapping[str, float | str]
