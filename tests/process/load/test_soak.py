"""``scripts/soak`` as its users run it, for half a minute: every caller is accounted for."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.processes import ROOT

#: Of the faults, those that leave a machine that is busy with other tests its promises of time.
FAULTS = ("kill worker", "kill relay", "HUP", "Ameyo errors", "crash FreeSWITCH")
#: Seconds for a run, from the start of its laboratory to the end of that.
LIMIT = 150.0


@contextmanager
def soak(out: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The soak, in a group of its own that is gone behind this, and in any case when its time is up."""
    command = [sys.executable, "-m", "benchmarks.soak", "--switch", "stand-in", "--out", str(out), *options]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )

    def end() -> None:
        with suppress(ProcessLookupError):  # as it should be
            os.killpg(process.pid, signal.SIGKILL)

    overdue = threading.Timer(LIMIT, end)
    overdue.start()
    try:
        yield process
    finally:
        overdue.cancel()
        end()
        process.wait()


def wait_calls_up(process: subprocess.Popen[str], sampled: Path) -> None:
    """Until the first sample with a call."""
    while not (sampled.exists() and re.search(r",calls up,0,,,,[1-9]", sampled.read_text())):
        assert process.poll() is None
        time.sleep(0.05)  # another process's file: there is no event to wait for


@pytest.mark.timed  # a call that FreeSWITCH has lost is given up after 15 s
def test_every_caller_is_accounted_for(tmp_path: Path) -> None:
    options = [option for fault in FAULTS for option in ("--fault", fault)]
    with soak(tmp_path, "--minutes", "0.4", "--calls", "10", "--seed", "13", *options) as process:
        told, errors = process.communicate()
    print(told, errors)
    document = json.loads((tmp_path / "soak.json").read_text())

    tally = document["tally"]
    assert (document["broken"], process.returncode) == ([], 0)
    assert {fault["kind"] for fault in document["faults"]} == set(FAULTS)
    assert tally["calls"] == sum(tally["endings"].values()) >= 10
    assert tally["endings"]["handed off"] >= 5
    assert (tally["byes"], tally["endings"].get("lost", 0)) == (0, 0)
    assert tally["take_overs"] > 0
    assert document["heard"]["packets"] > 1000 and document["heard"]["mute"] == 0
    header, *rows = (tmp_path / "soak.csv").read_text().splitlines()
    assert header == "seconds,what,pid,rss_kb,descriptors,threads,count"
    watched = {row.split(",")[1] for row in rows}
    assert {"arbiter", "worker", "page", "relay parent", "relay", "FreeSWITCH", "calls up"} <= watched
    assert "<svg" in (tmp_path / "soak.svg").read_text()
    assert "every promise was kept" in told and "seed 13" in errors


def test_ctrl_c_ends_it_with_the_account_so_far(tmp_path: Path) -> None:
    with soak(tmp_path, "--minutes", "10", "--calls", "2", "--seed", "4", "--fault", "HUP") as process:
        wait_calls_up(process, tmp_path / "soak.csv")
        process.send_signal(signal.SIGINT)
        told, errors = process.communicate()
    print(told, errors)
    document = json.loads((tmp_path / "soak.json").read_text())
    assert document["stopped"] == "interrupted"
    assert document["tally"]["calls"] == sum(document["tally"]["endings"].values()) > 0
    assert (document["broken"], process.returncode) == ([], 0)


def test_the_account_is_given_though_eslbot_does_not_serve_any_more(tmp_path: Path) -> None:
    """Hours of a run are not lost with it."""
    with soak(tmp_path, "--minutes", "10", "--calls", "2", "--seed", "4", "--fault", "HUP") as process:
        wait_calls_up(process, tmp_path / "soak.csv")
        arbiter = re.search(r",arbiter,(\d+),", (tmp_path / "soak.csv").read_text())
        assert arbiter is not None
        os.kill(int(arbiter[1]), signal.SIGKILL)
        process.send_signal(signal.SIGINT)
        told, errors = process.communicate()
    print(told, errors)
    document = json.loads((tmp_path / "soak.json").read_text())
    assert document["tally"]["calls"] == sum(document["tally"]["endings"].values()) > 0
    assert any(text.startswith("eslbot does not serve any more") for text in document["broken"])
    assert all(f"GUILTY {text}" in errors for text in document["tally"]["guilty"])
    assert process.returncode == 1
