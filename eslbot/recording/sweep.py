"""Which recordings go: those that were kept long enough, and the oldest where all are too much.

One relay of a directory sweeps at a time. What was written to lately is left alone, whatever the bounds say:
it is a call's that goes on.
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

#: Seconds between two sweeps, and from a relay's start to its first.
SWEEP, FIRST = 60.0, 5.0
#: Seconds in which a recording that goes on was written to.
LIVING = 120.0
#: A file that only says who sweeps.
LOCK = ".sweep"


@dataclass(slots=True)
class Found:
    """What lies in the directory of one call. Times in epoch seconds."""

    folder: Path
    call_id: str
    names: list[str] = field(default_factory=list)
    size: int = 0
    #: When something of it was written last.
    last: float = 0.0


def recordings(
    directory: Path, call_id: str | None = None, workspaces: Collection[str] | None = None
) -> Iterator[Found]:
    """All recordings there are, or those of one call, or of these workspaces (ids).

    Names that are none of ours are passed over. Raises OSError.
    """
    for day in _folders(directory):
        if not sidecar.DAY.fullmatch(day.name):
            continue
        for folder in _folders(day) if workspaces is None else _named(day, workspaces):
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


def _named(day: Path, workspaces: Collection[str]) -> list[Path]:
    """Those of a day's folders, without a look at all the others."""
    folders = (day / name for name in sorted(workspaces) if sidecar.WORKSPACE_ID.fullmatch(name))
    return [folder for folder in folders if folder.is_dir() and not folder.is_symlink()]


def _of_workspace(folder: Path, call_id: str | None) -> Iterator[Found]:
    found: dict[str, Found] = {}
    try:
        listing = os.scandir(folder)
    except FileNotFoundError:
        return  # the last of them has just been deleted
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
            one = found.setdefault(name, Found(folder, name))
            one.names.append(entry.name)
            one.size += status.st_size
            one.last = max(one.last, status.st_mtime)
    yield from found.values()


def delete(found: Found) -> None:
    """All of a recording: its sound first, since its sidecar names it. Raises OSError."""
    for name in sorted(found.names, key=lambda name: name.endswith(".json")):
        (found.folder / name).unlink(missing_ok=True)
    for folder in (found.folder, found.folder.parent):
        try:
            folder.rmdir()
        except OSError:
            return  # others are in it


def sweep(directory: Path, keep: float, own_keep: Mapping[str, float], most: int | None, now: float) -> int:
    """Delete what has to go; the bytes that stay. ``keep`` in seconds, ``own_keep`` by workspace id.

    Raises OSError where the directory cannot be read; a recording that cannot be deleted is told.
    """
    staying: list[Found] = []
    for found in recordings(directory):
        if now - found.last > max(LIVING, own_keep.get(found.folder.name, keep)):
            _go(found, "keep")
        else:
            staying.append(found)
    size = sum(found.size for found in staying)
    if most is not None:
        for found in sorted(staying, key=lambda found: found.last):
            if size <= most or now - found.last <= LIVING:
                break
            if _go(found, "max_bytes"):
                size -= found.size
    return size


def _go(found: Found, why: str) -> bool:
    try:
        delete(found)
    except OSError as error:
        log.error("recording_not_deleted", call_id=found.call_id, error=str(error))
        return False
    metrics.RECORDINGS_DELETED.labels(why).inc()
    log.info("recording_deleted", call_id=found.call_id, workspace_id=found.folder.name, why=why)
    return True


class Sweeper:
    """A relay's thread that sweeps where no other relay does. A disk that hangs holds up nothing else."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stop = threading.Event()
        threading.Thread(target=self._run, name="recordings-sweep", daemon=True).start()

    def stop(self) -> None:
        """No more. Does not wait."""
        self._stop.set()

    def _run(self) -> None:
        wait = FIRST
        while not self._stop.wait(wait):
            wait = SWEEP
            try:
                self._sweep()
            except OSError as error:
                log.error(
                    "recordings_not_swept",
                    error=str(error),
                    remedy="check the permissions of recording.directory",
                )
            except Exception as error:  # a fault of ours: the next round may do better
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
        lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, sidecar.FILE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            size = sweep(directory, kept.keep, own, kept.max_bytes, time.time())
            metrics.RECORDINGS_BYTES.set(size)
        except BlockingIOError:
            return  # another relay does
        finally:
            os.close(lock)
