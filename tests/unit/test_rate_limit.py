"""What the sources of a workspace may send, over all workers."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from eslbot.caller.invite import Refused
from eslbot.config.sources import Sources
from eslbot.server import token_buckets as buckets_module
from eslbot.server.rate_limit import BURST, STRANGERS, RateLimit
from eslbot.server.token_buckets import NOBODY, TokenBuckets
from tests.support.clock import Clock
from tests.unit.test_freeswitch_configuration import config, workspace

ACME, ZETA, BOTH, STRANGER = "203.0.113.10", "203.0.113.20", "203.0.113.30", "203.0.113.99"
SITE = config(
    replace(workspace(1, "acme", [ACME, BOTH]), max_cps=10, max_calls=1),
    replace(workspace(2, "zeta", [ZETA, BOTH]), max_cps=5, max_calls=1),
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(buckets_module, "time", clock)
    return clock


def made() -> RateLimit:
    buckets = TokenBuckets()
    buckets.know(Sources(SITE).parties)
    return RateLimit(SITE, buckets)


def passed(budget: RateLimit, source: str, times: int = 100) -> int:
    """How many of so many INVITEs of one moment are not refused."""
    count = 0
    for _ in range(times):
        try:
            budget.charge(source)
        except Refused as refusal:
            assert (refusal.status, refusal.why, refusal.retry_after) == (503, "source_rate", 1)
        else:
            count += 1
    return count


def test_two_seconds_worth_may_come_at_once_and_then_what_comes_in(clock: Clock) -> None:
    budget = made()
    assert passed(budget, ACME) == BURST * 10
    clock.now += 0.5
    assert passed(budget, ACME) == 5
    clock.now += 3600
    assert passed(budget, ACME) == BURST * 10


def test_as_many_as_may_be_up_may_come_at_once(clock: Clock) -> None:
    """A PBX that was away for a minute brings all its callers back."""
    acme = replace(workspace(1, "acme", [ACME]), max_cps=10, max_calls=60)
    buckets = TokenBuckets()
    buckets.know(Sources(config(acme)).parties)
    budget = RateLimit(config(acme), buckets)
    assert passed(budget, ACME) == 60
    clock.now += 1
    assert passed(budget, ACME) == 10


def test_one_tenants_flood_costs_another_nothing(clock: Clock) -> None:
    budget = made()
    passed(budget, ACME, 10_000)
    assert passed(budget, ZETA) == BURST * 5


def test_a_shared_address_has_a_budget_of_its_own_of_both(clock: Clock) -> None:
    budget = made()
    passed(budget, ACME)
    assert passed(budget, BOTH) == BURST * 15


def test_all_strangers_are_one(clock: Clock) -> None:
    budget = made()
    assert passed(budget, STRANGER) == BURST * STRANGERS
    assert (passed(budget, "203.0.113.98"), passed(budget, "")) == (0, 0)
    assert passed(budget, ACME) == BURST * 10


def test_the_refusal_says_whose_budget_it_is() -> None:
    budget = made()
    passed(budget, ACME)
    with pytest.raises(Refused, match="acme: its sources have sent more than max_cps = 10") as refused:
        budget.charge(ACME)
    assert refused.value.phrase == "Too Many Calls A Second"  # the edge asks no other machine then


def test_processes_share_a_budget() -> None:
    buckets = TokenBuckets()
    buckets.know(Sources(SITE).parties)
    reading, writing = os.pipe()
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            os.write(writing, bytes([passed(RateLimit(SITE, buckets), ACME)]))
            os._exit(0)
        children.append(child)
    began = time.monotonic()
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    total = sum(os.read(reading, 4))
    # What came in meanwhile, and one more for each time that two wrote in the same microsecond.
    assert BURST * 10 <= total <= BURST * 10 + 10 * (time.monotonic() - began + 0.5) + 4


def test_a_reload_keeps_what_was_spent(clock: Clock) -> None:
    buckets = TokenBuckets()
    buckets.know(Sources(SITE).parties)
    passed(RateLimit(SITE, buckets), ACME)
    third = replace(workspace(3, "aaaa", ["203.0.113.40"]), max_cps=10, max_calls=1)
    more = replace(SITE, workspaces={third.id: third, **SITE.workspaces})
    buckets.know(Sources(more).parties)
    assert (passed(RateLimit(more, buckets), ACME), passed(RateLimit(more, buckets), "203.0.113.40")) == (
        0,
        20,
    )


def test_too_many_parties_give_none_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets_module, "COLUMNS", 3)
    buckets = TokenBuckets()
    with pytest.raises(ValueError, match="more than 3 owners"):
        buckets.know(Sources(SITE).parties)
    assert list(buckets._columns) == [NOBODY]
