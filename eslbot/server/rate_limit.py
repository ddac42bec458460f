"""The rate limit of INVITEs: a workspace's ``max_cps``, over all workers of this host.

Each :class:`~eslbot.config.sources.Party` has a bucket (:mod:`~eslbot.server.token_buckets`). It is charged
before anything else is known of an INVITE, and by the *address* that sent it, not by the workspace it names:
who floods in another one's name spends the own.

This is the innermost of three places that keep to ``max_cps``: an INVITE that gets here has cost FreeSWITCH a
session and this process a connection already. The firewall
(:mod:`~eslbot.freeswitch.firewall`) and the edge are before it.
"""

from __future__ import annotations

from eslbot.caller.invite import Refused
from eslbot.config.model import Config
from eslbot.config.sources import Sources
from eslbot.server.token_buckets import NOBODY, TokenBuckets
from eslbot.telemetry import metrics

#: INVITEs a second of those who are nobody's source. FreeSWITCH and the edge refuse them by themselves: here
#: comes who was struck off the configuration, and not yet off theirs.
STRANGERS = 5
#: Seconds' worth of INVITEs that may come at one moment; or, behind an outage, all calls a tenant may have.
BURST = 2
#: Seconds that a PBX should wait before its next call (Retry-After of the 503).
RETRY_AFTER = 1


class RateLimit:
    """The rate limits of a configuration."""

    def __init__(self, config: Config, buckets: TokenBuckets) -> None:
        self._sources = Sources(config)
        self._buckets = buckets

    def charge(self, source: str) -> None:
        """One INVITE has come from the address ``source``. Raises Refused beyond the limit."""
        party = self._sources.of(source)
        key, name, rate = (party.key, party.name, party.max_cps) if party else (NOBODY, "nobody", STRANGERS)
        burst = max(BURST * rate, party.max_calls if party else 0)
        if not self._buckets.take(key, rate, burst):
            metrics.OVER_BUDGET.labels(name).inc()
            detail = f"{name}: its sources have sent more than max_cps = {rate} INVITEs a second"
            raise Refused(503, "source_rate", detail, RETRY_AFTER)
