"""What a check is, and what it finds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from eslbot.config.model import SAMPLE_RATES

if TYPE_CHECKING:
    from eslbot.botcheck.examination import Examination

#: Every protocol, and those of telephony providers alone.
ALL = tuple(SAMPLE_RATES)
ESLBOT = ("eslbot",)
PROVIDERS = tuple(name for name in ALL if name != "eslbot")


class Grade(Enum):
    """How a bot did; ``UNSEEN``: it never did what would have shown it, which is never the same as fine."""

    PASS = "pass"
    UNSEEN = "not seen"
    NOT_APPLICABLE = "not applicable"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A grade, and what was seen; ``remedy`` where the check's own would not help."""

    grade: Grade
    told: str
    remedy: str = ""


def passed(told: str) -> Verdict:
    """As it should be."""
    return Verdict(Grade.PASS, told)


def unseen(told: str) -> Verdict:
    """The bot did nothing that would show it."""
    return Verdict(Grade.UNSEEN, told)


def warned(told: str, remedy: str = "") -> Verdict:
    """Calls work, and could be better; or it is wrong, and does no harm with this eslbot."""
    return Verdict(Grade.WARN, told, remedy)


def failed(told: str, remedy: str = "") -> Verdict:
    """Calls fail by it, or customers hear it."""
    return Verdict(Grade.FAIL, told, remedy)


def harmless(verdict: Verdict, why: str) -> Verdict:
    """A failure as a warning, where this eslbot never does what it takes."""
    return warned(f"{verdict.told}; {why}") if verdict.grade is Grade.FAIL else verdict


Run = Callable[["Examination"], Awaitable[Verdict]]


@dataclass(frozen=True, slots=True)
class Check:
    """One question to a bot.

    Attributes:
        name: on the command line and in reports.
        proves: one sentence: what is true of a bot that passes.
        remedy: what to do where it does not.
        section: of ``docs/bot-protocol.md`` (or another page) that it rests on.
        protocols: that have a word for it.
        behind: it is about all calls of the run, and comes when they are over.
    """

    name: str
    proves: str
    remedy: str
    section: str
    run: Run
    protocols: tuple[str, ...] = ALL
    behind: bool = False


def check(
    proves: str, remedy: str, section: str, protocols: tuple[str, ...] = ALL, *, behind: bool = False
) -> Callable[[Run], Check]:
    """Make a check of a function, which gives it its name."""

    def made(run: Run) -> Check:
        name = run.__name__.replace("_", "-")
        return Check(name, proves, remedy, section, run, protocols, behind)

    return made
