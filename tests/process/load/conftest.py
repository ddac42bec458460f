"""A lab of its own per kind of switch: what is left behind must be the load's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from eslbot.sim.addresses import free_port
from eslbot.sim.lab import Tenant
from tests.e2e.calls.conftest import one_kind
from tests.support.lab import Lab

#: Where a load test's own Ameyo listens.
AMEYO_PORT = free_port()
OWN_AMEYO = {"url": f"http://127.0.0.1:{AMEYO_PORT}", "insecure": True}

TENANTS = [
    Tenant("talk", "talk?listen_ms=200"),
    Tenant("fails", "error-close?listen_ms=600"),
    Tenant("hold", "hold"),
    Tenant("small", "talk?listen_ms=2000", workspace={"max_calls": 1}),
    Tenant("elsewhere", "talk?listen_ms=200", ameyo_keys=OWN_AMEYO),
]


@pytest.fixture(scope="package", params=one_kind())
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder: Path = tmp_path_factory.mktemp(f"load-{request.param}")
    with Lab(folder, TENANTS, switch=request.param, workers=2, ledger=True) as lab:
        yield lab
