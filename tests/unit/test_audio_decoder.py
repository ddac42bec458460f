"""From what a bot sends to the line's L16, and from the line to what a bot wants to hear."""

from __future__ import annotations

import random
import struct
import time
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eslbot.audio import UnusableAudio, g711, levels
from eslbot.audio.decoder import KINDS, PIECE, RATES, Decoder
from eslbot.audio.levels import audible
from eslbot.audio.resample import Upsampler
from eslbot.relay.protocols.base import Speech
from eslbot.relay.protocols.texts import MAX_AUDIO_BYTES
from eslbot.sim.audio import samples, seconds, tone, tone_power
from eslbot.sim.bot.wavfiles import wav

#: Bytes of L16 at 8,000 Hz in which the filter has not yet heard enough.
START = 200
FRAME = 320


def extensible(l16: bytes, rate: int = 8000, tag: int = 1) -> bytes:
    form = struct.pack("<HHIIHHHHI", 0xFFFE, 1, rate, 2 * rate, 2, 16, 22, 16, 4)
    form += struct.pack("<H", tag) + bytes.fromhex("000000001000800000aa00389b71")
    return riff(chunk(b"fmt ", form), chunk(b"data", l16))


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(content) if size is None else size) + content


def riff(*chunks: bytes, size: int | None = None) -> bytes:
    content = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(content) if size is None else size) + content


FORM = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16))


def level(l16: bytes) -> float:
    """Root of the mean of squares."""
    numbers = np.frombuffer(l16, "<i2").astype(float)
    return float(np.sqrt(np.mean(numbers**2)))


def decibels(l16: bytes, of: bytes) -> float:
    return float(20 * np.log10(max(level(l16), 1e-3) / level(of)))


def decoded(content: bytes, kind: str = "raw", rate: int = 8000) -> bytes:
    return Decoder().decode(Speech(content, kind, rate))


# -- what is taken ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("kind", ["raw", "wav"])
@pytest.mark.parametrize("frequency", [350, 1000, 3000])
def test_a_tone_is_preserved(kind: str, rate: int, frequency: int) -> None:
    sound = tone(frequency, 0.5, rate)
    heard = decoded(wav(sound, rate), "wav", 0) if kind == "wav" else decoded(sound, "raw", rate)
    assert seconds(heard) == pytest.approx(0.5, abs=0.001), "as long as it was"
    assert tone_power(heard[START:], frequency) > 0.999
    assert level(heard[START:]) == pytest.approx(level(sound), rel=0.02)


def test_eight_thousand_is_untouched() -> None:
    sound = tone(1000, 0.1)
    assert decoded(sound) == sound == decoded(wav(sound), "wav", 0)


@pytest.mark.parametrize("kind", ["pcmu", "pcma"])
@pytest.mark.parametrize("rate", [0, 8000])
def test_g711_is_what_the_law_says(kind: str, rate: int) -> None:
    content = bytes(range(256))
    assert decoded(content, kind, rate) == g711.decode(kind.upper(), content)


def test_a_wav_files_own_rate_counts() -> None:
    sound = tone(1000, 0.2, 16000)
    for told in (0, 8000, 44100):
        assert tone_power(decoded(wav(sound, 16000), "wav", told)[START:], 1000) > 0.99


SOUND = tone(1000, 0.2)


