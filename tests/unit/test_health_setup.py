"""Where the rounds of a configuration learn what they tell."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w

from eslbot.config import load
from eslbot.config.model import Address, Secret, loopback
from eslbot.health.gauges import gauge_latest, gauge_total
from eslbot.health.model import Colour, Health, StateTracker, Subject
from eslbot.health.probes import WriterStatus
from eslbot.health.setup import FreeSwitchProbe, ProjectionFeed, create_monitor
from eslbot.ledger.projection import Projection
from eslbot.telemetry import metrics
from tests.support.fake_ledger import row
from tests.support.inbound_switch import PASSWORD, InboundSwitch
from tests.support.processes import WORKSPACE, tree
from tests.support.tcp import nobody

#: A process that shows gauges of its own and waits; or dies.
SHOWS = """
import sys
from eslbot.telemetry import metrics
metrics.WORKERS_READY.set(1)
metrics.RELAY_READY.set(2)
if sys.argv[1:]:
    metrics.CERTIFICATE_ENDS.labels("acme").set(float(sys.argv[1]))
print("there", flush=True)
sys.stdin.read()
"""


def shows(directory: Path, *arguments: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", SHOWS, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PROMETHEUS_MULTIPROC_DIR": str(directory), "PYTHONPATH": ":".join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"there\n"
    return process


def test_living_processes_are_counted_and_dead_ones_not(tmp_path: Path) -> None:
    one, two = shows(tmp_path), shows(tmp_path)
    try:
        assert (
            gauge_total(tmp_path, "eslbot_workers_ready"),
            gauge_total(tmp_path, "eslbot_relay_ready"),
        ) == (2, 4)
        one.kill()
        one.wait(10)
        assert gauge_total(tmp_path, "eslbot_workers_ready") == 1
        (tmp_path / "gauge_livesum_77.db").write_bytes(b"half a file")
        assert gauge_total(tmp_path, "eslbot_workers_ready") == 1
    finally:
        for process in (one, two):
            process.kill()
            process.communicate(timeout=10)
    assert gauge_total(tmp_path, "eslbot_workers_ready") == 0


def test_of_certificates_the_one_counts_that_was_seen_last(tmp_path: Path) -> None:
    processes = [shows(tmp_path, "2000000000"), shows(tmp_path, "1900000000"), shows(tmp_path)]
    try:
        seen = gauge_latest(tmp_path, "eslbot_certificate_ends_timestamp_seconds", "workspace")
        assert seen == {"acme": 1900000000.0}
    finally:
        for process in processes:
            process.kill()
            process.communicate(timeout=10)


def test_a_freeswitch_that_was_never_there_is_red_and_not_in_the_way(tmp_path: Path) -> None:
    file = tmp_path / "eslbot.toml"
    file.write_text(tomli_w.dumps(tree()))
    (seen := tmp_path / "metrics").mkdir()
    config = load(file).freeswitch

    def health(address: Address) -> Health:
        asked = replace(config, event_socket=address, event_socket_password=Secret(PASSWORD))
        states, _ = StateTracker().update(
            {Subject(component): finding for component, finding in FreeSwitchProbe(asked, seen)().items()},
            {},
            1.0,
        )
        return Health(1.0, states)

    never = health(nobody())
    assert (never.colour, never.blocking) == (Colour.RED, ())
    assert "never seen since the start" in never.states[0].finding.why
    with InboundSwitch() as switch:
        assert not health(loopback(switch.port)).blocking
    later = health(nobody())  # by another page process, too
    assert later.blocking and "never seen" not in later.states[0].finding.why


def test_news_are_told_once_and_all_of_it_at_first() -> None:
    projection = Projection()
    projection.put([row(1), row(2)])
    news = ProjectionFeed(projection)
    changed, ended, anew = news()
    assert (sorted(one["call_id"][-1] for one in changed), list(ended), anew) == (["1", "2"], [], True)
    assert [list(part) if not isinstance(part, bool) else part for part in news()] == [[], [], False]
    projection.put([row(1, ended_at=time.time()), row(2, stage="held")])
    changed, ended, anew = news()
    assert [one["stage"] for one in changed] == ["held"]
    assert [one["call_id"][-1] for one in ended] == ["1"]
    assert anew is False


def test_the_rounds_of_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    configuration = tree()
    journal = tmp_path / "journal"
    configuration["ledger"] = {"url": f"sqlite:///{tmp_path}/x.db", "journal": str(journal)}
    configuration["freeswitch"] = {"event_socket": "127.0.0.1:9", "event_socket_password": "password"}
    configuration["server"]["health"] = "127.0.0.1:9"
    configuration["relay"] = {"listen": "127.0.0.1:11"}
    file = tmp_path / "eslbot.toml"
    file.write_text(tomli_w.dumps(configuration))
    projection = Projection()
    projection.put(
        [row(1, WORKSPACE, stage="handing_off", attempts=2, attempt_verdict="failed", attempt_status=503)]
    )
    now = time.monotonic()
    state = WriterStatus(True, "", 70, now - 40, now - 40)
    rounds = create_monitor(load(file), projection, lambda: state)
    health = rounds.check()
    told = {(one.subject.component.value, one.workspace): one.finding for one in health.states}
    assert {name: finding.colour for name, finding in told.items()} == {
        ("freeswitch", None): Colour.RED,
        ("event_socket", None): Colour.RED,
        ("workers", None): Colour.RED,
        ("relays", None): Colour.RED,
        ("ledger", None): Colour.RED,
        ("bot", "acme"): Colour.UNKNOWN,
        ("ameyo", "acme"): Colour.AMBER,  # it has only just begun: nobody has told when
    }
    assert [call.call_id for call in health.calls] == [row(1)["call_id"]]
    assert 35 < metrics.LEDGER_LAG._value.get() < 300
    assert "have not been read" in told["ledger", None].why
    assert "password" not in json.dumps(health.as_json()).replace("event_socket_password", "")


def test_without_a_ledger_nothing_is_said_of_tenants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    file = tmp_path / "eslbot.toml"
    file.write_text(tomli_w.dumps(tree()))

    def nobody() -> WriterStatus:
        raise AssertionError("there is no writer")

    health = create_monitor(load(file), Projection(), nobody).check()
    assert {one.subject.workspace_id for one in health.states} == {None}
    assert health.calls == ()
