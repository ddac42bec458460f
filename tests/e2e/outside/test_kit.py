"""``eslbot bot check`` finds nothing to mend in the bots that we show to people."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

import pytest

from eslbot.botcheck.caller_speech import sentence
from eslbot.botcheck.findings import Grade
from eslbot.botcheck.run import Result, examine
from eslbot.botcheck.target import of_url
from tests.e2e.outside import bots

#: It judges when a bot speaks, and a detector takes a core that others would want.
pytestmark = pytest.mark.alone
BOTS = ("plain", "sdk", "node", "pipecat")
RECEPTIONIST = bots.PIPECAT_ESLBOT / "examples" / "receptionist.py"
#: Calls at one time, of each bot.
PARALLEL = 8

Examined = Mapping[str, Sequence[Result] | str]


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Examined]:
    """All of them beside each other; of one that is not on this machine, what is missing."""
    found: dict[str, Sequence[Result] | str] = {}
    with ExitStack() as stack:
        urls: dict[str, str] = {}
        for name in BOTS:
            folder = tmp_path_factory.mktemp(name)
            if name == "pipecat":
                bot = bots.pipecat_native(folder, RECEPTIONIST)
            else:
                bot = bots.example(name, folder)
            try:
                urls[name] = stack.enter_context(bot).url
            except bots.Missing as missing:
                found[name] = str(missing)

        async def all_of_them() -> list[Sequence[Result]]:
            targets = [of_url(url, {}, [], sentence()) for url in urls.values()]
            return await asyncio.gather(*(examine(target, parallel=PARALLEL) for target in targets))

        found.update(zip(urls, asyncio.run(all_of_them()), strict=True))
        yield found


@pytest.mark.parametrize("name", BOTS)
def test_there_is_nothing_to_mend(examined: Examined, name: str) -> None:
    results = examined[name]
    if isinstance(results, str):
        pytest.skip(results)
    wrong = {
        result.check.name: (result.verdict.grade, result.verdict.told)
        for result in results
        if result.verdict.grade in (Grade.FAIL, Grade.WARN)
    }
    assert wrong == {}
    assert sum(result.verdict.grade is Grade.PASS for result in results) >= 20
