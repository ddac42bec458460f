"""A call's recording as a viewer gets it: its description, and the bytes of its parts.

File names come from the store alone: a viewer names a call and the number of a part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from typing import Any

import structlog

from eslbot.audio import SAMPLE_RATE
from eslbot.config.model import Config
from eslbot.recording import sidecar
from eslbot.recording.sealed import BadSeal, NoKey
from eslbot.recording.sidecar import Part
from eslbot.recording.store import Entry, PartReader, RecordingStore, describe
from eslbot.web.errors import ApiError, bad_request
from eslbot.web.sessions import Viewer

log = structlog.get_logger()

_NUMBER = re.compile(r"[1-9][0-9]?")


class RecordingAccess:
    """The recordings of one configuration. Each method raises ApiError."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def describe(self, viewer: Viewer, call_id: str, now: float) -> dict[str, Any]:
        """A call's recording, and its parts with their waveforms."""
        with _recording_errors(call_id):
            store, entry = self._entry(viewer, call_id)
            assert entry.recording is not None
            parts = [_describe_part(store, entry, part, now) for part in entry.recording.parts]
        return {**describe(entry, now), "parts": parts}

    @contextmanager
    def open_part(self, viewer: Viewer, call_id: str, number: str, now: float) -> Iterator[PartReader]:
        """A part's FLAC file to read; an error while it is read is an ApiError, too."""
        if not _NUMBER.fullmatch(number):
            raise bad_request(f"a part is a number from 1 to {sidecar.MAX_PARTS}")
        with _recording_errors(call_id):
            store, entry = self._entry(viewer, call_id)
            assert entry.recording is not None
            part = next((part for part in entry.recording.parts if _number(part) == int(number)), None)
            if part is None:
                raise ApiError(HTTPStatus.NOT_FOUND, "unknown_part", "The recording has no such part.")
            with _open(store, entry, part, now) as file:
                yield file

    def _entry(self, viewer: Viewer, call_id: str) -> tuple[RecordingStore, Entry]:
        if not sidecar.CALL_ID.fullmatch(call_id):
            raise bad_request("a call's id is 1 to 64 letters, digits and hyphens")
        store = RecordingStore(self._config, viewer.workspaces)
        entry = store.get(call_id)
        if entry is None:
            # The same for a call of another tenant as for one that was not recorded.
            raise ApiError(
                HTTPStatus.NOT_FOUND,
                "no_recording",
                "There is no recording of this call, or not any more.",
                "They go after recording.keep, and where all are more than recording.max_bytes.",
            )
        if entry.recording is None:
            log.warning("recording_damaged", call_id=call_id, error=entry.problem)
            raise _damaged(call_id)
        return store, entry


def _describe_part(store: RecordingStore, entry: Entry, part: Part, now: float) -> dict[str, Any]:
    """One part. ``sound`` is the path of its audio, or ``refused`` says why there is none."""
    part_json = {
        "number": _number(part),
        "began_at": part.began_at,
        "seconds": None if part.samples is None else part.samples / SAMPLE_RATE,
        "state": entry.state_of(part, now),
        "why": part.why,
        "sealed": part.sealed,
        "peaks": part.peaks,
    }
    try:
        with _recording_errors(entry.call_id), _open(store, entry, part, now) as file:
            place = f"/api/calls/{entry.call_id}/recording/{_number(part)}"
            return {**part_json, "bytes": file.size, "sound": place, "refused": None}
    except ApiError as error:
        return {**part_json, "bytes": None, "sound": None, "refused": error.document}


@contextmanager
def _open(store: RecordingStore, entry: Entry, part: Part, now: float) -> Iterator[PartReader]:
    """Raises ApiError, BadSeal, OSError."""
    if entry.state_of(part, now) == "recording":
        raise ApiError(
            HTTPStatus.CONFLICT,
            "still_recording",
            "It is still being recorded.",
            "It can be heard when the bot's part of the call is over.",
        )
    with ExitStack() as stack:
        try:
            file = stack.enter_context(store.opened(entry, part))
        except FileNotFoundError:
            raise ApiError(
                HTTPStatus.NOT_FOUND,
                "part_gone",
                "The sound of this part is not there.",
                f"eslbot recording check {entry.call_id} says what else is missing",
            ) from None
        yield file


def _number(part: Part) -> int:
    found = sidecar.PART.fullmatch(part.file)
    assert found is not None  # the sidecar's schema
    return int(found["number"])


@contextmanager
def _recording_errors(call_id: str) -> Iterator[None]:
    """Raises ApiError for errors of the disk or the seal. The log has their texts, which may name paths."""
    try:
        yield
    except NoKey as error:
        log.info("recording_sealed", call_id=call_id, error=str(error))
        raise ApiError(
            HTTPStatus.CONFLICT,
            "sealed",
            "It is sealed with a key that the page process does not have.",
            "Put the key into key or old_keys of [workspaces.ID.recording] on this host, and reload (HUP).",
        ) from None
    except BadSeal as error:
        log.warning("recording_damaged", call_id=call_id, error=str(error))
        raise _damaged(call_id) from None
    except OSError as error:
        log.warning("recordings_unreadable", call_id=call_id, error=str(error))
        raise ApiError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "recordings_unreadable",
            "Recordings cannot be read here.",
            "Run the page process on the relay's host and as its user: eslbot doctor --only recordings",
        ) from None


def _damaged(call_id: str) -> ApiError:
    return ApiError(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "damaged",
        "It was changed, or is damaged.",
        f"eslbot recording check {call_id} says which part, and how",
    )
