"""What the page process has for whoever answers a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from eslbot.config.model import Config
from eslbot.health.model import Health
from eslbot.ledger.projection import Projection
from eslbot.ledger.query_service import QueryService
from eslbot.web.live import EventStreams


@dataclass
class PageServices:
    """Of one configuration.

    ``ledger`` is None where calls are not recorded; the ``projection`` is empty then. ``registry`` is what
    `/metrics` shows. ``health`` returns the last round's result: None before the first one, and where it is
    too old.
    """

    config: Config
    ledger: QueryService | None = None
    projection: Projection = field(default_factory=Projection)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    health: Callable[[], Health | None] = lambda: None
    streams: EventStreams = field(init=False)

    def __post_init__(self) -> None:
        self.streams = EventStreams(self.projection)
        #: The configured workspaces' ids, by name.
        self.workspace_ids = {workspace.name: workspace.id for workspace in self.config.workspaces.values()}

    @property
    def in_use(self) -> bool:
        """Whether somebody looks at the page, or did a moment ago."""
        return self.streams.count > 0 or (self.ledger is not None and self.ledger.in_use)
