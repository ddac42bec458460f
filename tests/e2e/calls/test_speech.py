"""Speech through the whole path: what the caller hears of the bot, and the bot of the caller."""

from __future__ import annotations

import time

import pytest

from eslbot.sim.audio import SILENCE, heard, samples, tone
from eslbot.sim.bot import GOODBYE, GREETING, BotCall
from eslbot.sim.pbx import Answer, PbxCall
from eslbot.sim.pbx.media import CALLER_TONE, Recording, _linear
from tests.e2e.calls.test_call import accepted, call, ended_by_pbx, handed_off
from tests.support.lab import Lab

#: All of them assert milliseconds of speech.
pytestmark = pytest.mark.timed

#: Hertz of eslbot's hold tone.
HOLD_TONE = 425


def talking(lab: Lab, tenant: str, crt: str) -> tuple[PbxCall, BotCall]:
    """A call whose bot has greeted."""
    pbx_call = call(lab, tenant, crt)
    bot = lab.bot.wait_for_call(lambda c: c.headers.get("X-CRT-Object-ID") == crt)
    pbx_call.wait_heard(GREETING, 0.4)
    bot.mark("greeted")
    bot.wait(lambda c: bool(c.messages_of("mark")))
    return pbx_call, bot


def end(lab: Lab, crt: str, pbx_call: PbxCall, bot: BotCall) -> None:
    bot.end()
    assert pbx_call.wait().completed
    ended_by_pbx(lab, crt, "bot_ended")


def arrivals_of(recording: Recording, frequency: float) -> list[float]:
    """When the packets with this tone came."""
    return [arrival.at for arrival in recording.arrivals if heard(_linear(arrival.packet), frequency)]


def mark_of(bot: BotCall, name: str) -> dict[str, object]:
    def named(call: BotCall) -> list[dict[str, object]]:
        return [mark.message for mark in call.messages_of("mark") if mark.message["name"] == name]

    bot.wait(lambda call: bool(named(call)))
    (mark,) = named(bot)
    return mark


def test_keys_reach_the_bot(lab: Lab, crt: str) -> None:
    pbx_call, bot = talking(lab, "hold", crt)
    pbx_call.send_dtmf("1*#D")
    bot.wait(lambda c: len(c.messages_of("dtmf")) == 4)
    keys = [received.message for received in bot.messages_of("dtmf")]
    assert [key["digit"] for key in keys] == ["1", "*", "#", "D"]
    assert all(100 <= key["duration_ms"] <= 140 for key in keys), keys
    end(lab, crt, pbx_call, bot)


def test_a_key_does_not_stop_the_bot(lab: Lab, crt: str) -> None:
    pbx_call, bot = talking(lab, "hold", crt)
    bot.say(tone(GOODBYE, 0.8), real_time=False)
    pbx_call.wait_heard(GOODBYE, 0.1)
    pbx_call.send_dtmf("*")
    bot.wait_for_message("dtmf")
    end(lab, crt, pbx_call, bot)
    assert pbx_call.recording.heard(GOODBYE) >= 0.76


def test_a_mark_comes_back_when_its_speech_was_heard(lab: Lab, crt: str) -> None:
    pbx_call, bot = talking(lab, "hold", crt)
    for number, frequency in enumerate((700, 880, 1000)):
        bot.say(tone(frequency, 0.3), real_time=False)
        bot.mark(str(number))
    mark_of(bot, "2")
    marks = [mark for mark in bot.messages_of("mark") if mark.message["name"] != "greeted"]
    assert [mark.message for mark in marks] == [{"type": "mark", "name": name} for name in "012"]
    for mark, frequency in zip(marks, (700, 880, 1000), strict=True):
        last = arrivals_of(pbx_call.recording, frequency)[-1]
        assert -0.02 <= mark.at - last < 0.3, (frequency, mark.at - last)
    end(lab, crt, pbx_call, bot)


