"""``eslbot recording``: what an operator sees, and what a tenant's name keeps apart."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import soundfile
import tomli_w
from click.testing import CliRunner, Result

from eslbot.cli import main
from eslbot.config import load
from eslbot.recording.sidecar import State
from eslbot.recording.store import RecordingStore
from tests.support.recordings import (
    ACME,
    CALL,
    KEY,
    OTHER,
    OTHER_CALL,
    about,
    record,
    recorded,
    tree,
)

MIDDAY = 1_795_867_200.0


class Site:
    """Two tenants with a recording each: acme's is sealed, other's has two parts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "eslbot.toml"
        self.path.write_text(tomli_w.dumps(tree(folder, key=KEY)))
        self.directory = folder / "recordings"
        self.acme = record(self.directory, about(key=KEY), 2.0, began_at=MIDDAY)
        self.other = record(self.directory, about(OTHER_CALL, "other"), 1.0, began_at=MIDDAY + 60)
        record(self.directory, about(OTHER_CALL, "other"), 1.0, began_at=MIDDAY + 62)

    def run(self, *words: str, code: int = 0) -> Result:
        result = CliRunner().invoke(main, ["recording", *words, "--config", str(self.path)])
        assert result.exit_code == code, result.output
        return result

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self.run(*words, "--json", code=code).stdout)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def samples(path: Path) -> tuple[bytes, bytes]:
    found, rate = soundfile.read(path, dtype="int16")
    assert rate == 8000
    return found[:, 0].astype("<i2").tobytes(), found[:, 1].astype("<i2").tobytes()


def test_all_that_there_is(site: Site) -> None:
    newest, oldest = site.json("list")
    assert (newest["call_id"], newest["parts"], newest["seconds"]) == (OTHER_CALL, 2, 2.0)
    assert oldest == {
        "call_id": CALL,
        "workspace_id": ACME,
        "workspace": "acme",
        "crt_object_id": "crt-1",
        "began_at": MIDDAY,
        "seconds": 2.0,
        "state": "whole",
        "why": None,
        "sealed": True,
        "parts": 1,
        "bytes": oldest["bytes"],
        "problem": None,
    }
    result = site.run("list")
    assert result.stdout.splitlines()[1] == f"2026-11-28 12:00:00Z  {CALL}  acme  crt-1  2.0 s  whole  sealed"
    assert "2 recordings" in result.stderr
    assert [one["call_id"] for one in site.json("list", "--since", "2026-11-28T12:00:30")] == [OTHER_CALL]
    assert [one["call_id"] for one in site.json("list", "--until", "2026-11-28T12:00:30")] == [CALL]


@pytest.mark.parametrize("name", ["acme", ACME, ACME.upper()])
def test_a_tenants_name_leaves_nothing_of_others(site: Site, name: str) -> None:
    assert [one["call_id"] for one in site.json("list", "--workspace", name)] == [CALL]
    out = str(site.folder / "out.wav")
    for words in (
        ("export", OTHER_CALL, "--out", out),
        ("check", OTHER_CALL),
        ("delete", OTHER_CALL, "--yes"),
    ):
        result = site.run(*words, "--workspace", name, code=2)
        assert result.stderr == f"eslbot: there is no recording of a call '{OTHER_CALL}'\n"
    assert not Path(out).exists() and len(site.json("list")) == 2


def test_a_file_in_another_tenants_directory_is_not_that_tenants(site: Site) -> None:
    """Nor read with its key: whoever reads is told for whom by the directory."""
    (theirs,) = site.directory.glob(f"*/{OTHER}")
    for path in list(theirs.parent.joinpath(ACME).iterdir()):
        path.rename(theirs / path.name)
    assert list(RecordingStore(load(site.path), [ACME]).all()) == []
    store = RecordingStore(load(site.path), [OTHER])
    entry = store.get(CALL)
    assert entry is not None and entry.recording is None
    assert "another workspace's" in str(entry.problem)
    assert store.check(entry)


def test_one_of_a_workspace_that_is_gone_is_found_by_its_id(site: Site) -> None:
    site.path.write_text(tomli_w.dumps(without(tree(site.folder), ACME)))
    assert [one["call_id"] for one in site.json("list", "--workspace", ACME)] == [CALL]
    assert site.run("list", "--workspace", "acme", code=2).stderr == "eslbot: there is no workspace 'acme'\n"
    result = site.run("export", CALL, "--out", str(site.folder / "x.wav"), code=1)
    assert "sealed with another key" in result.stderr
    assert not (site.folder / "x.wav").exists()


def without(tree: dict[str, Any], workspace: str) -> dict[str, Any]:
    del tree["workspaces"][workspace]
    return tree


