"""Bots that nobody here wrote: a whole call with each, against the protocol alone and through a relay."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest

from eslbot.config import model
from eslbot.relay import protocols
from eslbot.sim import freeswitch
from eslbot.sim.audio import heard, speech, tone
from eslbot.sim.bot import GOODBYE, GREETING, Bot
from eslbot.sim.lab import Tenant
from eslbot.sim.pbx import CallResult, PbxCall
from eslbot.sim.pbx.media import CALLER_TONE
from tests.e2e.outside import bots
from tests.e2e.outside.bots import Running
from tests.e2e.outside.player import Played, Player
from tests.support.invites import INVITE
from tests.support.lab import Lab

#: What Pipecat has in its own protocols, and our stand-in.
DIALECTS = ["twilio", "exotel", "plivo"]


def there(bot: AbstractContextManager[Running]) -> Iterator[Running]:
    """A bot while it runs; where the machine has none, the test is skipped."""
    try:
        with bot as running:
            yield running
    except bots.Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def pipecat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    yield from there(bots.pipecat(tmp_path_factory.mktemp("pipecat")))


@pytest.fixture(scope="module")
def twilio_sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    yield from there(bots.twilio_sample(tmp_path_factory.mktemp("twilio-sample")))


@pytest.fixture(scope="module")
def openai_agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    yield from there(bots.openai_agents(tmp_path_factory.mktemp("openai")))


@pytest.fixture
def stand_in() -> Iterator[Bot]:
    with Bot() as bot:
        yield bot


# -- against the protocol alone ----------------------------------------------------------------------------


def play(url: str, protocol: str, **options: object) -> Played:
    """A call by one of our protocols."""
    bot = model.Bot((url,), 8000, 3.0, 0.0, {}, insecure=True, protocol=protocol)
    spoken = protocols.speak(INVITE, bot, "")
    return asyncio.run(Player(url, spoken, tone(CALLER_TONE, 1.0), **options).call(30))  # type: ignore[arg-type]


@pytest.mark.parametrize("protocol", DIALECTS)
def test_pipecat_by_the_protocol(pipecat: Running, protocol: str) -> None:
    played = play(pipecat.url, protocol, keys={0.3: "5"})
    line = bytes(played.line.heard)
    assert (played.close_code, played.clears, played.bad) == (1000, 1, [])
    # A greeting of 0.6 s, and of five what was under way when it interrupted itself: half a second, or less.
    assert 0.55 <= heard(line, GREETING) <= 2.0
    assert heard(line, GOODBYE) == pytest.approx(0.4, abs=0.05)
    pipecat.wait_said(f"CALL {protocol} ")
    pipecat.wait_said("KEY 5")


def test_twilios_sample_by_the_protocol(twilio_sample: Running) -> None:
    played = play(twilio_sample.url, "twilio")
    line = bytes(played.line.heard)
    assert (played.close_code, played.bad) == (1000, [])
    assert played.largest == 16000, "a second in one message"
    assert played.marks == [f"Repeat message {number}" for number in range(5)]
    first, last = speech(line) or (0.0, 0.0)
    assert first >= 1.0, "it never speaks first"
    assert heard(line, CALLER_TONE) == pytest.approx(5.0, abs=0.1), (
        "all of it, the last second behind the close"
    )
    assert last - first == pytest.approx(5.0, abs=0.3)


def test_openais_transport_by_the_protocol(openai_agents: Running) -> None:
    played = play(openai_agents.url, "twilio")
    line = bytes(played.line.heard)
    assert (played.close_code, played.clears, played.bad) == (1005, 1, [])
    assert played.largest == 80_000, "five seconds in one message"
    assert 0.7 <= heard(line, GREETING) <= 1.8
    assert heard(line, GOODBYE) == pytest.approx(0.4, abs=0.05)
    openai_agents.wait_said("CLOSED 1005")
    said = openai_agents.log.read_text()
    assert "TRUNCATED i2 " in said, "it knows what was heard when the caller interrupted it"
    assert "Padding" not in said and "ERROR" not in said


@pytest.mark.parametrize("protocol", DIALECTS)
def test_the_stand_in_by_the_protocol(stand_in: Bot, protocol: str) -> None:
    """What our own bot takes for a provider's protocol is what our relay speaks."""
    played = play(stand_in.url(f"{protocol}?listen_ms=300"), protocol)
    line = bytes(played.line.heard)
    (call,) = stand_in.calls
    assert call.error is None and played.bad == []
    assert played.marks[0] == "" and played.marks[-1] == "good-bye"
    assert (played.close_code, played.clears) == (1000, 1)
    assert heard(line, GOODBYE) == pytest.approx(0.4, abs=0.05)
    assert heard(call.audio(), CALLER_TONE) >= 0.3


