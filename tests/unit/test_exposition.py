"""What a process has counted stays in the totals when it is gone, and files are as many as processes live."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from eslbot.recovery.state import Recoveries
from eslbot.telemetry import metric_rows, metrics
from eslbot.telemetry.exposition import SWITCH, Processes, Switch, exposition

#: Counts as a worker would: every kind of figure.
WORKER = """
from eslbot.telemetry import metrics
metrics.CALLS.labels("acme", "bot_ended").inc(3)
metrics.SEND_BYE.inc()
metrics.SETUP_SECONDS.labels("acme").observe(0.03)
metrics.SETUP_SECONDS.labels("acme").observe(7)
metrics.CALLS_ACTIVE.labels("acme").inc()
"""
CALLS = "eslbot_calls_total{outcome=bot_ended,workspace=acme}"
ACTIVE = "eslbot_calls_active{workspace=acme}"


class Process:
    """One that counts, and lives until it is killed."""

    def __init__(self, folder: Path, code: str = WORKER) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"{code}\nprint('counted', flush=True)\nimport sys; sys.stdin.read()"],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert "counted\n" in iter(self.process.stdout.readline, "")  # behind what it logs

    def die(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


def counting(folder: Path, code: str = WORKER) -> None:
    """A process that counts and dies."""
    Process(folder, code).die()


def scraped(folder: Path) -> dict[str, float]:
    """Every sample, labels in its name."""
    registry = CollectorRegistry()
    registry.register(Processes(folder))
    found = {}
    for family in text_string_to_metric_families(exposition(registry).decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix == ".db"}


def test_three_lives_of_a_row_are_one_file(tmp_path: Path) -> None:
    counting(tmp_path)
    kept = {name for name in files(tmp_path) if not name.startswith("gauge_")}
    assert kept == {"counter_0.db", "histogram_0.db"}
    one = scraped(tmp_path)
    for _ in range(2):
        counting(tmp_path)
    total = scraped(tmp_path)
    assert files(tmp_path) == kept
    lasting = {name: value for name, value in one.items() if value}
    assert len(lasting) >= 7
    assert {name: total[name] for name in lasting} == pytest.approx({n: 3 * v for n, v in lasting.items()})
    assert total["eslbot_setup_seconds_bucket{le=0.025,workspace=acme}"] == 0
    assert total["eslbot_setup_seconds_bucket{le=0.05,workspace=acme}"] == 3
    assert total["eslbot_setup_seconds_bucket{le=+Inf,workspace=acme}"] == 6


def test_those_who_live_at_one_time_have_a_row_each(tmp_path: Path) -> None:
    first, second = Process(tmp_path), Process(tmp_path)
    both = scraped(tmp_path)
    assert (both[CALLS], both[ACTIVE]) == (6, 2)
    first.die()
    assert scraped(tmp_path)[ACTIVE] == 1
    third = Process(tmp_path)  # in the row of the first
    assert {name for name in files(tmp_path) if "counter" in name} == {"counter_0.db", "counter_1.db"}
    now = scraped(tmp_path)
    assert (now[CALLS], now[ACTIVE]) == (9, 2)
    for process in (second, third):
        process.die()
    gone = scraped(tmp_path)
    assert gone[CALLS] == 9
    assert not [name for name in gone if "active" in name]


def test_a_gauge_of_a_life_before_is_not_the_next_ones(tmp_path: Path) -> None:
    counting(tmp_path, WORKER + "metrics.CALLS_LIMIT.labels('gone').set(7)")
    living = Process(tmp_path)
    assert "eslbot_calls_limit{workspace=gone}" not in scraped(tmp_path)
    assert scraped(tmp_path)[ACTIVE] == 1
    living.die()


def test_a_forked_process_has_a_row_of_its_own(tmp_path: Path) -> None:
    """As relays are: their parent counts, too, and goes on when they are gone."""
    forking = """
import os
from eslbot.telemetry import metrics
metrics.RELAY_DEATHS.inc()
for _ in range(2):
    if os.fork() == 0:
        metrics.RELAY_DEATHS.inc(10)
        metrics.RELAY_CALLS.inc()
        os._exit(0)
    os.wait()
