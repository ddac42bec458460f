"""A recorded call in the relay: beginning and end, the announcement, whatever becomes of the recording."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from eslbot.config.loader import from_tree
from eslbot.recording import recorder as recorder_module
from eslbot.recording.announcement import LENGTH, MAX_SECONDS, UnusableAnnouncement, announcement_audio
from eslbot.recording.recorder import HAND_OVER_INTERVAL, CallRecording, Recorder
from eslbot.recording.store import RecordingStore
from eslbot.recording.writer import RecordingWriter
from eslbot.relay.control import Part
from eslbot.sim.audio import heard, tone
from eslbot.telemetry import metrics
from tests.support.clock import Clock
from tests.support.recordings import ACME, CALL, about, tree
from tests.support.recordings import recorded as recorded_config
from tests.unit.test_relay_call import TONE, UUID, FakeLine, FakeStream, World, run, turn, up

TICK = 0.02


class RecordedLine(FakeLine):
    """FreeSWITCH reads it as the clock says, from `began` on; each tick of it says its number."""

    period = TICK
    first = 0

    def __init__(self, clock: Clock) -> None:
        self.clock, self.began = clock, clock.now
        self.kept = True
        self.fault: Exception | None = None

    read_by_freeswitch = True

    def tick(self) -> int:
        if self.fault is not None:
            raise self.fault
        return self.first + int((self.clock.now - self.began) / TICK + 1e-6)

    def at(self, tick: int) -> float:
        return self.began + (tick - self.first) * TICK

    def played(self, first: int, last: int) -> bytes:
        return b"".join(np.full(160, tick + 1, "<i2").tobytes() for tick in range(first, last))

    def keep_no_more(self) -> None:
        self.kept = False


class Recorded:
    """A call's recording on a clock of ours, and what came of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, Clock()
        self.line = RecordedLine(self.clock)
        self.writer = RecordingWriter(folder / "recordings", 0)
        self.recording = CallRecording(self.writer, about(), self.line, self.clock.monotonic)  # type: ignore[arg-type]

    def run(self, seconds: float, *, caller: bool = True) -> None:
        for _ in range(round(seconds / TICK)):
            number = self.line.tick()
            self.clock.now += TICK
            if caller:
                self.recording.caller(
                    np.full(160, number + 1, "<i2").tobytes(), self.clock.now - TICK + 0.001
                )
            self.recording.tick()

    def ended(self) -> list[np.ndarray]:
        """The parts."""
        self.recording.end()
        assert self.writer.close(20)
        store = RecordingStore(recorded_config(self.folder), None)
        entry = store.get(CALL)
        if entry is None:
            return []
        assert store.check(entry) == [] and entry.recording is not None
        return [np.concatenate(list(store.part(entry, part))) for part in entry.recording.parts]


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    return Recorded(tmp_path)


def numbers(side: np.ndarray) -> list[int]:
    return [int(one) - 1 for one in dict.fromkeys(side.tolist()) if one]


def test_both_sides_to_the_last_frame(recorded: Recorded) -> None:
    recorded.run(7.3)
    (part,) = recorded.ended()
    assert numbers(part[:, 0]) == numbers(part[:, 1]) == list(range(365))
    assert np.count_nonzero(part[:, 0]) == np.count_nonzero(part[:, 1]) == 365 * 160


