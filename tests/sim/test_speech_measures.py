"""The measures of ``benchmarks.speech`` on audio whose faults are known: all of them found, none invented."""

from __future__ import annotations

import random

import pytest

np = pytest.importorskip("numpy", reason="numpy is in the extra `benchmark`")

from benchmarks.speech import signals  # noqa: E402
from benchmarks.speech.cases import paced  # noqa: E402
from benchmarks.speech.measures import (  # noqa: E402
    JUMP,
    Track,
    assign_losses,
    dry,
    first_packet,
    heard,
    is_loud,
    last_packet,
    latencies,
    longest_silence,
    pauses,
    percentile,
    tone_seconds,
    uplink,
)
from benchmarks.speech.signals import FRAME, NUMBERS, TONES  # noqa: E402
from eslbot import g711  # noqa: E402
from eslbot.sim.audio import tone  # noqa: E402
from eslbot.sim.pbx.media import Arrival, caller_frames  # noqa: E402
from eslbot.sim.rtp import RtpPacket  # noqa: E402

LAWS = ["PCMU", "PCMA"]


def through(law: str, l16: bytes) -> np.ndarray:
    return np.frombuffer(g711.decode(law, g711.encode(law, l16)), "<i2")


def speech(law: str = "PCMU", seconds: float = 2.0, around: float = 0.5) -> np.ndarray:
    """The bot's speech between silences, as G.711 leaves it; it begins at sample 4,000."""
    quiet = bytes(2 * int(around * 8000))
    return through(law, quiet + signals.speech(seconds) + quiet)


def track_of(samples: np.ndarray, begin: float = 100.0, late: dict[int, float] | None = None) -> Track:
    """``samples`` in packets of 20 ms from ``begin`` on, some of them ``late`` by seconds."""
    blocks = [samples[at : at + FRAME] for at in range(0, len(samples), FRAME)]
    return Track([begin + 0.02 * n + (late or {}).get(n, 0.0) for n in range(len(blocks))], blocks)


# -- speech -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS)
def test_nothing_is_found_in_clean_speech(law: str) -> None:
    found = heard(speech(law, 10.0))
    assert (found.first, found.end) == (4000, 84_000)
    assert (found.gaps, found.jumps) == ([], [])
    assert found.seconds == 10.0
    assert found.whole


@pytest.mark.parametrize("gain", [0.25, 2.5])
def test_level_does_not_matter(gain: float) -> None:
    louder = np.round(np.frombuffer(signals.speech(2.0), "<i2") * gain).astype("<i2").tobytes()
    assert heard(through("PCMU", louder)).whole


def test_silence_and_nothing() -> None:
    assert heard(np.zeros(8000, np.int16)).seconds == 0
    assert heard(np.zeros(0, np.int16)).seconds == 0


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("length", [80, 160, 800, 1001])
def test_an_inserted_silence_is_a_gap_and_no_jump(law: str, length: int) -> None:
    samples = speech(law)
    at = 4000 + 7003
    found = heard(np.insert(samples, at, np.zeros(length, np.int16)))
    assert len(found.gaps) == 1
    gap = found.gaps[0]
    assert abs(gap.start - at) <= 1
    assert 0 <= gap.length - length <= 2
    assert found.jumps == []
    assert found.seconds == pytest.approx(2.0, abs=0.0005)


@pytest.mark.parametrize("length", [160, 320, 1600])
def test_a_silenced_piece_is_a_gap_and_a_jump(length: int) -> None:
    # What would have been said is lost: the tones go on as if nothing had been, and that is a jump too.
    samples = speech().copy()
    samples[10_000 : 10_000 + length] = 0
    found = heard(samples)
    assert len(found.gaps) == 1
    assert 0 <= found.gaps[0].length - length <= 2
    assert len(found.jumps) == 1
    assert found.seconds == pytest.approx(2.0 - length / 8000, abs=0.0005)


@pytest.mark.parametrize("length", [8, 20, 40, 79])
def test_a_short_silence_is_a_jump(length: int) -> None:
    found = heard(np.insert(speech(), 9000, np.zeros(length, np.int16)))
    assert found.gaps == []
    assert len(found.jumps) == 1
    assert abs(found.jumps[0] - 9000) <= 100


@pytest.mark.parametrize("law", LAWS)
def test_a_missing_piece_of_any_length_is_one_jump(law: str) -> None:
    samples = speech(law, 1.0, around=0.1)
    for length in [*range(1, 836, 3), 960, 1120, 1280, 1440, 1600, 2400, 3200, 4000]:
        for at in (2000, 2011):
            found = heard(np.delete(samples, np.arange(at, at + length)))
            assert found.gaps == []
            assert len(found.jumps) == 1, (length, at, found)
            assert abs(found.jumps[0] - at) <= 100
            assert found.seconds == pytest.approx(1.0 - length / 8000, abs=1 / 8000)


