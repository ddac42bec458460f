"""The line's files: who may read them, what is found of an earlier relay's, and when FreeSWITCH reads."""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eslbot.audio import SAMPLE_RATE
from eslbot.relay.line import Line, LineFull
from eslbot.relay.line.checkpoint import BadCheckpointPage, Checkpoint, CheckpointPage
from eslbot.relay.line.line import RING_SECONDS
from eslbot.relay.line.phase import Phase
from eslbot.relay.line.read_counter import ReadCounter
from eslbot.relay.line.rings import EXTRA_SAMPLES
from tests.support.line_reader import Clock

ID = "2b37ba17-7b20-4b3e-b138-1161e351d5c5"


def test_a_disk_without_room_is_left_without_a_trace(
    tmp_path: Path, reads: ReadCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        Line.open(tmp_path, ID, reads)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def reads(tmp_path: Path) -> Iterator[ReadCounter]:
    reads = ReadCounter(tmp_path)
    yield reads
    reads.close()


def test_the_files_are_sparse_and_the_groups_of_their_directory_to_read(
    tmp_path: Path, reads: ReadCounter
) -> None:
    os.chown(tmp_path, -1, os.getgid())
    line = Line.open(tmp_path, ID, reads)
    assert line.predecessor_paths == ()
    assert not line.read_by_freeswitch
    assert [re.sub(r"\.[0-9]+\.", ".N.", path.name) for path in line.paths] == [
        f"{ID}.N.a.r8",
        f"{ID}.N.b.r8",
    ]
    for path, size in zip(line.paths, (960_000, 960_000 + 2 * EXTRA_SAMPLES), strict=True):
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o640, tmp_path.stat().st_gid)
        assert (status.st_size, status.st_blocks) == (size, 0)
    line.close(remove=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call_id", ["", "../x", "a/b", "a.b", "a\0b", "x" * 65, "a b"])
def test_a_call_id_is_no_path(tmp_path: Path, reads: ReadCounter, call_id: str) -> None:
    with pytest.raises(ValueError, match="call id"):
        Line.open(tmp_path, call_id, reads)
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_the_way_is_not_followed(tmp_path: Path, reads: ReadCounter) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"x")
    (tmp_path / f"{ID}.line").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic links"):
        Line.open(tmp_path, ID, reads)
    assert precious.read_bytes() == b"x"


@pytest.mark.parametrize("ring", [0, 1])
def test_what_is_left_is_no_link(tmp_path: Path, reads: ReadCounter, ring: int) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"x")
    line = left(tmp_path, reads, Checkpoint(True, 5, 50, time.monotonic()))
    line.paths[ring].unlink()
    line.paths[ring].symlink_to(precious)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="symbolic links"):
        Line.open(tmp_path, ID, reads)
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert precious.read_bytes() == b"x"


def left(directory: Path, reads: ReadCounter, note: Checkpoint) -> Line:
    """What a relay leaves that was killed with such a note."""
    line = Line.open(directory, ID, reads)
    line.close(remove=False)
    with (directory / f"{ID}.line").open("r+b") as file:
        CheckpointPage(file.fileno(), 0).slots[0].write(note)
    return line


@pytest.mark.parametrize(
    ("started", "tick", "written", "unread"),
    [(True, 5, 50, 45), (True, 50, 50, 0), (True, 60, 50, 0), (False, 0, 50, 0)],
)
def test_what_is_to_be_heard_of_an_earlier_relay_is_found(
    tmp_path: Path, reads: ReadCounter, started: bool, tick: int, written: int, unread: int
) -> None:
    old = left(tmp_path, reads, Checkpoint(started, tick, written, time.monotonic()))
    line = Line.open(tmp_path, ID, reads)
    assert line.first_free == unread
    assert line.predecessor_paths == (old.paths if unread else ())
    assert all(path.exists() == bool(unread) for path in old.paths)
    assert not set(line.paths) & set(old.paths)
    line.close(remove=True)
    assert list(tmp_path.iterdir()) == []


