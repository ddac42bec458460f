"""FreeSWITCH itself is killed in mid-call: what the caller, the bot and Ameyo notice of it."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from eslbot.sim.audio import tone
from eslbot.sim.bot import GREETING, BotCall
from eslbot.sim.pbx import PbxCall
from tests.e2e.calls.conftest import Labs, one_kind
from tests.e2e.calls.test_call import accepted, call, ended_by_pbx, logged
from tests.e2e.calls.test_speech import end, mark_of, talking
from tests.e2e.calls.test_take_over import not_heard, undisturbed
from tests.support.lab import Lab
from tests.support.rows import wait_row

#: All of them assert milliseconds of speech.
pytestmark = pytest.mark.timed

#: Seconds from the kill to the first packet, with one call and with many; of a real FreeSWITCH: how long the
#: stand-in takes says how long Python takes to start.
BACK, ALL_BACK = 2.0, 3.0
#: Seconds by which a row is certainly written (151 ms at worst).
ROW = 0.3


@pytest.fixture(params=one_kind())
def lab(request: pytest.FixtureRequest, labs: Labs) -> Lab:
    return labs.of(request.param)


def crash(lab: Lab, *calls: PbxCall, signum: int = signal.SIGKILL) -> list[float]:
    """Have the switch die, and wait until the PBX has accepted it again.

    Returns the seconds of each call from the kill to its first packet.
    """
    at = time.time()
    lab.crash_switch(signum)
    for pbx_call in calls:
        pbx_call.wait_taken_up()
    lab.wait_switch_ready()
    return [first_packet(pbx_call, at) - at for pbx_call in calls]


def first_packet(pbx_call: PbxCall, killed: float, timeout: float = 10.0) -> float:
    """When RTP came again; the last packet of the switch that is gone may come just behind the kill."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        arrivals = [arrival.at for arrival in pbx_call.recording.arrivals]
        if arrivals and arrivals[-1] > killed + 0.1:
            return next(at for at in arrivals if at > killed + 0.1)
        time.sleep(0.02)  # packets come every 20 ms, and nobody tells about each
    raise TimeoutError(f"{pbx_call!r} got no RTP")


def in_time(lab: Lab, gaps: list[float], limit: float) -> None:
    """FreeSWITCH's own time; the stand-in's is that of a Python process that starts."""
    print(f"{lab.switch_name}: {len(gaps)} calls, RTP {min(gaps):.2f} to {max(gaps):.2f} s behind the kill")
    assert lab.real_switch is None or max(gaps) <= limit


def tracked(lab: Lab, pbx_call: PbxCall, bot: BotCall) -> None:
    """Wait until the bot is heard, and the call would come back."""
    pbx_call.wait_heard(GREETING, 0.4)
    wait_row(lab, bot.headers["X-Call-ID"])


def bot_of(lab: Lab, crt: str) -> BotCall:
    """The bot's side of a call."""
    return lab.bot.wait_for_call(lambda bot: bot.headers.get("X-CRT-Object-ID") == crt)


def connection_kept(lab: Lab, crt: str, bot: BotCall) -> None:
    undisturbed(lab, crt, bot)
    assert bot.close_code is None, "its WebSocket is unbroken"


def told_once(lab: Lab, crt: str) -> None:
    assert len(accepted(lab, crt)) == 1
    assert len(lab.ameyo.requests_for(crt)) == 1


def test_the_call_comes_back_and_the_bot_never_notices(lab: Lab, crt: str) -> None:
    pbx_call, bot = talking(lab, "hold", crt)
    gaps = crash(lab, pbx_call)
    connection_kept(lab, crt, bot)
    heard_before = bot.audio_frames
    bot.wait(lambda c: c.audio_frames > heard_before + 10)
    pbx_call.send_dtmf("5")
    assert bot.wait_for_message("dtmf").message["digit"] == "5"
    bot.say(tone(1000, 0.5), real_time=False)
    bot.mark("said")
    mark_of(bot, "said")
    assert pbx_call.recording.heard(1000) >= 0.46
    connection_kept(lab, crt, bot)
    end(lab, crt, pbx_call, bot)
    told_once(lab, crt)
    assert pbx_call.taken_up == 1
    in_time(lab, gaps, BACK)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGABRT])
