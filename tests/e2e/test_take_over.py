"""A controller is killed in mid-call: what the caller, the bot and Ameyo notice of it, stage by stage."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from eslbot.sim import processes
from eslbot.sim.audio import SILENCE, samples, tone
from eslbot.sim.bot import GREETING
from eslbot.sim.lab import Lab
from eslbot.sim.pbx import Answer
from tests.e2e.test_call import accepted, call, ended_by_pbx, logged
from tests.e2e.test_speech import end, mark_of, talking


def kill_controller(lab: Lab) -> None:
    """SIGKILL for the worker that has the one call there is, another one being up."""
    service = lab.services[0]
    pids = service.wait_serving()
    (connection,) = [
        s
        for s in processes.tcp_sockets()
        if s.local == service.listen and s.state == processes.ESTABLISHED and s.inode
    ]
    pid = processes.owner(pids, connection.local, connection.remote)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def taken_over(lab: Lab, crt: str, times: int) -> None:
    """Until another controller has the call, for so many times."""
    deadline = time.monotonic() + 10
    while True:
        lines = [line for line in lab.log_lines() if line["event"] == "call_taken_over"]
        if sum(line.get("crt_object_id") == crt for line in lines) == times:
            return
        assert time.monotonic() < deadline, lines
        time.sleep(0.02)  # another process's log file: there is no event to wait for


def loud(linear: bytes) -> int:
    return sum(abs(sample) > 2 * SILENCE for sample in samples(linear))


def test_the_bot_talks_on_and_notices_nothing(lab: Lab, crt: str) -> None:
    pbx_call, bot = talking(lab, "hold", crt)
    for number in range(1, 4):
        kill_controller(lab)
        bot.mark(f"mark {number}")
        mark_of(bot, f"mark {number}")
        taken_over(lab, crt, number)
    heard_before = bot.audio_frames
    bot.wait(lambda c: c.audio_frames > heard_before + 10)
    end(lab, crt, pbx_call, bot)
    assert len(accepted(lab, crt)) == 1
    assert logged(lab, crt, "call_ended")["take_overs"] == 3
    assert [c for c in lab.bot.calls if c.headers.get("X-CRT-Object-ID") == crt] == [bot], "one stream"
    assert bot.messages_of("resumed") == []


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
    expected = loud(tone(GREETING, 0.6)) + loud(speech)
    lost = (expected - loud(pbx_call.recording.linear())) / 8
    print(f"{lab.switch_name}: {lost:.1f} ms of 4 s of speech lost in three take-overs")
    assert abs(lost) <= 10


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
    assert pbx_call.recording.heard(1000) == pytest.approx(1.5, abs=0.08)


def test_an_end_that_fell_into_the_gap_is_recovered(lab: Lab, crt: str) -> None:
    pbx_call, bot = talking(lab, "hold", crt)
    kill_controller(lab)
    bot.end()
    assert pbx_call.wait().completed
    ended_by_pbx(lab, crt, "bot_ended")
    assert len(accepted(lab, crt)) == 1


def test_a_call_whose_controllers_and_relays_all_died_goes_on(lab: Lab, crt: str) -> None:
    pbx_call, bot = talking(lab, "hold", crt)
    lab.services[0].kill()  # nobody is there at all
    bot.wait_closed()
    lab.services[0].start()
    second = lab.bot.wait_for_call(lambda c: c.headers.get("X-CRT-Object-ID") == crt and c is not bot)
    assert second.wait_for_message("start").message["resumed"] is True
    second.end()
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
