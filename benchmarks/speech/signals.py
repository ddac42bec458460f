"""What is sent: signals of which every piece can be told from every other, through G.711.

Audio is L16 little-endian, one channel, 8,000 samples a second.

*The bot's speech* is two tones at once, 440 and 1081.3 Hz. One tone cannot tell that a whole number of its
periods is missing, and 100 ms of 440 Hz are just that. With the second one a piece of any length up to 835
samples (104 ms), and any whole number of 20 ms frames up to 2 s, moves the phase of at least one by more than
:data:`benchmarks.speech.measures.JUMP`; of the longer ones three in a thousand do not, and those are seen in
how long the speech was.

*The caller's signal* is numbered: each 20 ms frame is three tones out of three banks, all of them whole
periods to a frame, so that a frame that arrives says which it is.
"""

from __future__ import annotations

import base64
import json
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from eslbot import g711
from eslbot.sim.audio import RATE

#: Hertz and peak level of the bot's two tones. The sum is never silent for longer than a millisecond.
TONES = (440.0, 1081.3)
LEVELS = (6000.0, 4000.0)

#: Samples of a frame; the banks' tones in multiples of 50 Hz, one period to a frame.
FRAME = 160
BANKS = (range(7, 19), range(20, 32), range(33, 45))
#: Frames until the numbers start again: 34.56 s.
NUMBERS = len(BANKS[0]) * len(BANKS[1]) * len(BANKS[2])
#: Peak level of each of the caller's three tones.
CALLER_LEVEL = 1500.0

#: Share of a frame's power that its three tones must have to be believed.
CLEAR = 0.8


@lru_cache(maxsize=8)
def speech(seconds: float) -> bytes:
    """The bot's speech, L16; it begins at full level, so that its first sample can be found."""
    n = np.arange(round(seconds * RATE))
    wave = sum(level * np.cos(2 * np.pi * tone * n / RATE) for tone, level in zip(TONES, LEVELS, strict=True))
    return np.round(wave).astype("<i2").tobytes()


@lru_cache(maxsize=1)
def numbered_frames() -> bytes:
    """All of the caller's frames in order, L16; to be repeated."""
    n = np.arange(FRAME)
    tones = np.stack([np.sin(2 * np.pi * k * n / FRAME) for k in range(FRAME // 2)])
    numbers = np.arange(NUMBERS)
    first, second, third = len(BANKS[0]), len(BANKS[1]), len(BANKS[2])
    frames = CALLER_LEVEL * (
        tones[BANKS[0].start + numbers % first]
        + tones[BANKS[1].start + numbers // first % second]
        + tones[BANKS[2].start + numbers // (first * second) % third]
    )
    return np.round(frames).astype("<i2").tobytes()


def numbers_of(l16: bytes) -> NDArray[np.int64]:
    """The number of each whole frame of ``l16``; -1 for silence, -2 for what is no numbered frame."""
    frames = np.frombuffer(l16[: len(l16) // (2 * FRAME) * 2 * FRAME], "<i2").reshape(-1, FRAME).astype(float)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    picked = [bank.start + np.argmax(power[:, bank.start : bank.stop], axis=1) for bank in BANKS]
    rows = np.arange(len(frames))
    clear = sum(power[rows, bins] for bins in picked) >= CLEAR * np.maximum(power.sum(axis=1), 1.0)
    numbers, step = np.zeros(len(frames), np.int64), 1
    for bank, bins in zip(BANKS, picked, strict=True):
        numbers += step * (bins - bank.start)
        step *= len(bank)
    silent = np.abs(frames).max(axis=1, initial=0) <= 64
    return np.where(silent, -1, np.where(clear, numbers, -2))


def stream_audio(l16: bytes, kind: str = "raw") -> str:
    """A ``streamAudio`` message with this audio, as ``raw``, ``pcmu`` or ``pcma``."""
    data = l16 if kind == "raw" else g711.encode(kind.upper(), l16)
    encoded = base64.b64encode(data).decode()
    return json.dumps(
        {
            "type": "streamAudio",
            "data": {"audioDataType": kind, "sampleRate": RATE, "audioData": encoded},
        }
    )


def chunks(l16: bytes, chunk_ms: int, kind: str = "raw") -> list[str]:
    """``l16`` as ``streamAudio`` messages of ``chunk_ms`` each."""
    size = RATE * chunk_ms // 1000 * 2
    return [stream_audio(l16[start : start + size], kind) for start in range(0, len(l16), size)]
