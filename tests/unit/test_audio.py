"""From a bot's chunks to the line's bytes: which are taken, what they sound like, and where they are cut."""

from __future__ import annotations

import io
import struct
import wave
from itertools import pairwise

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eslbot import g711
from eslbot.bot.audio import KINDS, PIECE, RATES, Decoder, Resampler, UnusableAudio
from eslbot.sim.audio import samples, seconds, tone, tone_power

LAWS = ["PCMU", "PCMA"]
#: Samples at 8,000 Hz by which the low-pass filter delays: 32 taps for each.
DELAY = 16


def wav(l16: bytes, rate: int = 8000, channels: int = 1, width: int = 2) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(rate)
        writer.writeframes(l16)
    return file.getvalue()


def decoded(content: bytes, kind: str, rate: int, law: str = "PCMU") -> bytes:
    """L16 of what goes on the line."""
    return g711.decode(law, Decoder().decode(content, kind, rate, law))


def level(l16: bytes) -> float:
    numbers = samples(l16)
    return (sum(number * number for number in numbers) / max(1, len(numbers))) ** 0.5


# -- what is taken ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("kind", ["raw", "wav"])
@pytest.mark.parametrize("frequency", [350, 1000, 3000])
def test_a_tone_is_preserved(kind: str, rate: int, frequency: int, law: str) -> None:
    sound = tone(frequency, 0.5, rate)
    heard = decoded(wav(sound, rate) if kind == "wav" else sound, kind, 0 if kind == "wav" else rate, law)
    assert abs(seconds(heard) - 0.5) <= 0.001, "as long as it was"
    steady = heard[200:]
    assert tone_power(steady, frequency) > 0.99
    assert level(steady) == pytest.approx(level(sound), rel=0.05)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kind", ["pcmu", "pcma"])
@pytest.mark.parametrize("rate", [0, 8000])
def test_g711_is_passed_on_or_transcoded(kind: str, law: str, rate: int) -> None:
    content = bytes(range(256))
    line = Decoder().decode(content, kind, rate, law)
    if kind.upper() == law:
        assert line == content
    else:
        there, here = samples(g711.decode(kind.upper(), content)), samples(g711.decode(law, line))
        assert len(here) == 256
        assert all(abs(a - b) <= max(16, abs(a) * 0.05) for a, b in zip(there, here, strict=True))


def test_a_wav_files_own_rate_counts() -> None:
    sound = tone(1000, 0.2, 16000)
    for told in (0, 8000, 44100):
        assert tone_power(decoded(wav(sound, 16000), "wav", told)[200:], 1000) > 0.99


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 1 << 20])
def test_a_wav_file_whose_length_was_not_known_when_its_head_was_sent(size: int) -> None:
    whole = wav(tone(1000, 0.2))
    streamed = whole[:4] + struct.pack("<I", size) + whole[8:40] + struct.pack("<I", size) + whole[44:]
    assert tone_power(decoded(streamed, "wav", 0), 1000) > 0.99


