"""eslbot on two hosts: one dies with all its calls, and the other has them; also without the speech files.

The second host of :func:`apart` is one that FreeSWITCH does not run on: a private mount namespace hides the
directory of the speech files from its ``eslbot serve``, by an empty one or by none at all.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from eslbot.sim.audio import tone
from eslbot.sim.bot import GOODBYE, GREETING, BotCall
from eslbot.sim.lab import Lab, Tenant
from eslbot.sim.pbx import PbxCall
from eslbot.sim.pbx.media import Recording
from eslbot.sim.service import EslbotService
from tests.e2e.conftest import kinds
from tests.e2e.test_call import accepted, ended_by_pbx, logged
from tests.e2e.test_speech import arrivals_of, end, mark_of, talking
from tests.e2e.test_take_over import loud, resumed

NEAR, FAR = "127.0.0.1", "127.0.0.2"
#: Hertz of a speech in which every word is another tone: what is heard twice, or late, is out of order.
SCALE = range(600, 3400, 140)
#: Seconds of a word: two of the bot's chunks.
WORD = 0.2


@pytest.fixture(scope="module", params=kinds())
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two hosts that share the directory."""
    folder: Path = tmp_path_factory.mktemp("two")
    with Lab(
        folder, [Tenant("hold", "hold")], switch=request.param, workers=2, hosts=(NEAR, FAR), refreshes=True
    ) as lab:
        yield lab


