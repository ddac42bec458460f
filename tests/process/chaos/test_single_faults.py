"""One call, one fault, at a stage that is known: what the run with chance in it finds is read here."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from typing import TypeVar
from uuid import uuid4

import pytest
from websockets.exceptions import ConnectionClosed

from eslbot.sim.audio import tone
from eslbot.sim.bot import GOODBYE, BotCall
from eslbot.sim.pbx import Answer, PbxCall, Stall
from tests.support.audit import Account, Duplicate, Ending
from tests.support.chaos.faults import Faults
from tests.support.chaos.witness import Witness
from tests.support.lab import Lab

ALWAYS = ["kill worker", "kill arbiter", "stop worker", "stall event socket", "half-open event socket"]
ALWAYS += ["reset event socket", "bot away", "Ameyo away", "HUP"]
ONLY_REAL = ["reloadxml", "reloadacl", "profile rescan"]

T = TypeVar("T")


class Scene:
    """One call on the lab, whose bot does what the test says, and a witness of it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.witness = Witness(lab)
        self.faults = Faults(self.witness, random.Random(1))
        self.crt = f"scene-{uuid4().hex[:12]}"
        self.call: PbxCall | None = None

    def place(self, timeout: float = 30.0) -> PbxCall:
        workspace = self.lab.tenants["waits"].id
        self.call = self.lab.pbx.call(crt_object_id=self.crt, workspace_id=workspace, timeout=timeout)
        return self.witness.placed(self.call, "waits")

    def talking(self) -> BotCall:
        """The bot's end of the call, once both sides are heard."""
        self.place().wait_answered()
        bot = self.lab.bot.wait_for_call(lambda c: c.headers.get("X-CRT-Object-ID") == self.crt)
        bot.wait(lambda c: c.audio_frames > 10 and len(c.said) == 1)
        return bot

    def connections(self) -> list[BotCall]:
        """The bot's, of this call: one a relay."""
        return [call for call in self.lab.bot.calls if call.headers.get("X-CRT-Object-ID") == self.crt]

    def worker(self) -> int:
        """The worker that has the call."""
        return until(lambda: next((p for p in self.pids() if self.crt in self.witness.calls_of(p)), None))

    def pids(self) -> list[int]:
        return self.lab.services[0].worker_pids()

    def replaced(self, pids: list[int]) -> None:
        """Wait until a reload is over: its take-overs are not the next test's."""
        until(lambda: self.lab.services[0].serving() and not set(pids) & set(self.pids()), 20)

    def logged(self, event: str) -> bool:
        return self.count(event) > 0

    def count(self, event: str) -> int:
        """How often eslbot has told that of the call."""
        lines = self.lab.log_lines()
        return sum(line["event"] == event and line.get("crt_object_id") == self.crt for line in lines)

    def account(self) -> Account:
        """When the call is over, and all workers are there again for the next test."""
        assert self.call is not None
        self.call.wait(30)
        self.lab.services[0].wait_serving()
        found = self.witness.account()
        print(found.table())
        return found


