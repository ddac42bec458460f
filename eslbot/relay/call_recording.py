"""One call's recording, where it has one, and what the controller and the caller are told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eslbot.caller.invite import Invite
from eslbot.config.model import Workspace
from eslbot.relay.control import News, Part
from eslbot.relay.line import Line
from eslbot.relay.outbox import Outbox

if TYPE_CHECKING:
    from eslbot.recording.recorder import CallRecording, Recorder


class RecordedCall:
    """Nothing is recorded before :meth:`begin`, nor of a call that is not wanted."""

    def __init__(self, recorder: Recorder, outbox: Outbox, invite: Invite, workspace: Workspace) -> None:
        self._recorder, self._outbox, self._invite, self._workspace = recorder, outbox, invite, workspace
        self._recording: CallRecording | None = None
        #: Why there is no recording any more, as the controller knows it; None: it knows of none yet.
        self._known: str | None = None
        self._announced = False

    def wanted(self) -> bool:
        """Whether the call is to be recorded."""
        return self._recorder.wants(self._invite.call_id, self._workspace)

    def begin(self, line: Line) -> None:
        """Record what FreeSWITCH reads of this line, and the caller."""
        self._recording = self._recorder.record(self._invite, self._workspace, line)

    def announcement(self, part: Part) -> bytes:
        """What the caller is to hear first, once; nothing where a relay before us has said it."""
        if self._recording is None or self._announced:
            return b""
        self._announced = True
        return self._recorder.announcement(self._workspace) if part is Part.NEW else b""

    def caller(self, audio: bytes, at: float) -> None:
        """A frame of the caller's has come."""
        if self._recording is not None:
            self._recording.caller(audio, at)

    def hold(self, on: bool) -> None:
        """The caller is on hold, or back."""
        if self._recording is not None:
            self._recording.hold(on)

    def switch_restarts(self) -> None:
        """Another stream comes, perhaps of another FreeSWITCH: take what this one has read."""
        if self._recording is not None:
            self._recording.restarts()

    def switch_restarted(self) -> None:
        """It was another one: the next part."""
        if self._recording is not None:
            self._recording.restarted()

    def tick(self) -> None:
        """Do what is due, and tell the controller what there is to be told."""
        if self._recording is None:
            return
        self._recording.tick()
        why = self._recording.failed or ""
        if why != self._known:
            self._known = why
            self._outbox.tell(News.RECORDING, **({"why": why} if why else {}))

    def end(self) -> None:
        """The call is over, or another relay has it."""
        if self._recording is not None:
            self._recording.end()
