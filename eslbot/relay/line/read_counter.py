"""How often FreeSWITCH has read each line file: exact, told by the kernel (inotify).

Each read is an IN_ACCESS event. Linux drops an event that is like the one before it in the queue, so the
files' directory is watched by the same instance: the events of file and directory alternate, and none is like
the one before it. Opening a file, mod_sndfile reads it through in blocks of 1,024 samples (it looks for its
loudest); IN_OPEN tells when, and these reads are not counted.

Our own writes (IN_MODIFY) stand in the same queue. Their place among the reads tells whether a frame was
written before FreeSWITCH came for it, however long this process was kept from running in between.

The queue holds `fs.inotify.max_queued_events` (16,384) events of all files; a read makes two. Behind an
overflow what a count says is too little: :attr:`ReadCount.losses` tells.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path

#: Samples of a block in which libsndfile reads a file through.
SCAN_SAMPLES = 1024

# linux/inotify.h
_IN_ACCESS, _IN_MODIFY, _IN_OPEN, _IN_Q_OVERFLOW = 0x1, 0x2, 0x20, 0x4000
_BUFFER = 1 << 16
_NO_WATCH = 0xFFFFFFFF


class ReadCount:
    """The reads of one file since it was watched, or since FreeSWITCH has opened it if that was later."""

    __slots__ = ("_clock", "_scan", "losses", "opened", "reads", "reads_at_write", "seen", "wd")

    def __init__(self, clock: ReadCounter, wd: int, samples: int) -> None:
        self._clock = clock
        self._scan = -(-samples // SCAN_SAMPLES)
        self.wd = wd
        self.reads = 0
        #: What :attr:`reads` was when our last write was done.
        self.reads_at_write = 0
        #: Whether somebody has opened the file since it was watched.
        self.opened = False
        #: How often events were dropped, since the open if that was told: :attr:`reads` is too little.
        self.losses = 0
        #: Monotonic time by which the last read had happened.
        self.seen = 0.0

    def _read(self) -> None:
        self.reads += 1
        self.seen = self._clock.after
        if not self.opened and self.losses:
            self.opened = True  # that event was dropped

    def _written(self) -> None:
        self.reads_at_write = self.reads

    def _open(self) -> None:
        if self.reads <= 0:  # FreeSWITCH opens it once; a later one is somebody's who should not
            self.opened = True
            self.reads = -self._scan
            self.losses = 0


class ReadCounter:
    """One inotify instance for all files of a directory.

    :attr:`before` and :attr:`after` are monotonic times: counts are complete up to ``before``, and hold
    nothing that happened later than ``after``.
    """

    def __init__(self, directory: Path, now: Callable[[], float] = time.monotonic) -> None:
        """Raise OSError if there are no more instances or watches (`fs.inotify`), or no such directory."""
        self._now = now
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._listeners: dict[int, Callable[[], None]] = {
            (_IN_Q_OVERFLOW << 32) | _NO_WATCH: self._overflowed
        }
        self._counts: dict[int, ReadCount] = {}
        self.before = self.after = now()
        try:
            self._watch(directory, _IN_ACCESS)
        except OSError:
            os.close(self.fd)
            raise

    def watch(self, path: Path, samples: int) -> ReadCount:
        """Count the reads of a file of so many samples from now on. Raises OSError."""
        wd = self._watch(path, _IN_ACCESS | _IN_MODIFY | _IN_OPEN)
        count = self._counts[wd] = ReadCount(self, wd, samples)
        self._listeners[(_IN_ACCESS << 32) | wd] = count._read
        self._listeners[(_IN_MODIFY << 32) | wd] = count._written
        self._listeners[(_IN_OPEN << 32) | wd] = count._open
        return count

    def forget(self, count: ReadCount) -> None:
        """Count a file's reads no more. The file may be gone already."""
        if self._counts.pop(count.wd, None) is None:
            return
        for mask in (_IN_ACCESS, _IN_MODIFY, _IN_OPEN):
            del self._listeners[(mask << 32) | count.wd]
        self._libc.inotify_rm_watch(self.fd, count.wd)  # refused where the file's end has ended the watch

    def drain(self, within: float = 0.0) -> None:
        """Fetch what happened; not where that was done less than ``within`` seconds ago."""
        now = self._now()
        if within and now - self.before < within:
            return
        while True:
            try:
                events = os.read(self.fd, _BUFFER)
            except BlockingIOError:
                self.before = now
                self.after = max(self.after, now)
                return
            self.after = self._now()
            # An event is 16 bytes (watch, mask, cookie, length) and a name padded to a multiple of 16; watch
            # and mask are the first half. What a slice of a name looks like is no listener's: it has no
            # control bytes.
            heard = self._listeners.get
            for key in memoryview(events).cast("Q")[::2].tolist():
                if listener := heard(key):
                    listener()
            if len(events) < _BUFFER // 2:  # the queue was empty behind it
                self.before = now
                return
            now = self.after

    def close(self) -> None:
        """Count nothing any more."""
        os.close(self.fd)
        self._counts.clear()

    def _overflowed(self) -> None:
        for count in self._counts.values():
            count.losses += 1

    def _watch(self, path: Path, mask: int) -> int:
        return self._checked(self._libc.inotify_add_watch(self.fd, os.fsencode(path), mask))

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return result