def until(look: Callable[[], T | None], seconds: float = 10.0) -> T:
    """What ``look`` finds in another process; there is no event to wait for."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
    return found


def ends(bot: BotCall) -> None:
    """The bot says that it is finished, if it is still asked."""
    with contextlib.suppress(ConnectionClosed):
        bot.end({})


@pytest.fixture
def scene(lab: Lab) -> Iterator[Scene]:
    scene = Scene(lab)
    yield scene
    if scene.call is not None and scene.call.result is None:
        scene.call.hang_up()
        scene.call.wait(30)


def handed_off_once(account: Account) -> None:
    assert account.guilty == []
    assert [entry.ending for entry in account.entries] == [Ending.HANDED_OFF]
    assert [entry.call.cause for entry in account.entries] == ["accepted"]


@contextlib.contextmanager
def relays_stopped(lab: Lab) -> Iterator[None]:
    pids = lab.relay_pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("seconds", [1.6, 2.8])
def test_a_relay_that_is_late_when_the_next_controller_comes_keeps_its_bot(
    scene: Scene, seconds: float
) -> None:
    bot = scene.talking()
    with relays_stopped(scene.lab):
        scene.faults.kill_worker(scene.worker())
        time.sleep(seconds)  # the fault lasts so long
    heard = bot.audio_frames
    bot.wait(lambda c: c.audio_frames > heard + 25)
    ends(bot)
    handed_off_once(scene.account())
    assert len([c for c in scene.lab.bot.calls if c.headers.get("X-CRT-Object-ID") == scene.crt]) == 1


@pytest.mark.parametrize("seconds", [1.6, 2.8])
def test_a_relay_that_is_late_when_the_call_begins_has_it_all_the_same(scene: Scene, seconds: float) -> None:
    with relays_stopped(scene.lab):
        scene.place().wait_answered()
        time.sleep(seconds)
    bot = scene.lab.bot.wait_for_call(lambda c: c.headers.get("X-CRT-Object-ID") == scene.crt)
    bot.wait(lambda c: c.audio_frames > 10 and len(c.said) == 1)
    ends(bot)
    handed_off_once(scene.account())


@pytest.mark.parametrize("name", [*ALWAYS, *ONLY_REAL])
def test_while_the_bot_talks(scene: Scene, name: str) -> None:
    if name in ONLY_REAL and scene.lab.real_switch is None:
        pytest.skip("a command of the real FreeSWITCH")
    bot = scene.talking()
    before = scene.pids()

    match name:
        case "kill worker":
            scene.faults.kill_worker(scene.worker())
        case "stop worker":
            scene.faults.stop_worker(0.5, scene.worker())
        case _:
            scene.faults.by_name[name](0.5)
    ends(bot)

    account = scene.account()
    if name == "HUP":
        scene.replaced(before)
    handed_off_once(account)
    assert account.duplicates == []


def test_a_worker_dies_while_the_bot_s_last_words_play(scene: Scene) -> None:
    bot = scene.talking()
    call = scene.call
    assert call is not None
    bot.say(tone(GOODBYE, 2.0), real_time=False)
    ends(bot)
    call.wait_heard(GOODBYE, 0.4)

    scene.faults.kill_worker(scene.worker())

    account = scene.account()
    handed_off_once(account)
    assert account.duplicates == []
    # Cut or finished, but never said twice.
    assert 0.4 <= call.recording.heard(GOODBYE) <= 2.1


def test_a_worker_dies_between_two_attempts(scene: Scene) -> None:
    scene.lab.ameyo.script(scene.crt, [503], repeat_last=True)
    bot = scene.talking()
    ends(bot)
    scene.lab.ameyo.wait_for(lambda r: r.crt_object_id == scene.crt)

    scene.faults.kill_worker(scene.worker())
    scene.lab.ameyo.script(scene.crt, [])

    account = scene.account()
    handed_off_once(account)
    assert account.duplicates == []


def test_a_worker_dies_while_ameyo_thinks(scene: Scene) -> None:
    """The one window that cannot be closed: whether Ameyo accepts this one, nobody will know."""
    scene.lab.ameyo.script(scene.crt, [Stall(1.0, Answer(200))])
    bot = scene.talking()
    ends(bot)
    until(lambda: scene.lab.ameyo.requests_for(scene.crt))

    scene.faults.kill_worker(scene.worker())

    account = scene.account()
    handed_off_once(account)
    assert [why for _, why in account.duplicates] in ([], [Duplicate.CONTROLLER_LOST])


def test_a_worker_dies_while_the_customer_is_held(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene.lab.pbx, "bye_delay", 2.0)
    bot = scene.talking()
    ends(bot)
    until(lambda: scene.logged("hand_off_accepted"))

    scene.faults.kill_worker(scene.worker())

    account = scene.account()
    handed_off_once(account)
    # The line is written just before the stage is: a kill in between is excused, another second one is not.
    assert account.entries[0].accepted <= 2


def test_ameyo_is_away_when_the_bot_ends(scene: Scene) -> None:
    bot = scene.talking()
    with scene.witness.fault("Ameyo away", "ameyo"):
        scene.lab.ameyo.down()
        ends(bot)
        until(lambda: scene.logged("bot_part_over"))
        scene.lab.ameyo.up()

    account = scene.account()
    handed_off_once(account)
    assert account.duplicates == []


def test_no_eslbot_for_a_while(scene: Scene) -> None:
    scene.talking()

    scene.faults.away(1.0)
    # Behind it the bot may have been dialled anew already; where not, it repeats what it has said.
    for connection in scene.connections():
        ends(connection)

    account = scene.account()
    handed_off_once(account)
    assert account.duplicates == []


def test_the_caller_hangs_up_while_there_is_no_eslbot(scene: Scene) -> None:
    scene.talking()
    call = scene.call
    assert call is not None
    service = scene.lab.services[0]
    with scene.witness.fault("eslbot away", "controller"):
        service.kill()
        call.hang_up()
        result = call.wait()
        service.start()

    assert (result.ended_by, result.cause) == ("pbx", "hang_up")
    account = scene.account()
    assert account.guilty == []
    assert [entry.ending for entry in account.entries] == [Ending.CALLER_FIRST]


def test_a_new_call_is_refused_while_there_is_no_eslbot(scene: Scene) -> None:
    service = scene.lab.services[0]
    with scene.witness.fault("eslbot away", "controller"):
        service.kill()
        for proxy in scene.lab.proxies:
            proxy.refuse()  # as the machine itself does where nobody listens
        result = scene.place().wait()
        for proxy in scene.lab.proxies:
            proxy.accept()
        service.start()

    assert (result.status, result.answered) == (503, False)
    assert result.retry_after is not None
    account = scene.account()
    assert account.guilty == []
    assert [entry.ending for entry in account.entries] == [Ending.REFUSED]


def crash(scene: Scene) -> None:
    """FreeSWITCH dies, and comes back with the call."""
    assert scene.call is not None
    with scene.witness.fault("crash FreeSWITCH", "crash"):
        scene.lab.crash_switch()
        scene.call.wait_taken_up(scene.call.taken_up + 1, 15)
        scene.lab.wait_switch_ready()


def test_freeswitch_dies_behind_two_controllers(scene: Scene) -> None:
    """The second take-over is a transfer, at which FreeSWITCH writes anew what it will know of the call."""
    bot = scene.talking()
    for times in (1, 2):
        scene.faults.kill_worker(scene.worker())
        until(lambda times=times: scene.count("call_taken_over") == times)  # type: ignore[misc]

    crash(scene)
    until(lambda: scene.count("call_taken_over") == 3)
    ends(bot)

    account = scene.account()
    handed_off_once(account)
    assert account.duplicates == []


def test_freeswitch_dies_behind_a_hold(scene: Scene) -> None:
    """At a re-INVITE it writes that anew, too."""
    bot = scene.talking()
    assert scene.call is not None
    for direction in ("sendonly", "sendrecv"):
        scene.call.offer(direction)

    crash(scene)
    until(lambda: scene.logged("call_taken_over"))
    ends(bot)

    account = scene.account()
    handed_off_once(account)
    assert account.duplicates == []