def test_what_nobody_reads_is_laid_behind_what_is_still_read(tmp_path: Path, reads: ReadCounter) -> None:
    old = left(tmp_path, reads, Checkpoint(True, 5, 50, time.monotonic()))
    second = Line.open(tmp_path, ID, reads)
    assert second.write(second.first_free, b"\1\1" * 1600) == (45, 55)
    second.close(remove=False)
    third = Line.open(tmp_path, ID, reads)
    assert third.first_free == 55 and third.predecessor_paths == old.paths
    assert third.paths[0].read_bytes()[: 56 * 320] == bytes(45 * 320) + b"\1\1" * 1600 + bytes(320)
    assert not any(path.exists() for path in second.paths)
    third.close(remove=True)
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_room_behind_that_is_cut_at_its_front(tmp_path: Path, reads: ReadCounter) -> None:
    left(tmp_path, reads, Checkpoint(True, 0, 3000 - 350 - 5, time.monotonic()))
    second = Line.open(tmp_path, ID, reads)
    behind = second.first_free
    assert second.room(behind) == 6 * 320
    second.write(behind, b"\1\1" * 480 + b"\2\2" * 960)
    second.close(remove=False)
    third = Line.open(tmp_path, ID, reads)
    assert third.first_free == behind + 6 and third.room(third.first_free) == 0
    assert third.paths[0].read_bytes()[behind * 320 :].rstrip(b"\0") == b"\2\2" * 960
    third.close(remove=False)
    fourth = Line.open(tmp_path, ID, reads)
    assert [path.stat().st_size for path in fourth.paths] == [960_000, 960_000 + 2 * EXTRA_SAMPLES]
    fourth.close(remove=True)


def test_a_left_line_that_is_not_whole_is_none(tmp_path: Path, reads: ReadCounter) -> None:
    old = left(tmp_path, reads, Checkpoint(True, 5, 50, time.monotonic()))
    old.paths[1].unlink()
    line = Line.open(tmp_path, ID, reads)
    assert (line.first_free, line.predecessor_paths) == (0, ())
    line.close(remove=True)


