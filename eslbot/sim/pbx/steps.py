"""What Ameyo's REST server can be told to do with a notification, instead of judging it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum


@dataclass(frozen=True, slots=True)
class Answer:
    """Give this answer; one of 2xx is given only to a request without a fault, and accepts the call."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Stall:
    """Say nothing for ``seconds``, then do ``then``; by default drop the connection, nothing accepted."""

    seconds: float
    then: int | Answer | Drop | Raw | None = None


@dataclass(frozen=True, slots=True)
class Drop:
    """Close the connection without an answer; ``accepted``: the call was taken and the answer got lost."""

    accepted: bool = False


class Mark(Enum):
    """No bytes: something has come to pass."""

    TAKEN = "taken"


#: The status has gone out, and the call counts as taken.
TAKEN = Mark.TAKEN


@dataclass(frozen=True, slots=True)
class Raw:
    """Give these bytes, one piece after the other, and close the connection; a float is a pause in seconds.

    A request with a fault is answered as always.
    """

    pieces: Callable[[], Iterator[bytes | float | Mark]]


Step = int | Answer | Stall | Drop | Raw
