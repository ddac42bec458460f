"""Recordings on the disk: what is written, by whom it is read, and what a disk may do to them."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from eslbot.recording import sidecar, writer
from eslbot.recording.peaks import MAX_PEAKS, Peaks
from eslbot.recording.sealed import CHUNK_SIZE
from eslbot.recording.store import Damaged, Entry, RecordingStore, describe
from eslbot.recording.writer import PartWriter, RecordingFailed, RecordingWriter
from eslbot.telemetry import metrics
from tests.support.recordings import ACME, CALL, KEY, OTHER_KEY, about, record, recorded, sound


def entry_of(store: RecordingStore, call_id: str = CALL) -> Entry:
    entry = store.get(call_id)
    assert entry is not None
    return entry


def read(store: RecordingStore, call_id: str = CALL) -> tuple[bytes, bytes]:
    blocks = list(store.audio(entry_of(store, call_id)))
    samples = np.concatenate(blocks)
    return samples[:, 0].astype("<i2").tobytes(), samples[:, 1].astype("<i2").tobytes()


def wait_for(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("seconds", [0.01, 5.0])
def test_what_was_said_is_in_the_file(tmp_path: Path, key: str | None, seconds: float) -> None:
    config = recorded(tmp_path, **({"key": key} if key else {}))
    said = record(tmp_path / "recordings", about(key=key), seconds)
    store = RecordingStore(config, None)
    assert read(store) == said
    entry = entry_of(store)
    assert store.check(entry) == []
    told = describe(entry, time.time())
    assert (told["state"], told["seconds"], told["sealed"]) == ("whole", seconds, key is not None)
    assert (told["workspace"], told["crt_object_id"], told["parts"]) == ("acme", "crt-1", 1)


def test_names_and_modes(tmp_path: Path) -> None:
    began_at = 1_795_860_000.0
    record(tmp_path / "recordings", about(), 0.1, began_at=began_at)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    day = Path("recordings/2026-11-28")
    assert [str(path) for path in files] == [
        "recordings",
        str(day),
        str(day / ACME),
        str(day / ACME / f"{CALL}.1.flac"),
        str(day / ACME / f"{CALL}.json"),
    ]
    for path in files:
        mode = stat.S_IMODE((tmp_path / path).stat().st_mode)
        assert mode == (0o600 if path.suffix else 0o700), path
    document = json.loads((tmp_path / day / ACME / f"{CALL}.json").read_text())
    assert "did" not in document and "caller" not in document
    assert len(document["parts"][0]["peaks"]["bot"]) == 1


def test_the_next_relay_goes_on_in_another_part_of_the_same_sidecar(tmp_path: Path) -> None:
    """Also behind midnight; what lies between is silence."""
    config = recorded(tmp_path)
    midnight = 1_795_910_400.0
    first = record(tmp_path / "recordings", about(), 1.0, began_at=midnight - 2)
    second = record(tmp_path / "recordings", about(), 0.5, began_at=midnight + 0.5)
    store = RecordingStore(config, None)
    entry = entry_of(store)
    assert entry.recording is not None
    assert [part.file for part in entry.recording.parts] == [f"{CALL}.1.flac", f"{CALL}.2.flac"]
    assert len(list(store.all())) == 1
    silence = bytes(round(1.5 * 16000))
    assert read(store) == tuple(one + silence + other for one, other in zip(first, second, strict=True))
    assert store.check(entry) == []


def test_a_call_of_which_nothing_was_heard_leaves_nothing(tmp_path: Path) -> None:
    own = RecordingWriter(tmp_path / "recordings", 0)
    own.begin_part(about(), time.time()).end()
    assert own.close(20)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("written", [0, 41])
@pytest.mark.parametrize("key", [None, KEY])
def test_a_part_that_has_only_just_begun_is_empty_and_not_damaged(
    tmp_path: Path, key: str | None, written: int
) -> None:
    """libsndfile writes the header of a file with its first samples."""
    own = RecordingWriter(tmp_path / "recordings", 0)
    own.begin_part(about(key=key), time.time())
    store = RecordingStore(recorded(tmp_path, **({"key": key} if key else {})), None)
    wait_for(lambda: store.get(CALL))
    entry = entry_of(store)
    part = next(entry.files.folder.glob("*.flac*"))
    wait_for(lambda: bool(part.stat().st_size) == bool(key))
    os.truncate(part, written)
    assert store.check(entry) == []
    assert list(store.audio(entry)) == []
    part.write_bytes(b"no such file " * 10)
    assert len(store.check(entry)) == 1, "one that is something else is"


def test_one_that_is_deleted_while_it_goes_on_is_no_failure(tmp_path: Path) -> None:
    before = count("failed")
    own = RecordingWriter(tmp_path / "recordings", 0)
    track = own.begin_part(about(), time.time())
    track.write(sound(1.0), sound(1.0))
    wait_for(lambda: track._done)
    store = RecordingStore(recorded(tmp_path), None)
    store.delete(entry_of(store))
    track.write(sound(1.0), sound(1.0))
    track.end()
    assert own.close(20)
    assert track.failed is None and count("failed") == before
    assert store.get(CALL) is None


# -- a relay that dies ---------------------------------------------------------------------------------------


def cut_off(folder: Path, key: str | None, seconds: float = 30.0) -> bytes:
    """As a relay leaves it that is killed; what it was about to write of the caller."""
    own = RecordingWriter(folder / "recordings", 0)
    track = own.begin_part(about(key=key), time.time())
    said = sound(seconds)
    for at in range(0, len(said), 16000):
        track.write(said[at : at + 16000], bytes(16000))
        wait_for(lambda: track._done == track._put)
    return said


@pytest.mark.parametrize("key", [None, KEY])
def test_what_a_killed_relay_has_written_is_read(tmp_path: Path, key: str | None) -> None:
    said = cut_off(tmp_path, key)
    store = RecordingStore(recorded(tmp_path, **({"key": key} if key else {})), None)
    entry = entry_of(store)
    assert describe(entry, time.time())["state"] == "recording"
    assert describe(entry, time.time() + 600)["state"] == "cut off"
    assert store.check(entry) == []
    caller, _ = read(store)
    lost = len(said) - len(caller)
    assert caller == said[: len(caller)] and lost < (2 * CHUNK_SIZE if key else 0) + 16000


# -- keys, and who changes what ------------------------------------------------------------------------------


def sealed(tmp_path: Path) -> tuple[Path, Path]:
    record(tmp_path / "recordings", about(key=KEY), 10.0)
    (file,) = tmp_path.rglob("*.enc")
    return file, file.with_name(f"{CALL}.json")


def test_a_sealed_recording_says_nothing_to_who_has_no_key(tmp_path: Path) -> None:
    file, beside = sealed(tmp_path)
    said = sound(10.0)
    assert b"fLaC" not in file.read_bytes() and said[:64] not in file.read_bytes()
    assert KEY not in beside.read_text()
    for keys in ({}, {"key": OTHER_KEY}):
        store = RecordingStore(recorded(tmp_path, **keys), None)
        entry = entry_of(store)
        with pytest.raises(Damaged, match="sealed with another key"):
            list(store.audio(entry))
        assert store.check(entry)


def test_an_old_key_still_opens(tmp_path: Path) -> None:
    sealed(tmp_path)
    store = RecordingStore(recorded(tmp_path, key=OTHER_KEY, old_keys=[KEY]), None)
    assert read(store)[0] == sound(10.0)
    assert store.check(entry_of(store)) == []


def _flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def _swap(file: Path, _: Path) -> None:
    content, whole = file.read_bytes(), 12 + CHUNK_SIZE + 16
    file.write_bytes(
        content[:36]
        + content[36 + whole : 36 + 2 * whole]
        + content[36 : 36 + whole]
        + content[36 + 2 * whole :]
    )


def _link(file: Path) -> None:
    file.rename(file.with_name("x"))
    file.symlink_to("x")


def _as_if_cut_off(file: Path, beside: Path) -> None:
    """Whoever cuts a recording off would like it to look like a relay's death."""
    os.truncate(file, 36 + 2 * (12 + CHUNK_SIZE + 16))
    beside.write_text(beside.read_text().replace('"whole"', '"recording"'))


