"""Whole calls with bots that nobody here wrote: none makes a customer wait, or hears on behind its part."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from eslbot.caller import identity
from eslbot.relay import control
from eslbot.sim.bot import GREETING, BotCall
from eslbot.sim.pbx import Pbx, PbxCall
from tests.e2e.calls.conftest import UNKIND, Labs, one_kind
from tests.e2e.calls.test_call import DID, accepted, call, logged
from tests.e2e.calls.test_take_over import kill_controller
from tests.support.lab import Lab

#: Seconds from the PBX's BYE to the line that says so, and to the count.
TOLD = 2.0
#: Seconds in which what was on its way to the bot may still arrive.
IN_FLIGHT = 0.1


@pytest.fixture(params=one_kind())
def lab(request: pytest.FixtureRequest, labs: Labs) -> Lab:
    return labs.of(request.param)


@pytest.fixture
def pbx(lab: Lab) -> Iterator[Pbx]:
    """A PBX that hangs up when it is told to, and not when Ameyo has accepted."""
    with Pbx(lab.sip) as pbx:
        yield pbx
    lab.bot.let_go()
    for bot in lab.bot.calls:
        if not bot.closed:
            bot.abort()
    deadline = time.monotonic() + 10
    while lab.live_channels():  # another process's: there is no event to wait for
        assert time.monotonic() < deadline, "a channel is left"
        time.sleep(0.05)


def rings(lab: Lab, pbx: Pbx, tenant: str, crt: str) -> PbxCall:
    return pbx.call(DID, crt, lab.tenants[tenant].id)


def ends_with(lab: Lab, tenant: str, crt: str, ringing: PbxCall, outcome: str) -> None:
    """The PBX sends its BYE; the call is told and counted out in time."""
    hung_up = time.monotonic()
    ringing.hang_up()
    line = logged(lab, crt, "call_ended")
    assert time.monotonic() - hung_up < TOLD
    assert (line["sip_hangup_disposition"], line["outcome"]) == ("recv_bye", outcome)
    while figure(lab, "eslbot_calls_active", workspace=tenant):
        assert time.monotonic() - hung_up < TOLD, "the call still counts"
        time.sleep(0.02)
    assert ringing.wait().completed


def figure(lab: Lab, name: str, **labels: str) -> float:
    """The sum of the samples of this name and these labels."""
    families = text_string_to_metric_families(lab.http("/metrics")[1])
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def bots(lab: Lab, crt: str) -> list[BotCall]:
    return [bot for bot in lab.bot.calls if bot.headers.get("X-CRT-Object-ID") == crt]


def nothing_is_heard(lab: Lab, crt: str) -> None:
    """From now on no frame of the caller's reaches a bot of this call, over half a second of them."""
    time.sleep(IN_FLIGHT)
    since = time.time()
    time.sleep(0.5)
    assert [bot.frames_after(since) for bot in bots(lab, crt)] == [0] * len(bots(lab, crt))


@pytest.mark.timed
@pytest.mark.parametrize(("tenant", "outcome", "seconds"), UNKIND, ids=[tenant for tenant, _, _ in UNKIND])
def test_the_customer_is_handed_off_and_the_bye_is_seen(
    lab: Lab, pbx: Pbx, crt: str, tenant: str, outcome: str, seconds: float
) -> None:
    relays = lab.relay_pids()
    began = time.monotonic()
    ringing = rings(lab, pbx, tenant, crt)
    assert lab.ameyo.wait_accepted(crt, 20)
    assert time.monotonic() - began < seconds
    nothing_is_heard(lab, crt)
    assert [request.properties["outcome"] for request in accepted(lab, crt)] == [outcome]
    ends_with(lab, tenant, crt, ringing, outcome)
    told = {line["event"] for line in lab.log_lines() if line.get("crt_object_id") == crt}
    assert "call_taken_over" not in told
    assert relays == lab.relay_pids()
    assert not told & {"relay_call_failed", "bot_message_failed", "relay_stream_lost"}


@pytest.mark.timed
def test_a_caller_who_leaves_in_the_last_words_of_a_bot_that_holds_its_line(
    lab: Lab, pbx: Pbx, crt: str
) -> None:
    # Without a relay between them the channel's own thread would wait for the bot, and
    # CHANNEL_HANGUP_COMPLETE never come (measured).
    ringing = rings(lab, pbx, "keeps-last-words", crt)
    (bot,) = [lab.bot.wait_for_call(lambda c: c.headers.get("X-CRT-Object-ID") == crt)]
    bot.wait(lambda c: c.closed)  # by its own close frame, and the answer to it
    ends_with(lab, "keeps-last-words", crt, ringing, "bot_closed")
    assert accepted(lab, crt) == []


