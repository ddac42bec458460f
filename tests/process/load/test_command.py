"""``eslbot loadtest`` as its users run it: short, and on counts only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from eslbot.sim.addresses import colon
from tests.process.load.conftest import AMEYO_PORT
from tests.support.lab import Lab
from tests.support.processes import ROOT


def loadtest(*options: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "eslbot", "loadtest", *options]
    env = {**os.environ, **(environment or {})}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)


def told(result: subprocess.CompletedProcess[str], file: Path, code: int) -> dict[str, Any]:
    assert result.returncode == code, f"{result.stdout}\n{result.stderr}"
    document: dict[str, Any] = json.loads(file.read_text())
    return document


def test_in_a_laboratory_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "raw.json"
    options = ["rate", "--rate", "4", "--seconds", "2", "--call-seconds", "1.5", "--switch", "stand-in"]
    result = loadtest(*options, "--json", str(file))
    document = told(result, file, 0)
    whole = document["whole"]
    counts = [whole[name] for name in ("begun", "answered", "handed_off", "completed", "failed")]
    assert counts == [8, 8, 8, 8, 0]
    assert whole["to_post"]["count"] == whole["to_bye"]["count"] == whole["setup"]["count"] == 8
    assert whole["to_caller"]["sent"] > 8 * 50 and whole["voiced"] > 8 * 50
    assert document["symptoms"]["strays"] == 0
    assert all(call["heard"] > 0.5 for call in document["calls"])
    assert set(document["steps"][0]["used"]["cores"]) == {"freeswitch", "eslbot", "bot", "generator"}
    assert "stand-in" in result.stdout and "no call was lost" in result.stdout


def test_calls_that_are_held_are_up_at_once(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "raw.json"
    target = ["--target", colon(lab.sip), "--workspace", lab.tenants["hold"].id, "--local-ip", "127.0.0.1"]
    result = loadtest(
        *("hold", "--calls", "6", "--rate", "6", "--seconds", "1", "--hang-up-after", "3"),
        *target,
        *("--json", str(file)),
    )
    document = told(result, file, 0)
    assert (document["whole"]["completed"], document["at_once"]) == (6, 6)
    assert document["whole"]["handed_off"] == 0
    crts = {call["crt"] for call in document["calls"]}
    assert not crts & {request.crt_object_id for request in lab.ameyo.requests}


def test_an_ameyo_of_its_own_ends_the_calls(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "raw.json"
    tenant = lab.tenants["elsewhere"]
    result = loadtest(
        *("--rate", "3", "--seconds", "2", "--target", colon(lab.sip), "--workspace", tenant.id),
        *("--ameyo-listen", f"127.0.0.1:{AMEYO_PORT}", "--ameyo-http", "--tenant-host", tenant.host),
        *("--eslbot-log", str(lab.log_file), "--json", str(file)),
        environment={"LOADTEST_AMEYO_TOKEN": tenant.token},
    )
    document = told(result, file, 0)
    assert (document["whole"]["handed_off"], document["whole"]["completed"]) == (6, 6)
    counted = document["whole"]["to_switch"]["calls"]
    assert counted == (6 if lab.real_switch is not None else 0), "the stand-in counts no packets"
    assert tenant.token not in file.read_text() + result.stdout + result.stderr


def test_refused_calls_are_lost_and_their_reason_is_told(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "raw.json"
    result = loadtest(
        *("--rate", "4", "--seconds", "1", "--hang-up-after", "2"),
        *("--target", colon(lab.sip), "--workspace", lab.tenants["small"].id),
        *("--eslbot-log", str(lab.log_file), "--json", str(file)),
    )
    document = told(result, file, 1)
    assert document["whole"]["failures"] == {"503 Workspace Full (workspace_full)": 3}
    assert "max_calls was reached" in result.stdout
