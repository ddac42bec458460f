"""Whether the caller speaks, and when: voices, and what is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable

import numpy as np
import pytest

from eslbot.audio import FRAME_SECONDS
from eslbot.audio.levels import frame_rms, rms
from eslbot.relay.turn_taking.vad import HANGOVER, MAX_SPEECH, Began, Edge, SpeechDetector, Stopped, Unclear
from tests.support.voices import Samples, frames, music, noise, silence, speech, tones


def heard(
    *pieces: Samples, bot: Callable[[int], float] = lambda number: 0.0, missing: Container[int] = ()
) -> list[Edge]:
    """What is known of it; the packet of frame n came at n * 20 ms, and the bot was so loud then."""
    now = 0

    def level() -> float:
        return bot(now)

    caller = SpeechDetector(level)
    found = []
    for now, frame in enumerate(frames(*pieces)):
        edge = caller.process(frame, now * FRAME_SECONDS, missing=now in missing)
        if edge is not None:
            found.append(edge)
    return found


def spans(edges: Iterable[Edge]) -> list[tuple[float, float]]:
    """From when to when the caller spoke."""
    begins = [edge.at for edge in edges if isinstance(edge, Began)]
    ends = [edge.at for edge in edges if isinstance(edge, Stopped)]
    assert len(begins) == len(ends)
    return list(zip(begins, ends, strict=True))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("level", [500.0, 3000.0, 8000.0])
@pytest.mark.parametrize("pitch", [100.0, 210.0])
def test_a_voice_is_found_to_the_packet(seed: int, level: float, pitch: float) -> None:
    said = speech(1.5, seed, level, pitch), silence(1), speech(0.5, seed + 50, level, pitch)
    edges = heard(silence(1), *said, silence(1))
    ((first, first_end), (second, second_end)) = spans(edges)
    assert first == pytest.approx(1.0, abs=0.021)
    assert first_end == pytest.approx(2.48, abs=0.021)  # the packet that came at 2.48 was its last
    assert second == pytest.approx(3.5, abs=0.021)
    assert second_end == pytest.approx(3.98, abs=0.021)
    assert all(edge.sure for edge in edges if isinstance(edge, Began))


@pytest.mark.parametrize("snr", [20, 15])
@pytest.mark.parametrize("colour", [0.0, 1.0])
def test_a_voice_is_found_in_noise(snr: int, colour: float) -> None:
    whole = np.concatenate([silence(3), speech(2), silence(2), speech(1, 3), silence(2)])
    edges = heard(whole + noise(10, 3000 * 10 ** (-snr / 20), colour=colour))
    ((first, first_end), (second, second_end)) = spans(edges)
    assert first == pytest.approx(3.0, abs=0.06)
    assert first_end == pytest.approx(4.98, abs=0.06)
    assert second == pytest.approx(7.0, abs=0.08)
    assert second_end == pytest.approx(7.98, abs=0.06)


def test_what_is_said_in_one_breath_is_one() -> None:
    edges = heard(silence(1), speech(0.5), silence(HANGOVER - 0.04), speech(0.5, 1), silence(1))
    assert len(spans(edges)) == 1


@pytest.mark.parametrize("colour", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("decibels", [-60, -50, -40, -30, -20])
def test_noise_is_no_voice(colour: float, decibels: int) -> None:
    level = 32768 * 10 ** (decibels / 20)
    assert heard(noise(20, level, colour=colour)) == []
    assert heard(silence(2), noise(20, level, 1, colour), silence(1)) == []
    assert heard(silence(1), noise(0.3, level, 2, colour), silence(1)) == []


@pytest.mark.parametrize("seconds", [0.08, 0.12, 0.25, 0.5, 2.0])
@pytest.mark.parametrize("hertz", [(697, 1209), (770, 1336), (941, 1477), (425,), (1000,)])
def test_keys_and_beeps_are_no_voice(seconds: float, hertz: tuple[float, ...]) -> None:
    tone = tones(seconds, *hertz)
    assert heard(silence(0.505), tone, silence(0.3), tone, silence(0.31), tone, silence(1)) == []


def test_a_click_is_no_voice() -> None:
    assert heard(silence(1), speech(0.06, level=8000), silence(1), speech(0.1, 1, 8000), silence(1)) == []


def test_music_that_nobody_has_told_is_none_for_longer_than_a_breath() -> None:
    edges = heard(silence(1), music(3 * MAX_SPEECH), silence(1))
    assert not any(isinstance(edge, Stopped) for edge in edges)


def test_a_voice_without_a_pause_is_unclear_until_there_is_one() -> None:
    edges = heard(silence(1), speech(MAX_SPEECH + 5), silence(1), speech(1, 1), silence(1))
    assert [type(edge) for edge in edges] == [Began, Unclear, Began, Stopped]


def test_the_bots_echo_is_no_voice() -> None:
    bot = speech(5, 7, 6000)
    levels = [rms(frame) for frame in frames(bot)]

    def loudest(number: int) -> float:
        lately = levels[max(0, number - 20) : number]
        return max(lately, default=0.0)

    for delay, gain in ((0.04, 0.45), (0.12, 0.2), (0.3, 0.1)):
        assert heard(silence(delay), bot * gain, silence(1), bot=loudest) == []


def test_who_breaks_in_is_heard_through_the_echo() -> None:
    """Where the caller is the softer one it is known when the bot is silent; since when, is not sure."""
    loud, soft = 3000.0, 800.0
    both = [silence(1), speech(1.5, 1, soft), silence(1)]
    edges = heard(*both, bot=lambda number: loud if number < 90 else 0.0)
    assert [type(edge) for edge in edges] == [Began, Stopped]
    assert not edges[0].sure  # type: ignore[union-attr]
    edges = heard(silence(1), speech(1.5, 1, loud), silence(1), bot=lambda number: loud)
    assert edges[0] == Began(pytest.approx(1.0, abs=0.021), sure=True)  # type: ignore[arg-type]


def test_a_word_whose_packets_break_off_has_no_end() -> None:
    said = [silence(1), speech(1), silence(2)]
    assert isinstance(heard(*said, missing=range(98, 130))[-1], Unclear)
    # A PBX that sends nothing in pauses (DTX) does so behind a hangover of its own.
    assert isinstance(heard(*said, missing=range(104, 150))[-1], Stopped)


def test_a_lost_packet_in_a_word_changes_nothing() -> None:
    said = [silence(1), speech(1), silence(1)]
    assert spans(heard(*said, missing={70, 71, 80})) == spans(heard(*said))


def test_another_stream_begins_anew() -> None:
    caller = SpeechDetector(lambda: 0.0)
    for number, frame in enumerate(frames(silence(1), speech(0.5))):
        caller.process(frame, number * FRAME_SECONDS)
    caller.reset()
    assert [caller.process(frame, 2.0) for frame in frames(silence(1))] == [None] * 50


def test_it_costs_next_to_nothing() -> None:
    """A thousandth of a core a call, 20 µs a frame, is the bar; by its own processor time."""
    said = list(frames(silence(1), speech(3), noise(1, 1000)))
    caller = SpeechDetector(lambda: 0.0)
    best = float("inf")
    for _ in range(5):
        began = time.thread_time()
        for number, frame in enumerate(said):
            caller.process(frame, number * FRAME_SECONDS)
        best = min(best, (time.thread_time() - began) / len(said))
    assert best < 20e-6


def test_levels() -> None:
    loud, soft = tones(0.02, 1000, level=1000), tones(0.02, 1000, level=100)
    (frame,) = frames(loud)
    assert rms(frame) == pytest.approx(1000, rel=0.01)
    levels = frame_rms(b"".join(frames(soft, loud, soft))[:-100], 320)
    assert list(levels) == pytest.approx([100, 1000, 83], rel=0.03)
    assert rms(b"") == 0.0 and len(frame_rms(b"", 320)) == 0
