"""What a turn of a conversation is: the words that relay, controllers and ledger share (docs/turns.md)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

#: Turns of a call that are told: a relay tells no more, and one that follows another counts anew.
MAX_TURNS = 500


class Kind(StrEnum):
    """What a turn can be."""

    ANSWER = "answer"
    BARGE_IN = "barge_in"
    OVERLAP = "overlap"


class By(StrEnum):
    """Who has begun to speak while the other was heard."""

    CALLER = "caller"
    BOT = "bot"


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn.

    Attributes:
        kind: what it was.
        at: when it was over.
        seconds: how long it took in all.
        bot: of them the bot's own share; None for an overlap.
        by: of an overlap, who began to speak second.
    """

    kind: Kind
    at: float
    seconds: float
    bot: float | None = None
    by: By | None = None
