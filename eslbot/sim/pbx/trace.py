"""What SIPp wrote down: its short message trace, told as calls.

``-trace_shortmsg`` writes one line a message: date, time with the epoch time in microseconds, S or R,
Call-ID, CSeq, first line; separated by tabs. Commands of 3PCC are in it too, with an empty CSeq.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SipMessage:
    """One message SIPp sent or received ``at`` epoch seconds; ``line`` is its first line."""

    at: float
    sent: bool
    call_id: str
    method: str
    line: str

    @property
    def status(self) -> int | None:
        """A response's status; None for a request."""
        match = re.match(r"SIP/2\.0 (\d{3})\b", self.line)
        return int(match[1]) if match else None

    @property
    def reason(self) -> str:
        """A response's reason phrase."""
        return self.line.split(" ", 2)[2] if self.line.count(" ") > 1 else ""


@dataclass(slots=True)
class Dialog:
    """One call as SIPp saw it; the times are epoch seconds, None for what has not happened.

    ``ended_by`` is ``"pbx"`` or ``"switch"``: whose BYE came first. ``bye_status`` is the answer to ours.
    """

    call_id: str
    invited_at: float | None = None
    status: int | None = None
    reason: str = ""
    final_at: float | None = None
    cancelled_at: float | None = None
    bye_at: float | None = None
    bye_status: int | None = None
    ended_by: str | None = None
    ended_at: float | None = None

    @property
    def answered(self) -> bool:
        """Whether the INVITE got a 2xx."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def answered_at(self) -> float | None:
        """When the 2xx came."""
        return self.final_at if self.answered else None

    def take(self, message: SipMessage) -> None:
        """Take in the next message; retransmissions change nothing."""
        status = message.status
        match message.method, message.sent, status:
            case "INVITE", True, None:
                self.invited_at = self.invited_at or message.at
            case "INVITE", False, int() if status >= 200 and self.final_at is None:
                self.status, self.reason, self.final_at = status, message.reason, message.at
                if not self.answered:
                    self.ended_at = message.at
            case "CANCEL", True, None:
                self.cancelled_at = self.cancelled_at or message.at
            case "BYE", sent, None if self.bye_at is None:
                self.bye_at, self.ended_by = message.at, "pbx" if sent else "switch"
                if not sent:
                    self.ended_at = message.at
            case "BYE", False, int() if self.ended_by == "pbx" and self.bye_status is None:
                self.bye_status, self.ended_at = status, message.at


def parse(lines: Iterable[str]) -> Iterable[SipMessage]:
    """The messages of a short message trace; a line cut short by a kill is left out."""
    for line in lines:
        parts = line.rstrip("\n").split("\t")
        if len(parts) < 7 or not parts[5].startswith("CSeq:"):
            continue
        method = parts[5].rpartition(" ")[2] if " " in parts[5] else ""
        if method and re.fullmatch(r"\d+\.\d+", parts[2]):
            yield SipMessage(float(parts[2]), parts[3] == "S", parts[4], method, parts[6])


def dialogs(lines: Iterable[str]) -> dict[str, Dialog]:
    """The calls of a short message trace, by Call-ID, in order of their first message."""
    calls: dict[str, Dialog] = {}
    for message in parse(lines):
        calls.setdefault(message.call_id, Dialog(message.call_id)).take(message)
    return calls


def retry_after(messages: str) -> int | None:
    """Seconds of the first ``Retry-After`` in a full message trace."""
    match = re.search(r"(?im)^Retry-After[ \t]*:[ \t]*(\d{1,9})", messages)
    return int(match[1]) if match else None


def failures(statistics: str) -> dict[str, int]:
    """SIPp's own causes of failed calls, from the last line of its ``-trace_stat`` file.

    The keys are SIPp's column names without ``Failed``: ``UnexpectedMessage``, ``MaxUDPRetrans``, …
    """
    rows = [line.split(";") for line in statistics.splitlines() if line]
    if len(rows) < 2:
        return {}
    counts = zip(rows[0], rows[-1], strict=False)
    return {
        name.removeprefix("Failed").removesuffix("(C)"): int(value)
        for name, value in counts
        if name.startswith("Failed") and name.endswith("(C)") and value.isdigit() and int(value)
        if name != "FailedCall(C)"
    }