@pytest.mark.parametrize(
    "content",
    [
        riff(FORM, chunk(b"data", SOUND, 0), size=0),
        riff(FORM, chunk(b"data", SOUND, 0xFFFFFFFF), size=0xFFFFFFFF),
        riff(FORM, chunk(b"data", SOUND, 1 << 20)),
        extensible(SOUND),
        riff(FORM, chunk(b"LIST", b"INFOISFT" + bytes(26)), chunk(b"data", SOUND)),
        riff(FORM, chunk(b"LIST", b"INFO!", 5) + b"\0", chunk(b"data", SOUND)),
        riff(FORM, chunk(b"LIST", b"INFO!", 5), chunk(b"data", SOUND)),  # no byte of padding
        riff(FORM, chunk(b"LIST", b"INFOISFT" + bytes(26), 7), chunk(b"data", SOUND)),
        riff(FORM, chunk(b"LIST", b"INFOISFT" + bytes(26), 1 << 24), chunk(b"data", SOUND)),
        riff(FORM, chunk(b"LIST", b"INFO", 0xFFFFFFFF), chunk(b"data", SOUND)),
        riff(FORM, chunk(b"data", SOUND), chunk(b"LIST", b"INFO", 99)),
        riff(FORM, chunk(b"data", SOUND + b"\x01")),
    ],
    ids=[
        "0",
        "FFFFFFFF",
        "too long",
        "extensible",
        "LIST",
        "odd LIST",
        "odd LIST unpadded",
        "LIST too short",
        "LIST too long",
        "LIST FFFFFFFF",
        "LIST behind",
        "odd data",
    ],
)
def test_wav_files_as_programs_write_them(content: bytes) -> None:
    assert decoded(content, "wav", 0) == SOUND


