"""Reads recordings: which there are, whether they are complete, and their audio; and deletes one.

The caller says for which workspaces: recordings of others do not exist for it. The keys are the
configuration's, by workspace.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eslbot.audio import SAMPLE_RATE
from eslbot.config.model import Config
from eslbot.recording import retention, sidecar
from eslbot.recording.flac import BadFlac, ReadAt, decode
from eslbot.recording.retention import ACTIVE_FOR, RecordingFiles
from eslbot.recording.sealed import BadSeal, Opener
from eslbot.recording.sidecar import BadSidecar, Part, Recording, State

Block = np.ndarray[tuple[int, int], np.dtype[np.int16]]

#: Seconds of silence between two parts, at most.
MAX_GAP = 60.0


@dataclass(frozen=True, slots=True)
class PartReader:
    """A part's FLAC file of ``size`` bytes. ``read(size, offset)`` raises BadSeal and OSError."""

    read: ReadAt
    size: int


class Damaged(Exception):
    """A recording is not as it was written, or cannot be read; the message says which part, and why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One recording. ``recording`` is None where its sidecar cannot be used; ``problem`` says why.

    ``problem`` may also say that the sidecar was changed.
    """

    files: RecordingFiles
    recording: Recording | None
    problem: str | None = None

    @property
    def call_id(self) -> str:
        """Of its call."""
        return self.files.call_id

    @property
    def workspace_id(self) -> str:
        """By its directory."""
        return self.files.folder.name

    @property
    def seconds(self) -> float | None:
        """The length of all parts whose length is known; None where no part's is."""
        known = [part.samples for part in self._parts if part.samples is not None]
        return sum(known) / SAMPLE_RATE if known else None

    @property
    def sealed(self) -> bool:
        """Whether a key is needed to open it."""
        return any(part.sealed for part in self._parts)

    @property
    def _parts(self) -> list[Part]:
        return [] if self.recording is None else self.recording.parts

    def state(self, now: float) -> str:
        """``recording``, ``whole``, ``failed``, or ``cut off`` where its relay died."""
        states = {self.state_of(part, now) for part in self._parts}
        ordered = ("recording", "cut off", "failed", "whole")
        return next((state for state in ordered if state in states), "no sidecar")

    def state_of(self, part: Part, now: float) -> str:
        """The state of one part. A part that another one follows is not written to any more."""
        if part.state is not State.RECORDING:
            return str(part.state)
        goes_on = part is self._parts[-1] and now - self.files.last <= ACTIVE_FOR
        return "recording" if goes_on else "cut off"


class RecordingStore:
    """The recordings of these workspaces (ids), or of all for None."""

    def __init__(self, config: Config, workspaces: Collection[str] | None) -> None:
        self.directory = Path(config.recording.directory)
        self._workspaces = None if workspaces is None else frozenset(workspaces)
        self._keys: Mapping[str, tuple[bytes, ...]] = {
            workspace.id: workspace.recording.keys for workspace in config.workspaces.values()
        }

    # -- finding ------------------------------------------------------------------------------------

    def all(self) -> Iterator[Entry]:
        """Every recording, in no particular order. Raises OSError."""
        for found in retention.scan(self.directory, None, self._workspaces):
            yield self._entry(found)

    def get(self, call_id: str) -> Entry | None:
        """The recording of a call; None where these workspaces have none. Raises OSError."""
        if not sidecar.CALL_ID.fullmatch(call_id):
            return None
        found = next(retention.scan(self.directory, call_id, self._workspaces), None)
        return None if found is None else self._entry(found)

    def _entry(self, found: RecordingFiles) -> Entry:
        path = found.folder / f"{found.call_id}.json"
        try:
            recording, genuine = sidecar.load(path, self._keys.get(found.folder.name, ()))
        except FileNotFoundError:
            return Entry(found, None, "its sidecar is not there")
        except (BadSidecar, OSError) as error:
            return Entry(found, None, f"its sidecar: {error}")
        changed = None if genuine is not False else "its sidecar was changed, or sealed with another key"
        return Entry(found, recording, changed)

    # -- reading ------------------------------------------------------------------------------------

    def audio(self, entry: Entry) -> Iterator[Block]:
        """All of a recording: caller left, bot right, silence between two parts.

        A part that has not ended is read as far as it goes. Raises Damaged.
        """
        end: float | None = None
        for part in self._parts_of(entry):
            if end is not None and (gap := round(min(MAX_GAP, part.began_at - end) * SAMPLE_RATE)) > 0:
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
                for block in decode(file.read, file.size, part=unended):
                    samples += len(block)
                    yield block
        except (BadSeal, BadFlac, OSError) as error:
            raise Damaged(f"{part.file}: {error}") from error
        if not unended and samples != part.samples:
            raise Damaged(f"{part.file}: has {samples} samples instead of {part.samples}")

    def check(self, entry: Entry) -> list[str]:
        """What is wrong with a recording; empty where it is as it was written."""
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
            for name in entry.files.names
            if sidecar.PART.fullmatch(name) and name not in named
        ]
        return problems

    def delete(self, entry: Entry) -> None:
        """Delete a recording. Raises OSError."""
        retention.delete(entry.files)

    @staticmethod
    def _parts_of(entry: Entry) -> list[Part]:
        if entry.recording is None:
            raise Damaged(entry.problem or "it has no sidecar")
        return entry.recording.parts

    @contextmanager
    def opened(self, entry: Entry, part: Part) -> Iterator[PartReader]:
        """One part's FLAC file, with its seal opened. Raises BadSeal, OSError."""
        with sidecar.open_plain(entry.files.folder / part.file) as fd:
            size = os.fstat(fd).st_size

            def read(size: int, at: int) -> bytes:
                return os.pread(fd, size, at)

            if not part.sealed:
                yield PartReader(read, size)
                return
            number = sidecar.PART.fullmatch(part.file)
            assert number is not None  # the sidecar's schema
            name = f"{entry.workspace_id}/{entry.call_id}.{number['number']}"
            keys = self._keys.get(entry.workspace_id, ())
            unended = part.state is not State.WHOLE
            opener = Opener(read, size, keys, name, part=unended)
            yield PartReader(opener.read, opener.size)


def describe(entry: Entry, now: float) -> dict[str, Any]:
    """A recording as JSON; times in epoch seconds, ``bytes`` on the disk."""
    recording = entry.recording
    return {
        "call_id": entry.call_id,
        "workspace_id": entry.workspace_id,
        **{name: getattr(recording, name, None) for name in ("workspace", "crt_object_id", "began_at")},
        "seconds": entry.seconds,
        "state": entry.state(now),
        "why": None if recording is None else next((part.why for part in recording.parts if part.why), None),
        "sealed": entry.sealed,
        "parts": 0 if recording is None else len(recording.parts),
        "bytes": entry.files.size,
        "problem": entry.problem,
    }
