"""The thread that writes recordings: everything about them that may take time.

What the loop hands on waits in a queue that is bounded for each recording and for all together. A recording
that cannot be written *fails*: the loop finds that out the next time it has something to hand on, and from
then on the call goes on without. A thread that hangs in the file system takes no recording any more; nothing
else waits for it.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import structlog

from eslbot.audio import SAMPLE_RATE
from eslbot.recording import sidecar
from eslbot.recording.peaks import Peaks
from eslbot.recording.sealed import Sealer
from eslbot.recording.sidecar import Part, Recording, State
from eslbot.recording.sound import Encoder
from eslbot.telemetry import metrics

log = structlog.get_logger()

#: Seconds of a recording, and bytes of all, that may wait to be written.
MOST_SECONDS, MOST_BYTES = 15.0, 64 * 1024 * 1024
#: Bytes of a second of both sides.
SECOND = 4 * SAMPLE_RATE
#: Seconds between two looks at the queue, and at the room that is left.
LOOK, ROOM = 0.25, 5.0
#: Seconds in which a reason is told once.
TELL = 60.0
#: What to do about each of :data:`eslbot.telemetry.metrics.RECORDING_WHYS`.
REMEDIES = {
    "full": "make room there, or lower recording.keep or recording.max_bytes; calls go on without",
    "slow": "see what the disk of recording.directory does; calls go on without",
    "failed": "see recording.directory: `eslbot doctor --only recordings`; calls go on without",
    "unannounced": "see recording.announcement of this workspace: `eslbot doctor --only recordings`",
}
#: Errors that say that there is no room.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class About:
    """Whose recording it is. ``key``: the tenant's, where it is sealed."""

    call_id: str
    workspace_id: str
    workspace: str
    crt_object_id: str
    key: bytes | None = None


class Failed(Exception):
    """A recording cannot go on; ``why`` is one of :data:`eslbot.telemetry.metrics.RECORDING_WHYS`."""

    def __init__(self, why: str, text: str) -> None:
        super().__init__(text)
        self.why = why