def test_clear_stops_the_sound_and_what_comes_behind_is_heard(lab: Lab, crt: str) -> None:
    pbx_call, bot = talking(lab, "hold", crt)
    bot.say(tone(700, 3.0), real_time=False)
    bot.mark("dropped")
    pbx_call.wait_heard(700, 0.3)
    asked = time.time()
    bot.clear()
    bot.say(tone(GOODBYE, 0.4), real_time=False)
    bot.mark("behind")
    cleared = bot.wait_for_message("cleared")
    assert cleared.at - asked < 0.3
    assert mark_of(bot, "dropped") == {"type": "mark", "name": "dropped", "cleared": True}
    assert mark_of(bot, "behind") == {"type": "mark", "name": "behind"}
    order = [received.type for received in bot.messages if received.type in ("mark", "cleared")]
    assert order == ["mark", "mark", "cleared", "mark"]
    end(lab, crt, pbx_call, bot)
    last = arrivals_of(pbx_call.recording, 700)[-1]
    assert last - asked < 0.2, f"{(last - asked) * 1000:.0f} ms from the bot's clear to silence"
    assert pbx_call.recording.heard(GOODBYE) >= 0.36


@pytest.mark.parametrize("tenant", ["speaks-24k", "speaks-wav", "speaks-pcma"])
def test_every_format_is_heard_as_the_tone_it_was(lab: Lab, crt: str, tenant: str) -> None:
    result = handed_off(lab, tenant, crt, codec="PCMU")
    assert 0.56 <= round(result.recording.heard(GREETING), 6) <= 0.62  # a sum of hundredths
    assert 0.36 <= round(result.recording.heard(GOODBYE), 6) <= 0.42


@pytest.mark.parametrize("rate", [16000, 24000])
def test_a_bot_may_hear_and_speak_at_a_higher_rate(lab: Lab, crt: str, rate: int) -> None:
    result = handed_off(lab, f"at-{rate // 1000}k", crt)
    bot = lab.bot.wait_for_call(lambda c: c.headers.get("X-CRT-Object-ID") == crt)
    assert bot.headers["X-Audio-Rate"] == str(rate)
    assert bot.wait_for_message("start").message["audio"]["sample_rate"] == rate
    assert heard(bot.audio(), CALLER_TONE, rate) >= 0.2
    assert 0.56 <= result.recording.heard(GREETING) <= 0.62
    assert 0.36 <= result.recording.heard(GOODBYE) <= 0.42


@pytest.mark.parametrize("protocol", ["twilio", "exotel", "plivo"])
def test_a_bot_may_speak_the_protocol_of_a_provider(lab: Lab, crt: str, protocol: str) -> None:
    result = handed_off(lab, protocol, crt)
    # Five seconds that begin with the greeting's tone are cut short by `clear`.
    assert 0.6 <= result.recording.heard(GREETING) <= 2.5
    assert 0.36 <= result.recording.heard(GOODBYE) <= 0.42
    (bot,) = [c for c in lab.bot.calls if c.headers.get("X-CRT-Object-ID") == crt]
    assert bot.error is None
    assert heard(bot.audio(), CALLER_TONE) >= 0.3
    ended_by_pbx(lab, crt, "bot_closed")


def test_a_bot_slower_than_real_time_loses_and_repeats_nothing(lab: Lab, crt: str) -> None:
    pbx_call, bot = talking(lab, "hold", crt)
    speech = tone(1000, 0.64)
    chunk = 16 * 80
    for number, at in enumerate(range(0, len(speech), chunk)):
        bot.say(speech[at : at + chunk])
        time.sleep((0.06, 0.16, 0.28, 0.4)[number % 4])  # the scenario itself: a bot that is late
    bot.mark("over")
    mark_of(bot, "over")
    end(lab, crt, pbx_call, bot)
    loud = [abs(sample) > 2 * SILENCE for sample in samples(pbx_call.recording.linear())]
    greeting = sum(abs(sample) > 2 * SILENCE for sample in samples(tone(GREETING, 0.6)))
    expected = greeting + sum(abs(sample) > 2 * SILENCE for sample in samples(speech))
    assert sum(loud) == pytest.approx(expected, rel=0.01)