def test_speech_goes_on_behind_the_gap(lab: Lab, crt: str, signum: int) -> None:
    pbx_call, bot = talking(lab, "hold", crt)
    speech = tone(1000, 5.0)
    speaking = threading.Thread(target=bot.say, args=(speech, 20))
    speaking.start()
    pbx_call.wait_heard(1000, 1.0)
    gaps = crash(lab, pbx_call, signum=signum)
    speaking.join()
    bot.mark("said")
    mark_of(bot, "said")
    connection_kept(lab, crt, bot)
    end(lab, crt, pbx_call, bot)
    told_once(lab, crt)
    lost = not_heard(pbx_call, speech)
    print(f"{lab.switch_name}: {lost:.0f} ms of speech not heard")
    in_time(lab, gaps, BACK)
    # What FreeSWITCH has read of the line may not have left it.
    assert -2 < lost < 60


def test_many_calls_come_back(lab: Lab, crt: str) -> None:
    calls = {f"{crt}-{number}": call(lab, "hold", f"{crt}-{number}") for number in range(20)}
    bots = {name: bot_of(lab, name) for name in calls}
    for name, pbx_call in calls.items():
        tracked(lab, pbx_call, bots[name])
    gaps = crash(lab, *calls.values())
    for name, bot in bots.items():
        connection_kept(lab, name, bot)
        bot.end()
    for name, pbx_call in calls.items():
        assert pbx_call.wait().completed
        ended_by_pbx(lab, name, "bot_ended")
        told_once(lab, name)
    in_time(lab, gaps, ALL_BACK)


def test_a_call_that_the_pbx_has_held_before(lab: Lab, crt: str) -> None:
    """Each re-INVITE writes the row again, and with it what the channel has by then."""
    pbx_call, bot = talking(lab, "hold", crt)
    pbx_call.offer("sendonly")
    pbx_call.offer("sendrecv")
    time.sleep(ROW)  # FreeSWITCH's own queue of SQL: nobody sees that a row was written once more
    gaps = crash(lab, pbx_call)
    connection_kept(lab, crt, bot)
    end(lab, crt, pbx_call, bot)
    told_once(lab, crt)
    in_time(lab, gaps, BACK)


def test_a_second_death_a_while_behind_the_first(lab: Lab, crt: str) -> None:
    """Far enough apart for another CSeq, and for no crash loop."""
    pbx_call, bot = talking(lab, "hold", crt)
    crash(lab, pbx_call)
    bot.say(tone(1000, 0.3), real_time=False)
    bot.mark("one")
    mark_of(bot, "one")
    lab.crash_switch()
    lab.wait_switch_ready()
    assert pbx_call.wait().completed
    assert pbx_call.offered == 2, "taken up again; an agent may have it before the ACK is told"
    ended_by_pbx(lab, crt, "switch_lost")
    told_once(lab, crt)


def test_a_pbx_that_refuses_has_its_customers_handed_off_all_the_same(lab: Lab, crt: str) -> None:
    """FreeSWITCH drops the calls without BYE. The customers are still with the PBX, and go to an agent."""
    answers = ("481", "488", "491", "500")
    calls = {f"{crt}-{answer}": call(lab, "hold", f"{crt}-{answer}", offered=answer) for answer in answers}
    for name, pbx_call in calls.items():
        tracked(lab, pbx_call, bot_of(lab, name))
    lab.crash_switch()
    lab.wait_switch_ready()
    deadline = time.monotonic() + 10
    while not all(pbx_call.offered for pbx_call in calls.values()) or lab.live_channels():
        assert time.monotonic() < deadline, "a channel stays"
        time.sleep(0.02)  # another process: there is no event to wait for
    assert [pbx_call.result for pbx_call in calls.values()] == [None] * len(calls), "no BYE came"
    for name, pbx_call in calls.items():
        assert pbx_call.wait(30).ended_by == "pbx", "Ameyo has ended it"
        logged(lab, name, "call_stranded")
        told_once(lab, name)
        assert lab.ameyo.requests_for(name)[0].properties["outcome"] == "switch_lost"
