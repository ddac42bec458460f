"""A hundred calls with media, and what they leave behind."""

from __future__ import annotations

import time

import pytest

from eslbot.sim.pbx import Load, Voices
from tests.e2e.calls.test_ledger import ended
from tests.support.lab import Lab
from tests.support.processes import descriptors

pytestmark = pytest.mark.alone

#: RTP packets of 20 ms that the switch sends at least while a bot of that tenant does its part.
#: talk speaks for a second. fails is dialled before its call is answered, and may have spoken by then; it
#: hears the caller for 600 ms before it breaks off.
PACKETS = {"talk": 50, "fails": 25, "hold": 50}


def test_a_hundred_calls_end_in_every_way(lab: Lab) -> None:
    """Bots that end, bots that fail, callers who leave first: all at once, each as it should.

    Five a second: bots, relay, switch and PBX share two cores, in CI with another test (docs/loadtest.md).
    """
    service, before = lab.services[0], len(lab.ameyo.requests)
    heard_before = len(lab.bot.calls)
    with Voices() as voices:

        def begin(tenant: str, calls: int, rate: float, hangup_after: float | None = None) -> Load:
            return lab.pbx.begin_load(
                calls,
                rate,
                workspace_id=lab.tenants[tenant].id,
                crt_prefix=f"mixed-{tenant}",
                hangup_after=hangup_after,
                voices=voices,
            )

        loads = {"talk": begin("talk", 60, 3.0), "fails": begin("fails", 20, 1.0)}
        loads["hold"] = begin("hold", 20, 1.0, hangup_after=2.0)
        results = {tenant: load.finish(60) for tenant, load in loads.items()}
        rtp = {tenant: load.voices_report() for tenant, load in loads.items()}

    for tenant, result in results.items():
        print(f"{lab.switch_name}: {tenant}: {result}")
        assert (result.answered, result.completed, result.error) == (result.calls, result.calls, None)
        assert (result.refused.total(), result.unexpected_byes, result.failed) == (0, 0, 0)

    # Handed off exactly once, and with the right word; not at all where the caller left first.
    posts = list(lab.ameyo.requests)[before:]
    assert all(post.accepted for post in posts)
    told = sorted((post.crt_object_id or "", post.properties["outcome"]) for post in posts)
    expected = [(crt, "bot_failed") for crt in results["fails"].crt_object_ids]
    expected += [(crt, "bot_ended") for crt in results["talk"].crt_object_ids]
    assert told == sorted(expected)

    # RTP came back in every call; nothing of it was lost but what found this process too slow.
    for tenant, report in rtp.items():
        assert set(report.voices) == set(results[tenant].crt_object_ids)
        counts = {crt: voice.received for crt, voice in report.voices.items()}
        assert min(counts.values()) >= PACKETS[tenant], counts
        assert all(voice.sent for voice in report.voices.values())
        assert report.strays == 0
    lost = sum(voice.lost for report in rtp.values() for voice in report.voices.values())
    assert lost <= max(report.dropped for report in rtp.values())

    # The caller's RTP came, too: through the switch to the bots, and it is in the record.
    heard = lab.bot.calls[heard_before:]
    assert len(heard) == 100
    assert min(call.audio_frames for call in heard) > 0
    ids = [crt for result in results.values() for crt in result.crt_object_ids]
    rows = ended(f"sqlite:///{lab.folder}/eslbot.db", ids)
    assert sorted(row["crt_object_id"] for row in rows) == sorted(ids)
    assert {row["sip_hangup_disposition"] for row in rows} == {"recv_bye"}

    # Nothing is left behind: channels, calls, line files, sockets.
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        left = lab.live_channels(), service.metric("eslbot_calls_active"), list(lab.lines.iterdir())
        if left == (0, 0, []):
            break
        time.sleep(0.1)  # two other processes are winding down: there is no event to wait for
    assert left == (0, 0, [])
    # What health says is true: the lab's switch comes behind the service, and one tenant's bots fail.
    wrong = [line for line in lab.log_lines() if line.get("level") in ("error", "critical")]
    told = {(line["event"], line.get("component"), line.get("workspace")) for line in wrong}
    assert told <= {
        ("switch_gone", None, None),
        ("health_red", "freeswitch", None),
        ("health_red", "event_socket", None),
        ("health_red", "bot", "fails"),
    }
    # An event socket a call would make a hundred; pooled connections to Ameyo and the web's may be open.
    pids = service.worker_pids()
    assert descriptors(pids) < 40 * len(pids)
