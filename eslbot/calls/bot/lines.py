"""The relay's line files on the channel: what the caller hears.

FreeSWITCH mixes them into what it sends (``uuid_displace``; docs/line-file.md, "The ring"). Which files those
are, the relay says; that they are on is noted on the channel, because a controller that finds no relay any
more has to take them off: a ring that nobody clears says the same words once a minute.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from eslbot.esl.session import Session

log = structlog.get_logger()

#: The channel variable: the paths, with a space between them.
VARIABLE = "eslbot_lines"
#: Files of one call: a ring, and another one that speaks at its seam; and as many of each of three relays
#: that have died, while what they have left is still to be heard.
MOST = 8
#: From the file's beginning, without limit; m: mixed, and the caller's own audio left alone; f: before all
#: other media bugs; l: a loop.
_FLAGS = "0 mfl"
_PATH = re.compile(r"(/[A-Za-z0-9_+-][A-Za-z0-9_.+-]*)+")


class BadLines(Exception):
    """What a relay names as its lines cannot be."""


class Unheard(Exception):
    """FreeSWITCH does not read a line, so the caller hears nothing of it."""

    remedy = "see whether FreeSWITCH's user may read relay.directory: `eslbot doctor` on its host"


@dataclass(frozen=True, slots=True)
class Line:
    """One file; whether FreeSWITCH reads it already."""

    path: str
    on: bool


def lines_of(named: object, call_id: str) -> tuple[Line, ...]:
    """The lines that a relay names, each of this call. Raises :class:`BadLines`."""
    if not isinstance(named, list) or len(named) > MOST:
        raise BadLines("no short list")
    return tuple(_line(entry, call_id) for entry in named)


def _line(entry: Any, call_id: str) -> Line:
    path = entry.get("path") if isinstance(entry, dict) else None
    if not isinstance(path, str) or not _is_path(path, call_id):
        raise BadLines("no path of this call's")
    return Line(path, entry.get("on") is True)


def _is_path(path: str, call_id: str) -> bool:
    """Whether FreeSWITCH may be told to read it: absolute, without spaces, and the call's own."""
    return (
        len(path) <= 255
        and _PATH.fullmatch(path) is not None
        and path.rpartition("/")[2].startswith(f"{call_id}.")
    )


class Lines:
    """One channel's."""

    def __init__(self, session: Session, channel: Mapping[str, str]) -> None:
        self._session = session
        noted = channel.get(f"variable_{VARIABLE}", "").split(" ")[:MOST]
        self._on = [path for path in noted if _is_path(path, session.uuid)]

    def bring(self, lines: tuple[Line, ...]) -> None:
        """Have FreeSWITCH read these and no others. Raises :class:`Unheard`."""
        paths = [line.path for line in lines]
        for path in self._on:
            if path not in paths:  # of a relay before this one
                self._take_off(path)
        known, self._on = self._on, paths
        wanted = [line.path for line in lines if not line.on]
        if known != paths:
            self._session.set_variables({VARIABLE: " ".join(paths) or None})
        uuid = self._session.uuid
        asked = [
            (path, self._session.ask_api(f"uuid_displace {uuid} start {path} {_FLAGS}")) for path in wanted
        ]
        # A file that is on is refused, too: a relay that has just begun may not know.
        unread = [path for path, said in asked if not said().startswith("+OK") and path not in known]
        if unread:
            self._on = [path for path in paths if path not in unread]
            raise Unheard(f"FreeSWITCH does not read {unread[0]}")

    def take_off(self) -> None:
        """The caller hears none of them any more. Does not wait."""
        for path in self._on:
            self._take_off(path)
        if self._on:
            self._session.forget_variables((VARIABLE,))
        self._on = []

    def _take_off(self, path: str) -> None:
        self._session.post(f"api uuid_displace {self._session.uuid} stop {path}")
