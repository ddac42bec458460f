"""Every parser of the table under hostile inputs, as many as a test run has time for.

`scripts/fuzz` gives them more.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.__main__ import Figures, report, smaller
from tests.hostile.drive import STALL, drive
from tests.hostile.parsers import PARSERS, Parser
from tests.support.mutation import KINDS, RANGE, Edit, made_up, mutated

#: Inputs a parser: of hypothesis's, which it can make smaller, and of the generator of `scripts/fuzz`.
EXAMPLES, MADE_UP = 80, 250

_numbers = st.integers(0, RANGE - 1)
_edits = st.lists(st.builds(Edit, st.integers(0, len(KINDS) - 1), _numbers, _numbers, _numbers), max_size=8)


def check(parser: Parser, content: bytes) -> None:
    outcome = drive(parser, content)
    if outcome.fault is not None:
        raise outcome.fault
    assert outcome.step <= STALL or not parser.in_loop, f"{outcome.step * 1000:.0f} ms of processor time"


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_a_hostile_input_is_refused_or_read_and_holds_nobody_up(parser: Parser) -> None:
    @settings(max_examples=_of(parser, EXAMPLES), deadline=None, suppress_health_check=list(HealthCheck))
    @given(which=st.sampled_from(range(len(parser.seeds))), edits=_edits)
    def under(which: int, edits: list[Edit]) -> None:
        check(parser, mutated(parser.seeds[which], edits, parser.seeds))

    under()


def _of(parser: Parser, inputs: int) -> int:
    return max(10, round(inputs * min(1.0, parser.share)))


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_the_generators_inputs_too(parser: Parser) -> None:
    """Others each time, and named by their seed when they fail."""
    seed = time.time_ns()
    rng = random.Random(seed)
    for number in range(_of(parser, MADE_UP)):
        try:
            check(parser, made_up(rng, parser.seeds))
        except Exception as fault:
            fault.add_note(f"input {number} of random.Random({seed})")
            raise


# -- what drives them -------------------------------------------------------------------------------------


def broken(content: bytes) -> None:
    """Has the faults that are looked for."""
    if b"\xff" in content:
        raise KeyError("not expected")
    if b"|" in content:
        raise ValueError("expected")
    if b"%" in content:
        began = time.thread_time()
        while time.thread_time() - began < 2 * STALL:
            pass


BROKEN = Parser("broken", (b"abc\n1",), broken, (ValueError,))


def test_a_fault_is_found_with_its_input() -> None:
    content = b"a|" * 100 + b"\xff" + b"b" * 1000
    outcome = drive(BROKEN, content.replace(b"|", b""))
    assert outcome.place.startswith("KeyError in broken (test_parsers.py:")
    assert smaller(BROKEN, outcome.place, content.replace(b"|", b"")) == b"\xff"
    assert drive(BROKEN, b"a|b").fault is None


def test_a_stall_is_found_and_one_of_the_machines_is_not() -> None:
    assert drive(BROKEN, b"%").step > STALL
    times = iter((2 * STALL, 0.0))

    def busy(content: bytes) -> None:
        began, wanted = time.thread_time(), next(times)
        while time.thread_time() - began < wanted:
            pass

    assert drive(Parser("busy", (b"",), busy), b"").step < STALL


def test_the_generator_finds_what_is_there_to_find(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, figures = random.Random(3), Figures()
    for _ in range(2000):
        content = made_up(rng, BROKEN.seeds)[:1000].replace(b"%", b"")
        figures.take(BROKEN, content, drive(BROKEN, content))
    assert [place.split(" (")[0] for place in figures.faults] == ["KeyError in broken"]
    monkeypatch.setattr("tests.hostile.__main__.PARSERS", (BROKEN,))
    assert "  hex ff\n" in report({"broken": figures}, 1.0)


def test_the_same_seed_makes_the_same_inputs() -> None:
    first, second = (
        [made_up(rng, PARSERS[0].seeds) for _ in range(200)] for rng in map(random.Random, (7, 7))
    )
    assert first == second
    assert len(set(first)) > 150


def test_the_command_tells_its_figures(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    options = (
        "--inputs",
        "300",
        "--seed",
        "5",
        "--only",
        "notes",
        "--only",
        "invite",
        "--json",
        str(figures),
    )
    command = [sys.executable, "-m", "tests.hostile", *options]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("seed 5, load average ")
    assert "300 inputs in " in done.stdout
    document = json.loads(figures.read_text())
    assert sum(one["inputs"] for one in document["parsers"].values()) == 300
    assert done.stderr == "", "no progress where nobody watches"