CHANGES: dict[str, Callable[[Path, Path], None]] = {
    "a bit of the sound": lambda file, _: _flip(file, 30_000),
    "a bit of the header": lambda file, _: _flip(file, 20),
    "a bit of the last chunk": lambda file, _: _flip(file, -1),
    "the last byte is gone": lambda file, _: os.truncate(file, file.stat().st_size - 1),
    "the last chunk is gone": lambda file, _: os.truncate(file, 36 + 3 * (12 + CHUNK_SIZE + 16)),
    "nothing is left": lambda file, _: os.truncate(file, 0),
    "two chunks have changed places": _swap,
    "something behind its end": lambda file, _: file.write_bytes(file.read_bytes() + b"x"),
    "cut off, and its sidecar changed": _as_if_cut_off,
    "another's name in the sidecar": lambda _, beside: beside.write_text(
        beside.read_text().replace('"crt-1"', '"crt-2"')
    ),
    "a link instead of the file": lambda file, _: _link(file),
    "a pipe instead of the file": lambda file, _: file.unlink() or os.mkfifo(file),
    "no sidecar": lambda _, beside: beside.unlink(),
    "a sidecar that is none": lambda _, beside: beside.write_text("{}"),
    "a sidecar without end": lambda _, beside: beside.write_bytes(b" " * (sidecar.MAX_BYTES + 1)),
    "a sidecar of depth": lambda _, beside: beside.write_text("[" * 100_000),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_changed_is_found(tmp_path: Path, change: str) -> None:
    file, beside = sealed(tmp_path)
    store = RecordingStore(recorded(tmp_path, key=KEY), None)
    assert store.check(entry_of(store)) == []
    CHANGES[change](file, beside)
    entry = next(iter(store.all()))
    assert store.check(entry), change


def test_one_file_does_not_open_in_the_place_of_another(tmp_path: Path) -> None:
    """A tenant's own recordings either."""
    other = "2b1a4ad5-6e7c-4d1a-8a2c-1d1b3b3b3b3b"
    record(tmp_path / "recordings", about(key=KEY), 2.0)
    record(tmp_path / "recordings", about(other, key=KEY), 2.0)
    one, two = sorted(tmp_path.rglob("*.enc"))
    one.write_bytes(two.read_bytes())
    store = RecordingStore(recorded(tmp_path, key=KEY), None)
    assert store.check(entry_of(store, other)) == [] != store.check(entry_of(store))


# -- a disk that is full, or hangs --------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RecordingWriter]:
    own = RecordingWriter(tmp_path / "recordings", 0)
    yield own
    assert own.close(20)


def count(why: str) -> float:
    return float(metrics.RECORDINGS_FAILED.labels(why)._value.get())


def test_a_full_disk_ends_the_recording_and_leaves_what_there_is(
    tmp_path: Path, own: RecordingWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = count("full")
    track = own.begin_part(about(), time.time())
    said = sound(2.0)
    track.write(said, said)
    wait_for(lambda: track._done)

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", full)
    with capture_logs() as told:
        track.write(said, said)
        wait_for(lambda: track.failed)
    with pytest.raises(RecordingFailed, match="No space left"):
        track.write(said, said)
    monkeypatch.setattr(os, "pwrite", real)
    track.end()
    assert own.close(20)
    assert count("full") == before + 1
    (line,) = [line for line in told if line["event"] == "recording_failed"]
    assert (line["why"], line["call_id"]) == ("full", CALL) and "make room" in line["remedy"]
    store = RecordingStore(recorded(tmp_path), None)
    entry = entry_of(store)
    assert (describe(entry, time.time())["state"], describe(entry, time.time())["why"]) == ("failed", "full")
    caller, _ = read(store)
    assert caller == said[: len(caller)] and len(caller) > 16000


def test_many_that_fail_are_told_once(own: RecordingWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(sidecar, "save", forbidden)
    before = count("failed")
    with capture_logs() as told:
        tracks = [own.begin_part(about(f"call-{n}"), time.time()) for n in range(20)]
        wait_for(lambda: all(track.failed for track in tracks))
    assert count("failed") == before + 20
    assert len([line for line in told if line["event"] == "recording_failed"]) == 1


def test_no_room_is_left_to_others(tmp_path: Path) -> None:
    """Below min_free nothing is recorded, though there would be room."""
    own = RecordingWriter(tmp_path / "recordings", 2**60)
    track = own.begin_part(about(), time.time())
    wait_for(lambda: track.failed)
    assert track.failed is not None and track.failed.why == "full" and "min_free" in str(track.failed)
    assert list(tmp_path.iterdir()) == []
    assert own.close(20)


class Hanging:
    """A disk on which each write hangs until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.going = threading.Event()
        self.hangs = threading.Event()
        real = os.pwrite

        def pwrite(*args: Any) -> int:
            self.hangs.set()
            assert self.going.wait(30)
            return real(*args)

        monkeypatch.setattr(os, "pwrite", pwrite)


@pytest.mark.timed
def test_a_disk_that_hangs_ends_the_recording_when_too_much_waits(
    tmp_path: Path, own: RecordingWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = Hanging(monkeypatch)
    before = count("slow")
    track = own.begin_part(about(), time.time())
    second = sound(1.0)
    took = []
    with capture_logs() as told, pytest.raises(RecordingFailed, match="behind"):
        while True:
            begun = time.perf_counter()
            track.write(second, second)
            took.append(time.perf_counter() - begun)
            assert hanging.hangs.wait(20)
    assert len(took) == writer.MAX_QUEUED_SECONDS and max(took) < 0.1
    assert own._put - own._done <= writer.MAX_QUEUED_BYTES
    assert count("slow") == before + 1
    assert [line["why"] for line in told if line["event"] == "recording_failed"] == ["slow"]
    with pytest.raises(RecordingFailed):
        track.write(second, second)
    hanging.going.set()  # what was taken is written, and its state is right
    assert own.close(20)
    entry = entry_of(RecordingStore(recorded(tmp_path), None))
    assert describe(entry, time.time())["why"] == "slow"
    assert entry.seconds == writer.MAX_QUEUED_SECONDS


def test_a_disk_that_hangs_takes_no_more_memory_than_is_bounded(
    own: RecordingWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = Hanging(monkeypatch)
    monkeypatch.setattr(writer, "MAX_QUEUED_BYTES", 20 * writer.BYTES_PER_SECOND)
    second = sound(1.0)
    refused = 0
    tracks: list[PartWriter] = []
    for number in range(40):
        try:
            tracks.append(own.begin_part(about(f"call-{number}"), time.time()))
            tracks[-1].write(second, second)
        except RecordingFailed:
            refused += 1
    assert (len(tracks), refused) == (20, 20)
    assert own._put - own._done <= 20 * writer.BYTES_PER_SECOND
    hanging.going.set()


def test_a_pipe_where_the_recording_should_be_holds_nothing_up(tmp_path: Path, own: RecordingWriter) -> None:
    """Opening one hangs for ever, where nobody reads it; but we make our files ourselves."""
    record(tmp_path / "recordings", about(), 0.1, began_at=time.time())
    (beside,) = tmp_path.rglob("*.json")
    os.mkfifo(beside.with_name(f"{CALL}.2.flac"))
    track = own.begin_part(about(), time.time())
    wait_for(lambda: track.failed)
    assert track.failed is not None and track.failed.why == "failed"
    beside.unlink()
    os.mkfifo(beside)
    track = own.begin_part(about(), time.time())
    wait_for(lambda: track.failed)
    assert track.failed is not None and "no regular file" in str(track.failed)


def test_a_relay_that_ends_waits_for_a_disk_that_hangs_no_longer_than_it_may(
    own: RecordingWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = Hanging(monkeypatch)
    own.begin_part(about(), time.time()).write(sound(1.0), sound(1.0))
    assert hanging.hangs.wait(20)
    begun = time.monotonic()
    assert not own.close(0.2)
    assert 0.1 < time.monotonic() - begun < 10
    hanging.going.set()


def test_a_fault_of_ours_ends_one_recording_and_is_counted(
    tmp_path: Path, own: RecordingWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = metrics.INTERNAL_ERRORS._value.get()

    def faulty(*_: Any) -> None:
        raise ZeroDivisionError

    track = own.begin_part(about(), time.time())
    monkeypatch.setattr(Peaks, "add", faulty)
    track.write(sound(0.5), sound(0.5))
    wait_for(lambda: track.failed)
    monkeypatch.undo()
    assert metrics.INTERNAL_ERRORS._value.get() == before + 1
    record(tmp_path / "recordings", about("call-2"), 0.5)


# -- peaks --------------------------------------------------------------------------------------------------


def test_peaks_are_bounded_and_lose_no_loud_moment() -> None:
    peaks = Peaks()
    second = np.zeros((8000, 2), np.int16)
    for number in range(3600):
        loud = second.copy()
        if number == 1234:
            loud[17] = (-32768, 16384)
        peaks.add(loud[:5000].T)
        peaks.add(loud[5000:].T)
    facts = peaks.as_json()
    assert len(facts["caller"]) == len(facts["bot"]) <= MAX_PEAKS
    assert len(facts["caller"]) * facts["seconds"] >= 3600 > (len(facts["caller"]) - 1) * facts["seconds"]
    (at,) = [n for n, peak in enumerate(facts["caller"]) if peak]
    assert (facts["caller"][at], facts["bot"][at]) == (255, 128)
    assert at * facts["seconds"] <= 1234 < (at + 1) * facts["seconds"]
