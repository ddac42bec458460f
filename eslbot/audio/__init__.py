"""Telephone audio: what all who hold samples have in common. It knows no calls, no sockets and no files.

Between FreeSWITCH, relay and recording audio is L16: 16-bit little-endian samples, one channel, at
:data:`SAMPLE_RATE`.

* :mod:`~eslbot.audio.g711`: PCMU and PCMA.
* :mod:`~eslbot.audio.decoder`: what bots and operators give (raw, WAV, G.711, three rates) to L16.
* :mod:`~eslbot.audio.wav`: the samples of a WAV file.
* :mod:`~eslbot.audio.resample`: from one rate to another, 20 ms at a time.
* :mod:`~eslbot.audio.levels`: how loud a frame is, and whether it can be heard.
"""

from __future__ import annotations

#: Hz of all audio between FreeSWITCH and the relay, and of what is recorded.
SAMPLE_RATE = 8000
#: A frame is what an ordinary RTP packet holds: seconds, samples, bytes.
FRAME_SECONDS = 0.02
FRAME_SAMPLES = 160
FRAME_BYTES = 320


class UnusableAudio(Exception):
    """Audio that cannot be played; the text names what was given and what would be right."""
