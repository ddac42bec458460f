"""Retention: deletes recordings that are too old, and the oldest where all together are too large.

Of the relays that share a directory one does this at a time. A recording that was written lately is left
alone, whatever the bounds: its call goes on.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from eslbot.config.model import Config
from eslbot.recording import sidecar
from eslbot.telemetry import metrics

log = structlog.get_logger()

#: Seconds between two sweeps, and from a relay's start to its first one.
SWEEP_INTERVAL, FIRST_SWEEP_DELAY = 60.0, 5.0
#: Seconds after its last write for which a recording may still go on.
ACTIVE_FOR = 120.0
#: The file whose lock says who sweeps.
LOCK_FILE = ".sweep"


@dataclass(slots=True)
class RecordingFiles:
    """The files of one call's recording. ``last``: when one of them was last written, in epoch seconds."""

    folder: Path
    call_id: str
    names: list[str] = field(default_factory=list)
    size: int = 0
    last: float = 0.0


def scan(
    directory: Path, call_id: str | None = None, workspaces: Collection[str] | None = None
) -> Iterator[RecordingFiles]:
    """All recordings, or those of one call, or of these workspaces (ids).

    Files that are not ours are ignored. Raises OSError.
    """
    for day in _folders(directory):
        if not sidecar.DAY.fullmatch(day.name):
            continue
        for folder in _folders(day) if workspaces is None else _folders_of(day, workspaces):
            if not sidecar.WORKSPACE_ID.fullmatch(folder.name):
                continue
            if call_id is None or (folder / f"{call_id}.json").exists():
                yield from _of_workspace(folder, call_id)


def _folders(directory: Path) -> list[Path]:
    try:
        with os.scandir(directory) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


def _folders_of(day: Path, workspaces: Collection[str]) -> list[Path]:
    """These workspaces' folders of a day, without listing all others."""
    folders = (day / name for name in sorted(workspaces) if sidecar.WORKSPACE_ID.fullmatch(name))
    return [folder for folder in folders if folder.is_dir() and not folder.is_symlink()]


def _of_workspace(folder: Path, call_id: str | None) -> Iterator[RecordingFiles]:
    found: dict[str, RecordingFiles] = {}
    try:
        listing = os.scandir(folder)
    except FileNotFoundError:
        return  # the last recording in it has just been deleted
    with listing as entries:
        for entry in entries:
            name, _, rest = entry.name.partition(".")
            if call_id not in (None, name) or not rest or not sidecar.CALL_ID.fullmatch(name):
                continue
            if not entry.is_file(follow_symlinks=False):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            one = found.setdefault(name, RecordingFiles(folder, name))
            one.names.append(entry.name)
            one.size += status.st_size
            one.last = max(one.last, status.st_mtime)
    yield from found.values()


def delete(found: RecordingFiles) -> None:
    """Delete a recording: its audio first, since the sidecar names it. Raises OSError."""
    for name in sorted(found.names, key=lambda name: name.endswith(".json")):
        (found.folder / name).unlink(missing_ok=True)
    for folder in (found.folder, found.folder.parent):
        try:
            folder.rmdir()
        except OSError:
            return  # it has other recordings


def sweep(directory: Path, keep: float, own_keep: Mapping[str, float], most: int | None, now: float) -> int:
    """Delete what is too old or too much; returns the bytes that stay.

    Args:
        directory: Of all recordings.
        keep: Seconds for which a recording is kept.
        own_keep: The same for workspaces that have a time of their own, by id.
        most: Bytes of all recordings; None is no bound.
        now: Epoch seconds.

    Raises:
        OSError: The directory cannot be read. A recording that cannot be deleted is logged.
    """
    staying: list[RecordingFiles] = []
    for found in scan(directory):
        if now - found.last > max(ACTIVE_FOR, own_keep.get(found.folder.name, keep)):
            _delete(found, "keep")
        else:
            staying.append(found)
    size = sum(found.size for found in staying)
    if most is not None:
        for found in sorted(staying, key=lambda found: found.last):
            if size <= most or now - found.last <= ACTIVE_FOR:
                break
            if _delete(found, "max_bytes"):
                size -= found.size
    return size


def _delete(found: RecordingFiles, why: str) -> bool:
    try:
        delete(found)
    except OSError as error:
        log.error("recording_not_deleted", call_id=found.call_id, error=str(error))
        return False
    metrics.RECORDINGS_DELETED.labels(why).inc()
    log.info("recording_deleted", call_id=found.call_id, workspace_id=found.folder.name, why=why)
    return True


class RetentionSweeper:
    """A relay's thread that sweeps unless another relay does. A disk that hangs holds up nothing else."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stop = threading.Event()
        threading.Thread(target=self._run, name="recordings-sweep", daemon=True).start()

    def stop(self) -> None:
        """Sweep no more. Does not wait."""
        self._stop.set()

    def _run(self) -> None:
        wait = FIRST_SWEEP_DELAY
        while not self._stop.wait(wait):
            wait = SWEEP_INTERVAL
            try:
                self._sweep()
            except OSError as error:
                log.error(
                    "recordings_not_swept",
                    error=str(error),
                    remedy="check the permissions of recording.directory",
                )
            except Exception as error:  # a fault of ours; the next sweep may succeed
                metrics.INTERNAL_ERRORS.inc()
                log.error("recordings_not_swept", exc_info=error)

    def _sweep(self) -> None:
        kept = self._config.recording
        directory = Path(kept.directory)
        if not directory.is_dir():
            return
        own = {
            workspace.id: workspace.recording.keep
            for workspace in self._config.workspaces.values()
            if workspace.recording.keep is not None
        }
        lock = os.open(
            directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, sidecar.FILE_MODE
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            size = sweep(directory, kept.keep, own, kept.max_bytes, time.time())
            metrics.RECORDINGS_BYTES.set(size)
        except BlockingIOError:
            return  # another relay sweeps
        finally:
            os.close(lock)
