"""The count of a file's reads, with real files and a real inotify."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

import pytest

from eslbot.relay.line.read_counter import ReadCounter

ID = "2b37ba17-7b20-4b3e-b138-1161e351d5c5"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{ID}.{ring}.r8" for ring in "ab"]
    for path in paths:
        path.write_bytes(bytes(9600))
    return paths


def test_each_read_counts_though_nobody_fetches_them(tmp_path: Path, files: list[Path]) -> None:
    reads = ReadCounter(tmp_path)
    count = reads.watch(files[0], 4800)
    other = reads.watch(files[1], 4800)
    fd = os.open(files[0], os.O_RDONLY)
    for at in range(0, 9600, 2048):
        os.pread(fd, 2048, at)
    for at in range(50):
        os.pread(fd, 320, at * 320 % 9600)
    assert os.pread(fd, 320, 9600) == b""  # a ring's end
    reads.drain()
    assert (count.reads, count.opened, count.losses) == (50, True, 0)
    assert (other.reads, other.opened) == (0, False)
    os.close(fd)
    reads.close()


def test_a_write_stands_among_the_reads(tmp_path: Path, files: list[Path]) -> None:
    reads = ReadCounter(tmp_path)
    count = reads.watch(files[0], 0)
    fd = os.open(files[0], os.O_RDWR)
    for at in range(3):
        os.pread(fd, 320, at * 320)
    os.pwrite(fd, b"x" * 320, 960)
    os.pread(fd, 320, 960)
    reads.drain()
    assert (count.reads_at_write, count.reads) == (3, 4)
    os.close(fd)
    reads.close()


def test_a_later_open_is_not_freeswitch(tmp_path: Path, files: list[Path]) -> None:
    reads = ReadCounter(tmp_path)
    count = reads.watch(files[0], 0)
    with files[0].open("rb", buffering=0) as first, files[0].open("rb", buffering=0) as second:
        first.read(320)
        second.read(320)
    reads.drain()
    assert count.reads == 2
    with files[0].open("rb"):
        reads.drain()
    assert count.reads == 2
    reads.close()


def test_a_forgotten_file_counts_no_more_and_may_be_gone(tmp_path: Path, files: list[Path]) -> None:
    reads = ReadCounter(tmp_path)
    count, gone = reads.watch(files[0], 0), reads.watch(files[1], 0)
    files[1].unlink()
    reads.forget(gone)
    reads.forget(gone)
    with files[0].open("rb", buffering=0) as file:
        file.read(320)
        reads.forget(count)
        file.read(320)
    reads.drain()
    assert (count.reads, gone.reads) == (0, 0)
    again = reads.watch(files[0], 0)
    assert again.wd != count.wd
    reads.close()


def test_an_overflow_is_told_to_every_file(tmp_path: Path, files: list[Path]) -> None:
    reads = ReadCounter(tmp_path)
    counts = [reads.watch(path, 0) for path in files]
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with files[0].open("rb", buffering=0) as file:
        for _ in range(limit // 2 + 10):
            os.pread(file.fileno(), 1, 0)
    reads.drain()
    assert [count.losses for count in counts] == [1, 1]
    assert counts[0].reads <= limit // 2
    reads.close()


def test_an_open_that_was_dropped_is_told_by_the_reads_behind_it(tmp_path: Path, files: list[Path]) -> None:
    reads = ReadCounter(tmp_path)
    files.append(tmp_path / "later")
    files[2].write_bytes(bytes(9600))
    full, dropped, later = [reads.watch(path, 4800) for path in files]
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with files[0].open("rb", buffering=0) as file:
        for _ in range(limit // 2 + 10):
            os.pread(file.fileno(), 1, 0)
    with files[1].open("rb", buffering=0) as file:
        reads.drain()
        assert [(count.opened, count.losses) for count in (full, dropped)] == [(True, 1), (False, 1)]
        file.read(320)
        reads.drain()
        assert (dropped.opened, dropped.losses, dropped.reads) == (True, 1, 1)
    with files[2].open("rb", buffering=0) as file:
        file.read(2048)
        reads.drain()
    assert (later.opened, later.losses, later.reads) == (True, 0, -4), "nothing of it was dropped"
    reads.close()


def test_a_second_fetch_within_the_given_time_is_none(tmp_path: Path, files: list[Path]) -> None:
    times = iter([0.0, 0.0, 0.0005, 0.002, 0.002])
    reads = ReadCounter(tmp_path, now=lambda: next(times))
    count = reads.watch(files[0], 0)
    with files[0].open("rb", buffering=0) as file:
        reads.drain(0.001)
        file.read(320)
        reads.drain(0.001)
        assert count.reads == 0
        reads.drain(0.001)
        assert count.reads == 1
    reads.close()


def test_a_directory_that_is_not_there_is_an_error_and_leaks_nothing(tmp_path: Path) -> None:
    gc.collect()  # what others have left to it
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FileNotFoundError):
        ReadCounter(tmp_path / "nowhere")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.timed
def test_fetching_costs_microseconds_a_read(tmp_path: Path, files: list[Path]) -> None:
    reads = ReadCounter(tmp_path)
    count = reads.watch(files[0], 0)
    with files[0].open("rb", buffering=0) as file:
        for _ in range(6000):
            os.pread(file.fileno(), 1, 0)
    began = time.process_time()
    reads.drain()
    assert count.reads == 6000
    assert (time.process_time() - began) / 6000 < 20e-6  # 0.3 µs measured
    reads.close()