metrics.RELAY_DEATHS.inc()
"""
    parent = Process(tmp_path, forking)
    assert {name for name in files(tmp_path) if "counter" in name} == {"counter_0.db", "counter_1.db"}
    told = scraped(tmp_path)
    assert (told["eslbot_relay_deaths_total{}"], told["eslbot_relay_calls{}"]) == (22, 0)
    parent.die()


def test_a_child_does_not_keep_its_parents_row(tmp_path: Path) -> None:
    """A process that was forked, or started, must not hold a row for one that is dead."""
    forking = (
        "import subprocess\nfrom eslbot.telemetry import metric_rows\nmetric_rows.claimed()\n"
        "subprocess.Popen(['sleep', '20'], stdout=subprocess.DEVNULL)\n"
        "import os, time\nif os.fork() == 0:\n    os.closerange(0, 3); time.sleep(20); os._exit(0)\n"
    )
    parent = Process(tmp_path, forking)
    left = [
        int(pid)
        for pid in Path(f"/proc/{parent.process.pid}/task/{parent.process.pid}/children").read_text().split()
    ]
    try:
        parent.die()
        with (tmp_path / "row_0.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        for pid in left:
            os.kill(pid, signal.SIGKILL)


def test_all_rows_taken_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric_rows, "MAX_ROWS", 1)
    living = Process(tmp_path)
    with pytest.raises(OSError, match="all 1 rows of metrics are taken"):
        metric_rows._claim(tmp_path)
    living.die()


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        metric_rows._claim(tmp_path / "none")


RUBBISH = [
    b"",
    b"\x01",
    struct.pack("i4xi", 999, 10**8),
    struct.pack("i4xi", 99, -7),
    struct.pack("i4xi4s", 40, 4, b"\xff" * 4) + b"\0" * 24,
]


@pytest.mark.parametrize("rubbish", RUBBISH, ids=range(len(RUBBISH)))
def test_a_file_that_is_none_costs_the_reader_its_own_figures_only(tmp_path: Path, rubbish: bytes) -> None:
    counting(tmp_path)
    before = scraped(tmp_path)
    (tmp_path / "counter_7.db").write_bytes(rubbish)
    with capture_logs() as logs:
        assert scraped(tmp_path) == before
    assert [line["event"] for line in logs] == ["metrics_unreadable"]


@pytest.mark.parametrize("rubbish", RUBBISH[1:], ids=range(1, len(RUBBISH)))
def test_a_torn_file_is_put_aside_by_the_rows_next_life(tmp_path: Path, rubbish: bytes) -> None:
    (tmp_path / "counter_0.db").write_bytes(rubbish)
    counting(tmp_path)
    assert scraped(tmp_path)[CALLS] == 3
    assert (tmp_path / "counter_0.unreadable").read_bytes() == rubbish


def test_other_files_are_let_alone(tmp_path: Path) -> None:
    strangers = ["notes.txt", "counter_x.db", "gauge_livesum_0.db.bak", "counter_12345.db"]
    for name in strangers:
        (tmp_path / name).write_text("x")
    counting(tmp_path)
    assert scraped(tmp_path)[CALLS] == 3
    assert all((tmp_path / name).read_text() == "x" for name in strangers)


def test_reading_while_processes_come_and_go(tmp_path: Path) -> None:
    """No count is ever lower than one that was told before."""
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            counting(tmp_path)

    coming = threading.Thread(target=come_and_go)
    coming.start()
    told = [0.0]
    while told[-1] < 12:
        told.append(scraped(tmp_path).get(CALLS, 0.0))
    ended.set()
    coming.join()
    assert told == sorted(told)


def test_what_no_process_counts_is_left_out_where_it_is_not_known(tmp_path: Path) -> None:
    """From 0 to what it was before would be an increase that nobody has seen."""
    file = tmp_path / "freeswitch.json"

    def told() -> list[str]:
        registry = CollectorRegistry()
        registry.register(Switch(file))
        return exposition(registry).decode().splitlines()

    assert "eslbot_switch_restarts_total 0.0" in told()
    file.write_text(json.dumps(asdict(Recoveries(restarts=3, calls=9, dropped=2))))
    lines = told()
    assert "# TYPE eslbot_switch_restarts_total counter" in lines
    assert "eslbot_switch_restarts_total 3.0" in lines
    assert "eslbot_switch_calls_dropped_total 2.0" in lines
    file.write_text("[]")
    assert told() == []


def test_every_gauge_goes_with_its_process() -> None:
    gauges = [metric for metric in vars(metrics).values() if isinstance(metric, Gauge)]
    assert len(gauges) >= 5
    assert {gauge._multiprocess_mode for gauge in gauges} == {"livesum", "livemax", "livemostrecent"}


def test_names_say_the_unit_and_labels_have_few_values() -> None:
    ours = [family for family in REGISTRY.collect() if family.name.startswith("eslbot_")]
    assert len(ours) >= 25
    assert all(family.documentation.endswith((".", "alarm.")) for family in ours)
    assert all(about.endswith(".") for about in SWITCH.values())
    histograms = [family.name for family in ours if family.type == "histogram"]
    assert histograms
    assert all(name.endswith("_seconds") for name in histograms)
    labels = {label for metric in vars(metrics).values() for label in getattr(metric, "_labelnames", ())}
    few = {"workspace", "outcome", "stage", "reason", "why", "verdict", "component", "by", "became"}
    assert labels == few
