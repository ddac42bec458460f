"""A lab with a proxy on the event socket, for each kind of switch; the seed of what is random."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from eslbot.sim.lab import Tenant
from tests.e2e.calls.conftest import one_kind
from tests.support.chaos.plan import tenants
from tests.support.lab import Lab

#: Of the run with chance in it; and for how many seconds it does faults.
SEED = int(os.environ.get("ESLBOT_CHAOS_SEED") or random.randrange(1_000_000))
SECONDS = float(os.environ.get("ESLBOT_CHAOS_SECONDS") or 10.0)

TENANTS = [*tenants(), Tenant("waits", "hold?greeting_ms=200")]


def pytest_report_header() -> str:
    return f"chaos: ESLBOT_CHAOS_SEED={SEED} ESLBOT_CHAOS_SECONDS={SECONDS:g}"


@pytest.fixture(scope="package", params=one_kind())
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder: Path = tmp_path_factory.mktemp(f"chaos-{request.param}")
    with Lab(folder, TENANTS, switch=request.param, workers=2, proxied=True, refreshes=True) as lab:
        yield lab