@pytest.mark.parametrize("page", [b"", bytes(4096), b"eslbotL1" + bytes(4088), b"eslbotL3" + b"\xff" * 4088])
def test_a_page_of_nobodys_makes_no_line(tmp_path: Path, reads: ReadCounter, page: bytes) -> None:
    (tmp_path / f"{ID}.line").write_bytes(page)
    line = Line.open(tmp_path, ID, reads)
    assert (line.first_free, line.predecessor_paths) == (0, ())
    line.close(remove=True)
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_cannot_be_watched_leaves_no_descriptor(
    tmp_path: Path, reads: ReadCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    watch, calls = reads.watch, []

    def second_fails(path: Path, samples: int) -> object:
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return watch(path, samples)

    monkeypatch.setattr(reads, "watch", second_fails)
    with pytest.raises(OSError, match="No space"):
        Line.open(tmp_path, ID, reads)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_packets_of_any_length_are_whole_reads_of_both_rings(tmp_path: Path, reads: ReadCounter) -> None:
    for samples in (*range(80, 961, 80), 200):
        line = Line.open(tmp_path, ID, reads, samples=samples)
        a, b = (path.stat().st_size for path in line.paths)
        assert (a % line.frame_bytes, b % line.frame_bytes) == (0, 0)
        assert a == line.ring_bytes < b, "or both ends would fall together"
        assert abs(a - RING_SECONDS * 2 * SAMPLE_RATE) <= line.frame_bytes
        assert line.period == samples / SAMPLE_RATE
        line.close(remove=True)


@pytest.mark.parametrize("samples", [0, -160, 961, 480_000])
def test_what_no_packet_can_hold_is_no_read(tmp_path: Path, reads: ReadCounter, samples: int) -> None:
    with pytest.raises(ValueError, match="are no packets"):
        Line.open(tmp_path, ID, reads, samples=samples)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_says_how_much_stands(
    tmp_path: Path, reads: ReadCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line.open(tmp_path, ID, reads)
    write = os.pwrite
    room = [700]

    def pwrite(fd: int, data: bytes, at: int) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        size = write(fd, data[: room[0]], at)
        room[0] -= size
        return size

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(LineFull) as full:
        line.write(5, b"\1\1" * 1600)
    assert (full.value.first, full.value.next, full.value.written) == (5, 8, 700)
    with pytest.raises(LineFull):
        line.silence(5, 8)
    line.close(remove=True)


def test_a_note_survives_its_writer_but_for_one_half_written(tmp_path: Path) -> None:
    path = tmp_path / "side"
    sidecar = CheckpointPage.open(path, 7)
    place = sidecar.slots[1]
    place.assign(sidecar.generation)
    notes = [Checkpoint(True, tick, tick + 1, 1.5) for tick in (7, 8, 9)]
    for note in notes:
        place.write(note)
    with path.open("r+b") as file:

        def again() -> Checkpoint | None:
            return CheckpointPage(file.fileno(), 0).slots[1].checkpoint

        assert again() == notes[-1]
        for torn in (0, 56):  # the newest one's number before or behind it is not there yet
            whole = path.read_bytes()
            os.pwrite(file.fileno(), bytes(8), 1024 + 128 + torn)
            assert again() == notes[-2]
            os.pwrite(file.fileno(), whole, 0)


def test_a_place_says_whose_rings_they_are(tmp_path: Path) -> None:
    path = tmp_path / "side"
    sidecar = CheckpointPage.open(path, 7)
    note = Checkpoint(True, 7, 8, 1.5, 3, 5)
    for place, switch in zip(sidecar.slots, ["x" * 36, ""], strict=False):
        place.assign(sidecar.generation, switch)
        place.write(note)
    again = CheckpointPage.open(path, 8)
    assert [place.switch for place in again.slots] == ["x" * 36, "", "", ""]
    assert [place.checkpoint for place in again.slots] == [note, note, None, None]
    again.slots[0].release()
    assert again.slots[0].switch == ""


def test_the_newest_generation_has_the_call(tmp_path: Path) -> None:
    path = tmp_path / "side"
    first = CheckpointPage.open(path, 7)
    assert (first.generation, first.taken) == (7, False)
    second = CheckpointPage.open(path, 5)
    assert (second.generation, first.taken, second.taken) == (8, True, False)
    with path.open("r+b") as file:
        os.truncate(file.fileno(), 100)
        with pytest.raises(BadCheckpointPage):
            CheckpointPage(file.fileno(), 0)


def test_the_phase_is_learnt_by_halves() -> None:
    phase, clock, true = Phase(0.02), Clock(), 1000.0137
    clock.time = 1000.1
    looks = 0
    while True:
        ticks = int((clock.time - true) / 0.02) + 1
        phase.saw(ticks, clock.time, clock.time)
        due = phase.poll_at(ticks, clock.time)
        if due is None:
            break
        looks += 1
        clock.time = due
    assert looks <= 4
    assert phase.at(0) == pytest.approx(true, abs=0.0011)


@pytest.mark.parametrize("later", [0.0004, 0.002, 0.009, 0.02, 0.31])
def test_the_phase_follows_reads_that_have_become_later(later: float) -> None:
    phase, true, now = Phase(0.02), 1000.0137, 1001.0
    for i in range(400):
        if i == 200:
            true += later
        now += 0.0067 + i * 0.00137 % 0.005
        ticks = int((now - true) / 0.02) + 1
        phase.saw(ticks, now, now)
    assert phase.at(0) == pytest.approx(true, abs=0.0012)
