"""The sidecar of a recording: JSON beside its audio files that describes them.

``<directory>/<day>/<workspace id>/<call id>.json``, and of each part ``<call id>.<number>.flac``, with
``.enc`` behind it where it is sealed. The day is that of the recording's beginning, in UTC. No file name and
no sidecar has the caller's number or the DID: the ledger has them, for whoever may see them.

::

    {"version": 1, "call_id", "workspace_id", "workspace", "crt_object_id", "began_at",
     "parts": [{"file", "began_at", "state", "why", "samples", "peaks"}],
     "seal": "…"}

Times are epoch seconds. A part's ``state`` is one of :class:`State`. ``seal``, where there is a key, is an
HMAC over everything else: whoever may write to the disk cannot make a complete part look like one that a
death of ours has cut off.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate

#: Bytes of a sidecar; peaks are 20 kB a part.
MAX_BYTES = 2 * 1024 * 1024
#: Parts of a recording (deaths of relays and of FreeSWITCH in one call), and peaks of one side of a part.
MAX_PARTS = 32
MAX_PEAKS = 10_000
#: Modes of all directories and files.
DIRECTORY_MODE, FILE_MODE = 0o700, 0o600

CALL_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
WORKSPACE_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
PART = re.compile(r"(?P<call>[0-9A-Za-z-]{1,64})\.(?P<number>[1-9][0-9]?)\.flac(?P<sealed>\.enc)?")


class BadSidecar(Exception):
    """The file is no sidecar of ours, or was changed; the message says which."""


class State(StrEnum):
    """The state of a part."""

    RECORDING = "recording"  # or its relay has died
    WHOLE = "whole"
    FAILED = "failed"  # it ends before the call does; `why` says why


@dataclass(slots=True)
class Part:
    """One audio file. ``samples`` and ``peaks`` are known once it has ended."""

    file: str
    began_at: float
    state: State = State.RECORDING
    why: str | None = None
    samples: int | None = None
    peaks: dict[str, Any] | None = None

    @property
    def sealed(self) -> bool:
        """Whether a key is needed to open it."""
        return self.file.endswith(".enc")


@dataclass(slots=True)
class Recording:
    """The recording of a call."""

    call_id: str
    workspace_id: str
    workspace: str
    crt_object_id: str
    began_at: float
    parts: list[Part] = field(default_factory=list)


class _Loudness(fields.Field[list[int]]):
    """The peaks of one side, checked as a whole: one by one they cost most of a sidecar's reading."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[int]:
        if not isinstance(value, list) or len(value) > MAX_PEAKS:
            raise ValidationError(f"expected at most {MAX_PEAKS} numbers")
        if not all(type(one) is int and 0 <= one <= 255 for one in value):
            raise ValidationError("expected numbers from 0 to 255")
        return value


class _Peaks(Schema):
    class Meta:
        unknown = EXCLUDE

    seconds = fields.Float(required=True, validate=validate.Range(min=0.001, max=1e6))
    caller = _Loudness(required=True)
    bot = _Loudness(required=True)


class _Part(Schema):
    class Meta:
        unknown = EXCLUDE

    file = fields.String(required=True, validate=lambda name: _is(PART, name))
    began_at = fields.Float(required=True, validate=validate.Range(0, 1e11))
    state = fields.Enum(State, by_value=True, required=True)
    why = fields.String(load_default=None, allow_none=True, validate=validate.Length(max=200))
    samples = fields.Integer(load_default=None, allow_none=True, validate=validate.Range(0, 2**40))
    peaks = fields.Nested(_Peaks, load_default=None, allow_none=True)


class _Sidecar(Schema):
    class Meta:
        unknown = EXCLUDE

    version = fields.Integer(required=True, validate=validate.Equal(1))
    call_id = fields.String(required=True, validate=lambda text: _is(CALL_ID, text))
    workspace_id = fields.String(required=True, validate=lambda text: _is(WORKSPACE_ID, text))
    workspace = fields.String(required=True, validate=validate.Length(max=64))
    crt_object_id = fields.String(required=True, validate=validate.Length(max=128))
    began_at = fields.Float(required=True, validate=validate.Range(0, 1e11))
    parts = fields.List(fields.Nested(_Part), required=True, validate=validate.Length(max=MAX_PARTS))


def _is(pattern: re.Pattern[str], text: str) -> None:
    if not pattern.fullmatch(text):
        raise ValidationError("is no such name")


def load(path: Path, keys: tuple[bytes, ...] = ()) -> tuple[Recording, bool | None]:
    """A sidecar, and whether its seal is valid: None where it has none, or there is no key.

    Raises OSError, and BadSidecar for a file that is no sidecar, or not that of its name and directory.
    """
    content = read_whole(path, MAX_BYTES)
    try:
        document = json.loads(content)
        found = _Sidecar().load(document)
    except (ValueError, RecursionError, ValidationError) as error:
        raise BadSidecar(f"{path.name} is no sidecar of this version") from error
    del found["version"]
    recording = Recording(**{**found, "parts": [Part(**part) for part in found["parts"]]})
    if path.name != f"{recording.call_id}.json" or path.parent.name != recording.workspace_id:
        raise BadSidecar(f"{path.name} is another call's, or another workspace's")
    for part in recording.parts:
        if not part.file.startswith(f"{recording.call_id}."):
            raise BadSidecar(f"{path.name} names files that are not its call's")
    seal = document.pop("seal", None)
    if not isinstance(seal, str) or not keys:
        return recording, None
    return recording, any(hmac.compare_digest(_seal(document, key), seal) for key in keys)


def save(path: Path, recording: Recording, key: bytes | None) -> None:
    """Write a sidecar, completely or not at all. Raises OSError."""
    document = {"version": 1, **asdict(recording)}
    if key is not None:
        document["seal"] = _seal(document, key)
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(_canonical(document))
        beside.rename(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def _seal(document: dict[str, Any], key: bytes) -> str:
    own = hmac.digest(key, b"eslbot recording sidecar", hashlib.sha256)
    return hmac.new(own, _canonical(document), hashlib.sha256).hexdigest()


def read_whole(path: Path, most: int) -> bytes:
    """The content of a regular file, not of a link. Raises OSError, and BadSidecar where it is longer."""
    with open_plain(path) as fd:
        content = b""
        while piece := os.read(fd, most + 1 - len(content)):
            content += piece
            if len(content) > most:
                raise BadSidecar(f"{path.name} has over {most} bytes")
        return content


@contextmanager
def open_plain(path: Path) -> Iterator[int]:
    """Open a regular file, not a link, for reading. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise PermissionError(f"{path.name} is no regular file")
        yield fd
    finally:
        os.close(fd)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Lock a directory: two relays may have had a call. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
