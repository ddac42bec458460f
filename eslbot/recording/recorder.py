"""The loop's part of recordings: what a call's two sides are, once a second, to the writer.

A call is recorded from its line's first frame to its stream's end. Where FreeSWITCH has died and is back, or
another relay has the call, the recording goes on in another *part*: nothing says how long the time between
was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec

import structlog

from eslbot.caller.invite import Invite
from eslbot.config.model import Config, Workspace
from eslbot.recording.announcement import UnusableAnnouncement, speech
from eslbot.recording.choice import chosen
from eslbot.recording.sides import Sides
from eslbot.recording.sweep import Sweeper
from eslbot.recording.writer import About, Failed, Track, Writer
from eslbot.telemetry import metrics

if TYPE_CHECKING:
    from eslbot.relay.line import Line

log = structlog.get_logger()

#: Seconds between two times that sound is handed on.
PERIOD = 1.0
#: Seconds that what waits has at the end of a relay.
CLOSE = 1.5


P = ParamSpec("P")


def _guarded(
    method: Callable[Concatenate[CallRecording, P], None],
) -> Callable[Concatenate[CallRecording, P], None]:
    """A fault of ours ends the recording, and touches nothing of the call."""

    @wraps(method)
    def guarded(own: CallRecording, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(own, *args, **kwargs)
        except Exception as error:  # noqa: BLE001  # told there
            own.fault(error)

    return guarded


class Recorder:
    """One relay's, made behind the fork. Where no workspace is recorded it has no thread."""

    def __init__(self, config: Config) -> None:
        self._writer: Writer | None = None
        self._sweeper: Sweeper | None = None
        #: What callers are told first, by workspace; None where nothing can be said that should be.
        self._announcements: Mapping[str, bytes | None] = {}
        recorded = [workspace for workspace in config.workspaces.values() if workspace.record]
        if recorded:
            self._announcements = {workspace.id: _announcement(workspace) for workspace in recorded}
            self._writer = Writer(Path(config.recording.directory), config.recording.min_free)
            self._sweeper = Sweeper(config)

    def wants(self, call_id: str, workspace: Workspace) -> bool:
        """Whether a call is to be recorded."""
        if self._writer is None or not chosen(call_id, workspace.record):
            return False
        if self._announcements[workspace.id] is None:
            metrics.RECORDINGS_FAILED.labels("unannounced").inc()
            return False
        return True

    def announcement(self, workspace: Workspace) -> bytes:
        """What the caller of a recorded call is told before the bot: L16 at 8,000 Hz; empty where nothing."""
        return self._announcements.get(workspace.id) or b""

    def record(self, invite: Invite, workspace: Workspace, line: Line) -> CallRecording:
        """The recording of a call that is wanted."""
        assert self._writer is not None
        about = About(
            invite.call_id,
            workspace.id,
            workspace.name,
            invite.crt_object_id,
            workspace.recording.sealing_key,
        )
        return CallRecording(self._writer, about, line)

    def leave(self) -> None:
        """Another relay's configuration counts from here on: sweep no more."""
        if self._sweeper is not None:
            self._sweeper.stop()

    def close(self) -> None:
        """Write what waits, for a while. Not to be called in the loop: it waits."""
        self.leave()
        if self._writer is not None and not self._writer.close(CLOSE):
            log.error(
                "recordings_cut_off", seconds=CLOSE, remedy="the disk of recording.directory hangs: check it"
            )


class CallRecording:
    """One call's. No method waits, and none raises."""

    def __init__(
        self, writer: Writer, about: About, line: Line, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._writer, self._about, self._line, self._now = writer, about, line, now
        self._held = False
        #: Why there is none any more, of :data:`eslbot.telemetry.metrics.RECORDING_WHYS`.
        self.failed: str | None = None
        self._track: Track | None = None
        self._begin()

    def _begin(self) -> None:
        self._sides = Sides(self._line.period)
        self._next = self._line.first
        self._dated = False
        self._due = self._now() + PERIOD
        try:
            self._track = self._writer.track(self._about, time.time())
        except Failed as failed:
            self._writer.tell(failed, self._about)
            self._fail(failed)
        else:
            metrics.RECORDINGS.labels(self._about.workspace).inc()

    def caller(self, frame: bytes, at: float) -> None:
        """A frame of the caller's, as the bot gets it, that has come at this (monotonic) time."""
        if self._track is not None:
            self._sides.caller(frame, at)

    @_guarded
    def hold(self, on: bool) -> None:
        """What goes by on hold is not heard."""
        if self._track is not None:
            self._look()
            self._held = on

    @_guarded
    def tick(self) -> None:
        """Do what is due; to be called every quarter of a second at least."""
        if self._track is not None and self._now() >= self._due:
            self._due = self._now() + PERIOD
            self._look()
            self._hand_on()

    @_guarded
    def restarts(self) -> None:
        """FreeSWITCH has died, and another one is going to read the line."""
        if self._track is not None:
            self._look()

    @_guarded
    def restarted(self) -> None:
        """It does: the next part."""
        if self._track is not None:
            self._hand_on(all_of_it=True)
        if self._track is not None:
            self._track.end()
            self._begin()

    @_guarded
    def end(self) -> None:
        """The call is over, or another relay has it."""
        if self._track is not None:
            self._look()
            self._hand_on(all_of_it=True)
        if self._track is not None:
            self._track.end()
            self._track = None

    def _look(self) -> None:
        """Fetch what was heard of the line."""
        line = self._line
        tick = line.tick()
        if not line.read_by_freeswitch or tick <= self._next:
            return
        at = line.at(self._next)
        linear = line.played(self._next, tick)
        self._next = tick
        self._sides.line(bytes(len(linear)) if self._held else linear, at)

    def _hand_on(self, *, all_of_it: bool = False) -> None:
        assert self._track is not None
        try:
            caller, heard = self._sides.take(all_of_it=all_of_it)
            if caller:
                if not self._dated and self._sides.began is not None:
                    self._dated = True
                    self._track.began_at = time.time() - (self._now() - self._sides.began)
                self._track.write(caller, heard)
            elif self._track.failed is not None:
                raise self._track.failed
        except Failed as failed:
            self._fail(failed)

    def fault(self, error: Exception) -> None:
        """Of ours."""
        metrics.INTERNAL_ERRORS.inc()
        log.error("recording_fault", call_id=self._about.call_id, exc_info=error)
        track, failed = self._track, Failed("failed", type(error).__name__)
        self._writer.tell(failed, self._about)
        self._fail(failed)
        if track is not None:
            track.end()

    def _fail(self, failed: Failed) -> None:
        self.failed = failed.why
        self._track = None
        self._line.keep_no_more()


def _announcement(workspace: Workspace) -> bytes | None:
    try:
        return speech(workspace.recording.announcement)
    except UnusableAnnouncement as error:
        log.error(
            "announcement_unusable",
            workspace=workspace.name,
            error=str(error),
            remedy="mend it and send HUP: until then no call of this workspace is recorded",
        )
        return None
