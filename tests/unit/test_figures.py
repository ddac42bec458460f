"""What a process has counted stays in the totals when it is gone, and its files do not stay."""

from __future__ import annotations

import fcntl
import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Gauge, generate_latest
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from eslbot import figures, metrics
from eslbot.exposition import STROKE, exposition
from eslbot.figures import FigureFiles, FiguresBusy, entries, packed

#: Counts as a worker would: every kind of figure.
WORKER = """
from eslbot import metrics
metrics.CALLS.labels("acme", "bot_ended").inc(3)
metrics.SEND_BYE.inc()
metrics.SETUP_SECONDS.labels("acme").observe(0.03)
metrics.SETUP_SECONDS.labels("acme").observe(7)
metrics.CALLS_ACTIVE.labels("acme").inc()
"""
#: No process has this number, and no worker either.
GONE = 4_194_304


def counting(folder: Path, code: str = WORKER) -> int:
    """A worker that counts and dies; its number."""
    child = subprocess.run(
        [sys.executable, "-c", f"import os; print(os.getpid())\n{code}"],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return int(child.stdout)


def copied(folder: Path, pid: int, number: int) -> int:
    """Another worker that has counted the same."""
    for path in folder.glob(f"*_{pid}.db"):
        path.with_name(path.name.replace(f"_{pid}.", f"_{number}.")).write_bytes(path.read_bytes())
    return number


def scraped(files: FigureFiles) -> dict[str, float]:
    """Every sample, labels in its name."""
    found = {}
    for family in text_string_to_metric_families(exposition(files).decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def of_prometheus_client(folder: Path) -> list[str]:
    """The lines that it would write for the same files."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    return sorted(generate_latest(registry).decode().splitlines())


def test_the_exposition_is_prometheus_clients(tmp_path: Path) -> None:
    files = FigureFiles(tmp_path)
    odd = (
        'metrics.CALLS.labels(\'a "b"\\\\ \\n ü\', "x").inc(1e21)\nmetrics.CALLS_LIMIT.labels("acme").set({})'
    )
    workers = [counting(tmp_path, WORKER + odd.format(number)) for number in (7, 5)]
    for number in range(3):
        copied(tmp_path, workers[number % 2], GONE + number)
    files.bury(GONE)
    text = exposition(files).decode()
    assert sorted(text.splitlines()) == of_prometheus_client(tmp_path)
    assert 'eslbot_calls_limit{workspace="acme"} 7.0' in text
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(families) == len(set(families)) > 10
    buckets = [line for line in text.splitlines() if line.startswith("eslbot_setup_seconds_bucket")]
    assert [line.split('"')[1] for line in buckets] == sorted(
        (line.split('"')[1] for line in buckets), key=float
    )


def test_what_no_process_counts_is_given_and_left_out_where_it_is_not_known(tmp_path: Path) -> None:
    """From 0 to what it was before would be an increase that nobody has seen."""
    for _ in range(2):
        counting(tmp_path)
    given = {"eslbot_switch_restarts": 3.0, "eslbot_switch_flushes": None}
    lines = exposition(FigureFiles(tmp_path), given=given).decode().splitlines()
    assert "eslbot_switch_restarts_total 3.0" in lines
    assert "# TYPE eslbot_switch_restarts_total counter" in lines
    assert not [line for line in lines if "eslbot_switch_flushes" in line]
    assert "eslbot_send_bye_total 2.0" in lines


def test_calls_have_their_turns_while_many_figures_are_read(tmp_path: Path) -> None:
    figures_of = packed(
        (f'["eslbot_x", "eslbot_x_total", {{"n": "{number}"}}, "About."]'.encode(), 1.0)
        for number in range(10_000)
    )
    (tmp_path / f"counter_{GONE}.db").write_bytes(figures_of)
    turns: list[None] = []
    text = exposition(FigureFiles(tmp_path), pause=lambda: turns.append(None))
    assert text.count(b"\n") == 10_002
    assert len(turns) == 3 * 10_000 // STROKE


def test_a_file_that_is_none_costs_the_reader_its_own_figures_only(tmp_path: Path) -> None:
    counting(tmp_path)
    before = scraped(FigureFiles(tmp_path))
    (tmp_path / f"counter_{GONE}.db").write_bytes(struct.pack("i4xi", 99, -7))
    assert scraped(FigureFiles(tmp_path)) == before


def test_totals_stay_and_files_do_not_grow(tmp_path: Path) -> None:
    files = FigureFiles(tmp_path)
    first = counting(tmp_path)
    one = scraped(files)
    assert one["eslbot_calls_total{outcome=bot_ended,workspace=acme}"] == 3
    workers = [copied(tmp_path, first, GONE + number) for number in range(50)]
    files.bury(first)
    for worker in workers:
        files.bury(worker)
    assert {path.name for path in tmp_path.iterdir()} == {
        "counter_dead.db",
        "histogram_dead.db",
        "figures.lock",
    }
    total = scraped(files)
    lasting = {name: value for name, value in one.items() if "active" not in name and value}
    assert len(lasting) >= 7
    assert {name: total[name] for name in lasting} == pytest.approx({n: 51 * v for n, v in lasting.items()})
    assert total["eslbot_setup_seconds_bucket{le=0.025,workspace=acme}"] == 0
    assert total["eslbot_setup_seconds_bucket{le=0.05,workspace=acme}"] == 51
    assert total["eslbot_setup_seconds_bucket{le=+Inf,workspace=acme}"] == 102
    assert not any("active" in name for name in total)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 20_000


def test_the_living_count_on(tmp_path: Path) -> None:
    files = FigureFiles(tmp_path)
    living, dead = counting(tmp_path), counting(tmp_path)
    before = scraped(files)
    files.bury(dead)
    after = scraped(files)
    assert {path.name for path in tmp_path.glob("counter*")} == {"counter_dead.db", f"counter_{living}.db"}
    gauges = {name for name in before if "active" in name}
    assert {name: after[name] for name in after.keys() - gauges} == {
        name: before[name] for name in before.keys() - gauges
    }
    assert [(before[name], after[name]) for name in gauges] == [(2, 1)]


def test_while_somebody_reads_nothing_is_added_and_later_it_is(tmp_path: Path) -> None:
    files, pid = FigureFiles(tmp_path), counting(tmp_path)
    before = scraped(files)
    with FigureFiles(tmp_path).reading() as names:
        files.bury(pid)
        assert all(Path(name).exists() for name in names if "gauge" not in name)
    assert scraped(files)["eslbot_send_bye_total{}"] == before["eslbot_send_bye_total{}"] == 1
    files.bury(GONE)  # another one, which had no figures
    assert not list(tmp_path.glob(f"*_{pid}.db"))
    assert scraped(files)["eslbot_send_bye_total{}"] == 1


def test_one_left_behind_that_lives_again_is_let_alone(tmp_path: Path) -> None:
    files = FigureFiles(tmp_path)
    again = copied(tmp_path, counting(tmp_path), os.getpid())
    with FigureFiles(tmp_path).reading():
        files.bury(again)
    files.bury(GONE)
    assert (tmp_path / f"counter_{again}.db").exists()


def test_a_reader_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "READER_WAITS", 0.02)
    with (tmp_path / "figures.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(FiguresBusy):
            exposition(FigureFiles(tmp_path))


def test_a_process_that_just_begins_has_no_figures(tmp_path: Path) -> None:
    (tmp_path / "counter_1.db").touch()
    assert exposition(FigureFiles(tmp_path)) == b""


@pytest.mark.parametrize(
    "rubbish", [b"", b"\x01", struct.pack("i4xi", 999, 10**8), struct.pack("i4xi", 99, -7)]
)
def test_a_file_that_is_none_costs_its_own_figures_only(tmp_path: Path, rubbish: bytes) -> None:
    files, pid = FigureFiles(tmp_path), counting(tmp_path)
    files.bury(pid)
    (tmp_path / f"counter_{GONE}.db").write_bytes(rubbish)
    files.bury(GONE)
    assert not list(tmp_path.glob(f"*_{GONE}.db"))
    assert scraped(files)["eslbot_send_bye_total{}"] == 1


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, pid = FigureFiles(tmp_path), counting(tmp_path)

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        files.bury(pid)
    assert scraped(files)["eslbot_send_bye_total{}"] == 1
    files.bury(GONE)
    assert scraped(files)["eslbot_send_bye_total{}"] == 1
    assert not list(tmp_path.glob(f"*_{pid}.db"))


def test_the_format_is_prometheus_clients(tmp_path: Path) -> None:
    dice = random.Random(7)
    known = {f"{'k' * dice.randrange(40)}{number}é": dice.random() for number in range(200)}
    theirs = MmapedDict(str(tmp_path / "theirs.db"))  # type: ignore[no-untyped-call]
    for key, value in known.items():
        theirs.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
    theirs.close()  # type: ignore[no-untyped-call]
    assert {key.decode(): value for key, value in entries((tmp_path / "theirs.db").read_bytes())} == known
    ours = tmp_path / "ours.db"
    ours.write_bytes(packed((key.encode(), value) for key, value in known.items()))
    read = MmapedDict.read_all_values_from_file(str(ours))  # type: ignore[no-untyped-call]
    assert {key: value for key, value, _, _ in read} == known


def test_the_arbiter_needs_no_prometheus_client_for_it() -> None:
    code = "import sys, eslbot.figures, json; print(json.dumps(sorted(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout
    assert "prometheus_client" not in json.loads(loaded)


def test_every_gauge_goes_with_its_process() -> None:
    gauges = [metric for metric in vars(metrics).values() if isinstance(metric, Gauge)]
    assert len(gauges) >= 5
    assert {gauge._multiprocess_mode for gauge in gauges} == {"livesum", "livemax"}, "as exposition.py knows"


def test_names_say_the_unit_and_labels_have_few_values() -> None:
    ours = [family for family in REGISTRY.collect() if family.name.startswith("eslbot_")]
    assert len(ours) >= 25
    assert all(family.documentation.endswith((".", "alarm.")) for family in ours)
    histograms = [family.name for family in ours if family.type == "histogram"]
    assert histograms
    assert all(name.endswith("_seconds") for name in histograms)
    labels = {label for metric in vars(metrics).values() for label in getattr(metric, "_labelnames", ())}
    assert labels == {"workspace", "outcome", "stage", "reason", "why", "verdict"}
