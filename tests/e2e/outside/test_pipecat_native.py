"""A Pipecat bot on ``pipecat-eslbot``: whole calls, while workers and relays die, on both switches."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from eslbot.sim.audio import RATE, gaps, heard, silence, speech
from eslbot.sim.lab import Tenant
from eslbot.sim.pbx import CallResult, PbxCall
from eslbot.sim.pbx.media import Caller
from tests.e2e.calls.conftest import one_kind
from tests.e2e.calls.test_take_over import taken_over
from tests.e2e.outside import bots
from tests.e2e.outside.bots import Running
from tests.support import voices
from tests.support.invites import INVITE
from tests.support.lab import Lab

#: Its detector takes a core that other laboratories would want.
pytestmark = pytest.mark.alone
GREETING, YES, GOODBYE = 440, 550, 660
#: A caller who speaks a second after the answer, and then listens.
SPEAKS = silence(1.0) + b"".join(voices.frames(voices.speech(1.4, level=6000))) + silence(60.0)


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    try:
        with bots.pipecat_native(tmp_path_factory.mktemp("native")) as running:
            yield running
    except bots.Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def receptionist(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    example = bots.PIPECAT_ESLBOT / "examples" / "receptionist.py"
    try:
        with bots.pipecat_native(tmp_path_factory.mktemp("receptionist"), example) as running:
            yield running
    except bots.Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module", params=one_kind())
def lab(
    request: pytest.FixtureRequest,
    bot: Running,
    receptionist: Running,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp(f"lab-{request.param}")
    tenants = [
        Tenant("native", bot.url),
        Tenant("receptionist", receptionist.url, ameyo_keys={"bot_properties": ["key"]}),
    ]
    with Lab(folder, tenants, switch=request.param, workers=2) as lab:
        yield lab


class OneCaller:
    """One caller of the laboratory's PBX."""

    def __init__(self, lab: Lab, bot: Running, says: Caller = None, tenant: str = "native") -> None:
        self.crt = f"d444-{uuid4().hex[:12]}-vce"
        self._lab, self._bot = lab, bot
        self.call: PbxCall = lab.pbx.call(
            INVITE.did, self.crt, lab.tenants[tenant].id, caller_tone=says, timeout=60
        )

    def waits(self, *words: str) -> None:
        """Until the bot has printed that."""
        self._bot.wait_said(" ".join((self.crt, *words)))

    def result(self) -> tuple[CallResult, dict[str, Any]]:
        """The call, which has to have ended by the book, and what Ameyo was told."""
        result = self.call.wait(60)
        assert result.completed and result.cause == "accepted", (result, self._lab.log_lines()[-20:])
        (accepted,) = [request for request in self._lab.ameyo.requests_for(self.crt) if request.accepted]
        properties = accepted.json["properties"]
        assert isinstance(properties, dict)
        return result, properties

    def said(self) -> list[str]:
        return [line.split(" ", 1)[1] for line in self._bot.lines(self.crt)]


def test_no_bot_notices_that_every_worker_is_killed(lab: Lab, bot: Running) -> None:
    """A greeting that is heard out, and one that is interrupted by the caller's voice."""
    connections = len(bot.lines("[accepted]"))
    patient, impatient = OneCaller(lab, bot), OneCaller(lab, bot, SPEAKS)
    callers = (patient, impatient)
    for caller in callers:
        caller.call.wait_heard(GREETING)
    killed = lab.services[0].worker_pids()
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    patient.waits("HEARD greeted")
    impatient.call.wait_heard(YES)
    for caller in callers:
        taken_over(lab, caller.crt, 1)  # a key between two controllers is lost
        caller.call.send_dtmf("2")

    result, told = patient.result()
    assert told["outcome"] == "bot_ended" and told["agent_group"] == "support"
    assert told["summary"] == "pressed 2, greeting heard"
    line = result.recording.linear()
    assert heard(line, GREETING) == pytest.approx(3.0, abs=0.05)
    assert heard(line, GOODBYE) == pytest.approx(0.4, abs=0.05)
    first, _ = speech(line) or (0.0, 0.0)
    # In one piece, but for what a busy machine does to the bot's process; benchmarks/bots measures that.
    assert sum(gap.length for gap in gaps(line[2 * round(first * RATE) :][: 3 * 2 * RATE])) <= 0.3

    result, told = impatient.result()
    assert told["outcome"] == "bot_ended" and told["summary"] == "pressed 2, greeting interrupted"
    assert result.recording.heard(GREETING) <= 2.8, "the caller spoke behind a second"
    assert result.recording.heard(YES) == pytest.approx(0.32, abs=0.05)

    assert len(bot.lines("[accepted]")) == connections + len(callers), "one connection each"
    assert not set(killed) & set(lab.services[0].wait_serving()), "they were the ones that died"


def test_a_pipeline_that_crashes_is_a_failure_at_once(lab: Lab, bot: Running) -> None:
    caller = OneCaller(lab, bot)
    caller.call.wait_heard(GREETING)
    caller.call.send_dtmf("0")
    result, told = caller.result()
    assert told["outcome"] == "bot_failed" and "agent_group" not in told
    assert result.recording.heard(GREETING) < 2.0, "its last words are cut"


def test_a_conversation_goes_on_over_another_relay(lab: Lab, bot: Running) -> None:
    connections = len(bot.lines("[accepted]"))
    caller = OneCaller(lab, bot)
    caller.call.wait_heard(GREETING, 0.5)
    lab.kill_relay()
    caller.waits("RESUMED")
    caller.waits("HEARD greeted")
    caller.call.send_dtmf("1")
    result, told = caller.result()
    assert told["outcome"] == "bot_ended" and told["agent_group"] == "sales"
    assert told["summary"] == "pressed 1, greeting heard"
    # What the bot said into a socket whose other end was just dying is lost, a message or two.
    assert 2.6 <= result.recording.heard(GREETING) <= 3.05
    assert caller.said() == ["GREETS", "RESUMED", "HEARD greeted", "KEY 1"]
    assert len(bot.lines("[accepted]")) == connections + 2


def test_the_example_in_a_call(lab: Lab, receptionist: Running) -> None:
    """Speaks by espeak-ng, takes a key and ends."""
    if shutil.which("espeak-ng") is None:
        pytest.skip("no espeak-ng on this machine (Debian: espeak-ng)")
    said = len(receptionist.lines("Bot started speaking"))
    caller = OneCaller(lab, receptionist, tenant="receptionist")
    receptionist.wait_said("Bot started speaking", said + 1)
    caller.call.send_dtmf("5")
    result, told = caller.result()
    assert told["outcome"] == "bot_ended" and told["key"] == "5"
    loud = [sample for sample in memoryview(result.received).cast("h") if abs(sample) > 1000]
    assert len(loud) > 2000, "it has spoken"
