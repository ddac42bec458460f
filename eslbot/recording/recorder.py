"""The recorder: what runs in the relay's loop. Once a second it hands a call's two sides to the writer.

A call is recorded from its line's first frame to its stream's end. Where FreeSWITCH has died and is back, or
another relay has the call, the recording goes on in another *part*: nobody knows how long the gap was.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec

import structlog

from eslbot.caller.invite import Invite
from eslbot.config.model import Config, Workspace
from eslbot.recording.alignment import SideAligner
from eslbot.recording.announcement import UnusableAnnouncement, announcement_audio
from eslbot.recording.retention import RetentionSweeper
from eslbot.recording.writer import CallInfo, PartWriter, RecordingFailed, RecordingWriter
from eslbot.telemetry import metrics

if TYPE_CHECKING:
    from eslbot.relay.line import Line

log = structlog.get_logger()

#: Seconds between two hand-overs to the writer.
HAND_OVER_INTERVAL = 1.0
#: Seconds that the writer has for what waits when a relay ends.
CLOSE_TIMEOUT = 1.5


P = ParamSpec("P")


def _guarded(
    method: Callable[Concatenate[CallRecording, P], None],
) -> Callable[Concatenate[CallRecording, P], None]:
    """A fault of ours ends the recording, and does nothing to the call."""

    @wraps(method)
    def guarded(own: CallRecording, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(own, *args, **kwargs)
        except Exception as error:  # noqa: BLE001  # `fault` logs it
            own.fault(error)

    return guarded


def is_recorded(call_id: str, share: float) -> bool:
    """Whether a call is in the recorded ``share`` (0 to 1): by its id, so that every process agrees."""
    digest = hashlib.sha256(call_id.encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


class Recorder:
    """All recordings of one relay; made after the fork. Where no workspace is recorded it has no thread."""

    def __init__(self, config: Config) -> None:
        self._writer: RecordingWriter | None = None
        self._sweeper: RetentionSweeper | None = None
        #: The announcements by workspace; None where there should be one that cannot be played.
        self._announcements: Mapping[str, bytes | None] = {}
        recorded = [workspace for workspace in config.workspaces.values() if workspace.record]
        if recorded:
            self._announcements = {workspace.id: _announcement(workspace) for workspace in recorded}
            self._writer = RecordingWriter(Path(config.recording.directory), config.recording.min_free)
            self._sweeper = RetentionSweeper(config)

    def wants(self, call_id: str, workspace: Workspace) -> bool:
        """Whether a call is to be recorded."""
        if self._writer is None or not is_recorded(call_id, workspace.record):
            return False
        if self._announcements[workspace.id] is None:
            metrics.RECORDINGS_FAILED.labels("unannounced").inc()
            return False
        return True

    def announcement(self, workspace: Workspace) -> bytes:
        """What the caller of a recorded call hears before the bot: L16 at 8,000 Hz; empty without one."""
        return self._announcements.get(workspace.id) or b""

    def record(self, invite: Invite, workspace: Workspace, line: Line) -> CallRecording:
        """Begin to record a call."""
        assert self._writer is not None
        about = CallInfo(
            invite.call_id,
            workspace.id,
            workspace.name,
            invite.crt_object_id,
            workspace.recording.sealing_key,
        )
        return CallRecording(self._writer, about, line)

    def leave(self) -> None:
        """Another relay deletes old recordings from here on."""
        if self._sweeper is not None:
            self._sweeper.stop()

    def close(self) -> None:
        """Write what waits. It blocks for up to :data:`CLOSE_TIMEOUT`: not for the loop."""
        self.leave()
        if self._writer is not None and not self._writer.close(CLOSE_TIMEOUT):
            log.error(
                "recordings_cut_off",
                seconds=CLOSE_TIMEOUT,
                remedy="the disk of recording.directory hangs: check it",
            )


class CallRecording:
    """The recording of one call. No method blocks, and none raises."""

    def __init__(
        self, writer: RecordingWriter, about: CallInfo, line: Line, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._writer, self._about, self._line, self._now = writer, about, line, now
        self._on_hold = False
        #: Why the recording has ended early, one of :data:`eslbot.telemetry.metrics.RECORDING_WHYS`.
        self.failed: str | None = None
        self._part: PartWriter | None = None
        self._begin()

    def _begin(self) -> None:
        self._sides = SideAligner(self._line.period)
        self._next_tick = self._line.first
        self._begin_known = False
        self._due = self._now() + HAND_OVER_INTERVAL
        try:
            self._part = self._writer.begin_part(self._about, time.time())
        except RecordingFailed as failed:
            self._writer.report(failed, self._about)
            self._fail(failed)
        else:
            metrics.RECORDINGS.labels(self._about.workspace).inc()

    def caller(self, frame: bytes, at: float) -> None:
        """A frame of the caller's, as the bot gets it, that arrived at this (monotonic) time."""
        if self._part is not None:
            self._sides.caller(frame, at)

    @_guarded
    def hold(self, on: bool) -> None:
        """What is played during a hold is not heard."""
        if self._part is not None:
            self._fetch_line()
            self._on_hold = on

    @_guarded
    def tick(self) -> None:
        """Hand over what is due; call it every quarter of a second at least."""
        if self._part is not None and self._now() >= self._due:
            self._due = self._now() + HAND_OVER_INTERVAL
            self._fetch_line()
            self._hand_over()

    @_guarded
    def restarts(self) -> None:
        """FreeSWITCH has died, and its next start is going to read the line."""
        if self._part is not None:
            self._fetch_line()

    @_guarded
    def restarted(self) -> None:
        """FreeSWITCH reads the line again: begin the next part."""
        if self._part is not None:
            self._hand_over(everything=True)
        if self._part is not None:
            self._part.end()
            self._begin()

    @_guarded
    def end(self) -> None:
        """The call is over, or another relay has it."""
        if self._part is not None:
            self._fetch_line()
            self._hand_over(everything=True)
        if self._part is not None:
            self._part.end()
            self._part = None

    def _fetch_line(self) -> None:
        """Fetch what the caller has heard of the line."""
        line = self._line
        tick = line.tick()
        if not line.read_by_freeswitch or tick <= self._next_tick:
            return
        at = line.at(self._next_tick)
        linear = line.played(self._next_tick, tick)
        self._next_tick = tick
        self._sides.line(bytes(len(linear)) if self._on_hold else linear, at)

    def _hand_over(self, *, everything: bool = False) -> None:
        assert self._part is not None
        try:
            caller, heard = self._sides.take(everything=everything)
            if caller:
                if not self._begin_known and self._sides.began is not None:
                    self._begin_known = True
                    self._part.began_at = time.time() - (self._now() - self._sides.began)
                self._part.write(caller, heard)
            elif self._part.failed is not None:
                raise self._part.failed
        except RecordingFailed as failed:
            self._fail(failed)

    def fault(self, error: Exception) -> None:
        """End the recording because of a fault of ours."""
        metrics.INTERNAL_ERRORS.inc()
        log.error("recording_fault", call_id=self._about.call_id, exc_info=error)
        part, failed = self._part, RecordingFailed("failed", type(error).__name__)
        self._writer.report(failed, self._about)
        self._fail(failed)
        if part is not None:
            part.end()

    def _fail(self, failed: RecordingFailed) -> None:
        self.failed = failed.why
        self._part = None
        self._line.keep_no_more()


def _announcement(workspace: Workspace) -> bytes | None:
    try:
        return announcement_audio(workspace.recording.announcement)
    except UnusableAnnouncement as error:
        log.error(
            "announcement_unusable",
            workspace=workspace.name,
            error=str(error),
            remedy="mend it and send HUP: until then no call of this workspace is recorded",
        )
        return None
