"""What outlives the switch: a row for each answered call, from which the next process takes it up again.

It is FreeSWITCH's ``recovery`` table (``switch_core_sqldb.c``), a file a call in place of a row. A row is
written at the answer, the ACK, a re-INVITE and a transfer of the dialplan, and by nothing else: what a
controller sets later is not in it. It is written a while behind its cause, so that a call younger than that
is lost. While a call is being taken up it has none: a second death within that moment loses it, too.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from .sip_message import MalformedMessage, Offer, SipMessage
from .wire import ENCODING, ERRORS

#: Seconds from the cause to the row (measured: 23 to 30 ms behind the 200).
DELAY = 0.03
#: What mod_sofia cannot do without (measured on FreeSWITCH: "Missing profile", and a re-INVITE to nobody).
NEEDED = ("recovery_profile_name", "sip_contact_uri")


class RowError(Exception):
    """A call cannot be taken up; the text says why."""


@dataclass(frozen=True)
class Row:
    """A call: ``transport``, ``host`` and ``port`` of its PBX, ``answered`` in epoch microseconds.

    ``invite`` is the INVITE as it came; ``arrived`` whether the dialplan is still in its first extension.
    """

    uuid: str
    answered: int
    arrived: bool
    variables: tuple[tuple[str, str], ...]
    caller: tuple[tuple[str, str], ...]
    invite: str
    transport: str
    host: str
    port: int
    local_tag: str
    remote_cseq: int
    offer: Offer

    def text(self) -> str:
        """The row as it is kept."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """The row in ``text``. Raises RowError."""
        try:
            fields: dict[str, Any] = json.loads(text)
            offer = fields.pop("offer")
            stream = {name: tuple(offer.pop(name)) for name in ("before", "behind")}
            pairs = {name: tuple(map(tuple, fields.pop(name))) for name in ("variables", "caller")}
            row = cls(**{**fields, **pairs, "offer": Offer(**{**offer, **stream})})
            row.request()
        except (ValueError, KeyError, TypeError, AttributeError, MalformedMessage) as error:
            raise RowError(f"no row: {error!r}") from error
        return row

    def request(self) -> SipMessage:
        """The INVITE."""
        return SipMessage.parse(self.invite.encode(ENCODING, ERRORS))

    def variable(self, name: str) -> str:
        """A variable; empty where there is none."""
        return dict(self.variables).get(name, "")

    def check(self) -> None:
        """Raise RowError where FreeSWITCH would not take the call up."""
        missing = [name for name in NEEDED if not self.variable(name)]
        if missing:
            raise RowError(f"{', '.join(missing)} not in the row")
        if self.transport != "udp":
            raise RowError("its TCP connection is gone")


class Tracking:
    """The rows, in ``directory``; without one nothing is kept (``track-calls=false``)."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        #: What is to be done, in order: a UUID and its row's text, or None for its end.
        self._due: deque[tuple[str, str | None]] = deque()
        if directory is not None:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, row: Row) -> None:
        """Keep ``row`` as it is now, in a moment."""
        self._later(row.uuid, row.text())

    def drop(self, uuid: str) -> None:
        """The call is over."""
        self._later(uuid, None)

    def take(self) -> list[Row | RowError]:
        """The rows that a process before this one has left; they are gone then."""
        taken: list[Row | RowError] = []
        for path in sorted(self._directory.glob("*.json")) if self._directory is not None else ():
            try:
                taken.append(Row.parse(path.read_text(encoding="utf-8")))
            except RowError as error:
                taken.append(error)
            path.unlink()
        return taken

    def flush(self) -> None:
        """Do at once what is due."""
        while self._due:
            self._do()

    def _later(self, uuid: str, text: str | None) -> None:
        if self._directory is not None:
            self._due.append((uuid, text))
            asyncio.get_running_loop().call_later(DELAY, self._do)

    def _do(self) -> None:
        if not self._due:
            return  # it was flushed
        uuid, text = self._due.popleft()
        assert self._directory is not None
        path = self._directory / f"{uuid}.json"
        if text is None:
            path.unlink(missing_ok=True)
            return
        half = path.with_suffix(".new")
        with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        half.replace(path)
