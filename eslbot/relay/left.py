"""What a relay before this one has left in rings of its own: it plays on there, untouched, to its end.

Where FreeSWITCH is in such rings nobody can tell any more: it reads slower than the wall clock while it has
no controller. So nothing is written where it may be read; what is known is how much of it there is at most.
Of each channel FreeSWITCH reads all rings in the same ticks, so ours count for it.

Rings that no FreeSWITCH reads are :attr:`Left.over`: of one that has restarted since, or that none has begun.
What they hold is to be laid into others.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from eslbot.relay.control import RATE
from eslbot.relay.ring import Ring, read
from eslbot.relay.sidecar import Place

#: Seconds by which FreeSWITCH may have come to be late in the time of which nobody knows, as far as it is
#: waited for: 2.3 were measured, in 3.5 s without a controller.
LATEST = 5.0
#: Seconds behind which nothing more is to be heard of rings that nobody reads: so long a call is kept.
STALE = 30.0


def rings_of(directory: Path, call_id: str, generation: int) -> tuple[Path, Path]:
    """The paths of a generation's rings. No two generations of a call have the same ones: FreeSWITCH knows
    what it displaces by its path, and refuses a second one.
    """
    return (directory / f"{call_id}.{generation}.a.r8", directory / f"{call_id}.{generation}.b.r8")


class Left:
    """One generation's. Raises OSError where its files cannot be opened."""

    def __init__(
        self, place: Place, paths: tuple[Path, Path], samples: int, now: float, switch: str = ""
    ) -> None:
        """``switch`` is the Core-UUID of the FreeSWITCH that has the call now, where it is known."""
        self._place = place
        self._note = note = place.note
        self._samples = samples
        self._period = samples / RATE
        self.paths = paths
        self._fds: list[int] = []
        #: Ticks of the new rings after which it was heard.
        self.unread = 0
        #: Whether no FreeSWITCH reads it.
        restarted = bool(switch and place.switch) and switch != place.switch
        self.over = restarted or note is None or not note.started
        if note is None or note.written <= note.tick or (self.over and now - note.at > STALE):
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
        least = max(0, most - int(max(0.0, now - note.at) / self._period) - 1)
        self.unread = most if self.over else min(most, least + round(LATEST / self._period))

    def rest(self, ticks: int, began: float) -> bytes:
        """What nobody has heard, where FreeSWITCH has read it in so many ticks since the time ``began``.

        Before that it is taken to have read as time went, if at all. Whole frames. Raises OSError.
        """
        note = self._note
        if note is None or not self._fds:
            return b""
        size = 2 * self._samples
        a, b = (Ring(fd, os.fstat(fd).st_size // size) for fd in self._fds)
        if not a.frames or not b.frames:
            return b""
        a.offset, b.offset = note.begin, note.second or 0
        first = note.tick + ticks
        if not self.over:
            first += int(max(0.0, began - note.at) / self._period)
        first = max(first, note.written - a.frames)
        linear = read(a, None if note.second is None else b, first, note.written, size)
        silent = len(linear) - len(linear.lstrip(b"\0"))
        return linear[silent - silent % size :]

    def note(self, ticks: int, now: float, began: float) -> None:
        """Leave word for the next relay of what was heard since, in so many ticks of ours from ``began`` on.

        FreeSWITCH has read between the note before and that, too, but nobody knows how much: that it may have
        done so for so long stays in the note.
        """
        if self._note is not None and ticks:
            unknown = max(0.0, began - self._note.at)
            self._place.write(replace(self._note, tick=self._note.tick + ticks, at=now - unknown))

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