# -- whole calls through a relay ---------------------------------------------------------------------------


@dataclass
class Placed:
    """One laboratory's calls, one to each bot that is there, beside each other."""

    lab: Lab
    calls: dict[str, PbxCall]

    def result(self, name: str, limit: float = 30) -> CallResult:
        """How the call to that bot went; skips the test where there is none."""
        if name not in self.calls:
            pytest.skip(f"no {name} on this machine: see scripts/prepare-outside")
        result = self.calls[name].wait(limit)
        assert result.completed and result.cause == "accepted", (result, self.lab.log_lines()[-20:])
        crt = result.crt_object_id
        (accepted,) = [request for request in self.lab.ameyo.requests_for(crt) if request.accepted]
        outcome = "bot_ended" if name == "eslbot" else "bot_closed"
        assert accepted.json["properties"]["outcome"] == outcome
        return result


@pytest.fixture(scope="module")
def placed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Placed]:
    """PBX, FreeSWITCH, eslbot with its relay, all bots, Ameyo."""
    if freeswitch.find() is None:
        pytest.skip("no FreeSWITCH with mod_audio_stream on this machine")
    urls: dict[str, tuple[str, str]] = {}
    for bot, protocols_of_it in BOTS.items():
        try:
            running: Running = request.getfixturevalue(bot)
        except pytest.skip.Exception:
            continue
        urls |= {f"{bot}-{protocol}": (running.url, protocol) for protocol in protocols_of_it}
    with Bot() as stand_in:
        urls["eslbot"] = (stand_in.url("talk?listen_ms=300&format=binary"), "eslbot")
        # A bot that waits for the caller is no silent one.
        tenants = [
            Tenant(name.replace("_", "-"), url, bot_keys={"protocol": protocol, "first_audio_timeout": 0})
            for name, (url, protocol) in urls.items()
        ]
        with Lab(tmp_path_factory.mktemp("lab"), tenants, switch="freeswitch") as lab:
            calls = {
                name: lab.pbx.call(INVITE.did, None, tenant.id, timeout=40)
                for name, tenant in zip(urls, tenants, strict=True)
            }
            yield Placed(lab, calls)


#: The bots, and by which protocols they are called.
BOTS = {"pipecat": DIALECTS, "twilio_sample": ["twilio"], "openai_agents": ["twilio"]}


@pytest.mark.parametrize("protocol", DIALECTS)
def test_pipecat_in_a_call(placed: Placed, protocol: str) -> None:
    result = placed.result(f"pipecat-{protocol}")
    # The greeting of 0.6 s; of the five seconds that it interrupts itself what was under way by then.
    assert 0.55 <= result.recording.heard(GREETING) <= 2.0
    assert result.recording.heard(GOODBYE) >= 0.35


def test_twilios_sample_in_a_call(placed: Placed) -> None:
    result = placed.result("twilio_sample-twilio")
    assert result.recording.heard(CALLER_TONE) >= 4.8


def test_openais_transport_in_a_call(placed: Placed, openai_agents: Running) -> None:
    result = placed.result("openai_agents-twilio")
    assert 0.7 <= result.recording.heard(GREETING) <= 1.8
    assert result.recording.heard(GOODBYE) >= 0.35
    openai_agents.wait_said("CLOSED ")
    said = openai_agents.log.read_text()
    assert said.count("TRUNCATED i2 ") >= said.count("CLOSED ") and "ERROR" not in said
    # Time stamps that are not a frame's length apart make it add silence to what the caller says.
    assert "Padding" not in said


def test_a_native_bot_in_a_call(placed: Placed) -> None:
    result = placed.result("eslbot")
    assert result.recording.heard(GREETING) >= 0.55
    assert result.recording.heard(GOODBYE) >= 0.35
