"""Reading recordings: which there are, whether they are whole, their sound; and deleting one.

Whoever asks says for which workspaces: a recording of another one is not there for them. Keys are those of
the configuration, by workspace.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eslbot.audio import SAMPLE_RATE
from eslbot.config.model import Config
from eslbot.recording import sidecar, sweep
from eslbot.recording.sealed import BadSeal, Opener
from eslbot.recording.sidecar import BadSidecar, Part, Recording, State
from eslbot.recording.sound import BadSound, decode
from eslbot.recording.sweep import LIVING, Found

Block = np.ndarray[tuple[int, int], np.dtype[np.int16]]

#: Seconds of silence that stand, at most, for what lies between two parts.
LONGEST_GAP = 60.0


class Damaged(Exception):
    """A recording is not what was written, or cannot be read; the text says which part, and why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One recording. ``recording`` is None where its sidecar is no good: ``problem`` says why.

    ``problem`` may also say that it was changed.
    """

    found: Found
    recording: Recording | None
    problem: str | None = None

    @property
    def call_id(self) -> str:
        """Whose it is."""
        return self.found.call_id

    @property
    def workspace_id(self) -> str:
        """By its directory."""
        return self.found.folder.name

    @property
    def seconds(self) -> float | None:
        """How long it is, of the parts of which that is known; None where it is of none."""
        known = [part.samples for part in self._parts if part.samples is not None]
        return sum(known) / SAMPLE_RATE if known else None

    @property
    def sealed(self) -> bool:
        """Whether it takes a key."""
        return any(part.sealed for part in self._parts)

    @property
    def _parts(self) -> list[Part]:
        return [] if self.recording is None else self.recording.parts

    def state(self, now: float) -> str:
        """``recording``, ``whole``, ``failed``, or ``cut off`` where what has made it died."""
        states = {self.state_of(part, now) for part in self._parts}
        ordered = ("recording", "cut off", "failed", "whole")
        return next((state for state in ordered if state in states), "no sidecar")

    def state_of(self, part: Part, now: float) -> str:
        """That of one part. What is followed by another one is not written to any more."""
        if part.state is not State.RECORDING:
            return str(part.state)
        goes_on = part is self._parts[-1] and now - self.found.last <= LIVING
        return "recording" if goes_on else "cut off"


class Store:
    """The recordings of these workspaces (ids); of all there are where that is None."""

    def __init__(self, config: Config, workspaces: Collection[str] | None) -> None:
        self.directory = Path(config.recording.directory)
        self._workspaces = None if workspaces is None else frozenset(workspaces)
        self._keys: Mapping[str, tuple[bytes, ...]] = {
            workspace.id: workspace.recording.keys for workspace in config.workspaces.values()
        }

    # -- which there are ------------------------------------------------------------------------------------

    def all(self) -> Iterator[Entry]:
        """Every recording, in no order that counts. Raises OSError."""
        for found in sweep.recordings(self.directory, None, self._workspaces):
            yield self._entry(found)

    def named(self, call_id: str) -> Entry | None:
        """The recording of a call; None where there is none for whoever asks. Raises OSError."""
        if not sidecar.CALL_ID.fullmatch(call_id):
            return None
        for found in sweep.recordings(self.directory, call_id, self._workspaces):
            return self._entry(found)
        return None

    def _entry(self, found: Found) -> Entry:
        path = found.folder / f"{found.call_id}.json"
        try:
            recording, genuine = sidecar.load(path, self._keys.get(found.folder.name, ()))
        except FileNotFoundError:
            return Entry(found, None, "its sidecar is not there")
        except (BadSidecar, OSError) as error:
            return Entry(found, None, f"its sidecar: {error}")
        changed = None if genuine is not False else "its sidecar was changed, or sealed with another key"
        return Entry(found, recording, changed)

    # -- what is in them ------------------------------------------------------------------------------------

    def sound(self, entry: Entry) -> Iterator[Block]:
        """All of a recording, caller left, bot right: what lies between two parts is silence.

        A part that has not ended is read as far as it goes. Raises Damaged.
        """
        end: float | None = None
        for part in self._parts_of(entry):
            if end is not None and (gap := round(min(LONGEST_GAP, part.began_at - end) * SAMPLE_RATE)) > 0:
                for begin in range(0, gap, SAMPLE_RATE):
                    yield np.zeros((min(SAMPLE_RATE, gap - begin), 2), np.int16)
            samples = 0
            for block in self.part(entry, part):
                samples += len(block)
                yield block
            end = part.began_at + samples / SAMPLE_RATE

    def part(self, entry: Entry, part: Part) -> Iterator[Block]:
        """The samples of one part. Raises Damaged."""
        unended = part.state is not State.WHOLE
        samples = 0
        try:
            with self.opened(entry, part) as file:
                for block in decode(file, file.size, part=unended):
                    samples += len(block)
                    yield block
        except (BadSeal, BadSound, OSError) as error:
            raise Damaged(f"{part.file}: {error}") from error
        if not unended and samples != part.samples:
            raise Damaged(f"{part.file}: has {samples} samples instead of {part.samples}")

    def check(self, entry: Entry) -> list[str]:
        """What is wrong with it; nothing where it is as it was written."""
        problems = [] if entry.problem is None else [entry.problem]
        if entry.recording is None:
            return problems
        for part in entry.recording.parts:
            try:
                for _ in self.part(entry, part):
                    pass
            except Damaged as error:
                problems.append(str(error))
        named = {part.file for part in entry.recording.parts}
        problems += [
            f"{name}: its sidecar does not name it"
            for name in entry.found.names
            if sidecar.PART.fullmatch(name) and name not in named
        ]
        return problems

    def delete(self, entry: Entry) -> None:
        """All of it. Raises OSError."""
        sweep.delete(entry.found)

    @staticmethod
    def _parts_of(entry: Entry) -> list[Part]:
        if entry.recording is None:
            raise Damaged(entry.problem or "it has no sidecar")
        return entry.recording.parts

    @contextmanager
    def opened(self, entry: Entry, part: Part) -> Iterator[Opened]:
        """The bytes of one part's FLAC file, opened where it is sealed. Raises BadSeal, OSError."""
        with sidecar.open_plain(entry.found.folder / part.file) as fd:
            size = os.fstat(fd).st_size

            def read(size: int, at: int) -> bytes:
                return os.pread(fd, size, at)

            if not part.sealed:
                yield Opened(read, size)
                return
            number = sidecar.PART.fullmatch(part.file)
            assert number is not None  # the sidecar's schema
            name = f"{entry.workspace_id}/{entry.call_id}.{number['number']}"
            keys = self._keys.get(entry.workspace_id, ())
            unended = part.state is not State.WHOLE
            opener = Opener(read, size, keys, name, part=unended)
            yield Opened(opener.read, opener.size)


class Opened:
    """A part's file to read, of ``size`` bytes (:class:`eslbot.recording.sound.Bytes`)."""

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read, self.size = read, size

    def read(self, size: int, at: int) -> bytes:
        """Fewer bytes only at the end. Raises BadSeal, OSError."""
        return self._read(size, at)

    def write(self, data: bytes, at: int) -> None:
        """Nobody does."""
        raise OSError("is only read")


def facts(entry: Entry, now: float) -> dict[str, Any]:
    """What a program is told of it; times in epoch seconds, ``bytes`` on the disk."""
    recording = entry.recording
    return {
        "call_id": entry.call_id,
        "workspace_id": entry.workspace_id,
        "workspace": None if recording is None else recording.workspace,
        "crt_object_id": None if recording is None else recording.crt_object_id,
        "began_at": None if recording is None else recording.began_at,
        "seconds": entry.seconds,
        "state": entry.state(now),
        "why": None if recording is None else next((part.why for part in recording.parts if part.why), None),
        "sealed": entry.sealed,
        "parts": 0 if recording is None else len(recording.parts),
        "bytes": entry.found.size,
        "problem": entry.problem,
    }