@pytest.mark.parametrize("rate", RATES)
def test_silence_stays_silence(rate: int) -> None:
    assert decoded(bytes(rate // 5), "raw", rate) == bytes(1600)


@pytest.mark.slow
@given(st.lists(st.integers(0, 2000), max_size=30), st.sampled_from(RATES))
def test_a_stream_of_raw_may_be_cut_anywhere(cuts: list[int], rate: int) -> None:
    sound = tone(700, 0.1, rate)
    decoder, pieces = Decoder(), []
    places = sorted({0, len(sound), *(cut % len(sound) for cut in cuts)})
    for begin, end in pairwise(places):
        pieces.append(decoder.decode(Speech(sound[begin:end], "raw", rate)))
    assert b"".join(pieces) == decoded(sound, "raw", rate)


def test_a_clear_forgets_half_a_sample_and_the_filter() -> None:
    decoder = Decoder()
    decoder.decode(Speech(b"\xff\x7f" * 500 + b"\x7f", "raw", 16000))
    decoder.reset()
    assert decoder.decode(Speech(bytes(640), "raw", 16000)) == bytes(FRAME)


def test_another_rate_begins_anew() -> None:
    decoder = Decoder()
    decoder.decode(Speech(b"\xff\x7f" * 500 + b"\x7f", "raw", 16000))
    assert decoder.decode(Speech(SOUND, "raw", 8000)) == SOUND


# -- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "kind", "rate", "why"),
    [
        (b"", "raw", 8000, "no audio in it"),
        (b"", "pcmu", 8000, "no audio in it"),
        (b"x" * 100, "mp3", 0, "audio of type 'mp3' is not supported; send one of raw, wav, pcmu, pcma"),
        (b"x" * 100, "x" * 1000, 0, f"audio of type '{'x' * 20}' is not supported"),
        (b"x" * 100, "raw", 0, "sampleRate 0 is not supported; send one of 8000, 16000, 24000"),
        (b"x" * 100, "raw", 48000, "sampleRate 48000 is not supported"),
        (b"x" * 100, "raw", -8000, "sampleRate -8000 is not supported"),
        (b"x" * 100, "pcmu", 16000, "pcmu has 8000 samples a second, not 16000"),
        (b"x" * 100, "pcma", 24000, "pcma has 8000 samples a second, not 24000"),
        (wav(bytes(400), 44100), "wav", 8000, "sampleRate 44100 is not supported"),
        (
            wav(bytes(400), 8000, 2),
            "wav",
            8000,
            "wav of format 1 with 2 channels of 16 bits; send 16-bit PCM",
        ),
        (wav(bytes(400), 8000, 1, 1), "wav", 8000, "with 1 channels of 8 bits"),
        (wav(bytes(402), 8000, 1, 3), "wav", 8000, "with 1 channels of 24 bits"),
        (extensible(bytes(400), tag=3), "wav", 8000, "wav of format 3"),
        (b"ID3" + bytes(100), "wav", 8000, "not a WAV file: it does not begin with RIFF"),
        (wav(bytes(400))[:30], "wav", 8000, "not a WAV file"),
        (wav(bytes(400))[:12] + b"LIST\xff\xff\0\0", "wav", 8000, "not a WAV file: it has no data"),
        (wav(bytes(400))[:12], "wav", 8000, "not a WAV file: it breaks off"),
        (riff(chunk(b"data", bytes(400))), "wav", 8000, "not a WAV file: it has no fmt chunk"),
        (riff(*[chunk(b"junk", b"")] * 5000), "wav", 8000, "not a WAV file: 100 chunks and no data"),
        (riff(FORM, chunk(b"data", b"")), "wav", 8000, "a WAV file without samples"),
        (riff(FORM, chunk(b"data", b"\0", 1)), "wav", 8000, "a WAV file without samples"),
    ],
)
def test_what_cannot_be_played_is_refused_in_words(content: bytes, kind: str, rate: int, why: str) -> None:
    with pytest.raises(UnusableAudio) as caught:
        Decoder().pieces(Speech(content, kind, rate))
    assert why in str(caught.value)
    assert len(str(caught.value)) < 200


_heads = st.sampled_from([b"", b"RIFF\0\0\0\0WAVE", riff(FORM), wav(bytes(20)), extensible(bytes(20))])


@given(
    st.builds(bytes.__add__, _heads, st.binary(max_size=300)),
    st.sampled_from([*KINDS, "mp3", "\0"]),
    st.sampled_from([*RATES, 0, -1, 44100, 10**9]),
)
def test_every_byte_string_is_audio_or_unusable(content: bytes, kind: str, rate: int) -> None:
    try:
        linear = decoded(content, kind, rate)
    except UnusableAudio as error:
        assert str(error)
    else:
        assert len(linear) % 2 == 0


@given(st.integers(0, 2**32), st.binary(min_size=1, max_size=4))
def test_a_wav_file_with_a_few_bytes_changed_is_audio_or_unusable(seed: int, noise: bytes) -> None:
    content = bytearray(riff(FORM, chunk(b"LIST", b"INFOISFT" + bytes(26)), chunk(b"data", bytes(64))))
    chance = random.Random(seed)
    for byte in noise:
        content[chance.randrange(len(content))] = byte
    try:
        assert len(decoded(bytes(content), "wav", 0)) % 2 == 0
    except UnusableAudio as error:
        assert str(error)


# -- rates ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [16000, 24000])
@pytest.mark.parametrize("frequency", [4600, 5000, 6000, 7500])
def test_what_a_telephone_cannot_carry_does_not_fold_into_its_band(frequency: int, rate: int) -> None:
    sound = tone(frequency, 0.5, rate, 20000)
    assert decibels(decoded(sound, "raw", rate)[START:], sound) < -60


@pytest.mark.parametrize("rate", [16000, 24000])
@pytest.mark.parametrize("frequency", [300, 1000, 2000, 3400])
def test_the_telephone_band_comes_through_level_and_clean(frequency: int, rate: int) -> None:
    sound = tone(frequency, 0.5, rate, 16000)
    down = decoded(sound, "raw", rate)[START:]
    assert abs(decibels(down, sound)) < 0.2
    up = Upsampler(rate).resample(tone(frequency, 0.5, 8000, 16000))
    assert abs(decibels(up[START * 3 :], sound)) < 0.2
    numbers = np.frombuffer(up, "<i2")[rate // 10 :].astype(float)
    spectrum = np.abs(np.fft.rfft(numbers * np.blackman(len(numbers))))
    heard = np.fft.rfftfreq(len(numbers), 1 / rate)
    images = spectrum[np.abs(heard - frequency) > 60].max() / spectrum.max()
    assert 20 * np.log10(images) < -60


@pytest.mark.parametrize("rate", [16000, 24000])
def test_the_filter_delays_by_two_milliseconds(rate: int) -> None:
    click = np.zeros(rate // 2, "<i2")
    click[rate // 4] = 20000
    down = np.frombuffer(decoded(click.tobytes(), "raw", rate), "<i2")
    assert 0 < np.argmax(down) / 8000 - 0.25 <= 0.002
    click = np.zeros(4000, "<i2")
    click[2000] = 20000
    up = np.frombuffer(Upsampler(rate).resample(click.tobytes()), "<i2")
    assert 0 < np.argmax(up) / rate - 0.25 <= 0.002


@pytest.mark.parametrize("rate", RATES)
def test_each_frame_of_the_callers_gives_one_at_once(rate: int) -> None:
    sound, up = tone(1000, 0.2), Upsampler(rate)
    frames = [up.resample(sound[at : at + FRAME]) for at in range(0, len(sound), FRAME)]
    assert {len(frame) for frame in frames} == {FRAME * rate // 8000}
    assert b"".join(frames) == Upsampler(rate).resample(sound)
    assert up.resample(b"") == b""


def test_loud_is_not_turned_round() -> None:
    square = struct.pack("<h", 32767) * 200 + struct.pack("<h", -32768) * 200
    for rate in (16000, 24000):
        numbers = samples(decoded(square * 5, "raw", rate))
        assert max(numbers) == 32767 and min(numbers) == -32768
        assert max(abs(a - b) for a, b in pairwise(numbers)) < 60000


# -- bounds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "rate"), [("pcmu", 8000), ("raw", 8000), ("raw", 16000), ("raw", 24000)])
def test_a_message_of_minutes_is_worked_on_piece_by_piece(kind: str, rate: int) -> None:
    speech = Speech(bytes(range(256)) * (MAX_AUDIO_BYTES // 256), kind, rate)
    times, lengths = [], []
    pieces = Decoder().pieces(speech)
    while True:
        began = time.thread_time()  # the work itself, whatever else this machine does
        piece = next(pieces, None)
        times.append(time.thread_time() - began)
        if piece is None:
            break
        lengths.append(len(piece))
    assert max(lengths) <= 2 * PIECE
    assert len(lengths) == MAX_AUDIO_BYTES // PIECE
    assert sorted(times)[-3] < 0.02


@pytest.mark.timed
def test_a_wav_file_of_nothing_but_heads_is_soon_given_up() -> None:
    began = time.thread_time()
    for content in (
        riff(FORM, *[chunk(b"junk", b"")] * (MAX_AUDIO_BYTES // 8)),
        riff(FORM, *[chunk(b"junk", b"", 1)] * (MAX_AUDIO_BYTES // 8)),
        riff(FORM) + b"\0" * MAX_AUDIO_BYTES,
    ):
        with pytest.raises(UnusableAudio):
            Decoder().pieces(Speech(content, "wav"))
    assert time.thread_time() - began < 0.6


# -- what can be heard ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("linear", "heard"),
    [
        (b"", False),
        (b"\x7f", False),
        (bytes(FRAME), False),
        (g711.decode("PCMU", b"\xff\x7f" * 80), False),
        (g711.decode("PCMA", b"\xd5\x55" * 80), False),
        (struct.pack("<h", levels.AUDIBLE) * 160, False),
        (struct.pack("<h", -levels.AUDIBLE) * 160, False),
        (bytes(318) + struct.pack("<h", levels.AUDIBLE + 1), True),
        (bytes(318) + struct.pack("<h", -levels.AUDIBLE - 1), True),
        (struct.pack("<h", -32768), True),
        (tone(1000, 0.02, amplitude=200), True),
    ],
)
def test_what_is_heard(linear: bytes, heard: bool) -> None:
    assert audible(linear) is heard


@pytest.mark.parametrize(
    "between",
    [Speech(b"\xff" * 80, "pcmu"), Speech(b"", "raw"), Speech(b"nonsense", "wav"), Speech(b"", "mp3")],
)
def test_half_a_sample_goes_on_in_the_next_raw_message_or_nowhere(between: Speech) -> None:
    decoder = Decoder()
    decoder.decode(Speech(b"\x01"))
    with suppress(UnusableAudio):
        decoder.decode(between)
    assert decoder.decode(Speech(b"\x02\x03")) == b"\x02\x03"
