"""One record a call, whatever becomes of the database and of the workers; and no call waits for it."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect, select

from eslbot.ledger.schema import calls, notifications
from eslbot.sim.lab import Tenant
from tests.e2e.calls.conftest import one_kind
from tests.support.lab import Lab
from tests.support.postgres import postgres

#: Seconds for the writer to have all, behind the last call: it tries a database again after 5 s at most.
SETTLE = 20.0


def records(url: str) -> list[dict[str, Any]]:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table(calls.name):
                return []  # the page process makes it when it is up, and PostgreSQL is
            return [dict(row) for row in connection.execute(select(calls)).mappings()]
    finally:
        engine.dispose()


def ended(url: str, crts: list[str]) -> list[dict[str, Any]]:
    """The records of these calls, once all have ended."""
    deadline = time.monotonic() + SETTLE
    while True:
        found = [row for row in records(url) if row["crt_object_id"] in crts]
        if sum(row["ended_at"] is not None for row in found) >= len(crts) or time.monotonic() > deadline:
            return found
        time.sleep(0.2)  # the writer is in another process: there is no event to wait for


def after_posts(lab: Lab, count: int) -> None:
    """Wait until Ameyo has had so many notifications: the load is under way."""
    deadline = time.monotonic() + 30
    while len(lab.ameyo.requests) < count:
        assert time.monotonic() < deadline, f"{len(lab.ameyo.requests)} of {count} notifications"
        time.sleep(0.02)  # the calls are other processes'


def test_a_call_is_recorded(lab: Lab, crt: str) -> None:
    result = lab.pbx.call("00919990152080", crt, lab.tenants["talk"].id).wait(30)
    assert result.completed
    (row,) = ended(f"sqlite:///{lab.folder}/eslbot.db", [crt])
    assert row["outcome"] == "bot_ended"
    assert (row["fault"], row["sip_hangup_disposition"], row["attempts"]) == ("none", "recv_bye", 1)
    # The bot is dialled while the call is answered: either may be there first.
    for connected in ("answered_at", "bot_connected_at"):
        stages = ["invited_at", connected, "first_audio_at"]
        stages += ["bot_ended_at", "notified_at", "handed_off_at", "ended_at"]
        times = [row[stage] for stage in stages]
        assert times == sorted(times), dict(zip(stages, times, strict=True))
    if lab.real_switch is not None:
        assert row["media"]["packets_in"] > 0
        assert row["media"]["codec"] == "PCMU"


@pytest.mark.parametrize("switch", one_kind())
def test_postgresql_stopped_and_started_under_load(switch: str, tmp_path: Path) -> None:
    """No call notices, no record is lost or doubled; its writer is killed into the bargain."""
    with postgres() as server:
        tenant = Tenant("acme", "talk?listen_ms=300")
        with Lab(tmp_path, [tenant], switch=switch, workers=2, ledger=server.url) as lab:
            first = lab.pbx.call("00919990152080", "crt-first", tenant.id).wait(30)
            assert first.completed
            with ThreadPoolExecutor(1) as caller:
                load = caller.submit(lab.pbx.load, 28, 4.0, workspace_id=tenant.id)
                after_posts(lab, 5)
                server.stop()
                after_posts(lab, 12)
                page = lab.services[0].page_pid()
                assert page is not None
                os.kill(page, signal.SIGKILL)
                after_posts(lab, 18)
                server.start()
                result = load.result(60)
            assert (result.answered, result.completed, result.unexpected_byes) == (28, 28, 0), result
            crts = ["crt-first", *result.crt_object_ids]
            rows = ended(server.url, crts)
            assert lab.services[0].metric("eslbot_ledger_facts_lost_total") == 0
        assert Counter(row["crt_object_id"] for row in rows) == Counter(crts)
        for row in rows:
            assert row["handed_off_at"] is not None, row
            assert (row["fault"], row["end_unseen"]) == ("none", False), row
        engine = create_engine(server.url)
        with engine.connect() as connection:
            sent = connection.execute(select(notifications.c.call_id, notifications.c.verdict)).all()
        engine.dispose()
        accepted = Counter(call for call, verdict in sent if verdict == "accepted")
        assert accepted == {row["call_id"]: 1 for row in rows}