class Track:
    """One part of a recording, which the loop fills and the thread writes.

    :attr:`failed` is the thread's word for the loop.
    """

    def __init__(self, writer: Writer, about: About, began_at: float) -> None:
        self.about = about
        self.failed: Failed | None = None
        self._writer = writer
        #: Epoch seconds of its first sample, or, until that is known, of :meth:`begin`.
        self.began_at = began_at
        self._put = self._done = 0  # bytes; the one is the loop's to change, the other the thread's
        #: What the thread has of it.
        self._file: _File | None = None
        self._encoder: Encoder | None = None
        self._peaks = Peaks()
        self._samples = 0
        self._folder = Path()
        self._name = ""

    # -- in the loop ----------------------------------------------------------------------------------------

    def write(self, caller: bytes, line: bytes) -> None:
        """Sound of both sides, equally long. Raises Failed where it cannot be taken."""
        if self.failed is not None:
            raise self.failed
        size = len(caller) + len(line)
        if self._put - self._done + size > MOST_SECONDS * SECOND or not self._writer.takes(size):
            failed = Failed("slow", f"the disk is over {MOST_SECONDS:g} s behind")
            self._failed(failed)
            self._writer.later(self._close, 0)
            raise failed
        self._put += size
        self._writer.later(lambda: self._write(caller, line), size)

    def end(self) -> None:
        """Nothing more will come."""
        self._writer.later(self._close, 0)

    def _failed(self, failed: Failed) -> None:
        """The first reason counts."""
        if self.failed is None:
            self.failed = failed
            self._writer.tell(failed, self.about)

    # -- in the thread --------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Have the file."""
        self._attempt(self._begin)

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Failed as failed:
            self._fail(failed)
        except OSError as error:
            why = "full" if error.errno in _FULL else "failed"
            self._fail(Failed(why, f"{error.strerror or error} ({self._writer.directory})"))
        except sidecar.BadSidecar as error:
            self._fail(Failed("failed", str(error)))
        except Exception as error:  # a fault of ours ends this one and no other
            metrics.INTERNAL_ERRORS.inc()
            log.error("recording_fault", call_id=self.about.call_id, exc_info=error)
            self._fail(Failed("failed", type(error).__name__))

    def _begin(self) -> None:
        self._writer.look_for_room()
        about = self.about
        recording = self._found()
        if len(recording.parts) >= sidecar.MOST_PARTS:
            raise Failed("failed", f"it has {sidecar.MOST_PARTS} parts already")
        with sidecar.locked(self._folder):
            suffix = ".flac.enc" if about.key is not None else ".flac"
            number = len(recording.parts) + 1
            self._name = f"{about.call_id}.{number}{suffix}"
            self._file = _File(self._folder / self._name)
            recording.parts.append(Part(self._name, self.began_at))
            sidecar.save(self._sidecar, recording, about.key)
        if about.key is not None:
            self._file.seal(about.key, f"{about.workspace_id}/{about.call_id}.{number}")
        self._encoder = Encoder(self._file)

    def _found(self) -> Recording:
        """What another relay has begun of this call, today or yesterday; else a new one."""
        about = self.about
        today = datetime.fromtimestamp(self.began_at, UTC).date()
        for day in (today, today - timedelta(days=1)):
            self._folder = self._writer.directory / day.isoformat() / about.workspace_id
            if self._sidecar.exists():
                keys = (about.key,) if about.key is not None else ()
                return sidecar.load(self._sidecar, keys)[0]
        self._folder = self._writer.directory / today.isoformat() / about.workspace_id
        for folder in (self._writer.directory, self._folder.parent, self._folder):
            folder.mkdir(mode=sidecar.DIRECTORY, parents=folder is self._writer.directory, exist_ok=True)
        return Recording(
            about.call_id, about.workspace_id, about.workspace, about.crt_object_id, self.began_at
        )

    @property
    def _sidecar(self) -> Path:
        return self._folder / f"{self.about.call_id}.json"

    def _write(self, caller: bytes, line: bytes) -> None:
        if self._encoder is not None:
            self._attempt(lambda: self._encode(caller, line))
        self._done += len(caller) + len(line)

    def _encode(self, caller: bytes, line: bytes) -> None:
        assert self._encoder is not None
        self._writer.look_for_room()
        sides = np.stack([np.frombuffer(side, "<i2") for side in (caller, line)])
        self._encoder.write(sides.T)
        self._samples += sides.shape[1]
        self._peaks.add(sides)

    def _close(self) -> None:
        self._attempt(self._finish)

    def _finish(self) -> None:
        """The part has ended, or failed; what there is of it is kept."""
        encoder, self._encoder = self._encoder, None
        file, self._file = self._file, None
        if file is None:
            return
        try:
            if encoder is not None:
                encoder.close()
                file.finish()
        finally:
            file.close()
            with suppress(FileNotFoundError):  # it was deleted meanwhile, which is as good an end as any
                self._note()

    def _note(self) -> None:
        """What came of the part, into its sidecar; one that has no sound is none."""
        with sidecar.locked(self._folder):
            key = self.about.key
            recording = sidecar.load(self._sidecar, (key,) if key is not None else ())[0]
            if not self._samples:
                (self._folder / self._name).unlink()
                recording.parts = [part for part in recording.parts if part.file != self._name]
                if not recording.parts:
                    self._sidecar.unlink()
                    return
            for part in recording.parts:
                if part.file == self._name:
                    part.state = State.WHOLE if self.failed is None else State.FAILED
                    part.why = None if self.failed is None else self.failed.why
                    part.samples, part.peaks = self._samples, self._peaks.facts()
                    part.began_at = self.began_at
            recording.began_at = recording.parts[0].began_at
            sidecar.save(self._sidecar, recording, key)

    def _fail(self, failed: Failed) -> None:
        self._failed(failed)
        if self._file is not None:
            try:
                self._finish()
            except Exception as error:  # noqa: BLE001  # the disk that has failed fails here, too
                log.warning("recording_not_closed", call_id=self.about.call_id, error=str(error))


