"""No room for the line files: nobody hears the bot, and the customer is handed off all the same."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from eslbot.sim.bot import GOODBYE, GREETING
from eslbot.sim.chaos.witness import Witness
from eslbot.sim.lab import Lab, Tenant
from tests.e2e.conftest import kinds

#: Bytes of the file system that holds the line files.
SIZE = 1 << 20


@pytest.fixture(scope="module", params=kinds())
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


def test_a_full_disk_loses_speech_and_no_customer(lab: Lab) -> None:
    fill(lab.lines / "ballast")
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

    (lab.lines / "ballast").unlink()
    again = Witness(lab)
    call = again.placed(lab.pbx.call(crt_object_id="room-again", workspace_id=workspace), "talk")
    result = call.wait(30)
    assert again.account().guilty == []
    assert result.recording.heard(GREETING) > 0.5
    assert result.recording.heard(GOODBYE) > 0.3


def test_a_disk_that_fills_up_in_mid_call_does_not_end_it(lab: Lab) -> None:
    witness = Witness(lab)
    ballast = lab.lines / "ballast"
    workspace = lab.tenants["talk"].id
    call = witness.placed(lab.pbx.call(crt_object_id="fills-up", workspace_id=workspace), "talk")
    call.wait_heard(GREETING)

    with witness.fault("full disk", "disk"):
        fill(ballast)
        result = call.wait(30)
        ballast.unlink()

    account = witness.account()
    print(account.table())
    assert (result.ended_by, result.cause) == ("pbx", "accepted")
    assert account.guilty == []
