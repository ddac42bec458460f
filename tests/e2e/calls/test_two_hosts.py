"""eslbot on two hosts: one dies with all its calls, and the other has them. The relay is beside the switch.

The second host is one that FreeSWITCH does not run on: a private mount namespace hides the line files from
its ``eslbot serve``, which needs none of them.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from eslbot.sim.audio import tone
from eslbot.sim.bot import BotCall
from eslbot.sim.lab import Tenant
from eslbot.sim.pbx import PbxCall
from eslbot.sim.pbx.media import Recording
from tests.e2e.calls.conftest import one_kind
from tests.e2e.calls.test_call import accepted, ended_by_pbx, logged
from tests.e2e.calls.test_speech import arrivals_of, end, mark_of, talking
from tests.e2e.calls.test_take_over import another, not_heard, taken_over, undisturbed
from tests.support.lab import Lab
from tests.support.service import LabService

#: All of them assert milliseconds of speech.
pytestmark = pytest.mark.timed

NEAR, FAR = "127.0.0.1", "127.0.0.2"
#: Hertz of a speech in which every word is another tone: what is heard twice, or late, is out of order.
SCALE = range(600, 3400, 140)
#: Seconds of a word: two of the bot's chunks.
WORD = 0.2


@pytest.fixture(scope="module", params=one_kind())
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder: Path = tmp_path_factory.mktemp("two")
    lines = folder / "lines"
    lines.mkdir()
    within = hiding(lines)
    told = subprocess.run([*within, "true"], capture_output=True, text=True, check=False)
    if told.returncode:
        pytest.skip(f"a directory cannot be hidden from a process here: {told.stderr.strip()}")
    with Lab(
        folder,
        [Tenant("hold", "hold")],
        switch=request.param,
        workers=2,
        hosts=(NEAR, FAR),
        within={FAR: within},
        refreshes=True,
    ) as lab:
        assert lab.lines == lines
        yield lab


def hiding(folder: Path) -> list[str]:
    """A command that runs the one behind it where ``folder`` is an empty one of its own."""
    namespace = (
        ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    )
    return [*namespace, "sh", "-c", 'mount -t tmpfs tmpfs "$0" && exec "$@"', str(folder)]


def events(service: LabService, event: str) -> list[dict[str, object]]:
    return [line for line in service.log_lines() if line["event"] == event]


def scale() -> bytes:
    return b"".join(tone(frequency, WORD) for frequency in SCALE)


def in_order(recording: Recording) -> list[int]:
    """Which words were heard; asserts that none came twice, none longer than it is, and all in order."""
    heard, until = [], 0.0
    for frequency in SCALE:
        at = arrivals_of(recording, frequency)
        if at:
            assert len(at) <= WORD / 0.02 + 1, (frequency, len(at))
            assert at[0] > until, (frequency, at[0] - until)
            until = at[-1]
            heard.append(frequency)
    return heard


def says(bot: BotCall) -> threading.Thread:
    """The bot speaks the scale in real time."""
    speaking = threading.Thread(target=bot.say, args=(scale(), 100))
    speaking.start()
    return speaking


def hears(pbx_call: PbxCall, word: int) -> None:
    pbx_call.wait_heard(SCALE[word], 0.06)


def test_calls_move_to_the_other_host_and_back(two: Lab, crt: str) -> None:
    near, far = two.services
    crts = [f"{crt}-{number}" for number in range(3)]
    calls = [talking(two, "hold", one) for one in crts]
    assert {line["crt_object_id"] for line in events(near, "call_admitted")} >= set(crts)

    near.kill()
    for one in crts:
        taken_over(two, one, 1)
    new_call, new_bot = talking(two, "hold", f"{crt}-far")
    assert f"{crt}-far" in {line["crt_object_id"] for line in events(far, "call_admitted")}

    near.start()
    far.kill()
    for one in crts:
        taken_over(two, one, 2)
    taken_over(two, f"{crt}-far", 1)
    newer_call, newer_bot = talking(two, "hold", f"{crt}-near")
    far.start()

    for pbx_call, bot in [*calls, (new_call, new_bot), (newer_call, newer_bot)]:
        bot.mark("still there")
        mark_of(bot, "still there")
        heard = bot.audio_frames
        bot.wait(lambda c, heard=heard: c.audio_frames > heard + 10)  # type: ignore[misc]
        one = pbx_call.crt_object_id
        end(two, one, pbx_call, bot)
        assert len(two.ameyo.requests_for(one)) == 1
        undisturbed(two, one, bot)
    assert [logged(two, one, "call_ended")["take_overs"] for one in crts] == [2, 2, 2]
    assert logged(two, f"{crt}-far", "call_ended")["take_overs"] == 1
    assert {line["crt_object_id"] for line in events(near, "call_admitted")} >= {*crts, f"{crt}-near"}


def test_speech_goes_on_whichever_host_has_the_call(two: Lab, crt: str) -> None:
    near, far = two.services
    pbx_call, bot = talking(two, "hold", crt)
    speaking = says(bot)
    hears(pbx_call, 5)
    near.kill()
    taken_over(two, crt, 1)
    near.start()
    hears(pbx_call, 12)
    far.kill()
    taken_over(two, crt, 2)
    far.start()
    speaking.join()
    end(two, crt, pbx_call, bot)
    assert in_order(pbx_call.recording) == list(SCALE)
    # FreeSWITCH's encoder rounds otherwise than ours: 64 samples are loud by that. A frame has 160.
    assert abs(not_heard(pbx_call, scale())) < 10
    undisturbed(two, crt, bot)


def test_a_call_that_begins_at_a_far_host(two: Lab, crt: str) -> None:
    near, far = two.services
    near.kill()
    pbx_call, bot = talking(two, "hold", crt)
    says(bot).join()
    bot.end()  # its last word is heard first
    assert pbx_call.wait().completed
    ended_by_pbx(two, crt, "bot_ended")
    assert len(accepted(two, crt)) == 1
    assert in_order(pbx_call.recording) == list(SCALE)
    assert crt in {line["crt_object_id"] for line in events(far, "call_admitted")}
    near.start()


def test_what_a_bot_says_while_there_is_no_host_is_heard(two: Lab, crt: str) -> None:
    """And its end is not lost: the relay tells it to who comes next."""
    near, far = two.services
    pbx_call, bot = talking(two, "hold", crt)
    near.kill()
    far.kill()
    says(bot).join()
    bot.end()
    near.start()
    far.start()
    assert pbx_call.wait().completed
    ended_by_pbx(two, crt, "bot_ended")
    assert len(accepted(two, crt)) == 1
    assert in_order(pbx_call.recording) == list(SCALE)
    undisturbed(two, crt, bot)


def test_a_bot_that_closes_while_there_is_no_host_has_ended(two: Lab, crt: str) -> None:
    near, far = two.services
    pbx_call, bot = talking(two, "hold", crt)
    near.kill()
    far.kill()
    bot.close(1000, "done")
    bot.wait_closed()
    near.start()
    far.start()
    assert pbx_call.wait().completed
    ended_by_pbx(two, crt, "bot_closed")
    assert len(accepted(two, crt)) == 1
    undisturbed(two, crt, bot)


def test_a_relay_dies_and_a_far_host_has_another_one_at_once(two: Lab, crt: str) -> None:
    near, _ = two.services
    near.kill()
    pbx_call, bot = talking(two, "hold", crt)
    bot.say(scale(), 20, real_time=False)
    hears(pbx_call, 3)
    two.kill_relay()
    second = another(two, crt, bot)
    second.mark("said")
    mark_of(second, "said")
    end(two, crt, pbx_call, second)
    assert in_order(pbx_call.recording) == list(SCALE)
    near.start()
