"""Many calls, faults at random times, and an account that must be clean.

``ESLBOT_CHAOS_SEED`` repeats a run, ``ESLBOT_CHAOS_SECONDS`` makes it longer; by hand: ``scripts/chaos``.
"""

from __future__ import annotations

import random

import pytest

from tests.process.chaos.conftest import SECONDS, SEED
from tests.support.chaos.faults import Faults
from tests.support.chaos.plan import plan
from tests.support.chaos.run import run
from tests.support.chaos.witness import Witness
from tests.support.lab import Lab

pytestmark = pytest.mark.alone


def test_every_call_is_accounted_for(lab: Lab) -> None:
    names = sorted(Faults(Witness(lab), random.Random()).by_name)
    planned = plan(SEED, SECONDS, 4.0, names)
    print(f"seed {SEED}; {lab.switch_name}")

    account = run(lab, planned, print)

    print(account.table())
    assert len(account.entries) == len(planned.calls)
    assert account.faults
    assert account.guilty == []


def test_a_plan_is_the_seed_s_alone() -> None:
    first, again = plan(7, 10.0, 5.0, ["a", "b", "c"]), plan(7, 10.0, 5.0, ["a", "b", "c"])
    assert first == again
    assert first != plan(8, 10.0, 5.0, ["a", "b", "c"])
    assert {fault.name for fault in first.faults} == {"a", "b", "c"}
    assert 20 < len(first.calls) < 100
    assert all(0 <= call.at <= 10 for call in first.calls)
    assert all((call.hangs_up is not None) == (call.tenant == "holds") for call in first.calls)
