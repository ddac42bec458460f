"""The journal reader: whole lines, in bounded chunks, from where the database has each journal."""

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

#: Bytes that are read at one time. A longer line is skipped.
READ_SIZE = 128 * 1024

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}-(\d{1,10})-(\d{1,16})\.jsonl")


@dataclass(slots=True)
class JournalFile:
    """One journal. ``offset``: how much of it is in the database. ``size``: its length at the last scan."""

    name: str
    began: int
    offset: int = 0
    size: int = 0
    #: ``offset`` is within a line that is too long for a fact.
    within_line: bool = False

    @property
    def unread(self) -> int:
        """Bytes."""
        return max(0, self.size - self.offset)


@dataclass(slots=True)
class Chunk:
    """Whole lines of a journal, and its offset once they are written."""

    lines: list[bytes]
    end: int
    within_line: bool = False


@dataclass(slots=True)
class JournalDirectory:
    """The directory of the journals; ``journals`` are those that it has, by name."""

    path: Path
    journals: dict[str, JournalFile] = field(default_factory=dict)
    _reported: set[str] = field(default_factory=set)

    def scan(self, offsets: dict[str, int]) -> None:
        """Look what is there now. A new journal begins at its offset in ``offsets``. Raises OSError."""
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
                    journal = JournalFile(entry.name, int(match[2]), offsets.get(entry.name, 0))
                    self.journals[entry.name] = journal
                journal.size = status.st_size
        for name in self.journals.keys() - there:
            del self.journals[name]

    def unread_journals(self) -> list[JournalFile]:
        """Those with something unread, the oldest first."""
        unread = [journal for journal in self.journals.values() if journal.unread]
        return sorted(unread, key=lambda journal: journal.began)

    @property
    def backlog(self) -> int:
        """Bytes that are not in the database."""
        return sum(journal.unread for journal in self.journals.values())

    def read(self, journal: JournalFile) -> Chunk | None:
        """The next lines; None where there are none yet, or the file cannot be read."""
        data = self._bytes(journal, journal.offset)
        if not data:
            return None
        end = data.rfind(b"\n") + 1
        if not end:
            if len(data) < READ_SIZE:  # the line is still being written
                return None
            return Chunk([], journal.offset + len(data), within_line=True)
        lines = data[:end].split(b"\n")[:-1]
        return Chunk(lines[1:] if journal.within_line else lines, journal.offset + end)

    def _bytes(self, journal: JournalFile, offset: int) -> bytes:
        try:
            file = os.open(self.path / journal.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                return os.pread(file, READ_SIZE, offset)
            finally:
                os.close(file)
        except OSError as error:
            if journal.name not in self._reported:
                self._reported.add(journal.name)
                log.error(
                    "journal_unreadable",
                    journal=journal.name,
                    error=error.strerror,
                    remedy="the page process must run as the service's user",
                )
            return b""

    def replay(self, journal: JournalFile) -> Iterator[bytes]:
        """The lines before ``offset``: which worker has which call is not in the database."""
        again = JournalFile(journal.name, journal.began, 0, journal.offset)
        while again.offset < journal.offset and (chunk := self.read(again)) is not None:
            yield from chunk.lines
            again.offset, again.within_line = chunk.end, chunk.within_line

    def is_abandoned(self, journal: JournalFile) -> bool:
        """Whether its worker is gone. An empty journal may be one that is about to be locked."""
        if not journal.size:
            return False
        file = self._lock(journal)
        if file is not None:
            os.close(file)
        return file is not None

    def delete(self, journal: JournalFile) -> bool:
        """Delete a journal that is read to its end and whose worker is gone; whether it is deleted."""
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

    def _lock(self, journal: JournalFile) -> int | None:
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