@pytest.mark.parametrize("law", LAWS)
def test_silence_stays_silence(law: str) -> None:
    for rate in RATES:
        heard = Decoder().decode(bytes(rate // 5), "raw", rate, law)
        assert set(samples(g711.decode(law, heard))) <= {0, 8, -8}


# -- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "kind", "rate", "why"),
    [
        (b"x" * 100, "mp3", 0, "audioDataType 'mp3' is not supported; send one of raw, wav, pcmu, pcma"),
        (b"x" * 100, "ogg", 0, "audioDataType 'ogg' is not supported"),
        (b"x" * 100, "None", 0, "audioDataType 'None' is not supported"),
        (b"x" * 100, "x" * 1000, 0, f"audioDataType '{'x' * 20}' is not supported"),
        (b"x" * 100, "raw", 0, "sampleRate 0 is not supported; send one of 8000, 16000, 24000"),
        (b"x" * 100, "raw", 48000, "sampleRate 48000 is not supported"),
        (b"x" * 100, "raw", -8000, "sampleRate -8000 is not supported"),
        (b"x" * 100, "pcmu", 16000, "pcmu has 8000 samples a second, not 16000"),
        (b"x" * 100, "pcma", 24000, "pcma has 8000 samples a second, not 24000"),
        (wav(bytes(400), 44100), "wav", 8000, "sampleRate 44100 is not supported"),
        (wav(bytes(400), 8000, 2), "wav", 8000, "wav with 2 channels of 16 bits; send 16-bit mono"),
        (wav(bytes(400), 8000, 1, 1), "wav", 8000, "wav with 1 channels of 8 bits; send 16-bit mono"),
        (wav(bytes(402), 8000, 1, 3), "wav", 8000, "wav with 1 channels of 24 bits"),
        (b"", "wav", 8000, "not a PCM wav file"),
        (b"ID3" + bytes(100), "wav", 8000, "not a PCM wav file"),
        (wav(bytes(400))[:30], "wav", 8000, "not a PCM wav file"),
        (wav(bytes(400))[:12] + b"LIST\xff\xff\0\0", "wav", 8000, "not a PCM wav file: it breaks off"),
        (wav(bytes(400)).replace(b"\x01\0\x01\0", b"\x03\0\x01\0", 1), "wav", 8000, "not a PCM wav file"),
    ],
)
def test_what_cannot_be_played_is_refused_in_words(content: bytes, kind: str, rate: int, why: str) -> None:
    with pytest.raises(UnusableAudio) as caught:
        Decoder().decode(content, kind, rate, "PCMU")
    assert str(caught.value).startswith(why)


_head = wav(b"")


@given(
    st.binary(max_size=200)
    | st.binary(max_size=100).map(_head.__add__)
    | st.binary(max_size=60).map(lambda tail: b"RIFF\x60\0\0\0WAVEfmt " + tail),
    st.sampled_from([*KINDS, "mp3"]),
    st.sampled_from([*RATES, 0, 11025]),
    st.sampled_from(LAWS),
)
def test_nothing_a_bot_sends_is_a_fault_of_ours(content: bytes, kind: str, rate: int, law: str) -> None:
    try:
        heard = Decoder().decode(content, kind, rate, law)
    except UnusableAudio as error:
        assert str(error).isprintable()
    else:
        assert isinstance(heard, bytes)


# -- chunks are one stream --------------------------------------------------------------------------------


def _cut(sound: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(sound) + 1) for cut in cuts), len(sound)]
    return [sound[start:end] for start, end in pairwise(places)]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(RATES),
    st.sampled_from(LAWS),
    st.lists(st.integers(0, 4000), max_size=12),
    st.randoms(use_true_random=False),
)
def test_it_does_not_matter_where_a_stream_is_cut(
    rate: int, law: str, cuts: list[int], random: object
) -> None:
    noise = struct.pack("<1000h", *(random.randint(-20000, 20000) for _ in range(1000)))  # type: ignore[attr-defined]
    whole = Decoder().decode(noise, "raw", rate, law)
    decoder = Decoder()
    parts = b"".join(decoder.decode(chunk, "raw", rate, law) for chunk in _cut(noise, cuts))
    assert len(parts) == len(whole)
    pairs = zip(samples(g711.decode(law, whole)), samples(g711.decode(law, parts)), strict=True)
    # Sums of another length may round another way, by one in 32,768: that is one step of the law at most.
    assert all(abs(a - b) <= 8 + abs(a) // 8 for a, b in pairs)
    assert sum(a != b for a, b in zip(whole, parts, strict=True)) <= 3


@pytest.mark.parametrize("rate", [16000, 24000])
@pytest.mark.parametrize("size", [2, 6, 34, 320, 1002])
def test_no_click_at_a_seam(rate: int, size: int) -> None:
    sound = tone(1000, 0.3, rate)
    resampler = Resampler(rate)
    heard = b"".join(resampler.resample(sound[at : at + size]) for at in range(0, len(sound), size))
    assert tone_power(heard[200:], 1000) > 0.9999


@pytest.mark.parametrize("kind", ["wav", "raw"])
def test_chunks_of_one_utterance_join_without_a_seam(kind: str) -> None:
    decoder, sound, line = Decoder(), tone(700, 0.5, 24000), b""
    for at in range(0, len(sound), 4800):
        chunk = sound[at : at + 4800]
        line += decoder.decode(wav(chunk, 24000) if kind == "wav" else chunk, kind, 24000, "PCMU")
    assert tone_power(g711.decode("PCMU", line)[200:], 700) > 0.999


def test_a_new_utterance_remembers_nothing() -> None:
    decoder = Decoder()
    first = decoder.decode(tone(1000, 0.1, 16000) + b"\x7f", "raw", 16000, "PCMU")
    decoder.reset()
    assert decoder.decode(bytes(640), "raw", 16000, "PCMU") == b"\xff" * 160
    decoder.reset()
    assert decoder.decode(tone(1000, 0.1, 16000), "raw", 16000, "PCMU") == first


# -- the filter -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "frequency"),
    [
        (16000, 4400),
        (16000, 5000),
        (16000, 7000),
        (24000, 4400),
        (24000, 5000),
        (24000, 8000),
        (24000, 11000),
    ],
)
def test_what_a_telephone_cannot_carry_does_not_fold_back(rate: int, frequency: int) -> None:
    sound = tone(frequency, 0.5, rate)
    heard = Resampler(rate).resample(sound)[200:]
    # A sound of 4,400 Hz would be heard at 3,600; 40 dB down is one hundredth.
    assert level(heard) < level(sound) / 100


