"""A controller is killed in mid-call: what the caller, the bot and Ameyo notice of it, stage by stage."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from eslbot.audio import g711
from eslbot.sim.audio import SILENCE, samples, tone
from eslbot.sim.bot import GREETING, BotCall
from eslbot.sim.pbx import Answer, PbxCall
from eslbot.sim.service import wait_gone
from tests.e2e.calls.test_call import accepted, call, ended_by_pbx, logged
from tests.e2e.calls.test_speech import arrivals_of, end, mark_of, talking
from tests.support.lab import Lab
from tests.support.sockets import established


def worker_of_the_call(lab: Lab) -> int:
    """The process that has the one call there is, another one being up."""
    service = lab.services[0]
    port = service.listen[1]
    (pid,) = [pid for pid in service.wait_serving() for _ in range(established(pid, port))]
    return pid


def kill_controller(lab: Lab) -> None:
    """SIGKILL for it."""
    os.kill(worker_of_the_call(lab), signal.SIGKILL)


def taken_over(lab: Lab, crt: str, times: int) -> None:
    """The call has come to so many controllers behind its first one."""
    deadline = time.monotonic() + 10
    while True:
        lines = [
            line
            for line in lab.log_lines()
            if line["event"] == "call_taken_over" and line.get("crt_object_id") == crt
        ]
        if len(lines) >= times:
            return
        assert time.monotonic() < deadline, f"{len(lines)} of {times} take-overs"
        time.sleep(0.02)  # other processes' log files: there is no event to wait for


def bots_of(lab: Lab, crt: str) -> list[BotCall]:
    return [bot for bot in lab.bot.calls if bot.headers.get("X-CRT-Object-ID") == crt]


def undisturbed(lab: Lab, crt: str, bot: BotCall) -> None:
    """The bot has one connection, and was told of nothing."""
    assert bots_of(lab, crt) == [bot]
    assert bot.messages_of("resumed") == []


def another(lab: Lab, crt: str, *bots: BotCall, within: float = 1.0) -> BotCall:
    """The bot is dialled again, in time, and told so."""
    second = lab.bot.wait_for_call(
        lambda c: c.headers.get("X-CRT-Object-ID") == crt and c not in bots, timeout=within + 5
    )
    assert second.wait_for_message("start").message["resumed"] is True
    return second


def loud(linear: bytes) -> int:
    return sum(abs(sample) > 2 * SILENCE for sample in samples(linear))


def not_heard(pbx_call: PbxCall, *speech: bytes) -> float:
    """Milliseconds of what was said that the caller did not hear; negative for what he heard twice."""
    # As it comes through the call: what is loud depends on the last bit.
    words = [g711.decode("PCMU", g711.encode("PCMU", word)) for word in (tone(GREETING, 0.6), *speech)]
    said = sum(map(loud, words))
    return (said - loud(pbx_call.recording.linear())) / 8


def test_the_bot_talks_on(lab: Lab, crt: str) -> None:
    pbx_call, bot = talking(lab, "hold", crt)
    for number in range(1, 4):
        kill_controller(lab)
        taken_over(lab, crt, number)
        bot.mark(f"mark {number}")
        mark_of(bot, f"mark {number}")
    heard_before = bot.audio_frames
    bot.wait(lambda c: c.audio_frames > heard_before + 10)
    end(lab, crt, pbx_call, bot)
    assert len(accepted(lab, crt)) == 1
    assert logged(lab, crt, "call_ended")["take_overs"] == 3
    undisturbed(lab, crt, bot)


def test_speech_goes_on_and_nothing_is_lost_or_said_twice(lab: Lab, crt: str) -> None:
    pbx_call, bot = talking(lab, "hold", crt)
    speech = tone(1000, 4.0)
    before = pbx_call.recording.heard(1000)
    speaking = threading.Thread(target=bot.say, args=(speech, 100))
    speaking.start()
    for number in range(1, 4):
        pbx_call.wait_heard(1000, before + 0.8 * number)
        kill_controller(lab)
        taken_over(lab, crt, number)
    speaking.join()
    bot.mark("said")
    mark_of(bot, "said")
    end(lab, crt, pbx_call, bot)
    lost = not_heard(pbx_call, speech)
    print(f"{lab.switch_name}: {lost:.1f} ms of 4 s of speech lost in three take-overs")
    assert abs(lost) < 2
    undisturbed(lab, crt, bot)


def test_the_last_word_is_heard_though_the_controller_dies_in_it(lab: Lab, crt: str) -> None:
    pbx_call, bot = talking(lab, "hold", crt)
    speech = tone(1000, 1.5)
    bot.say(speech, real_time=False)
    bot.end()
    pbx_call.wait_heard(1000, 0.3)
    kill_controller(lab)
    result = pbx_call.wait()
    assert result.completed
    ended_by_pbx(lab, crt, "bot_ended")
    assert len(accepted(lab, crt)) == 1
    assert abs(not_heard(pbx_call, speech)) < 2


def test_an_end_that_fell_into_the_gap_is_recovered(lab: Lab, crt: str) -> None:
    pbx_call, bot = talking(lab, "hold", crt)
    kill_controller(lab)
    bot.end()
    assert pbx_call.wait().completed
    ended_by_pbx(lab, crt, "bot_ended")
    assert len(accepted(lab, crt)) == 1


def test_a_bot_that_closed_in_the_gap_is_not_asked_again(lab: Lab, crt: str) -> None:
    pbx_call, bot = talking(lab, "hold", crt)
    kill_controller(lab)
    bot.close(1000, "done")
    assert pbx_call.wait().completed
    ended_by_pbx(lab, crt, "bot_closed")
    assert [c for c in lab.bot.calls if c.headers.get("X-CRT-Object-ID") == crt] == [bot]


def test_a_reload_is_heard_by_nobody(lab: Lab, crt: str) -> None:
    """New workers, new relays; the relay that has the call keeps it."""
    pbx_call, bot = talking(lab, "hold", crt)
    speech = tone(1000, 3.0)
    bot.say(speech, 20, real_time=False)
    pbx_call.wait_heard(1000, 0.3)
    workers, relays = set(lab.services[0].worker_pids()), set(lab.relay_pids())
    lab.services[0].hup()
    taken_over(lab, crt, 1)
    bot.mark("said")
    mark_of(bot, "said")
    assert not workers & set(lab.services[0].wait_serving())
    assert set(lab.relay_pids()) > relays, "the new one is there, the one before stays"
    end(lab, crt, pbx_call, bot)
    assert abs(not_heard(pbx_call, speech)) < 2
    undisturbed(lab, crt, bot)
    assert wait_gone(list(relays), 10), "its calls are over"


@pytest.mark.timed
def test_a_relay_dies_and_what_was_written_is_heard(lab: Lab, crt: str) -> None:
    pbx_call, bot = talking(lab, "hold", crt)
    speech = tone(1000, 3.0)
    bot.say(speech, 20, real_time=False)
    pbx_call.wait_heard(1000, 0.5)
    began = time.monotonic()
    lab.kill_relay()
    second = another(lab, crt, bot)
    took = time.monotonic() - began
    second.mark("said")
    mark_of(second, "said")
    end(lab, crt, pbx_call, second)
    print(f"{lab.switch_name}: the bot is back after {took * 1000:.0f} ms")
    lost = not_heard(pbx_call, speech, tone(GREETING, 0.6))
    print(f"{lab.switch_name}: {lost:.1f} ms of what was written were not heard")
    assert took < 1.0
    assert abs(lost) < 2
    assert logged(lab, crt, "call_ended")["take_overs"] == 0
    last, first = arrivals_of(pbx_call.recording, 1000)[-1], arrivals_of(pbx_call.recording, GREETING)[-1]
    assert first > last, "the bot that was dialled again speaks behind what the one before has said"


def test_relays_die_twice_and_what_was_written_is_heard(lab: Lab, crt: str) -> None:
    pbx_call, bot = talking(lab, "hold", crt)
    speech = tone(1000, 4.0)
    bot.say(speech, 20, real_time=False)
    pbx_call.wait_heard(1000, 0.5)
    lab.kill_relay()
    second = another(lab, crt, bot)
    pbx_call.wait_heard(1000, 2.0)  # its greeting is on the line behind that
    lab.kill_relay()
    third = another(lab, crt, bot, second)
    third.mark("said")
    mark_of(third, "said")
    end(lab, crt, pbx_call, third)
    greeting = tone(GREETING, 0.6)
    lost = not_heard(pbx_call, speech, greeting, greeting)
    print(f"{lab.switch_name}: {lost:.1f} ms of what was written were not heard")
    assert abs(lost) < 2


def test_a_relay_and_the_controller_die_and_what_was_written_is_heard(lab: Lab, crt: str) -> None:
    pbx_call, bot = talking(lab, "hold", crt)
    speech = tone(1000, 3.0)
    bot.say(speech, 20, real_time=False)
    pbx_call.wait_heard(1000, 0.5)
    kill_controller(lab)
    lab.kill_relay()
    second = another(lab, crt, bot)
    second.mark("said")
    mark_of(second, "said")
    end(lab, crt, pbx_call, second)
    lost = not_heard(pbx_call, speech, tone(GREETING, 0.6))
    print(f"{lab.switch_name}: {lost:.1f} ms of what was written were not heard")
    assert abs(lost) < 2
    assert logged(lab, crt, "call_ended")["take_overs"] == 1


def test_the_power_goes_and_the_customer_keeps_his_bot(lab: Lab, crt: str) -> None:
    """Controllers and relay at once."""
    pbx_call, bot = talking(lab, "hold", crt)
    lab.services[0].kill()
    bot.wait_closed()
    lab.services[0].start()
    second = another(lab, crt, bot)
    pbx_call.wait_heard(GREETING, 1.0)
    end(lab, crt, pbx_call, second)
    assert len(accepted(lab, crt)) == 1


@pytest.mark.timed  # the service is back within six seconds
def test_the_power_goes_in_mid_speech_and_what_was_written_is_heard(lab: Lab, crt: str) -> None:
    pbx_call, bot = talking(lab, "hold", crt)
    speech = tone(1000, 6.0)
    bot.say(speech, 20, real_time=False)
    pbx_call.wait_heard(1000, 0.5)
    began = time.monotonic()
    lab.services[0].kill()
    bot.wait_closed()
    lab.services[0].start()
    second = another(lab, crt, bot)
    took = time.monotonic() - began
    second.mark("said")
    mark_of(second, "said")
    end(lab, crt, pbx_call, second)
    lost = not_heard(pbx_call, speech, tone(GREETING, 0.6))
    last, first = arrivals_of(pbx_call.recording, 1000)[-1], arrivals_of(pbx_call.recording, GREETING)[-30]
    print(f"{lab.switch_name}: nobody for {took:.1f} s, {lost:.1f} ms not heard, pause {first - last:.2f} s")
    assert abs(lost) < 2
    assert first > last


def test_retries_go_on_where_they_were(lab: Lab, crt: str) -> None:
    lab.ameyo.script(crt, [Answer(503, {"Retry-After": "2"})])
    pbx_call = call(lab, "talk", crt)
    logged(lab, crt, "hand_off_failed")
    kill_controller(lab)
    assert pbx_call.wait().completed
    line = logged(lab, crt, "hand_off_accepted")
    assert line["attempt"] == 2
    first, second = lab.ameyo.requests_for(crt)
    assert 1.9 < second.at - first.at < 4


def test_a_customer_on_hold_is_not_announced_again(
    lab: Lab, crt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab.pbx, "bye_delay", 2.0)
    pbx_call = call(lab, "talk", crt)
    logged(lab, crt, "hand_off_accepted")
    kill_controller(lab)
    logged(lab, crt, "call_taken_over")
    assert pbx_call.wait().completed
    assert len(lab.ameyo.requests_for(crt)) == 1
    assert logged(lab, crt, "call_ended")["stage"] == "held"
