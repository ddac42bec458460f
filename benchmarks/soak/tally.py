"""The accounts of thousands of calls as one: of the calls, only counts are kept, and what is guilty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.support.audit import Account, Duplicate, Ending, counts

#: Broken promises that are told in words; the others are counted.
TOLD = 200


@dataclass
class Tally:
    """So far. ``duplicates`` are notifications accepted again, by why."""

    calls: int = 0
    answered: int = 0
    endings: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)
    byes: int = 0
    take_overs: int = 0
    silent: int = 0
    cut_off: int = 0
    broken: int = 0
    guilty: list[str] = field(default_factory=list)

    def add(self, account: Account) -> None:
        """The account of some calls, all of them over."""
        self.calls += len(account.entries)
        self.byes += account.byes
        self.cut_off += account.cut_off_posts
        self.outcomes.update(account.outcomes)
        self.duplicates.update(str(why) for _, why in account.duplicates)
        for entry in account.entries:
            self.answered += entry.call.answered
            self.endings[str(entry.ending)] += 1
            self.take_overs += entry.call.take_overs
            self.silent += entry.call.answered and not entry.call.dispositions
            if entry.ending is Ending.REFUSED:
                self.refused[str(entry.call.status)] += 1
        self.find_guilty(account.guilty)

    def find_guilty(self, texts: Iterable[str]) -> None:
        """Promises that were broken, a line each."""
        for text in texts:
            self.broken += 1
            if len(self.guilty) < TOLD:
                self.guilty.append(text)

    @property
    def accounted(self) -> int:
        """Calls of which it is known how they ended."""
        return self.endings.total()

    def rows(self) -> list[tuple[str, str]]:
        """For people."""
        unexcused = self.duplicates[str(Duplicate.UNEXCUSED)]
        return [
            ("calls", f"{self.calls}, {self.answered} answered, {self.accounted} accounted for"),
            *((str(ending), str(self.endings[str(ending)])) for ending in Ending),
            ("refused with", counts(self.refused)),
            ("outcomes told to Ameyo", counts(self.outcomes)),
            ("BYE from our side", str(self.byes)),
            ("notified again", f"{self.duplicates.total()}, of which {unexcused} without an excuse"),
            *((f"  {why}", str(number)) for why, number in sorted(self.duplicates.items())),
            ("take-overs told", str(self.take_overs)),
            ("ended while no controller had them", f"{self.silent} (no last line in eslbot's log)"),
            ("notifications cut off by a fault", str(self.cut_off)),
        ]