@pytest.mark.parametrize("rate", [16000, 24000])
def test_the_telephone_band_passes_evenly(rate: int) -> None:
    for frequency in (100, 300, 1000, 2500, 3200, 3400):
        sound = tone(frequency, 0.5, rate)
        heard = Resampler(rate).resample(sound)[200:]
        assert level(heard) / level(sound) == pytest.approx(1, abs=0.2), frequency


@pytest.mark.parametrize("rate", [16000, 24000])
def test_the_delay_is_two_milliseconds(rate: int) -> None:
    step = rate // 8000
    click = bytes(2 * 100 * step) + struct.pack("<h", 30000) + bytes(2 * 200 * step)
    heard = samples(Resampler(rate).resample(click))
    assert max(range(len(heard)), key=lambda n: abs(heard[n])) == 100 + DELAY


@pytest.mark.parametrize("rate", [16000, 24000])
def test_the_loudest_sound_does_not_wrap_around(rate: int) -> None:
    half = rate // 400  # a square of 200 Hz, whose filtered edges swing beyond full scale
    square = (struct.pack("<h", 32767) * half + struct.pack("<h", -32768) * half) * 50
    heard = samples(Resampler(rate).resample(square))[200:]
    assert max(heard) == 32767 and min(heard) == -32768
    changes = sum((a < 0) != (b < 0) for a, b in pairwise(heard))
    assert changes <= len(heard) / 20 + 1, "one change of sign for each half wave of 20 samples"


def test_others_have_a_turn_while_megabytes_are_resampled() -> None:
    content = tone(440, 20.0, 24000) * 4
    turns = []
    other = gevent.spawn(lambda: [turns.append(gevent.sleep(0)) for _ in range(1000)])
    whole = Decoder().decode(content, "raw", 24000, "PCMU")
    assert len(turns) >= len(content) // PIECE - 1
    other.kill()
    decoder = Decoder()
    parts = [
        decoder.decode(content[start : start + 48_000], "raw", 24000, "PCMU")
        for start in range(0, len(content), 48_000)
    ]
    assert whole == b"".join(parts), "and it sounds the same"
