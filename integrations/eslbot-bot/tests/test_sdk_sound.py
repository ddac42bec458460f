"""Sounds, energy, and how fast a bot may send."""

from __future__ import annotations

import io
import math
import struct
import wave
from pathlib import Path

import pytest

from eslbot_bot import EnergyVad, Sound, UnusableSound, tone
from eslbot_bot.budget import BYTES, BYTES_AT_ONCE, MESSAGES, MESSAGES_AT_ONCE, Budget
from eslbot_bot.vad import rms


def wav(l16: bytes, rate: int, channels: int = 1, width: int = 2) -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(l16)
    return content.getvalue()


def power(sound: Sound, hertz: float) -> float:
    """The share of its power that is at ``hertz``."""
    samples = struct.unpack(f"<{len(sound.l16) // 2}h", sound.l16)
    step = 2 * math.pi * hertz / sound.rate
    real = sum(sample * math.cos(step * number) for number, sample in enumerate(samples))
    imaginary = sum(sample * math.sin(step * number) for number, sample in enumerate(samples))
    energy = sum(sample * sample for sample in samples)
    return 2 * (real * real + imaginary * imaginary) / (len(samples) * energy)


def test_a_wav_is_read_from_a_path_and_from_bytes(tmp_path: Path) -> None:
    path = tmp_path / "hello.wav"
    path.write_bytes(wav(b"\1\2" * 100, 16000))
    for source in path, str(path), path.read_bytes():
        assert Sound.wav(source) == Sound(b"\1\2" * 100, 16000)
    assert Sound.wav(path).seconds == 100 / 16000


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no WAV file"),
        (b"RIFF" + bytes(40), "no WAV file"),
        (b"ID3" + bytes(100), "no WAV file"),
        (wav(bytes(8), 8000, channels=2), "2 channels of 16 bits at 8000 Hz; make it one"),
        (wav(bytes(8), 8000, width=1), "1 channels of 8 bits"),
        (wav(bytes(8), 96000), "at 96000 Hz; make it one of 16 bits at 8000 to 48000 Hz"),
    ],
)
def test_what_is_no_usable_wav_says_why(content: bytes, told: str) -> None:
    with pytest.raises(UnusableSound, match=told):
        Sound.wav(content)


def test_a_file_that_is_not_there_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Sound.wav(tmp_path / "none.wav")


@pytest.mark.parametrize(("before", "after"), [(22050, 8000), (8000, 24000), (44100, 16000), (48000, 8000)])
def test_another_rate_is_the_same_sound(before: int, after: int) -> None:
    sound = tone(1000, 0.25, before).at(after)
    assert sound.rate == after
    assert sound.seconds == pytest.approx(0.25, abs=0.001)
    assert power(sound, 1000) > 0.99
    assert rms(sound.l16) == pytest.approx(8000 / math.sqrt(2), rel=0.02)


def test_what_the_lower_rate_has_no_room_for_is_filtered_and_not_folded() -> None:
    assert rms(tone(6000, 0.25, 22050).at(8000).l16) < 100


def test_the_same_rate_is_the_same_and_another_that_eslbot_has_not_is_an_error() -> None:
    sound = tone(440, 0.01, 8000)
    assert sound.at(8000) is sound
    with pytest.raises(UnusableSound, match="11025 Hz; eslbot takes 8000, 16000, 24000"):
        sound.at(11025)


def test_a_loud_sound_is_not_folded_over() -> None:
    square = Sound(struct.pack("<h", 32767) * 100 + struct.pack("<h", -32768) * 100, 8000)
    assert max(struct.unpack("<600h", square.at(24000).l16)) == 32767


def frames(sound: Sound) -> list[bytes]:
    size = sound.rate // 50 * 2
    return [sound.l16[at : at + size] for at in range(0, len(sound.l16), size)]


def begun(vad: EnergyVad, *sounds: Sound) -> list[int]:
    """The frames, by their numbers, at which the caller begins to speak."""
    every = [frame for sound in sounds for frame in frames(sound)]
    return [number for number, frame in enumerate(every) if vad.begins(frame)]


QUIET = Sound(bytes(8000), 8000)


def test_a_caller_begins_a_tenth_of_a_second_late_and_once() -> None:
    assert begun(EnergyVad(), QUIET, tone(350, 1.0, 8000)) == [29]


def test_a_pause_between_words_is_none_and_a_longer_one_is() -> None:
    word, pause = tone(350, 0.2, 8000), Sound(bytes(2 * 8000 // 5), 8000)
    assert begun(EnergyVad(), word, pause, word, QUIET, word) == [4, 10 + 10 + 10 + 25 + 4]


def test_a_click_and_what_is_not_loud_are_no_speech() -> None:
    assert begun(EnergyVad(), QUIET, tone(350, 0.04, 8000), QUIET, tone(350, 1.0, 8000, amplitude=300)) == []
    assert begun(EnergyVad(level=100), tone(350, 1.0, 8000, amplitude=300)) == [4]
    assert not EnergyVad().begins(b"") and not EnergyVad().begins(b"\1")


def test_a_budget_lets_a_burst_go_and_then_so_many() -> None:
    budget = Budget(100.0)
    for _ in range(MESSAGES_AT_ONCE):
        assert budget.wait(100.0) == 0
        budget.sent(1)
    assert budget.wait(100.0) == pytest.approx(1 / MESSAGES)
    assert budget.wait(100.0 + 1 / MESSAGES) == pytest.approx(0, abs=1e-9)


def test_a_budget_counts_bytes() -> None:
    budget = Budget(0.0)
    budget.sent(BYTES_AT_ONCE)
    assert budget.wait(0.0) == 0
    budget.sent(BYTES)
    assert budget.wait(0.0) == pytest.approx(1.0)
    assert budget.wait(1.0) == 0