def test_a_part_says_when_its_first_sample_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To draw it under a timeline: not when the recording was wanted, nor when its sound was handed on."""
    day = 1_795_867_200.0
    recorded = Recorded(tmp_path)
    monkeypatch.setattr(
        recorder_module, "time", SimpleNamespace(time=lambda: day + recorded.clock.now - Clock.now)
    )
    recorded.recording.restarted()  # so that the clock counts from here on
    recorded.line.read_by_freeswitch = False
    recorded.run(0.6, caller=False)
    recorded.line.read_by_freeswitch, recorded.line.began = True, recorded.clock.now
    recorded.run(3.0)
    recorded.ended()
    entry = RecordingStore(recorded_config(tmp_path), None).get(CALL)
    assert entry is not None and entry.recording is not None
    (part,) = entry.recording.parts
    assert part.began_at == entry.recording.began_at == pytest.approx(day + 0.6, abs=0.02)


def test_what_goes_by_on_hold_is_not_heard(recorded: Recorded) -> None:
    recorded.run(1.5)
    recorded.recording.hold(True)
    recorded.run(2.0)
    recorded.recording.hold(False)
    recorded.run(1.5)
    (part,) = recorded.ended()
    assert numbers(part[:, 1]) == [*range(75), *range(175, 250)]
    assert numbers(part[:, 0]) == list(range(250)), "what the relay carries"


def test_a_freeswitch_that_restarts_begins_another_part(recorded: Recorded) -> None:
    recorded.run(2.5)
    recorded.recording.restarts()
    recorded.line.first, recorded.line.began = recorded.line.tick(), recorded.clock.now + 1.9
    recorded.recording.restarted()
    recorded.clock.now += 1.9
    recorded.run(2.0)
    first, second = recorded.ended()
    assert numbers(first[:, 1]) == list(range(125))
    assert numbers(second[:, 1]) == list(range(125, 225)) == numbers(second[:, 0])


def test_a_call_that_ends_before_its_line_is_read(recorded: Recorded) -> None:
    recorded.line.read_by_freeswitch = False
    assert recorded.ended() == []


def test_a_recording_that_has_failed_is_told_once_and_costs_nothing(recorded: Recorded) -> None:
    recorded.run(1.5)
    track = recorded.recording._part
    assert track is not None
    track._failed(recorder_module.RecordingFailed("full", "no room"))
    recorded.run(2.5)
    assert recorded.recording.failed == "full"
    assert not recorded.line.kept
    recorded.recording.hold(True)
    recorded.recording.restarts()
    recorded.recording.restarted()
    assert recorded.recording.failed == "full" and recorded.recording._part is None


@pytest.mark.parametrize("what", ["tick", "hold", "restarts", "end"])
def test_a_fault_of_ours_ends_the_recording_only(recorded: Recorded, what: str) -> None:
    recorded.run(1.5)
    recorded.line.fault = ZeroDivisionError("fault")
    before = metrics.INTERNAL_ERRORS._value.get()
    with capture_logs() as told:
        recorded.clock.now += HAND_OVER_INTERVAL
        getattr(recorded.recording, what)(*([True] if what == "hold" else []))
    assert metrics.INTERNAL_ERRORS._value.get() == before + 1
    assert [line["event"] for line in told if line["event"] == "recording_fault"]
    assert recorded.recording.failed == "failed"
    recorded.line.fault = None
    (part,) = recorded.ended()
    assert len(part) > 0, "what there is of it is kept"


def test_nothing_that_the_loop_does_waits(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for a disk that hangs."""
    going, hangs = threading.Event(), threading.Event()

    def hang(*_: Any) -> None:
        hangs.set()
        assert going.wait(30)

    monkeypatch.setattr(RecordingWriter, "check_free_space", hang)
    recorded.run(0.1)
    assert hangs.wait(20)
    longest = 0.0
    while recorded.recording.failed is None:
        begun = time.perf_counter()
        recorded.run(1.0)
        longest = max(longest, time.perf_counter() - begun)
        assert recorded.line.tick() < 3000
    going.set()
    assert recorded.recording.failed == "slow"
    assert longest < 5


# -- which calls --------------------------------------------------------------------------------------------


def test_where_nobody_is_recorded_there_is_no_thread(tmp_path: Path) -> None:
    none = tree(tmp_path)
    for workspace in none["workspaces"].values():
        workspace["record"] = False
    before = threading.active_count()
    config = from_tree(none, {})
    recorder = Recorder(config)
    assert threading.active_count() == before
    assert not recorder.wants(CALL, config.workspaces[ACME])
    recorder.leave()
    recorder.close()


def test_a_share_of_the_calls(tmp_path: Path) -> None:
    some = tree(tmp_path)
    some["workspaces"][ACME]["record"] = 0.5
    config = from_tree(some, {})
    recorder = Recorder(config)
    wanted = [recorder.wants(f"call-{n}", config.workspaces[ACME]) for n in range(200)]
    assert 60 < sum(wanted) < 140
    assert wanted == [Recorder(config).wants(f"call-{n}", config.workspaces[ACME]) for n in range(200)]
    recorder.close()


def test_a_call_whose_announcement_cannot_be_said_is_not_recorded(tmp_path: Path) -> None:
    before = metrics.RECORDINGS_FAILED.labels("unannounced")._value.get()
    with capture_logs() as told:
        config = recorded_config(tmp_path, announcement="/nowhere.wav")
        recorder = Recorder(config)
    (line,) = [line for line in told if line["event"] == "announcement_unusable"]
    assert line["workspace"] == "acme" and "/nowhere.wav cannot be read" in line["error"]
    acme, other = config.workspaces.values()
    assert not recorder.wants(CALL, acme)
    assert metrics.RECORDINGS_FAILED.labels("unannounced")._value.get() == before + 1
    assert recorder.wants(CALL, other) and recorder.announcement(other) == b""
    recorder.close()


# -- announcements ------------------------------------------------------------------------------------------


def wav(path: Path, seconds: float, rate: int = 8000, channels: int = 1) -> str:
    import soundfile

    soundfile.write(path, np.zeros((round(seconds * rate), channels), np.int16), rate, "PCM_16")
    return str(path)


def test_a_beep_is_heard_as_one() -> None:
    linear = announcement_audio("beep")
    assert len(linear) == round(LENGTH * 16000)
    assert heard(linear, 1400) >= LENGTH - 0.04
    assert announcement_audio(None) == b""


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
def test_a_file_of_the_operators(tmp_path: Path, rate: int) -> None:
    assert len(announcement_audio(wav(tmp_path / "a b.wav", 1.5, rate))) == pytest.approx(24000, abs=100)


