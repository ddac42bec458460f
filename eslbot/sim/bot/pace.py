"""When a bot sends each chunk of what it says: against a clock, with jitter, ahead of it, or all at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random


@dataclass(frozen=True, slots=True)
class Pace:
    """How an utterance is cut and timed.

    Args:
        chunk: milliseconds of speech in a message.
        ahead: seconds by which every message goes early, so that its own lateness is not heard.
        jitter: seconds by which a message may go earlier or later than meant; none overtakes another.
        burst: all at once.
        random: of the jitter.
    """

    chunk: int = 100
    ahead: float = 0.0
    jitter: float = 0.0
    burst: bool = False
    random: Random = field(default_factory=Random)

    def __post_init__(self) -> None:
        if self.chunk <= 0:
            raise ValueError(f"a chunk of {self.chunk} ms")

    def size(self, rate: int) -> int:
        """Bytes of a chunk of L16 at ``rate``."""
        return rate * self.chunk // 1000 * 2

    def dues(self) -> Iterator[float]:
        """When each chunk of an utterance is to be sent, in seconds since its beginning."""
        number, last = 0, 0.0
        while True:
            if not self.burst:
                # Against the beginning and not the last chunk: being late must not add up.
                meant = number * self.chunk / 1000 - self.ahead
                last = max(last, meant + self.random.uniform(-self.jitter, self.jitter))
            yield last
            number += 1
