"""The thread that writes recordings: everything about them that may take time.

What the loop hands over waits in a queue that is bounded for each recording and for all together. A recording
that cannot be written *fails*: the loop sees that at its next hand-over, and the call goes on without. While
the thread hangs in the file system no recording begins; nothing else waits for it.
"""

from __future__ import annotations

import errno
import os
import shutil
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
from eslbot.recording.flac import Encoder
from eslbot.recording.peaks import Peaks
from eslbot.recording.sealed import Sealer
from eslbot.recording.sidecar import Part, Recording, State
from eslbot.telemetry import metrics

log = structlog.get_logger()

#: Seconds of one recording, and bytes of all, that may wait to be written.
MAX_QUEUED_SECONDS, MAX_QUEUED_BYTES = 15.0, 64 * 1024 * 1024
#: RandomAccessFile of a second of both sides.
BYTES_PER_SECOND = 4 * SAMPLE_RATE
#: Seconds between two looks at the queue, and at the free space.
QUEUE_POLL_INTERVAL, FREE_SPACE_INTERVAL = 0.25, 5.0
#: Seconds in which a reason is logged once.
FAILURE_LOG_INTERVAL = 60.0
#: What to do about each of :data:`eslbot.telemetry.metrics.RECORDING_WHYS`.
REMEDIES = {
    "full": "make room there, or lower recording.keep or recording.max_bytes; calls go on without",
    "slow": "see what the disk of recording.directory does; calls go on without",
    "failed": "see recording.directory: `eslbot doctor --only recordings`; calls go on without",
    "unannounced": "see recording.announcement of this workspace: `eslbot doctor --only recordings`",
}
#: Errors of a full disk.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class CallInfo:
    """Whose recording it is. ``key``: the tenant's key, where recordings are sealed."""

    call_id: str
    workspace_id: str
    workspace: str
    crt_object_id: str
    key: bytes | None = None


class RecordingFailed(Exception):
    """A recording cannot go on; ``why`` is one of :data:`eslbot.telemetry.metrics.RECORDING_WHYS`."""

    def __init__(self, why: str, text: str) -> None:
        super().__init__(text)
        self.why = why


class PartWriter:
    """One part of a recording, which the loop fills and the thread writes.

    :attr:`failed` tells the loop that the thread could not write it.
    """

    def __init__(self, writer: RecordingWriter, about: CallInfo, began_at: float) -> None:
        self.about = about
        self.failed: RecordingFailed | None = None
        self._writer = writer
        #: Epoch seconds of its first sample; of :meth:`begin` until that is known.
        self.began_at = began_at
        self._put = self._done = 0  # bytes; only the loop changes the one, only the thread the other
        #: Only the thread uses these.
        self._file: _File | None = None
        self._encoder: Encoder | None = None
        self._peaks = Peaks()
        self._samples = 0
        self._folder = Path()
        self._name = ""

    # -- in the loop ----------------------------------------------------------------------------------------

    def write(self, caller: bytes, line: bytes) -> None:
        """Audio of both sides, equally long. Raises RecordingFailed where it cannot be taken."""
        if self.failed is not None:
            raise self.failed
        size = len(caller) + len(line)
        if self._put - self._done + size > MAX_QUEUED_SECONDS * BYTES_PER_SECOND or not self._writer.has_room(
            size
        ):
            failed = RecordingFailed("slow", f"the disk is over {MAX_QUEUED_SECONDS:g} s behind")
            self._failed(failed)
            self._writer.submit(self._close, 0)
            raise failed
        self._put += size
        self._writer.submit(lambda: self._write(caller, line), size)

    def end(self) -> None:
        """Nothing more will come."""
        self._writer.submit(self._close, 0)

    def _failed(self, failed: RecordingFailed) -> None:
        """The first reason counts."""
        if self.failed is None:
            self.failed = failed
            self._writer.report(failed, self.about)

    # -- in the thread --------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Create the file."""
        self._attempt(self._begin)

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
        except RecordingFailed as failed:
            self._fail(failed)
        except OSError as error:
            why = "full" if error.errno in _FULL else "failed"
            self._fail(RecordingFailed(why, f"{error.strerror or error} ({self._writer.directory})"))
        except sidecar.BadSidecar as error:
            self._fail(RecordingFailed("failed", str(error)))
        except Exception as error:  # a fault of ours ends this recording and no other
            metrics.INTERNAL_ERRORS.inc()
            log.error("recording_fault", call_id=self.about.call_id, exc_info=error)
            self._fail(RecordingFailed("failed", type(error).__name__))

    def _begin(self) -> None:
        self._writer.check_free_space()
        about = self.about
        recording = self._find_recording()
        if len(recording.parts) >= sidecar.MAX_PARTS:
            raise RecordingFailed("failed", f"it has {sidecar.MAX_PARTS} parts already")
        with sidecar.locked(self._folder):
            suffix = ".flac.enc" if about.key is not None else ".flac"
            number = len(recording.parts) + 1
            self._name = f"{about.call_id}.{number}{suffix}"
            self._file = _File(self._folder / self._name)
            recording.parts.append(Part(self._name, self.began_at))
            sidecar.save(self._sidecar, recording, about.key)
        if about.key is not None:
            self._file.seal(about.key, f"{about.workspace_id}/{about.call_id}.{number}")
        self._encoder = Encoder(self._file.write)

    def _find_recording(self) -> Recording:
        """The recording that another relay has begun of this call, today or yesterday; else a new one."""
        about = self.about
        today = datetime.fromtimestamp(self.began_at, UTC).date()
        for day in (today, today - timedelta(days=1)):
            self._folder = self._writer.directory / day.isoformat() / about.workspace_id
            if self._sidecar.exists():
                keys = (about.key,) if about.key is not None else ()
                return sidecar.load(self._sidecar, keys)[0]
        self._folder = self._writer.directory / today.isoformat() / about.workspace_id
        for folder in (self._writer.directory, self._folder.parent, self._folder):
            folder.mkdir(mode=sidecar.DIRECTORY_MODE, parents=folder is self._writer.directory, exist_ok=True)
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
        self._writer.check_free_space()
        sides = np.stack([np.frombuffer(side, "<i2") for side in (caller, line)])
        self._encoder.write(sides.T)
        self._samples += sides.shape[1]
        self._peaks.add(sides)

    def _close(self) -> None:
        self._attempt(self._finish)

    def _finish(self) -> None:
        """The part has ended or failed; what was written of it is kept."""
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
            with suppress(FileNotFoundError):  # it was deleted meanwhile, which is fine
                self._update_sidecar()

    def _update_sidecar(self) -> None:
        """Save the part's end in its sidecar; a part without audio is deleted."""
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
                    part.samples, part.peaks = self._samples, self._peaks.as_json()
                    part.began_at = self.began_at
            recording.began_at = recording.parts[0].began_at
            sidecar.save(self._sidecar, recording, key)

    def _fail(self, failed: RecordingFailed) -> None:
        self._failed(failed)
        if self._file is not None:
            try:
                self._finish()
            except Exception as error:  # noqa: BLE001  # a disk that has failed fails here, too
                log.warning("recording_not_closed", call_id=self.about.call_id, error=str(error))