def test_a_repeated_piece_of_any_length_is_one_jump() -> None:
    samples = speech(seconds=1.0)
    for length in [*range(1, 836, 7), 1600, 4000]:
        found = heard(np.insert(samples, 9000, samples[9000 - length : 9000]))
        assert len(found.jumps) == 1, (length, found)
        assert found.seconds == pytest.approx(1.0 + length / 8000, abs=1 / 8000)


def test_no_length_up_to_835_leaves_both_phases_alone() -> None:
    n = np.arange(1, 836)[:, None]
    turns = n * np.array(TONES) / 8000
    leaps = np.abs(turns - np.round(turns)).max(axis=1) * 2 * np.pi
    assert leaps.min() > JUMP


@pytest.mark.parametrize("step", [160, 320, 800])
def test_every_chunk_cut_is_counted(step: int) -> None:
    samples = np.frombuffer(signals.speech(2.0), "<i2")
    cut = np.concatenate([samples[at : at + step - 24] for at in range(0, len(samples), step)])
    found = heard(through("PCMU", cut.tobytes()))
    assert len(found.jumps) == len(samples) // step - 1
    assert found.gaps == []


@pytest.mark.parametrize("step", [160, 800])
def test_every_gap_between_chunks_is_counted(step: int) -> None:
    samples = np.frombuffer(signals.speech(2.0), "<i2")
    pieces = [np.append(samples[at : at + step], np.zeros(160, "<i2")) for at in range(0, len(samples), step)]
    found = heard(through("PCMU", np.concatenate(pieces).tobytes()))
    assert len(found.gaps) == len(samples) // step - 1
    assert found.jumps == []
    assert found.seconds == pytest.approx(2.0, abs=0.005)


def test_a_click_is_a_jump() -> None:
    samples = speech().copy()
    samples[9000:9003] = [30_000, -30_000, 30_000]
    assert len(heard(samples).jumps) == 1


def test_a_foreign_sound_is_found() -> None:
    samples = speech().copy()
    samples[9000:9800] = np.frombuffer(tone(700, 0.1), "<i2")
    assert heard(samples).jumps


# -- packets ------------------------------------------------------------------------------------------


def test_track_of_packets() -> None:
    payload = g711.encode("PCMA", signals.speech(0.02))
    packets = [
        RtpPacket(8, 1, 0, 7, g711.SILENCE["PCMA"] * FRAME),
        RtpPacket(101, 2, 160, 7, bytes([5, 10, 0, 160])),
        RtpPacket(8, 3, 160, 7, payload),
    ]
    assert [is_loud(packet) for packet in packets] == [False, False, True]
    track = Track.of(Arrival(10.0 + n, packet) for n, packet in enumerate(packets))
    assert list(track.at) == [10.0, 12.0]
    assert list(track.speech_packets()) == [12.0]
    assert (track.arrival_of(0), track.arrival_of(159), track.arrival_of(160)) == (10.0, 10.0, 12.0)
    assert (first_packet(track, 0, 20), last_packet(track, 0, 20)) == (12.0, 12.0)
    assert first_packet(track, 12.5, 20) is None
    assert len(track.between(11, 13).samples) == FRAME


def test_a_track_without_packets() -> None:
    track = Track([], [])
    assert (first_packet(track, 0, 1), last_packet(track, 0, 1), dry(track)) == (None, None, [])
    assert len(pauses(track.at)) == 0
    assert longest_silence(track.at, 5.0, 6.5) == 1.5


def test_pauses_and_silence() -> None:
    times = np.array([1.0, 1.02, 1.04, 1.11, 1.13])
    assert [(at, round(length, 3)) for at, length in pauses(times)] == [(1.04, 0.07)]
    assert longest_silence(times, 0.9, 1.14) == pytest.approx(0.1)
    assert longest_silence(times, 1.01, 1.33) == pytest.approx(0.2)


def test_a_telephone_runs_dry_only_beyond_its_buffer() -> None:
    samples = speech()
    assert dry(track_of(samples)) == []
    assert dry(track_of(samples, late={50: 0.035, 51: 0.030})) == []
    late = dict.fromkeys(range(50, 1000), 0.060)  # from packet 50 on everything is 60 ms late: dry once
    ((at, length),) = dry(track_of(samples, late=late))
    assert at == pytest.approx(100 + 50 * 0.02 + 0.04)
    assert length == pytest.approx(0.02)


def test_latencies_are_of_the_packet_with_the_sample() -> None:
    samples = speech(seconds=0.5)  # speech begins with packet 25, which comes at 100.5
    track = track_of(samples)
    found = latencies(track, heard(samples), [(100.4, 0), (100.5, 800), (100.6, 1600)])
    assert found == pytest.approx([0.1, 0.1, 0.1])


def test_latencies_over_a_gap_in_which_nothing_was_lost() -> None:
    samples = np.insert(speech(seconds=0.5), 4000 + 800, np.zeros(160, np.int16))
    found = heard(samples)
    assert len(found.gaps) == 1
    sent = [(100.4, 0), (100.48, 640), (100.5, 800), (100.6, 1600)]
    assert latencies(track_of(samples), found, sent) == pytest.approx([0.1, 0.1, 0.12, 0.12])
    assert latencies(track_of(samples), heard(np.delete(samples, range(5000, 5040))), sent) == []


