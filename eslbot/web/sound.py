"""What there is of a call's recording, and the bytes of its parts, as viewers are told of it and hear it.

What is a file's name here comes from the store: a viewer says a call's id and the number of a part.
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
from eslbot.recording.store import Entry, Opened, Store, facts
from eslbot.web.refusal import Refusal, bad_request
from eslbot.web.sessions import Viewer

log = structlog.get_logger()

_NUMBER = re.compile(r"[1-9][0-9]?")


class Sounds:
    """The recordings of one configuration; a viewer's are those of their tenants."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def told(self, viewer: Viewer, call_id: str, now: float) -> dict[str, Any]:
        """A call's recording: what it is, and its parts with their waveforms. Raises Refusal."""
        with _refusing(call_id):
            store, entry = self._entry(viewer, call_id)
            assert entry.recording is not None
            parts = [_part(store, entry, part, now) for part in entry.recording.parts]
        return {**facts(entry, now), "parts": parts}

    @contextmanager
    def opened(self, viewer: Viewer, call_id: str, number: str, now: float) -> Iterator[Opened]:
        """A part's FLAC file, to be read. Raises Refusal, also of what goes wrong while it is read."""
        if not _NUMBER.fullmatch(number):
            raise bad_request(f"a part is a number from 1 to {sidecar.MOST_PARTS}")
        with _refusing(call_id):
            store, entry = self._entry(viewer, call_id)
            assert entry.recording is not None
            part = next((part for part in entry.recording.parts if _number(part) == int(number)), None)
            if part is None:
                raise Refusal(HTTPStatus.NOT_FOUND, "unknown_part", "The recording has no such part.")
            with _open(store, entry, part, now) as file:
                yield file

    def _entry(self, viewer: Viewer, call_id: str) -> tuple[Store, Entry]:
        if not sidecar.CALL_ID.fullmatch(call_id):
            raise bad_request("a call's id is 1 to 64 letters, digits and hyphens")
        store = Store(self._config, viewer.workspaces)
        entry = store.named(call_id)
        if entry is None:
            # The same for a call of another tenant's as for one that was not recorded.
            raise Refusal(
                HTTPStatus.NOT_FOUND,
                "no_recording",
                "There is no recording of this call, or not any more.",
                "They go after recording.keep, and where all are more than recording.max_bytes.",
            )
        if entry.recording is None:
            log.warning("recording_damaged", call_id=call_id, error=entry.problem)
            raise _damaged(call_id)
        return store, entry


def _part(store: Store, entry: Entry, part: Part, now: float) -> dict[str, Any]:
    """One part; ``sound`` is where it can be had, or ``refused`` says why it cannot."""
    told = {
        "number": _number(part),
        "began_at": part.began_at,
        "seconds": None if part.samples is None else part.samples / SAMPLE_RATE,
        "state": entry.state_of(part, now),
        "why": part.why,
        "sealed": part.sealed,
        "peaks": part.peaks,
    }
    try:
        with _refusing(entry.call_id), _open(store, entry, part, now) as file:
            place = f"/api/calls/{entry.call_id}/recording/{_number(part)}"
            return {**told, "bytes": file.size, "sound": place, "refused": None}
    except Refusal as refusal:
        return {**told, "bytes": None, "sound": None, "refused": refusal.document}


@contextmanager
def _open(store: Store, entry: Entry, part: Part, now: float) -> Iterator[Opened]:
    """Raises Refusal, BadSeal, OSError."""
    if entry.state_of(part, now) == "recording":
        raise Refusal(
            HTTPStatus.CONFLICT,
            "still_recording",
            "It is still being recorded.",
            "It can be heard when the bot's part of the call is over.",
        )
    with ExitStack() as stack:
        try:
            file = stack.enter_context(store.opened(entry, part))
        except FileNotFoundError:
            raise Refusal(
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
def _refusing(call_id: str) -> Iterator[None]:
    """What a disk or a seal says becomes a Refusal; the log has the words of it, which may name paths."""
    try:
        yield
    except NoKey as error:
        log.info("recording_sealed", call_id=call_id, error=str(error))
        raise Refusal(
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
        raise Refusal(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "recordings_unreadable",
            "Recordings cannot be read here.",
            "Run the page process on the relay's host and as its user: eslbot doctor --only recordings",
        ) from None


def _damaged(call_id: str) -> Refusal:
    return Refusal(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "damaged",
        "It was changed, or is damaged.",
        f"eslbot recording check {call_id} says which part, and how",
    )
