"""What a relay before this one has left in rings of its own: it plays on there, untouched, to its end.

Where FreeSWITCH is in such rings nobody can tell any more: it reads slower than the wall clock while it has
no controller. So nothing is written where it may be read; what is known is how much of it there is at most.
Of each channel FreeSWITCH reads all rings in the same ticks, so ours count for it.

Rings that no FreeSWITCH reads are :attr:`Predecessor.orphaned`: of one that has restarted since, or that none
has begun. What they hold is to be laid into others.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from eslbot.audio import SAMPLE_RATE
from eslbot.relay.line.checkpoint import CheckpointPage, Slot
from eslbot.relay.line.rings import Ring, read, ring_paths

#: Seconds by which FreeSWITCH may have come to be late in the time of which nobody knows, as far as it is
#: waited for: 2.3 were measured, in 3.5 s without a controller.
MAX_LATENESS = 5.0
#: Seconds behind which nothing more is to be heard of rings that nobody reads: so long a call is kept.
MAX_AGE = 30.0


class Predecessor:
    """One earlier generation. Raises OSError where its files cannot be opened."""

    def __init__(
        self, slot: Slot, paths: tuple[Path, Path], samples: int, now: float, switch: str = ""
    ) -> None:
        """``switch`` is the Core-UUID of the FreeSWITCH that has the call now, where it is known."""
        self._slot = slot
        self._last = last = slot.checkpoint
        self._samples = samples
        self._period = samples / SAMPLE_RATE
        self.paths = paths
        self._fds: list[int] = []
        #: Ticks of the new rings after which it was heard.
        self.unread = 0
        #: Whether no FreeSWITCH reads it.
        restarted = bool(switch and slot.switch) and switch != slot.switch
        self.orphaned = restarted or last is None or not last.started
        if last is None or last.written <= last.tick or (self.orphaned and now - last.at > MAX_AGE):
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
        most = last.written - last.tick
        least = max(0, most - int(max(0.0, now - last.at) / self._period) - 1)
        self.unread = most if self.orphaned else min(most, least + round(MAX_LATENESS / self._period))

    def rest(self, ticks: int, began: float) -> bytes:
        """What nobody has heard, where FreeSWITCH has read it in so many ticks since the time ``began``.

        Before that it is taken to have read as time went, if at all. Whole frames. Raises OSError.
        """
        last = self._last
        if last is None or not self._fds:
            return b""
        size = 2 * self._samples
        a, b = (Ring(fd, os.fstat(fd).st_size // size) for fd in self._fds)
        if not a.frames or not b.frames:
            return b""
        a.offset, b.offset = last.begin, last.second or 0
        first = last.tick + ticks
        if not self.orphaned:
            first += int(max(0.0, began - last.at) / self._period)
        first = max(first, last.written - a.frames)
        linear = read(a, None if last.second is None else b, first, last.written, size)
        silent = len(linear) - len(linear.lstrip(b"\0"))
        return linear[silent - silent % size :]

    def checkpoint(self, ticks: int, now: float, began: float) -> None:
        """Leave the next relay what was heard since, in so many ticks of ours from ``began`` on.

        FreeSWITCH has read between the last checkpoint and that, too, but nobody knows how much: that it may
        have done so for so long stays in the checkpoint.
        """
        if self._last is not None and ticks:
            unknown = max(0.0, began - self._last.at)
            self._slot.write(replace(self._last, tick=self._last.tick + ticks, at=now - unknown))

    def remove(self) -> None:
        """Have nothing more be heard of it. FreeSWITCH may still read it: a ring goes round."""
        for fd in self._fds:
            with suppress(OSError):  # a disk that is full, even for silence: then the controller is in time
                _silence(fd)
        self.close()
        for path in self.paths:
            path.unlink(missing_ok=True)
        self._slot.release()

    def close(self) -> None:
        """Leave it to itself."""
        while self._fds:
            os.close(self._fds.pop())


def find_predecessors(
    page: CheckpointPage, directory: Path, call_id: str, *, samples: int, now: float, switch: str
) -> list[Predecessor]:
    """All earlier generations that the page knows, the oldest first. Raises OSError."""
    found: list[Predecessor] = []
    with ExitStack() as undo:
        for slot in sorted(page.slots, key=lambda slot: slot.generation):
            if slot.generation:
                paths = ring_paths(directory, call_id, slot.generation)
                found.append(Predecessor(slot, paths, samples, now, switch))
                undo.callback(found[-1].close)
        undo.pop_all()
    return found


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
