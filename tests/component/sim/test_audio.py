"""The measurements themselves are measured: tones of known length and pitch, holes of known place."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eslbot.audio import g711
from eslbot.sim import audio

TONES = [350, 440, 880]


def noise(seconds: float, seed: int = 1) -> bytes:
    generator = random.Random(seed)
    count = round(seconds * 8000)
    return struct.pack(f"<{count}h", *[generator.randint(-8000, 8000) for _ in range(count)])


def test_a_tone_has_the_length_level_and_phase_asked_for():
    samples = audio.samples(audio.tone(440, 0.5, amplitude=8000))
    assert len(samples) == 4000
    assert samples[0] == 0 and samples[1] > 0
    assert max(samples) == pytest.approx(8000, abs=5)
    assert audio.seconds(audio.tone(440, 0.5, rate=16000), rate=16000) == 0.5


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("frequency", TONES)
def test_a_tones_power_is_all_at_its_frequency(frequency, rate):
    l16 = audio.tone(frequency, 0.2, rate)
    for other in TONES:
        power = audio.tone_power(l16, other, rate)
        assert power > 0.99 if other == frequency else power < 0.01


def test_two_equal_tones_share_the_power():
    mixed = [
        a + b
        for a, b in zip(audio.samples(audio.tone(440, 0.5)), audio.samples(audio.tone(880, 0.5)), strict=True)
    ]
    l16 = struct.pack(f"<{len(mixed)}h", *mixed)
    assert audio.tone_power(l16, 440) == pytest.approx(0.5, abs=0.01)
    assert audio.tone_power(l16, 880) == pytest.approx(0.5, abs=0.01)


def test_silence_and_noise_hold_no_tone():
    assert audio.tone_power(audio.silence(1), 440) == 0
    assert audio.heard(audio.silence(1), 440) == 0
    assert audio.heard(noise(1.0), 440) == 0
    assert audio.heard(b"", 440) == 0


@pytest.mark.parametrize("law", [g711.PCMU, g711.PCMA])
def test_heard_counts_each_tone_through_g711(law):
    spoken = audio.tone(440, 0.6) + audio.silence(0.4) + audio.tone(880, 0.3)
    l16 = g711.decode(law, g711.encode(law, spoken))
    assert audio.heard(l16, 440) == pytest.approx(0.6, abs=0.021)
    assert audio.heard(l16, 880) == pytest.approx(0.3, abs=0.021)
    assert audio.heard(l16, 350) == 0


def test_heard_at_tells_where():
    l16 = audio.silence(0.1) + audio.tone(440, 0.04) + audio.silence(0.1)
    assert list(audio.heard_at(l16, 440)) == [pytest.approx(0.10), pytest.approx(0.12)]


def test_a_whisper_is_no_tone():
    assert audio.heard(audio.tone(440, 1, amplitude=audio.SILENCE // 2), 440) == 0


@settings(max_examples=30, deadline=None)
@given(before=st.integers(1, 300), hole=st.integers(0, 300), after=st.integers(1, 300))
def test_gaps_are_found_where_they_are(before, hole, after):
    loud = struct.pack("<h", 5000)
    l16 = audio.silence(0.05) + loud * before + bytes(2 * hole) + loud * after + audio.silence(0.05)
    found = audio.gaps(l16)
    if hole < 80:
        assert found == []
    else:
        assert found == [audio.Gap((400 + before) / 8000, hole / 8000)]
    assert audio.speech(l16) == (0.05, (400 + before + hole + after) / 8000)


def test_a_whole_tone_has_no_gaps_though_it_crosses_zero():
    for frequency in TONES:
        assert audio.gaps(audio.tone(frequency, 2.0)) == []


def test_pauses_between_utterances_can_be_left_out():
    word = audio.tone(440, 0.2)
    l16 = word + audio.silence(0.03) + word + audio.silence(0.5) + word
    assert [round(gap.length, 2) for gap in audio.gaps(l16)] == [0.03, 0.5]
    assert [round(gap.length, 2) for gap in audio.gaps(l16, longest=0.2)] == [0.03]


def test_silence_alone_has_neither_gaps_nor_speech():
    assert audio.gaps(audio.silence(1)) == []
    assert audio.speech(audio.silence(1)) is None
