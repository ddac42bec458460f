"""No room for the line files: what cannot be heard is counted, and the customer goes to an agent."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eslbot.sim.bot import GOODBYE, GREETING
from eslbot.sim.lab import Tenant
from tests.e2e.calls.conftest import one_kind
from tests.support.chaos.witness import Witness
from tests.support.lab import Lab

#: Bytes of the file system that holds the line files.
SIZE = 1 << 20


@pytest.fixture(scope="module", params=one_kind())
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder: Path = tmp_path_factory.mktemp("full-disk")
    lines = folder / "lines"
    lines.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(lines)]
    told = subprocess.run(mount, capture_output=True, text=True, check=False)
    if told.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {told.stderr.strip()}")
    try:
        with Lab(folder, [Tenant("talk", "talk?listen_ms=1500")], switch=request.param) as lab:
            yield lab
    finally:
        subprocess.run(["umount", str(lines)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


@pytest.fixture
def full(lab: Lab) -> Iterator[Path]:
    """A file that takes all room there is."""
    ballast = lab.lines / "ballast"
    yield ballast
    ballast.unlink(missing_ok=True)


def outcome(lab: Lab, crt: str) -> str:
    (accepted,) = [request for request in lab.ameyo.requests_for(crt) if request.accepted]
    return str(accepted.properties["outcome"])


def told(lab: Lab, event: str) -> list[dict[str, Any]]:
    return [line for line in lab.log_lines() if line["event"] == event]


def lost(lab: Lab) -> float:
    """Seconds of speech that nobody heard because there was no room."""
    wanted = 'eslbot_relay_speech_lost_seconds_total{why="full"}'
    lines = [line.split() for line in lab.http("/metrics")[1].splitlines()]
    return sum(float(value) for name, value, *_ in lines if name == wanted)


def test_without_room_for_a_line_the_customer_goes_to_an_agent(lab: Lab, full: Path) -> None:
    fill(full)
    witness = Witness(lab)
    workspace = lab.tenants["talk"].id

    with witness.fault("full disk", "disk"):
        call = witness.placed(lab.pbx.call(crt_object_id="full", workspace_id=workspace), "talk")
        result = call.wait(30)
    account = witness.account()
    print(account.table())
    assert (result.ended_by, result.cause) == ("pbx", "accepted")
    assert account.guilty == []
    assert result.recording.heard(GREETING) == 0
    assert outcome(lab, "full") == "relay_lost"
    assert "relay.directory" in told(lab, "line_not_made")[0]["remedy"]

    full.unlink()
    again = Witness(lab)
    call = again.placed(lab.pbx.call(crt_object_id="room-again", workspace_id=workspace), "talk")
    result = call.wait(30)
    assert again.account().guilty == []
    assert result.recording.heard(GREETING) > 0.5
    assert result.recording.heard(GOODBYE) > 0.3
    assert outcome(lab, "room-again") == "bot_ended"


def test_a_disk_that_fills_up_in_mid_call_costs_speech_and_not_the_call(lab: Lab, full: Path) -> None:
    witness = Witness(lab)
    workspace = lab.tenants["talk"].id
    before = lost(lab)
    call = witness.placed(lab.pbx.call(crt_object_id="fills-up", workspace_id=workspace), "talk")
    call.wait_heard(GREETING)

    with witness.fault("full disk", "disk"):
        fill(full)
        result = call.wait(30)
        full.unlink()

    account = witness.account()
    print(account.table())
    assert (result.ended_by, result.cause) == ("pbx", "accepted")
    assert account.guilty == []
    assert outcome(lab, "fills-up") == "bot_ended"
    # What stands has room already, to the end of its page of 256 ms: none of the last words' is there yet.
    assert result.recording.heard(GOODBYE) == 0
    assert lost(lab) - before >= 0.4
    (line,) = told(lab, "speech_lost")
    assert (line["crt_object_id"], line["why"]) == ("fills-up", "full")