def test_files_that_cannot_be_said(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("hello")
    (tmp_path / "link.wav").symlink_to(wav(tmp_path / "good.wav", 1.0))
    for path, why in {
        str(tmp_path / "nowhere.wav"): "cannot be read: No such file",
        str(tmp_path): "cannot be read",
        str(tmp_path / "link.wav"): "cannot be read",
        str(tmp_path / "text.wav"): "not a WAV file",
        wav(tmp_path / "stereo.wav", 1.0, channels=2): "with 2 channels",
        wav(tmp_path / "rate.wav", 1.0, 44100): "44100 is not supported",
        wav(tmp_path / "long.wav", MAX_SECONDS + 1): "is longer than 30 s",
        wav(tmp_path / "longer.wav", 10 * MAX_SECONDS, 24000): "is longer than 30 s",
    }.items():
        with pytest.raises(UnusableAnnouncement, match=why):
            announcement_audio(path)


class FakeRecording:
    failed: str | None = None

    def __init__(self) -> None:
        self.did: list[str] = []

    def caller(self, frame: bytes, at: float) -> None:
        self.did.append("caller")

    def hold(self, on: bool) -> None:
        self.did.append(f"hold {on}")

    def tick(self) -> None:
        pass

    def end(self) -> None:
        self.did.append("end")

    def restarts(self) -> None:
        self.did.append("restarts")

    def restarted(self) -> None:
        self.did.append("restarted")


class FakeRecorder:
    def __init__(self, said: bytes) -> None:
        self.said = said
        self.recordings: list[FakeRecording] = []

    def wants(self, call_id: str, workspace: Any) -> bool:
        assert call_id == UUID
        return True

    def announcement(self, workspace: Any) -> bytes:
        return self.said

    def record(self, invite: Any, workspace: Any, line: Any) -> FakeRecording:
        self.recordings.append(FakeRecording())
        return self.recordings[-1]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    world = World(monkeypatch, recorded_config(tmp_path))
    world.recorder = FakeRecorder(tone(1400, 0.4))  # type: ignore[assignment]
    return world


def recording_of(world: World) -> FakeRecording:
    (one,) = world.recorder.recordings  # type: ignore[attr-defined]
    return one


def test_the_bot_waits_for_the_announcement_and_nobody_takes_it_for_the_bot(world: World) -> None:
    async def story() -> None:
        call, stream = await up(world, first_audio_timeout=60.0)
        world.socket.listener.received(TONE)
        world.socket.says(type="mark", name="m")
        assert world.playout.queued == tone(1400, 0.4)
        assert [entry["news"] for entry in stream.news] == ["state", "recording", "connected"]
        world.playout.told.utterance_began(0.0)
        assert call._bot._first_audio is None, "the bot's time has not begun"
        await turn()
        assert world.playout.queued == tone(1400, 0.4)
        world.playout.queued = b""
        world.playout.told.utterance_over(False, 0.0)
        await turn()
        assert world.playout.queued == TONE and ("mark", "m") in world.playout.did
        world.playout.told.utterance_began(0.0)
        assert [entry["news"] for entry in stream.news][3:] == ["began"]
        call.receive_audio(TONE)
        call.stream_gone(True)
        assert recording_of(world).did == ["caller", "end"]

    run(story)


def test_a_bot_that_ends_meanwhile_ends_behind_it(world: World) -> None:
    async def story() -> None:
        call, stream = await up(world)
        world.socket.says(type="end", reason="done")
        assert not stream.of("ended")
        world.playout.queued = b""
        world.playout.told.utterance_over(False, 0.0)
        await turn()
        assert stream.of("ended")
        call.stream_gone(True)

    run(story)


def test_it_is_said_once_a_call(world: World) -> None:
    async def story() -> None:
        call, _ = await up(world)
        world.playout.queued = b""
        world.playout.told.utterance_over(False, 0.0)
        await turn()
        call.stream_gone(False)
        call.open_line(20, "restarted")
        call.stream_up(FakeStream(), Part.NEW)
        await turn()
        assert world.playout.queued == b""
        assert recording_of(world).did == ["restarts", "restarted"]
        call.shutdown()
        assert recording_of(world).did[-1] == "end"

    run(story)


@pytest.mark.parametrize("part", [Part.UNDER_WAY, Part.OVER])
def test_the_next_relay_does_not_say_it_again(world: World, part: Part) -> None:
    async def story() -> None:
        call, stream = await up(world, part)
        assert world.playout.queued == b"" and stream.of("recording")
        call.stream_gone(True)

    run(story)


def test_a_hold_is_told_and_a_failure_too(world: World) -> None:
    async def story() -> None:
        world.recorder.said = b""  # type: ignore[attr-defined]
        call, stream = await up(world)
        call._hold(True)
        call._hold(False)
        assert recording_of(world).did == ["hold True", "hold False"]
        recording_of(world).failed = "full"
        for _ in range(3):
            call.tick()
        assert [entry.get("why") for entry in stream.of("recording")] == [None, "full"]
        assert not stream.of("ended"), "the call goes on"
        call.stream_gone(True)

    run(story)