class _File:
    """A part's file, sealed or not (:class:`eslbot.recording.sound.Bytes`). Raises OSError."""

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(path, flags, sidecar.FILE)
        self._sealer: Sealer | None = None

    def seal(self, key: bytes, name: str) -> None:
        """Seal all that is going to be written."""
        self._sealer = Sealer(self._pwrite, key, name)

    def write(self, data: bytes, at: int) -> None:
        """All of it."""
        if self._sealer is None:
            self._pwrite(data, at)
        else:
            self._sealer.write(data, at)

    def read(self, size: int, at: int) -> bytes:
        """Nobody reads what is being written."""
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def finish(self) -> None:
        """It is whole."""
        if self._sealer is not None:
            self._sealer.finish()

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)

    def _pwrite(self, data: bytes, at: int) -> None:
        while data:
            written = os.pwrite(self._fd, data, at)
            at += written
            data = data[written:]


class Writer:
    """The thread, and what waits for it. ``least_free``: bytes that stay free on the file system."""

    def __init__(self, directory: Path, least_free: int) -> None:
        self.directory = directory
        self._least_free = least_free
        # Both ends of a deque may be used from two threads without a lock.
        self._waiting: deque[tuple[Callable[[], None], int]] = deque()
        self._put = self._done = 0
        self._looked = float("-inf")
        self._free = 0
        self._wake = threading.Event()
        #: When each reason was told last.
        self._told: dict[str, float] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="recordings", daemon=True)
        self._thread.start()

    # -- in the loop ----------------------------------------------------------------------------------------

    def takes(self, size: int) -> bool:
        """Whether there is room in the queue for so many bytes."""
        return self._put - self._done + size <= MOST_BYTES

    def track(self, about: About, began_at: float) -> Track:
        """A part of a recording, begun. Raises Failed where the disk hangs."""
        if not self.takes(SECOND):
            raise Failed("slow", f"{MOST_BYTES >> 20} MB wait for the disk")
        track = Track(self, about, began_at)
        self.later(track.begin, 0)
        return track

    def later(self, work: Callable[[], None], size: int) -> None:
        """Do this in the thread."""
        self._put += size
        self._waiting.append((work, size))

    def tell(self, failed: Failed, about: About) -> None:
        """Count a recording that has failed. A disk that is full fails all of them: one a minute is told."""
        metrics.RECORDINGS_FAILED.labels(failed.why).inc()
        now = time.monotonic()
        if now - self._told.get(failed.why, float("-inf")) >= TELL:
            self._told[failed.why] = now
            log.error(
                "recording_failed",
                why=failed.why,
                error=str(failed),
                call_id=about.call_id,
                workspace=about.workspace,
                remedy=REMEDIES[failed.why],
            )

    def close(self, seconds: float) -> bool:
        """Write what waits and end, within so many seconds. Whether that has succeeded."""
        self._closing = True
        self._wake.set()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    # -- in the thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            closing = self._closing
            while self._waiting:
                work, size = self._waiting.popleft()
                work()
                self._done += size
            if closing:
                return
            self._wake.wait(LOOK)

    def look_for_room(self) -> None:
        """Raises Failed where the file system has none; OSError."""
        now = time.monotonic()
        if now - self._looked >= ROOM:
            system = os.statvfs(_there(self.directory))
            self._free, self._looked = system.f_bavail * system.f_frsize, now
        if self._free < self._least_free:
            raise Failed(
                "full", f"{self._free >> 20} MB are free, less than recording.min_free ({self.directory})"
            )


def _there(directory: Path) -> Path:
    """The directory, or the next one above that is there."""
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    return directory