@pytest.fixture(params=kinds())
def apart(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """Two hosts, a worker each; the second one does not have FreeSWITCH's directory.

    It has an empty one beside the real FreeSWITCH, as where each host runs one, and none beside the stand-in.
    """
    switch = request.param
    temp_dir = tmp_path / "run" / "temp"
    temp_dir.mkdir(parents=True)
    within = hiding(temp_dir if switch == "freeswitch" else temp_dir.parent)
    told = subprocess.run([*within, "true"], capture_output=True, text=True, check=False)
    if told.returncode:
        pytest.skip(f"a directory cannot be hidden from a process here: {told.stderr.strip()}")
    tenants = [Tenant("hold", "hold")]
    with Lab(tmp_path, tenants, switch=switch, hosts=(NEAR, FAR), within={FAR: within}) as lab:
        assert lab.temp_dir == temp_dir
        yield lab


def hiding(folder: Path) -> list[str]:
    """A command that runs the one behind it where ``folder`` is an empty one of its own."""
    namespace = (
        ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    )
    return [*namespace, "sh", "-c", 'mount -t tmpfs tmpfs "$0" && exec "$@"', str(folder)]


def move(bot: BotCall, gone: EslbotService) -> None:
    """One host goes with everything on it, and the bot's call moves to the other."""
    times = len(bot.take_overs)
    gone.kill()
    resumed(bot, times + 1)


def events(service: EslbotService, event: str) -> list[dict[str, object]]:
    return [line for line in service.log_lines() if line["event"] == event]


def failures(service: EslbotService, why: str) -> float:
    """``eslbot_speech_failures_total`` of one label."""
    page = service.http("/metrics")[1]
    own = re.findall(rf'^eslbot_speech_failures_total{{why="{why}"}} (\S+)$', page, re.MULTILINE)
    return sum(map(float, own))


def speech_files(lab: Lab) -> list[str]:
    """What there is of speech: the kind of each file, which follows the call's UUID and the number."""
    return sorted(path.name.partition(".")[2] for path in lab.temp_dir.iterdir())


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


# -- a host dies --------------------------------------------------------------------------------------------


def test_calls_move_to_the_other_host_and_back(two: Lab, crt: str) -> None:
    near, far = two.services
    crts = [f"{crt}-{number}" for number in range(3)]
    calls = [talking(two, "hold", one) for one in crts]
    assert {line["crt_object_id"] for line in events(near, "call_admitted")} >= set(crts)

    near.kill()
    for _, bot in calls:
        resumed(bot, 1)
    new_call, new_bot = talking(two, "hold", f"{crt}-far")
    assert f"{crt}-far" in {line["crt_object_id"] for line in events(far, "call_admitted")}

    near.start()
    far.kill()
    for _, bot in calls:
        resumed(bot, 2)
    resumed(new_bot, 1)
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
        assert [c for c in two.bot.calls if c.headers.get("X-CRT-Object-ID") == one] == [bot], "one stream"
    assert [logged(two, one, "call_ended")["take_overs"] for one in crts] == [2, 2, 2]
    assert logged(two, f"{crt}-far", "call_ended")["take_overs"] == 1
    assert {line["crt_object_id"] for line in events(near, "call_admitted")} >= {*crts, f"{crt}-near"}


def test_speech_goes_on_at_the_other_host_where_it_was_cut(two: Lab, crt: str) -> None:
    pbx_call, bot = talking(two, "hold", crt)
    speaking = says(bot)
    hears(pbx_call, 5)
    move(bot, two.services[0])
    two.services[0].start()
    hears(pbx_call, 12)
    move(bot, two.services[1])
    two.services[1].start()
    speaking.join()
    end(two, crt, pbx_call, bot)
    assert in_order(pbx_call.recording) == list(SCALE)


# -- a host that does not have FreeSWITCH's files ------------------------------------------------------------


def test_a_far_host_lets_freeswitch_play_and_says_so_once(apart: Lab, crt: str) -> None:
    near, far = apart.services
    crts = [f"{crt}-{number}" for number in range(2)]
    calls = [talking(apart, "hold", one) for one in crts]
    for pbx_call, bot in calls:
        bot.say(tone(1000, 6.0), real_time=False)
        pbx_call.wait_heard(1000, 0.3)

    near.kill()
    for _, bot in calls:
        resumed(bot, 1)
    for pbx_call, bot in calls:
        bot.say(tone(GOODBYE, 0.8), 200, real_time=False)
        bot.mark("said")
        mark_of(bot, "said")
        end(apart, pbx_call.crt_object_id, pbx_call, bot)
        assert len(apart.ameyo.requests_for(pbx_call.crt_object_id)) == 1
        assert pbx_call.recording.heard(1000) < 4.0, "what was under way is cut"
        assert pbx_call.recording.heard(GOODBYE) >= 0.6
        assert max(arrivals_of(pbx_call.recording, 1000)) < min(arrivals_of(pbx_call.recording, GOODBYE))

    assert len(events(far, "speech_by_path")) == 1
    assert failures(far, "no_shared_directory") == 2
    assert failures(far, "not_played") == 0
    # The module deletes its files with the stream. The near host's own are out of the far one's reach: the
    # near one removes them when they are stale (eslbot.bot.folder).
    assert speech_files(apart) == ["eslbot.PCMU", "eslbot.PCMU"]


def test_a_call_that_begins_at_a_far_host(apart: Lab, crt: str) -> None:
    near, far = apart.services
    near.kill()
    pbx_call, bot = talking(apart, "hold", crt)
    speaking = says(bot)
    speaking.join()
    bot.end()  # its last word is heard first
    assert pbx_call.wait().completed
    ended_by_pbx(apart, crt, "bot_ended")
    assert len(accepted(apart, crt)) == 1
    assert in_order(pbx_call.recording) == list(SCALE)
    assert len(events(far, "speech_by_path")) == 1
    assert failures(far, "no_shared_directory") == 1
    assert speech_files(apart) == []


def test_from_a_far_host_to_a_near_one(apart: Lab, crt: str) -> None:
    near, far = apart.services
    near.kill()
    pbx_call, bot = talking(apart, "hold", crt)
    near.start()
    speaking = says(bot)
    hears(pbx_call, 6)
    move(bot, far)
    speaking.join()
    bot.mark("said")
    mark_of(bot, "said")
    end(apart, crt, pbx_call, bot)
    heard = in_order(pbx_call.recording)
    print(f"{apart.switch_name}: not heard: {sorted(set(SCALE) - set(heard))}")
    assert set(SCALE) - set(heard) <= set(SCALE[6:8]), "no more than what was under way is lost"
    assert failures(near, "no_shared_directory") == 0
    assert speech_files(apart) == []


def test_from_near_to_far_and_back(apart: Lab, crt: str) -> None:
    near, far = apart.services
    pbx_call, bot = talking(apart, "hold", crt)
    speaking = says(bot)
    hears(pbx_call, 4)
    move(bot, near)
    near.start()
    hears(pbx_call, 11)
    move(bot, far)
    speaking.join()
    bot.mark("said")
    mark_of(bot, "said")
    end(apart, crt, pbx_call, bot)
    assert len(accepted(apart, crt)) == 1
    heard = in_order(pbx_call.recording)
    print(f"{apart.switch_name}: not heard: {sorted(set(SCALE) - set(heard))}")
    assert heard[-1] == SCALE[-1]
    assert len(set(SCALE) - set(heard)) <= 3, "what was under way at two take-overs"
    assert speech_files(apart) == [], "the near host has removed what it had left before"


def test_what_freeswitch_had_not_played_yet_is_said_by_the_near_host(apart: Lab, crt: str) -> None:
    near, far = apart.services
    near.kill()
    pbx_call, bot = talking(apart, "hold", crt)
    near.start()
    bot.say(scale(), 100, real_time=False)
    bot.mark("said")
    hears(pbx_call, 6)
    move(bot, far)
    mark_of(bot, "said")
    end(apart, crt, pbx_call, bot)
    heard = in_order(pbx_call.recording)
    assert set(SCALE) - set(heard) <= set(SCALE[6:8])
    said, had = loud(scale()), loud(pbx_call.recording.linear()) - loud(tone(GREETING, 0.6))
    print(f"{apart.switch_name}: {(said - had) / 8:.0f} ms not heard")
    assert -80 <= said - had <= 8 * 240, "no more than two chunks of 100 ms"
    assert speech_files(apart) == []
