"""FreeSWITCH is killed in each stage of a call, again, and together with those that know of its calls."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator

import pytest

from eslbot.sim.audio import tone
from eslbot.sim.bot import GREETING, BotCall
from eslbot.sim.pbx import Answer, Stall
from tests.e2e.calls.conftest import Labs, one_kind
from tests.e2e.calls.test_call import accepted, call, ended_by_pbx, logged
from tests.e2e.calls.test_speech import HOLD_TONE, end, mark_of, talking
from tests.e2e.calls.test_switch_dies import (
    ALL_BACK,
    bot_of,
    connection_kept,
    crash,
    in_time,
    told_once,
    tracked,
)
from tests.e2e.calls.test_take_over import another, bots_of, not_heard, undisturbed, worker_of_the_call
from tests.support.lab import Lab
from tests.support.rows import wait_row

#: All of them assert milliseconds of speech.
pytestmark = pytest.mark.timed

#: Seconds that Ameyo takes to accept: longer than FreeSWITCH is away.
SLOW = 4.0
#: Seconds behind Ameyo's 2xx until the PBX's BYE: the test sends it.
BYE_LATE = 60.0


@pytest.fixture(params=one_kind())
def lab(request: pytest.FixtureRequest, labs: Labs) -> Lab:
    return labs.of(request.param)


@pytest.fixture
def late_bye(lab: Lab) -> Iterator[None]:
    lab.pbx.bye_delay = BYE_LATE
    yield
    lab.pbx.bye_delay = 0.0


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGABRT])
def test_each_call_goes_on_in_its_stage(lab: Lab, crt: str, signum: int, late_bye: None) -> None:
    """One death, six calls: spoken to, held, last words, notified of, refused by Ameyo, accepted."""
    names = ("speaks", "held", "last-words", "slow", "fails", "waits")
    of = {name: f"{crt}-{name}" for name in names}
    tenants = {"waits": "waits-with-tone"}
    pbx = {name: call(lab, tenants.get(name, "hold"), of[name], timeout=60) for name in names}
    bots = {name: bot_of(lab, of[name]) for name in names}
    lab.ameyo.script(of["slow"], [Stall(SLOW, Answer(200))])
    lab.ameyo.script(of["fails"], [Answer(503), Answer(503, {"Retry-After": "2"})])
    for name in names:
        tracked(lab, pbx[name], bots[name])
    pbx["held"].offer("sendonly")
    bots["held"].wait_for_message("hold")
    bots["waits"].end()
    logged(lab, of["waits"], "hand_off_accepted")
    bots["fails"].end()
    logged(lab, of["fails"], "hand_off_failed")
    words = tone(1000, 4.0)
    for name in ("speaks", "last-words"):
        bots[name].say(words, real_time=False)
        pbx[name].wait_heard(1000, 0.2)
    bots["last-words"].end()
    bots["slow"].end()
    posted(lab, of["slow"])

    gaps = crash(lab, *pbx.values(), signum=signum)

    before = pbx["waits"].recording.heard(HOLD_TONE)
    pbx["waits"].wait_heard(HOLD_TONE, before + 0.1)
    mark_of_now(bots["speaks"], "said")
    bots["speaks"].end()
    pbx["held"].offer("sendrecv")
    bots["held"].wait(lambda b: [m.message["on"] for m in b.messages_of("hold")] == [True, False])
    pbx["held"].send_dtmf("5")
    assert bots["held"].wait_for_message("dtmf").message["digit"] == "5"
    bots["held"].end()

    for name in names:
        lab.ameyo.wait_accepted(of[name])
        pbx[name].hang_up()
        assert pbx[name].wait().completed, name
        ended_by_pbx(lab, of[name], "bot_ended")
        assert len(accepted(lab, of[name])) == 1, name
        undisturbed(lab, of[name], bots[name])
    for name in ("speaks", "held", "last-words", "slow", "waits"):
        told_once(lab, of[name])
    for name in ("speaks", "last-words"):
        assert -2 < (lost := not_heard(pbx[name], words)) < 60, f"{name}: {lost:.0f} ms not heard"
    in_time(lab, gaps, ALL_BACK)


def posted(lab: Lab, crt: str) -> None:
    """Wait until a notification is with Ameyo."""
    deadline = time.monotonic() + 10
    while not lab.ameyo.requests_for(crt):
        assert time.monotonic() < deadline, "no notification"
        time.sleep(0.01)  # it tells of those only that it has answered


def came_back(lab: Lab, crt: str) -> dict[str, object]:
    """What the controller says that has the call behind FreeSWITCH's death; its relay says that, too."""
    logged(lab, crt, "call_taken_over")
    deadline = time.monotonic() + 10
    while True:
        lines = [
            line
            for line in lab.log_lines()
            if line["event"] == "switch_restarted" and line.get("crt_object_id") == crt and "known" in line
        ]
        if lines or time.monotonic() > deadline:
            assert len(lines) == 1, (crt, lines)
            return lines[0]
        time.sleep(0.02)  # it is told behind the other, by another process


def mark_of_now(bot: BotCall, name: str) -> None:
    bot.mark(name)
    mark_of(bot, name)


def test_two_deaths_right_behind_each_other(lab: Lab, crt: str) -> None:
    """As soon as the call would come back once more: it comes back, and goes to an agent without its bot."""
    pbx_call, bot = talking(lab, "hold", crt)
    lab.crash_switch()
    pbx_call.wait_taken_up()
    wait_row(lab, bot.headers["X-Call-ID"])
    lab.crash_switch()
    lab.wait_switch_ready()
    result = pbx_call.wait()
    assert result.completed
    assert pbx_call.offered == 2
    ended_by_pbx(lab, crt, "switch_lost")
    told_once(lab, crt)
    assert bots_of(lab, crt) == [bot]
    print(lab.switch_name, [int(n) for n in re.findall(r"^CSeq: (\d+) INVITE", result.sip_messages, re.M)])


