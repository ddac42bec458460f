"""Good bots pass every check; each planted fault is named by the check that is for it, and by no other."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from eslbot.botcheck.call import BotCall
from eslbot.botcheck.checks import CHECKS, NAMES
from eslbot.botcheck.checks.two_calls import only_the_other_was_cleared
from eslbot.botcheck.findings import ALL, Grade
from eslbot.botcheck.run import Result, examine
from eslbot.botcheck.target import Target, Times, of_url
from eslbot.relay.protocols.base import Clear
from eslbot.sim.bot import Bot as SimBot
from tests.support import bad_bots as bots
from tests.support.check_bots import Bot, Ending, Talk, served, voice

TIMES = Times(
    call=8.0,
    hush=0.3,
    answer=2.0,
    settle=0.3,
    silence=1.6,
    listens=0.2,
    held=0.3,
    pause=1.0,
    close=1.5,
)
SAYS = voice(0.5, 9)
#: For bots that take one call at a time.
SOME = ("upgrade", "dtmf", "first-word", "pacing", "streams", "two-calls", "close-code", "hang-up", "tcp-end")
#: What is said where it was the machine that was late.
BUSY = "this machine was busy"
#: Checks in which a caller may be silent for long.
LONG = ("two-calls", "resume-before-speech")
FAIL, WARN = Grade.FAIL, Grade.WARN


@dataclass(frozen=True)
class Case:
    """A bot, and what is to be found of it; ``path`` of the stand-in's, or a ``talk`` of the tests'."""

    talk: type[Talk] | None = None
    expected: Mapping[str, Grade] = field(default_factory=dict)
    bot: type[Bot] = Bot
    protocol: str = "eslbot"
    path: str = ""
    keys: Mapping[str, object] = field(default_factory=dict)
    parallel: int = 32
    only: Sequence[str] = ()
    without: Sequence[str] = ()


GOOD = {
    "conversation": Case(Talk),
    "ends": Case(Ending),
    "rate": Case(Talk, keys={"sample_rate": 16000}),
    "talk": Case(path="talk?resumes=1&burst=1"),
    "one-breath": Case(path="one-breath?resumes=1"),
    "patient": Case(path="patient?resumes=1&burst=1", keys={"first_audio_timeout": 0}),
    "twilio": Case(path="twilio?listen_ms=200", protocol="twilio"),
    "exotel": Case(path="exotel?rate=16000&listen_ms=200", protocol="exotel", keys={"sample_rate": 16000}),
    "plivo": Case(path="plivo?listen_ms=200", protocol="plivo"),
}
FAULTS = {
    "wants start first": Case(bots.WantsStartFirst, {"early-audio": WARN}),
    "unknown type raises": Case(bots.UnknownTypeRaises, {"unknown-message": FAIL}),
    "unknown type silences": Case(bots.UnknownTypeSilences, {"unknown-message": FAIL}),
    "unknown type closes": Case(bots.UnknownTypeCloses, {"unknown-message": FAIL}),
    "unknown field raises": Case(bots.UnknownFieldRaises, {"unknown-field": FAIL}),
    "error raises": Case(bots.ErrorRaises, {"error-message": FAIL}),
    "resumed raises": Case(bots.ResumedRaises, {"resumed-message": FAIL}),
    "cleared raises": Case(bots.ClearedRaises, {"stray-cleared": WARN}),
    "stray mark raises": Case(
        bots.StrayMarkRaises, dict.fromkeys(("stray-mark", "resume-in-speech", "resume-after-shutdown"), FAIL)
    ),
    "key raises": Case(bots.KeyRaises, {"dtmf": FAIL}),
    "misspells": Case(bots.Misspells, {"own-messages": FAIL}),
    "not JSON": Case(bots.NotJson, {"own-messages": FAIL}),
    "mute": Case(bots.Mute, {"first-word": FAIL}),
    "waits for the caller": Case(bots.WaitsForCaller, {"first-word": FAIL}),
    "nameless mark": Case(bots.NamelessMark, {"marks": FAIL}),
    "slow barge-in": Case(bots.SlowBargeIn, {"barge-in": WARN}),
    "hold raises": Case(bots.HoldRaises, {"hold": FAIL}),
    "hears music": Case(bots.HearsMusic, {"hold": WARN}),
    "silence raises": Case(bots.SilenceRaises, {"silent-caller": FAIL}, without=LONG),
    "pause raises": Case(bots.PauseRaises, {"audio-pause": FAIL}),
    "another rate": Case(bots.OtherRate, {"formats": FAIL}),
    "half a sample": Case(bots.HalfSample, {"whole-samples": WARN}),
    "WAV header": Case(bots.WavHeader, {"whole-samples": FAIL}),
    "slow": Case(bots.Slow, {"pacing": FAIL}),
    "huge text": Case(bots.HugeText, {"bounds": FAIL}),
    "greets again": Case(bots.GreetsAgain, {"resume-in-speech": FAIL, "resume-after-shutdown": FAIL}),
    "forgets on stop": Case(bots.ForgetsOnStop, {"resume-after-shutdown": FAIL}),
    "knows each call once": Case(
        bots.KnowsEachCallOnce,
        {"resume-before-speech": FAIL, "resume-in-speech": FAIL, "resume-after-shutdown": FAIL},
    ),
    "ends once": Case(bots.EndsOnce, {"resume-after-end": FAIL}),
    "ends differently": Case(bots.EndsDifferently, {"resume-after-end": WARN}),
    "one socket for all": Case(bots.OneSocket, {"two-calls": FAIL}, parallel=1, only=SOME),
    "hangs all up": Case(bots.HangsAllUp, {"two-calls": FAIL}, parallel=1, only=SOME),
    "nested property": Case(bots.NestedProperty, {"end": FAIL}),
    "closes with 1011": Case(bots.ClosesWith1011, {"close-code": FAIL}),
    "looks at the caller": Case(Talk, {"hostile-caller": FAIL}, bot=bots.LooksAtCaller),
    "one call at a time": Case(Talk, {"two-calls": FAIL}, bot=bots.OneCall, parallel=1, only=SOME),
    "takes no call": Case(Talk, {"upgrade": FAIL}, bot=bots.TakesNone),
    "reads nothing": Case(path="hold?unread=1&resumes=1", expected={"ping": FAIL, "hang-up": FAIL}),
    "leaves TCP open": Case(path="talk?keep_tcp=1&resumes=1", expected={"tcp-end": WARN}),
    "another's stream": Case(
        bots.TwilioTalk, {"streams": WARN, "two-calls": FAIL}, protocol="twilio", parallel=1
    ),
}
#: Bots at one time: their callers speak in real time. And how often one that is not found to be what it is
#: is looked at once more, alone: all of this is about time, and other tests may have had all of it.
AT_ONE_TIME, ONCE_MORE = 8, 2


async def _examined(case: Case, sim: SimBot) -> Sequence[Result]:
    only = [name for name in case.only or NAMES if name not in case.without]
    async with AsyncExitStack() as stack:
        if case.talk is None:
            url = sim.url(case.path)
        else:
            url = await stack.enter_async_context(served(case.talk, case.bot))
        return await examine(target(url, case), TIMES, parallel=case.parallel, only=only)


async def _all_examined(cases: Mapping[str, Case], sim: SimBot) -> Mapping[str, Sequence[Result]]:
    room = asyncio.Semaphore(AT_ONE_TIME)

    async def one(case: Case) -> Sequence[Result]:
        async with room:
            return await _examined(case, sim)

    results = dict(zip(cases, await asyncio.gather(*(one(case) for case in cases.values())), strict=True))
    for _ in range(ONCE_MORE):
        for name, case in cases.items():
            if not as_expected(case, results[name]):
                results[name] = await _examined(case, sim)
    return results


def target(url: str, case: Case) -> Target:
    keys = {"protocol": case.protocol, "connect_timeout": "20s", "first_audio_timeout": "1s", **case.keys}
    return of_url(url, keys, [], SAYS)


@pytest.fixture(scope="module")
def examined(request: pytest.FixtureRequest) -> Mapping[str, Sequence[Result]]:
    """Those that are asked about in this run."""
    asked = {
        item.callspec.params.get("name")
        for item in request.session.items
        if item.path == request.path and isinstance(item, pytest.Function) and hasattr(item, "callspec")
    }
    cases = {name: case for name, case in {**GOOD, **FAULTS}.items() if name in asked}
    with SimBot() as sim:
        return asyncio.run(_all_examined(cases, sim))


def told(results: Sequence[Result]) -> dict[str, tuple[Grade, str]]:
    return {
        result.check.name: (result.verdict.grade, result.verdict.told)
        for result in results
        if result.verdict.grade in (Grade.FAIL, Grade.WARN)
    }


def grades(results: Sequence[Result]) -> dict[str, Grade]:
    return {check: grade for check, (grade, _) in told(results).items()}


def as_expected(case: Case, results: Sequence[Result]) -> bool:
    """Whether that was found which is to be; of times nothing can be on a busy machine."""
    late = {r.check.name for r in results if BUSY in r.verdict.told}
    expected = {check: grade for check, grade in case.expected.items() if check not in late}
    return grades(results) == expected


@pytest.mark.timed
@pytest.mark.parametrize("name", GOOD)
def test_a_good_bot_is_clean(examined: Mapping[str, Sequence[Result]], name: str) -> None:
    assert told(examined[name]) == {}
    passed = [result for result in examined[name] if result.verdict.grade is Grade.PASS]
    assert len(passed) >= 15


@pytest.mark.timed
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(examined: Mapping[str, Sequence[Result]], name: str) -> None:
    assert as_expected(FAULTS[name], examined[name]), told(examined[name])
    if busy := [r.verdict.told for r in examined[name] if BUSY in r.verdict.told]:
        pytest.skip(busy[0])


CLEARED, OTHERWISE = SimpleNamespace(wish=Clear()), SimpleNamespace(wish=None)


@pytest.mark.parametrize(
    ("one", "other", "mixed"),
    [
        ([OTHERWISE], [OTHERWISE, CLEARED], True),
        ([OTHERWISE, CLEARED], [OTHERWISE, CLEARED], False),
        ([CLEARED, OTHERWISE], [OTHERWISE, CLEARED], False),  # by a clock of its own, before anybody spoke
        ([OTHERWISE], [CLEARED, OTHERWISE], False),
    ],
)
def test_whose_speech_was_cleared(one: list[Any], other: list[Any], mixed: bool) -> None:
    found = only_the_other_was_cleared(
        cast(BotCall, SimpleNamespace(wishes=one)), cast(BotCall, SimpleNamespace(wishes=other)), 1
    )
    assert found is mixed


def test_every_check_has_a_fault_that_it_names() -> None:
    assert {check.name for check in CHECKS} == {check for case in FAULTS.values() for check in case.expected}


def test_checks_say_what_they_prove_and_what_to_do() -> None:
    page = (Path(__file__).parents[2] / "docs" / "bot-protocol.md").read_text()
    headings = set(re.findall(r"^#+ (.+)$", page, re.MULTILINE))
    numbers = {heading.partition(".")[0] for heading in headings if heading[0].isdecimal()}
    for check in CHECKS:
        assert check.proves.endswith(".") and check.remedy and set(check.protocols) <= set(ALL)
        number, _, rest = check.section.partition(". ")
        assert check.section.startswith(("docs/", "The bot protocol")) or number in numbers, check.section
        assert rest or check.section


def test_only_what_was_asked_for_is_checked_and_a_bot_that_is_not_there_always_fails() -> None:
    with SimBot() as sim:
        url = sim.url("one-breath")
        results = asyncio.run(examine(target(url, Case()), TIMES, only=["first-word"]))
        assert [(r.check.name, r.verdict.grade) for r in results] == [("first-word", Grade.PASS)]
    results = asyncio.run(examine(target(url, Case()), TIMES, only=["dtmf"]))
    assert [(r.check.name, r.verdict.grade) for r in results] == [
        ("upgrade", Grade.FAIL),
        ("dtmf", Grade.UNSEEN),
    ]
    assert "refused" in results[0].verdict.told.lower()


def test_a_call_that_never_ends_is_bounded() -> None:
    with SimBot() as sim:
        times = replace(TIMES, call=1.0)
        results = asyncio.run(examine(target(sim.url("drone"), Case()), times, only=["first-word", "pacing"]))
    assert [r.verdict.grade for r in results] == [Grade.PASS, Grade.PASS]
