"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from eslbot.telemetry import redaction


class Severity(Enum):
    """How bad a finding is; ``UNKNOWN``: it could not be examined, which is not the same as fine."""

    OK = "ok"
    NOTE = "note"
    UNKNOWN = "unknown"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        """Higher is worse."""
        return list(Severity).index(self)


#: No text in a report is longer: some of it was written by strangers.
MAX_TEXT = 600


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what it is, the value found, why that matters, and the remedy."""

    severity: Severity
    looked_at: str
    found: str
    why: str = ""
    remedy: str = ""

    def cleaned(self) -> Finding:
        """The same without secrets, control characters and excess length."""
        return replace(
            self,
            looked_at=clean(self.looked_at),
            found=clean(self.found),
            why=clean(self.why),
            remedy=clean(self.remedy),
        )


def clean(text: str) -> str:
    """``text`` on one printable line of bounded length, without the secrets of this process."""
    text = redaction.beginning(text, 4 * MAX_TEXT)  # of what is not printable little may be left
    line = "".join(character if character.isprintable() else " " for character in text)
    line = " ".join(line.split())
    return line if len(line) <= MAX_TEXT else f"{line[: MAX_TEXT - 1]}…"


def ok(looked_at: str, found: str) -> Finding:
    """It is as it should be."""
    return Finding(Severity.OK, looked_at, found)


def note(looked_at: str, found: str, why: str, remedy: str = "") -> Finding:
    """Good to know; nothing is wrong."""
    return Finding(Severity.NOTE, looked_at, found, why, remedy)


def unknown(looked_at: str, why: str, remedy: str = "") -> Finding:
    """It could not be looked at."""
    return Finding(Severity.UNKNOWN, looked_at, "not checked", why, remedy)


def warning(looked_at: str, found: str, why: str, remedy: str) -> Finding:
    """Calls work, but not all of them, not always, or not safely."""
    return Finding(Severity.WARNING, looked_at, found, why, remedy)


def late(looked_at: str) -> Finding:
    """It was not done before the deadline."""
    return warning(
        looked_at,
        "not done in time",
        "something does not answer; nothing is known of this",
        "give doctor more --timeout, or look at this alone with --only",
    )


def error(looked_at: str, found: str, why: str, remedy: str) -> Finding:
    """Calls fail, are cut off, or anybody may make them."""
    return Finding(Severity.ERROR, looked_at, found, why, remedy)