def test_controller_and_freeswitch_die_at_once(lab: Lab, crt: str) -> None:
    """Nothing is left of the call but its row, and the relay."""
    pbx_call, bot = talking(lab, "hold", crt)
    words = tone(1000, 4.0)
    bot.say(words, real_time=False)
    pbx_call.wait_heard(1000, 0.2)
    die_at_once(lab)
    pbx_call.wait_taken_up()
    lab.wait_switch_ready()
    assert came_back(lab, crt)["known"] is False
    mark_of_now(bot, "said")
    connection_kept(lab, crt, bot)
    end(lab, crt, pbx_call, bot)
    told_once(lab, crt)
    assert -2 < not_heard(pbx_call, words) < 60


def test_a_controller_that_dies_while_freeswitch_is_away_has_left_the_call(lab: Lab, crt: str) -> None:
    pbx_call, bot = talking(lab, "hold", crt)
    worker = worker_of_the_call(lab)
    lab.crash_switch()
    logged(lab, crt, "controller_connection_lost")
    os.kill(worker, signal.SIGKILL)
    pbx_call.wait_taken_up()
    lab.wait_switch_ready()
    assert came_back(lab, crt)["known"] is True
    connection_kept(lab, crt, bot)
    end(lab, crt, pbx_call, bot)
    told_once(lab, crt)


def test_a_relay_that_dies_while_freeswitch_is_away(lab: Lab, crt: str) -> None:
    """The bot is dialled again, as ever; what was written is heard first."""
    pbx_call, bot = talking(lab, "hold", crt)
    words = tone(1000, 4.0)
    bot.say(words, real_time=False)
    pbx_call.wait_heard(1000, 0.2)
    lab.crash_switch()
    lab.kill_relay()
    pbx_call.wait_taken_up()
    lab.wait_switch_ready()
    second = another(lab, crt, bot, within=5)
    mark_of_now(second, "said")
    end(lab, crt, pbx_call, second)
    told_once(lab, crt)
    lost = not_heard(pbx_call, words, tone(GREETING, 0.6))
    print(f"{lab.switch_name}: {lost:.0f} ms of what was written were not heard")
    assert -2 < lost < 60


def test_they_die_at_once_and_a_customer_who_waits_for_the_agent_gets_the_bot_once_more(
    lab: Lab, crt: str, late_bye: None
) -> None:
    """The limit of it: the relay has forgotten a bot that is done, and nobody else is left."""
    pbx_call, bot = talking(lab, "hold", crt)
    bot.end()
    logged(lab, crt, "hand_off_accepted")
    die_at_once(lab)
    pbx_call.wait_taken_up()
    lab.wait_switch_ready()
    lab.bot.wait_for_call(lambda b: b.headers.get("X-CRT-Object-ID") == crt and b is not bot)
    pbx_call.hang_up()
    assert pbx_call.wait().completed
    ended_by_pbx(lab, crt, "caller_hangup")
    assert came_back(lab, crt)["known"] is False
    assert len(bots_of(lab, crt)) == 2
    told_once(lab, crt)


def die_at_once(lab: Lab) -> None:
    """FreeSWITCH and the controller of the one call, which does not see it."""
    worker = worker_of_the_call(lab)
    os.kill(worker, signal.SIGSTOP)
    try:
        lab.crash_switch()
    finally:
        os.kill(worker, signal.SIGKILL)


def test_what_a_bot_notices_of_a_call_that_is_lost(lab: Lab, crt: str) -> None:
    """Where the PBX refuses it FreeSWITCH drops it at once, where it says nothing behind 64 T1."""
    answers = ("488", "nothing")
    of = {answer: f"{crt}-{answer}" for answer in answers}
    pbx = {answer: call(lab, "hold", of[answer], offered=answer, timeout=90) for answer in answers}
    bots = {answer: bot_of(lab, of[answer]) for answer in answers}
    for answer in answers:
        tracked(lab, pbx[answer], bots[answer])
    lab.crash_switch()
    died = time.monotonic()
    lab.wait_switch_ready()
    channels(lab, 1)
    bots["nothing"].say(tone(1000, 0.5), real_time=False)
    pbx["nothing"].wait_heard(1000, 0.4)
    for answer in answers:
        bots[answer].wait_closed(45)  # the relay keeps it for 30 s: nobody tells it that the call is gone
        print(f"{lab.switch_name}: {answer}: closed {time.monotonic() - died:.1f} s behind the death")
        assert bots[answer].messages_of("stop")[-1].message["reason"] == "caller_hangup"
        assert bots_of(lab, of[answer]) == [bots[answer]]
    channels(lab, 0)
    for answer in answers:
        assert pbx[answer].wait().ended_by == "pbx", "Ameyo has ended it; no BYE came"
        logged(lab, of[answer], "call_stranded")
        told_once(lab, of[answer])


def channels(lab: Lab, wanted: int) -> None:
    """Wait until the switch has so many channels."""
    deadline = time.monotonic() + 10
    while (live := lab.live_channels()) != wanted:
        assert time.monotonic() < deadline, f"{live} channels, not {wanted}"
        time.sleep(0.02)  # another process: there is no event to wait for
