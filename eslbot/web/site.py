"""What the page process knows: one object for whoever answers a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from eslbot.config.model import Config
from eslbot.health.model import Health
from eslbot.ledger.projection import Projection
from eslbot.ledger.reader import Reader
from eslbot.web.live import Streams


@dataclass
class Site:
    """One configuration's. ``reader`` is None where it has no ledger; the ``projection`` is then empty.

    ``registry`` is what `/metrics` tells; whoever has more to tell registers a collector there.
    ``health`` is what the last round has found; None before the first, and where it is long ago.
    """

    config: Config
    reader: Reader | None = None
    projection: Projection = field(default_factory=Projection)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    health: Callable[[], Health | None] = lambda: None
    streams: Streams = field(init=False)

    def __post_init__(self) -> None:
        self.streams = Streams(self.projection)

    @property
    def attended(self) -> bool:
        """Whether somebody looks at the page, or has a moment ago."""
        return self.streams.open > 0 or (self.reader is not None and self.reader.attended)
