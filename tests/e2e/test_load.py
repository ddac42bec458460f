"""A hundred calls, and what they leave behind."""

from __future__ import annotations

import time

from eslbot.sim.lab import Lab
from tests.e2e.test_ledger import ended
from tests.support.processes import descriptors


def test_hundred_calls_at_ten_a_second(lab: Lab) -> None:
    service, before = lab.services[0], len(lab.ameyo.requests)
    result = lab.pbx.load(100, 10.0, workspace_id=lab.tenants["talk"].id)
    print(f"{lab.switch_name}: {result}")

    assert (result.answered, result.completed, result.unexpected_byes, result.failed) == (100, 100, 0, 0), (
        result
    )
    posts = list(lab.ameyo.requests)[before:]
    assert all(post.accepted for post in posts)
    assert sorted(post.crt_object_id or "" for post in posts) == sorted(result.crt_object_ids)
    rows = ended(f"sqlite:///{lab.folder}/eslbot.db", result.crt_object_ids)
    assert sorted(row["crt_object_id"] for row in rows) == sorted(result.crt_object_ids)

    # Nothing is left behind: channels, calls, speech files, sockets.
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        left = lab.live_channels(), service.metric("eslbot_calls_active"), list(lab.temp_dir.iterdir())
        if left == (0, 0, []):
            break
        time.sleep(0.1)  # two other processes are winding down: there is no event to wait for
    assert left == (0, 0, [])
    # An event socket a call would make a hundred; pooled connections to Ameyo and the web's may be open.
    pids = service.worker_pids()
    assert descriptors(pids) < 40 * len(pids)