class _File:
    """A part's file, sealed or not. Raises OSError."""

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(path, flags, sidecar.FILE_MODE)
        self._sealer: Sealer | None = None

    def seal(self, key: bytes, name: str) -> None:
        """Seal all that is written from here on."""
        self._sealer = Sealer(self._pwrite, key, name)

    def write(self, data: bytes, at: int) -> None:
        """Write all of it."""
        if self._sealer is None:
            self._pwrite(data, at)
        else:
            self._sealer.write(data, at)

    def finish(self) -> None:
        """The file is complete."""
        if self._sealer is not None:
            self._sealer.finish()

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)

    def _pwrite(self, data: bytes, at: int) -> None:
        while data:
            written = os.pwrite(self._fd, data, at)
            at += written
            data = data[written:]


class RecordingWriter:
    """The thread, and its queue. ``min_free``: bytes that stay free on the file system."""

    def __init__(self, directory: Path, min_free: int) -> None:
        self.directory = directory
        self._min_free = min_free
        # Both ends of a deque may be used from two threads without a lock.
        self._waiting: deque[tuple[Callable[[], None], int]] = deque()
        self._put = self._done = 0
        self._free_checked_at = float("-inf")
        self._free = 0
        self._wake = threading.Event()
        #: When each reason was logged last.
        self._logged_at: dict[str, float] = {}
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="recordings", daemon=True)
        self._thread.start()

    # -- in the loop ----------------------------------------------------------------------------------------

    def has_room(self, size: int) -> bool:
        """Whether there is room in the queue for so many bytes."""
        return self._put - self._done + size <= MAX_QUEUED_BYTES

    def begin_part(self, about: CallInfo, began_at: float) -> PartWriter:
        """A part of a recording, begun. Raises RecordingFailed where the disk hangs."""
        if not self.has_room(BYTES_PER_SECOND):
            raise RecordingFailed("slow", f"{MAX_QUEUED_BYTES >> 20} MB wait for the disk")
        part = PartWriter(self, about, began_at)
        self.submit(part.begin, 0)
        return part

    def submit(self, work: Callable[[], None], size: int) -> None:
        """Run ``work`` in the thread; ``size`` bytes wait with it."""
        self._put += size
        self._waiting.append((work, size))

    def report(self, failed: RecordingFailed, about: CallInfo) -> None:
        """Count a recording that has failed. A full disk fails all recordings, so one a minute is logged."""
        metrics.RECORDINGS_FAILED.labels(failed.why).inc()
        now = time.monotonic()
        if now - self._logged_at.get(failed.why, float("-inf")) >= FAILURE_LOG_INTERVAL:
            self._logged_at[failed.why] = now
            log.error(
                "recording_failed",
                why=failed.why,
                error=str(failed),
                call_id=about.call_id,
                workspace=about.workspace,
                remedy=REMEDIES[failed.why],
            )

    def close(self, seconds: float) -> bool:
        """Write what waits and end; whether that was possible within ``seconds``."""
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
            self._wake.wait(QUEUE_POLL_INTERVAL)

    def check_free_space(self) -> None:
        """Raises RecordingFailed where the file system has too little, and OSError."""
        now = time.monotonic()
        if now - self._free_checked_at >= FREE_SPACE_INTERVAL:
            self._free, self._free_checked_at = shutil.disk_usage(_existing_parent(self.directory)).free, now
        if self._free < self._min_free:
            raise RecordingFailed(
                "full", f"{self._free >> 20} MB are free, less than recording.min_free ({self.directory})"
            )


def _existing_parent(directory: Path) -> Path:
    """The directory, or the nearest one above it that exists."""
    return next((one for one in (directory, *directory.parents) if one.exists()), directory)
