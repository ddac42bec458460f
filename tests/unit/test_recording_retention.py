"""Which recordings go by themselves, and which stay."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from eslbot.recording import retention
from eslbot.recording.retention import ACTIVE_FOR, LOCK_FILE, RetentionSweeper, scan, sweep
from eslbot.telemetry import metrics
from tests.support.recordings import ACME, OTHER, record, recorded
from tests.support.recordings import about as about_call

NOW = 1_795_900_000.0
DAY = 86400.0


class Directory:
    """Recordings of made-up sizes and ages."""

    def __init__(self, root: Path) -> None:
        self.root = root / "recordings"

    def add(self, call_id: str, age: float, size: int = 1000, workspace: str = ACME, parts: int = 1) -> None:
        day = time.strftime("%Y-%m-%d", time.gmtime(NOW - age))
        folder = self.root / day / workspace
        folder.mkdir(parents=True, exist_ok=True)
        names = [f"{call_id}.{number}.flac" for number in range(1, parts + 1)] + [f"{call_id}.json"]
        for name in names:
            (folder / name).write_bytes(bytes(size // len(names)))
            os.utime(folder / name, (NOW - age, NOW - age))

    @property
    def calls(self) -> set[str]:
        return {found.call_id for found in scan(self.root)}

    def sweep(self, keep: float = 30 * DAY, most: int | None = None, **own: float) -> int:
        return sweep(self.root, keep, {ACME: own["acme"]} if own else {}, most, NOW)


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path)


def test_what_was_kept_long_enough_goes_with_all_its_parts(directory: Directory) -> None:
    directory.add("old", 31 * DAY, parts=3)
    directory.add("young", 29 * DAY)
    with capture_logs() as told:
        assert directory.sweep() == 1000
    assert directory.calls == {"young"}
    assert [(line["call_id"], line["why"]) for line in told] == [("old", "keep")]
    assert len(list(directory.root.rglob("*"))) == 4, "nor is its directory left"


def test_a_workspace_may_keep_its_own_for_longer_or_shorter(directory: Directory) -> None:
    for name, workspace in (("acme", ACME), ("other", OTHER)):
        directory.add(f"{name}-10", 10 * DAY, workspace=workspace)
        directory.add(f"{name}-40", 40 * DAY, workspace=workspace)
    directory.sweep(acme=60 * DAY)
    assert directory.calls == {"acme-10", "acme-40", "other-10"}
    directory.sweep(acme=5 * DAY)
    assert directory.calls == {"other-10"}


def test_the_oldest_go_where_all_are_too_much(directory: Directory) -> None:
    for number in range(10):
        directory.add(f"call-{number}", (10 - number) * DAY)
    before = metrics.RECORDINGS_DELETED.labels("max_bytes")._value.get()
    assert directory.sweep(most=4500) == 4000
    assert directory.calls == {f"call-{number}" for number in range(6, 10)}
    assert metrics.RECORDINGS_DELETED.labels("max_bytes")._value.get() == before + 6


def test_what_goes_on_stays_whatever_the_bounds_say(directory: Directory) -> None:
    directory.add("living", ACTIVE_FOR / 2, size=10_000)
    directory.add("ended", ACTIVE_FOR * 2, size=10_000)
    assert directory.sweep(keep=1.0, most=1) == 10_000
    assert directory.calls == {"living"}


def test_what_is_not_ours_is_left_alone(directory: Directory) -> None:
    directory.add("old", 31 * DAY)
    (folder,) = directory.root.glob("*/*")
    strangers = [
        directory.root / "notes.txt",
        directory.root / "backup" / ACME / "x.1.flac",
        directory.root / folder.parent.name / "lost+found" / "x.1.flac",
        folder / "no-suffix",
        folder / "a b.1.flac",
    ]
    for path in strangers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        os.utime(path, (0, 0))
    outside = directory.root.parent / "outside"
    outside.mkdir()
    (outside / "x.1.flac").write_bytes(b"x")
    os.utime(outside / "x.1.flac", (0, 0))
    (directory.root / "2001-01-01").symlink_to(outside)
    (folder.parent / OTHER).symlink_to(outside)
    (folder / "y.1.flac").symlink_to(outside / "x.1.flac")
    directory.sweep()
    assert directory.calls == set()
    assert all(path.exists() for path in [*strangers, outside / "x.1.flac"])


def test_one_that_cannot_be_deleted_is_told_and_the_others_go(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        directory.add(name, 31 * DAY)
    real = retention.delete

    def some(found: retention.RecordingFiles) -> None:
        if found.call_id == "b":
            raise PermissionError(13, "Permission denied")
        real(found)

    monkeypatch.setattr(retention, "delete", some)
    with capture_logs() as told:
        directory.sweep()
    assert directory.calls == {"b"}
    assert [line["call_id"] for line in told if line["event"] == "recording_not_deleted"] == ["b"]


def test_no_directory_is_nothing_to_sweep(tmp_path: Path) -> None:
    assert sweep(tmp_path / "nowhere", 1, {}, None, NOW) == 0


def test_one_relay_sweeps_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And none that is told to leave."""
    config = recorded(tmp_path)
    record(tmp_path / "recordings", about_call(), 0.1)
    monkeypatch.setattr(retention, "FIRST_SWEEP_DELAY", 0.0)
    monkeypatch.setattr(retention, "SWEEP_INTERVAL", 0.01)
    within, beyond, rounds = 0, False, threading.Event()
    guard = threading.Lock()

    def counted(*_: object) -> int:
        nonlocal within, beyond
        with guard:
            within += 1
            beyond = beyond or within > 1
        time.sleep(0.005)
        with guard:
            within -= 1
        rounds.set()
        return 12345

    monkeypatch.setattr(retention, "sweep", counted)
    sweepers = [RetentionSweeper(config) for _ in range(4)]
    assert rounds.wait(20)
    for _ in range(20):
        rounds.clear()
        assert rounds.wait(20)
    for sweeper in sweepers:
        sweeper.stop()
    assert not beyond
    assert (tmp_path / "recordings" / LOCK_FILE).stat().st_mode & 0o777 == 0o600
    assert metrics.RECORDINGS_BYTES._value.get() == 12345