@pytest.mark.parametrize("suffix", ["wav", "flac", "WAV"])
def test_a_recording_becomes_a_file_that_anything_plays(site: Site, suffix: str) -> None:
    out = site.folder / f"out.{suffix}"
    assert site.json("export", CALL, "--out", str(out)) == {
        "call_id": CALL,
        "file": str(out),
        "seconds": 2.0,
    }
    assert samples(out) == site.acme
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_two_parts_stand_on_one_time_line(site: Site) -> None:
    out = site.folder / "out.wav"
    assert site.run("export", OTHER_CALL, "--out", str(out)).stdout == f"{out}: 3.0 s\n"
    assert samples(out) == tuple(side + bytes(16000) + side for side in site.other)


@pytest.mark.parametrize(
    ("out", "why"), [("out.mp3", "ends in .wav or .flac"), ("there.wav", "is there already")]
)
def test_where_nothing_is_written(site: Site, out: str, why: str) -> None:
    (site.folder / "there.wav").write_bytes(b"precious")
    assert why in site.run("export", CALL, "--out", str(site.folder / out), code=2).stderr
    assert (site.folder / "there.wav").read_bytes() == b"precious"


def test_a_damaged_one_is_said_and_what_can_be_read_is_written(site: Site) -> None:
    (file,) = site.directory.rglob("*.enc")
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    (told,) = site.json("check", CALL, code=1)
    assert "cut off" in told["problems"][0]
    assert site.run("check", code=1).stdout.splitlines()[-1] == "2 recordings, 1 damaged"
    content[30_000] ^= 1
    content[-20] ^= 1
    file.write_bytes(content)
    out = site.folder / "out.wav"
    assert "chunk 1 was changed" in site.run("export", CALL, "--out", str(out), code=1).stderr
    caller, _ = samples(out)
    assert caller == site.acme[0][: len(caller)] and len(caller) > 1000


def test_all_that_is_well(site: Site) -> None:
    assert site.run("check").stdout == "2 recordings, 0 damaged\n"
    assert [one["problems"] for one in site.json("check")] == [[], []]
    assert len(site.json("check", CALL, OTHER_CALL)) == 2


def test_one_is_deleted_before_its_time(site: Site) -> None:
    result = CliRunner().invoke(main, ["recording", "delete", CALL, "--config", str(site.path)], input="n\n")
    assert result.exit_code == 1 and len(site.json("list")) == 2
    assert site.json("delete", CALL, "--yes") == {"deleted": [CALL]}
    assert not list(site.directory.rglob(f"{CALL}*"))
    assert [one["call_id"] for one in site.json("list")] == [OTHER_CALL]
    site.run("delete", CALL, "--yes", code=2)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "*", "x/y", "x" * 65])
def test_a_call_id_is_no_path(site: Site, name: str) -> None:
    assert "there is no recording" in site.run("check", name, code=2).stderr


def test_a_configuration_that_records_nothing_has_no_recordings(tmp_path: Path) -> None:
    path = tmp_path / "eslbot.toml"
    path.write_text(tomli_w.dumps(tree(tmp_path)))
    result = CliRunner().invoke(main, ["recording", "list", "--json", "--config", str(path)])
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])


def test_a_store_of_no_workspace_has_nothing(site: Site) -> None:
    store = RecordingStore(recorded(site.folder, key=KEY), [])
    assert list(store.all()) == [] and store.get(CALL) is None


@pytest.mark.parametrize("name", ["../2026-11-28/{}", "{}/../{}", "/{}", ".", "..", "*", "", "{}/"])
def test_a_workspace_is_no_path(site: Site, name: str) -> None:
    store = RecordingStore(recorded(site.folder, key=KEY), [name.replace("{}", OTHER)])
    assert list(store.all()) == [] and store.get(OTHER_CALL) is None


def test_a_part_that_is_followed_by_another_one_is_not_written_to_any_more(site: Site) -> None:
    """Its relay has died; whether the call goes on is seen at the last part."""
    store = RecordingStore(recorded(site.folder, key=KEY), None)
    entry = store.get(OTHER_CALL)
    assert entry is not None and entry.recording is not None
    first, last = entry.recording.parts
    now = entry.files.last
    first.state = State.RECORDING
    assert (entry.state_of(first, now), entry.state_of(last, now), entry.state(now)) == (
        "cut off",
        "whole",
        "cut off",
    )
    last.state = State.RECORDING
    assert (entry.state_of(last, now), entry.state(now)) == ("recording", "recording")
    assert (entry.state_of(last, now + 600), entry.state(now + 600)) == ("cut off", "cut off")
