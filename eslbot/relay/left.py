"""What a relay before this one has left in rings of its own: it plays on there, untouched, to its end.

Where FreeSWITCH is in such rings nobody can tell any more: it reads slower than the wall clock while it has
no controller. So nothing is written where it may be read; what is known is how much of it there is at most.
Of each channel FreeSWITCH reads all rings in the same ticks, so ours count for it.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from eslbot.relay.sidecar import Place

#: Seconds by which FreeSWITCH may have come to be late in the time of which nobody knows, as far as it is
#: waited for: 2.3 were measured, in 3.5 s without a controller.
LATEST = 5.0


def rings_of(directory: Path, call_id: str, generation: int) -> tuple[Path, Path]:
    """The paths of a generation's rings. No two generations of a call have the same ones: FreeSWITCH knows
    what it displaces by its path, and refuses a second one.
    """
    return (directory / f"{call_id}.{generation}.a.r8", directory / f"{call_id}.{generation}.b.r8")


class Left:
    """One generation's. Raises OSError where its files cannot be opened."""

    def __init__(self, place: Place, paths: tuple[Path, Path], period: float, now: float) -> None:
        self._place = place
        self._note = note = place.note
        self.paths = paths
        self._fds: list[int] = []
        #: Ticks of the new rings after which it was heard.
        self.unread = 0
        if note is None or not note.started or note.written <= note.tick:
            return
        try:
            for path in paths:
                self._fds.append(_open(path))
        except FileNotFoundError:  # its relay was about to remove it
            self.close()
            return
        except OSError:
            self.close()
            raise
        most = note.written - note.tick
        least = max(0, most - int(max(0.0, now - note.at) / period) - 1)
        self.unread = min(most, least + round(LATEST / period))

    def note(self, ticks: int, now: float) -> None:
        """Leave word for the next relay of what was heard since, in so many ticks of ours."""
        if self._note is not None and ticks:
            self._place.write(replace(self._note, tick=self._note.tick + ticks, at=now))

    def remove(self) -> None:
        """Have nothing more be heard of it. FreeSWITCH may still read it: a ring goes round."""
        for fd in self._fds:
            with suppress(OSError):  # a disk that is full, even for silence: then the controller is in time
                _silence(fd)
        self.close()
        for path in self.paths:
            path.unlink(missing_ok=True)
        self._place.begin(0)

    def close(self) -> None:
        """Leave it to itself."""
        while self._fds:
            os.close(self._fds.pop())


def _open(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        os.close(fd)
        raise PermissionError(f"{path.name} is not ours")
    return fd


def _silence(fd: int) -> None:
    """Zeros over all that a sparse file holds."""
    end = 0
    while True:
        try:
            begin = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing behind
                return
            raise
        end = os.lseek(fd, begin, os.SEEK_HOLE)
        os.pwrite(fd, bytes(end - begin), begin)