# -- one tone -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("length", [0.1, 0.26, 0.3])
def test_the_length_of_a_tone(law: str, length: float) -> None:
    quiet = bytes(3000)
    before = tone(440, 0.7)
    alone = through(law, quiet + tone(880, length) + quiet)
    behind = through(law, quiet + before + tone(880, length) + quiet)
    assert tone_seconds(alone, 880) == pytest.approx(length, abs=0.003)
    assert tone_seconds(behind, 880) == pytest.approx(length, abs=0.003)
    assert tone_seconds(behind, 440) == pytest.approx(0.7, abs=0.003)
    assert tone_seconds(through(law, before), 880) == 0
    assert tone_seconds(np.zeros(10, np.int16), 880) == 0


# -- the uplink ---------------------------------------------------------------------------------------


def at_bot(law: str, count: int, begin: int = 0) -> bytes:
    """Frames as the bot gets them: the caller's, coded and decoded."""
    frames = caller_frames(law, signals.numbered_frames())
    return b"".join(g711.decode(law, frames[(begin + n) % len(frames)]) for n in range(count))


def arrivals_of(l16: bytes, begin: float = 50.0) -> list[tuple[float, int]]:
    return [(begin + 0.02 * n, 320 * (n + 1)) for n in range(len(l16) // 320)]


@pytest.mark.parametrize("law", LAWS)
def test_every_frame_tells_its_number(law: str) -> None:
    assert len(caller_frames(law, signals.numbered_frames())) == NUMBERS
    assert list(signals.numbers_of(at_bot(law, NUMBERS))) == list(range(NUMBERS))


@pytest.mark.parametrize("law", LAWS)
def test_no_frame_is_lost_over_the_turn_of_the_numbers(law: str) -> None:
    l16 = at_bot(law, 3000, begin=1000)
    found = uplink(l16, arrivals_of(l16))
    assert (found.frames, found.lost, found.repeated, found.silent, found.damaged) == (3000, [], 0, 0, 0)
    assert found.late == pytest.approx(0, abs=1e-6)


def test_lost_frames_are_found_where_they_were() -> None:
    l16 = at_bot("PCMU", 1000, begin=1500)
    gone = {100, 101, 500, 998}
    kept = [n for n in range(1000) if n not in gone]
    audio = b"".join(l16[320 * n : 320 * n + 320] for n in kept)
    arrivals = [(50 + 0.02 * n, 320 * (i + 1)) for i, n in enumerate(kept)]
    found = uplink(audio, arrivals)
    assert found.lost == pytest.approx([50 + 0.02 * n for n in sorted(gone)])
    assert (found.repeated, found.silent, found.damaged) == (0, 0, 0)


def test_silenced_damaged_and_repeated_frames() -> None:
    l16 = bytearray(at_bot("PCMU", 100))
    l16[320 * 10 : 320 * 11] = bytes(320)
    l16[320 * 20 : 320 * 20 + 160] = bytes(160)
    l16[320 * 30 : 320 * 31] = l16[320 * 29 : 320 * 30]
    found = uplink(bytes(l16), arrivals_of(bytes(l16)))
    assert (found.silent, found.damaged, found.repeated) == (1, 1, 1)
    assert found.lost == pytest.approx([50 + 0.02 * n for n in (10, 20, 30)])


def test_frames_that_do_not_begin_with_the_audio() -> None:
    l16 = at_bot("PCMU", 200)[2 * 100 :]
    found = uplink(l16, arrivals_of(l16))
    assert (found.lost, found.damaged) == ([], 0)


def test_lateness_of_the_uplink() -> None:
    l16 = at_bot("PCMU", 200)
    arrivals = [(at + (0.3 if n > 100 else 0.0), count) for n, (at, count) in enumerate(arrivals_of(l16))]
    assert uplink(l16, arrivals).late == pytest.approx(0.3)


def test_an_uplink_without_audio() -> None:
    assert uplink(b"", []).frames == 0
    assert uplink(bytes(3200), arrivals_of(bytes(3200))).lost == []


def test_losses_belong_to_utterances() -> None:
    spoken = [(10.0, 12.0), (20.0, 22.0)]
    found = assign_losses([9.9, 10.1, 11.0, 12.2, 15.0, 21.99, 21.0], spoken)
    assert (found.edges, found.within, found.outside) == ([3, 1], 2, 1)


# -- the rest -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_ms", [20, 40, 500])
def test_jitter_keeps_order_and_bounds(chunk_ms: int) -> None:
    offsets = paced(chunk_ms, 100, random.Random(1))
    assert offsets == sorted(offsets)
    assert all(-1e-9 <= at - n * chunk_ms / 1000 <= 0.06 + 1e-9 for n, at in enumerate(offsets))


def test_percentiles() -> None:
    values = list(range(1, 101))
    assert [percentile(values, p) for p in (0, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([3.0], 99) == 3.0
    assert percentile([], 50) != percentile([], 50)