def test_the_bot_hears_the_caller_while_it_speaks(lab: Lab, crt: str) -> None:
    pbx_call, bot = talking(lab, "hold", crt)
    time.sleep(0.3)  # the utterance before has ended for FreeSWITCH, too
    began = time.time()
    bot.say(tone(GOODBYE, 1.0), real_time=False)
    bot.mark("said")
    mark_of(bot, "said")
    bot.wait(lambda c: bool(c.last_audio and c.last_audio > began + 1.6))
    end(lab, crt, pbx_call, bot)
    times = [at for at, _ in bot.arrivals if began - 0.1 <= at <= began + 1.6]
    lost = (times[-1] - times[0]) / 0.02 - (len(times) - 1)
    print(f"{lab.switch_name}: {lost:.1f} frames lost in an utterance")
    # Half a frame for the clock; and whichever frames come in one go, at the window's ends.
    assert lost <= 1.5


def silences(lab: Lab, recording: Recording) -> list[tuple[float, float]]:
    """Where FreeSWITCH sent nothing: (seconds from the first packet, length).

    The stand-in, which is no real-time program, may be late on a busy machine, but has to make up for it:
    there it is time for which no packet came at all.
    """
    arrivals = [arrival.at for arrival in recording.arrivals]
    if lab.real_switch is not None:
        return [(round(at - arrivals[0], 3), round(length, 3)) for at, length in recording.pauses(0.06)]
    missing = arrivals[-1] - arrivals[0] - 0.02 * (len(arrivals) - 1)
    return [(0.0, round(missing, 3))] if missing > 0.06 else []


def test_the_line_is_never_silent(lab: Lab, crt: str) -> None:
    lab.ameyo.script(crt, [Answer(429, {"Retry-After": "2"})])
    result = handed_off(lab, "talk", crt)
    arrivals = [arrival.at for arrival in result.recording.arrivals]
    assert silences(lab, result.recording) == []
    assert result.answered_at is not None and result.bye_at is not None
    assert result.bye_at - result.answered_at > 3
    assert arrivals[0] - result.answered_at < 0.2
    assert result.bye_at - arrivals[-1] < 0.1


def test_the_hold_tone_is_heard_until_ameyo_accepts(lab: Lab, crt: str) -> None:
    pbx_call, bot = talking(lab, "waits-with-tone", crt)
    lab.ameyo.down()
    try:
        bot.end()
        pbx_call.wait_heard(HOLD_TONE, 0.1)
        assert accepted(lab, crt) == []
        time.sleep(3.2)  # the beep comes every three seconds
    finally:
        lab.ameyo.up()
    result = pbx_call.wait(60)
    assert result.completed, result
    assert result.recording.heard(HOLD_TONE) >= 0.24
    assert silences(lab, result.recording) == []
    ended_by_pbx(lab, crt, "bot_ended")


def test_a_bot_that_breaks_off_has_one_more_chance(lab: Lab, crt: str) -> None:
    result = handed_off(lab, "once-more", crt)
    first, second = [c for c in lab.bot.calls if c.headers.get("X-CRT-Object-ID") == crt]
    assert "resumed" not in first.wait_for_message("start").message
    started = second.wait_for_message("start").message
    assert started["resumed"] is True
    assert started["call_id"] == first.call_id == second.call_id
    assert second.headers["Authorization"] == "Bearer bot-once-more"
    assert result.recording.heard(GREETING) >= 0.9, "0.6 s of each connection; the first one's end may be cut"
    (post,) = accepted(lab, crt)
    assert post.properties["outcome"] == "bot_ended"
    ended_by_pbx(lab, crt, "bot_ended")
