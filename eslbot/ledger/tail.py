"""Reads the journals: from where the database has them, whole lines only, in bounded pieces."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import structlog

log = structlog.get_logger()

#: Bytes read at one time; a longer line is skipped.
CHUNK = 128 * 1024

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}-(\d{1,10})-(\d{1,16})\.jsonl")


@dataclass(slots=True)
class Journal:
    """One file. ``offset`` is how far it is in the database, ``size`` how long it was when last looked at."""

    name: str
    began: int
    offset: int = 0
    size: int = 0
    #: The line at ``offset`` began before it, and is too long for a fact.
    within_line: bool = False

    @property
    def unread(self) -> int:
        """Bytes."""
        return max(0, self.size - self.offset)


@dataclass(slots=True)
class Piece:
    """Whole lines of a journal, and where it is when they are written."""

    lines: list[bytes]
    end: int
    within_line: bool = False


@dataclass(slots=True)
class Folder:
    """The directory of the journals; ``journals`` are those that it holds, by name."""

    path: Path
    journals: dict[str, Journal] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)

    def look(self, offsets: dict[str, int]) -> None:
        """See what is there now; a journal that is new begins at its offset in ``offsets``.

        Raises OSError where the directory cannot be read.
        """
        there = set()
        with os.scandir(self.path) as entries:
            for entry in entries:
                match = _NAME.fullmatch(entry.name)
                if not match:
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if not stat.S_ISREG(status.st_mode):
                    continue
                there.add(entry.name)
                journal = self.journals.get(entry.name)
                if journal is None:
                    journal = Journal(entry.name, int(match[2]), offsets.get(entry.name, 0))
                    self.journals[entry.name] = journal
                journal.size = status.st_size
        for name in self.journals.keys() - there:
            del self.journals[name]

    def in_order(self) -> list[Journal]:
        """Those with something unread, the oldest first."""
        unread = [journal for journal in self.journals.values() if journal.unread]
        return sorted(unread, key=lambda journal: journal.began)

    @property
    def backlog(self) -> int:
        """Bytes that are not in the database."""
        return sum(journal.unread for journal in self.journals.values())

    def read(self, journal: Journal) -> Piece | None:
        """The next lines; None where there are none, yet or because the file cannot be read."""
        data = self._bytes(journal, journal.offset)
        if not data:
            return None
        end = data.rfind(b"\n") + 1
        if not end:
            if len(data) < CHUNK:  # the line is still being written
                return None
            return Piece([], journal.offset + len(data), within_line=True)
        lines = data[:end].split(b"\n")[:-1]
        return Piece(lines[1:] if journal.within_line else lines, journal.offset + end)

    def _bytes(self, journal: Journal, offset: int) -> bytes:
        try:
            file = os.open(self.path / journal.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                return os.pread(file, CHUNK, offset)
            finally:
                os.close(file)
        except OSError as error:
            if journal.name not in self._told:
                self._told.add(journal.name)
                log.error(
                    "journal_unreadable",
                    journal=journal.name,
                    error=error.strerror,
                    remedy="the page process must run as the service's user",
                )
            return b""

    def read_again(self, journal: Journal) -> Iterator[bytes]:
        """The lines before ``offset``: what they said of who has which call is not in the database."""
        again = Journal(journal.name, journal.began, 0, journal.offset)
        while again.offset < journal.offset and (piece := self.read(again)) is not None:
            yield from piece.lines
            again.offset, again.within_line = piece.end, piece.within_line

    def is_abandoned(self, journal: Journal) -> bool:
        """Whether no worker writes it any more. One that is empty may just be about to be locked."""
        if not journal.size:
            return False
        file = self._lock(journal)
        if file is not None:
            os.close(file)
        return file is not None

    def delete(self, journal: Journal) -> bool:
        """Delete one that is read to its end and has no worker; whether it is deleted."""
        file = self._lock(journal)
        if file is None:
            return False
        try:
            if os.fstat(file).st_size != journal.offset:
                return False
            (self.path / journal.name).unlink(missing_ok=True)
        finally:
            os.close(file)
        del self.journals[journal.name]
        return True

    def _lock(self, journal: Journal) -> int | None:
        """A descriptor with the journal's lock; None while its worker has it, or it cannot be opened."""
        try:
            file = os.open(self.path / journal.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return None
        return file
