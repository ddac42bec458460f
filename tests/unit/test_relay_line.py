"""The line's files: who may read them, what is found of an earlier relay's, and when FreeSWITCH reads."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from eslbot.relay.line import LONGER, RATE, RING_SECONDS, Line, LineFull
from eslbot.relay.phase import Phase
from eslbot.relay.reads import Reads
from eslbot.relay.sidecar import BadSidecar, Note, Sidecar
from tests.support.line_reader import Clock

ID = "2b37ba17-7b20-4b3e-b138-1161e351d5c5"


@pytest.fixture
def reads(tmp_path: Path) -> Iterator[Reads]:
    reads = Reads(tmp_path)
    yield reads
    reads.close()


def test_the_files_are_sparse_and_the_groups_of_their_directory_to_read(tmp_path: Path, reads: Reads) -> None:
    os.chown(tmp_path, -1, os.getgid())
    line = Line.open(tmp_path, ID, reads)
    assert not line.found
    assert not line.read_by_freeswitch
    assert [path.name for path in line.paths] == [f"{ID}.a.r8", f"{ID}.b.r8"]
    for path, size in zip(line.paths, (960_000, 960_000 + 2 * LONGER), strict=True):
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o640, tmp_path.stat().st_gid)
        assert (status.st_size, status.st_blocks) == (size, 0)
    line.close(remove=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call_id", ["", "../x", "a/b", "a.b", "a\0b", "x" * 65, "a b"])
def test_a_call_id_is_no_path(tmp_path: Path, reads: Reads, call_id: str) -> None:
    with pytest.raises(ValueError, match="call id"):
        Line.open(tmp_path, call_id, reads)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["a.r8", "b.r8", "line"])
def test_a_link_in_the_way_is_not_followed(tmp_path: Path, reads: Reads, suffix: str) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"x")
    Line.open(tmp_path, ID, reads).close(remove=False)
    (tmp_path / f"{ID}.{suffix}").unlink()
    (tmp_path / f"{ID}.{suffix}").symlink_to(precious)
    with pytest.raises(OSError, match="symbolic links"):
        Line.open(tmp_path, ID, reads)
    assert precious.read_bytes() == b"x"


def test_a_half_made_line_is_made_anew(tmp_path: Path, reads: Reads) -> None:
    line = Line.open(tmp_path, ID, reads)
    line.close(remove=False)
    inode = line.paths[0].stat().st_ino
    again = Line.open(tmp_path, ID, reads)
    assert again.found
    assert again.paths[0].stat().st_ino == inode
    again.close(remove=False)
    (tmp_path / f"{ID}.line").write_bytes(b"eslbotL1" + bytes(4088))
    anew = Line.open(tmp_path, ID, reads)
    assert not anew.found
    anew.close(remove=False)
    (tmp_path / f"{ID}.b.r8").unlink()
    anew = Line.open(tmp_path, ID, reads)
    assert not anew.found
    anew.close(remove=True)


def test_a_line_that_cannot_be_watched_leaves_no_descriptor(
    tmp_path: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
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


def test_packets_of_any_length_are_whole_reads_of_both_rings(tmp_path: Path, reads: Reads) -> None:
    for samples in (*range(80, 961, 80), 200):
        line = Line.open(tmp_path, ID, reads, samples=samples)
        a, b = (path.stat().st_size for path in line.paths)
        assert (a % line.frame_bytes, b % line.frame_bytes) == (0, 0)
        assert a == line.ring_bytes < b, "or both ends would fall together"
        assert abs(a - RING_SECONDS * 2 * RATE) <= line.frame_bytes
        assert line.period == samples / RATE
        line.close(remove=True)


@pytest.mark.parametrize("samples", [0, -160, 961, 480_000])
def test_what_no_packet_can_hold_is_no_read(tmp_path: Path, reads: Reads, samples: int) -> None:
    with pytest.raises(ValueError, match="are no packets"):
        Line.open(tmp_path, ID, reads, samples=samples)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_says_how_much_stands(
    tmp_path: Path, reads: Reads, monkeypatch: pytest.MonkeyPatch
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
    with path.open("w+b") as file:
        sidecar = Sidecar.make(file.fileno(), 160, 480_000)
        assert sidecar.note is None
        notes = [Note(True, tick, 1.5, 0.25, 0.5, 3, tick - 1, tick + 1) for tick in (7, 8, 9)]
        for note in notes:
            sidecar.write(note)
        assert Sidecar(file.fileno(), 160, 480_000).note == notes[-1]
        for torn in (0, 72):  # the newest one's number before or behind it is not there yet
            whole = path.read_bytes()
            os.pwrite(file.fileno(), bytes(8), 1024 + torn)
            assert Sidecar(file.fileno(), 160, 480_000).note == notes[-2]
            os.pwrite(file.fileno(), whole, 0)
        second = Sidecar(file.fileno(), 160, 480_000)
        assert not sidecar.taken
        second.take()
        assert (sidecar.taken, second.taken) == (True, False)
        with pytest.raises(BadSidecar):
            Sidecar(file.fileno(), 240, 480_000)
        os.truncate(file.fileno(), 100)
        with pytest.raises(BadSidecar):
            Sidecar(file.fileno(), 160, 480_000)


def test_the_phase_is_learnt_by_halves() -> None:
    phase, clock, true = Phase(0.02), Clock(), 1000.0137
    clock.time = 1000.1
    looks = 0
    while True:
        ticks = int((clock.time - true) / 0.02) + 1
        phase.saw(ticks, clock.time, clock.time)
        due = phase.look_at(ticks, clock.time)
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