def test_a_call_changes_hands_though_its_bot_holds_its_line(lab: Lab, pbx: Pbx, crt: str) -> None:
    # Without a relay between them FreeSWITCH would call no other controller before the bot lets go.
    ringing = rings(lab, pbx, "keeps-close", crt)
    assert lab.ameyo.wait_accepted(crt, 20)
    assert logged(lab, crt, "hand_off_accepted")
    kill_controller(lab)
    assert logged(lab, crt, "call_taken_over")["stage"] == "held"
    nothing_is_heard(lab, crt)
    ends_with(lab, "keeps-close", crt, ringing, "bot_closed")
    assert len(accepted(lab, crt)) == 1


def test_a_stream_that_is_left_open_is_closed_by_the_next_controller(lab: Lab, pbx: Pbx, crt: str) -> None:
    if lab.real_switch is None:
        pytest.skip(
            "the stand-in has no event socket to attach a stream by; see component/esl/test_take_over.py"
        )
    ringing = rings(lab, pbx, "hold", crt)
    (first,) = [lab.bot.wait_for_call(lambda c: c.headers.get("X-CRT-Object-ID") == crt)]
    first.wait(lambda c: bool(c.said))
    first.end()
    assert lab.ameyo.wait_accepted(crt, 20)
    assert logged(lab, crt, "hand_off_accepted")
    # As a controller leaves it that dies between the hand-off and the stream's end.
    api, channel = lab.real_switch.api, str(first.call_id)
    headers = {
        control.IDENTITY: api(f"uuid_getvar {channel} {identity.VARIABLE}").strip(),
        control.CALL: channel,
        control.PART: "new",
    }
    for name, value in (
        ("STREAM_MESSAGE_DEFLATE", "true"),
        ("STREAM_HEART_BEAT", "20"),
        ("STREAM_EXTRA_HEADERS", json.dumps(headers, separators=(",", ":"))),
    ):
        api(f"uuid_setvar {channel} {name} {value}")
    host, port = lab.relay
    assert api(f"uuid_audio_stream {channel} start ws://{host}:{port}/ mono 8000").startswith("+OK")
    left = lab.bot.wait_for_call(lambda c: c.headers.get("X-CRT-Object-ID") == crt and c is not first)
    left.wait(lambda c: c.audio_frames > 5)
    kill_controller(lab)
    assert left.wait_for_message("stop")
    left.wait_closed()
    assert (left.close_code, left.closed_by) == (1000, "peer")
    assert [path for path in lab.lines.iterdir() if path.name.startswith(channel)] == []
    ends_with(lab, "hold", crt, ringing, "bot_ended")


def test_speech_beyond_what_may_wait_is_dropped_and_told(lab: Lab, pbx: Pbx, crt: str) -> None:
    about = {"name": "eslbot_bot_messages_ignored_total", "workspace": "speech-queue", "why": "queue_full"}
    before = figure(lab, **about)
    ringing = rings(lab, pbx, "speech-queue", crt)
    ringing.wait_heard(GREETING, 0.4)
    (bot,) = bots(lab, crt)
    assert bot.wait_for_message("error").message["code"] == "queue_full"
    assert logged(lab, crt, "bot_message_ignored")["why"] == "queue_full"
    assert figure(lab, **about) > before
    # Ten minutes of the bot's words keep nobody who leaves.
    ends_with(lab, "speech-queue", crt, ringing, "bot_ended")
    assert accepted(lab, crt) == []


def test_a_text_that_is_too_long_is_counted_and_told_once(lab: Lab, crt: str) -> None:
    about = {"name": "eslbot_bot_messages_ignored_total", "workspace": "oversized", "why": "oversized"}
    before = figure(lab, **about)
    assert call(lab, "oversized", crt).wait(30).completed
    line = logged(lab, crt, "bot_message_ignored")
    assert (line["why"], line["size"] > 5 << 20) == ("oversized", True)
    assert figure(lab, **about) == before + 1
    assert logged(lab, crt, "call_ended")["take_overs"] == 0
