"""docs/operations.md tells every figure, every log line, every column and every outcome."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from eslbot.ameyo.retry import Verdict
from eslbot.ledger.schema import calls
from eslbot.outcome import Fault, Outcome, Stage
from tests.unit.signals.figures import names, samples

ROOT = Path(__file__).parents[3]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
LEVELS = ("debug", "info", "warning", "error", "exception")


def section(title: str) -> str:
    """The text of a heading, its smaller ones included."""
    level = "#" * re.search(rf"^(#+) {title}$", OPERATIONS, re.M)[1].count("#")  # type: ignore[index]
    return re.split(rf"^#{{2,{len(level)}}} ", OPERATIONS.split(f"{level} {title}\n")[1], flags=re.M)[0]


def told(title: str) -> set[str]:
    """What the first cells of the table there name."""
    cells = re.findall(r"^\| (`[^|]+) \|", section(title), re.M)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def logged() -> Iterator[tuple[str, str]]:
    """Each event of ours in the sources, with its file."""
    for path in sorted((ROOT / "eslbot").rglob("*.py")):
        if "sim" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
                continue
            function = node.func
            if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
                logs = function.value.id == "log" and function.attr in LEVELS
            else:
                logs = isinstance(function, ast.Name) and function.id == "tell"
            if logs:
                yield str(node.args[0].value), path.name


@pytest.mark.slow
def test_every_log_line_is_told() -> None:
    events = dict(logged())
    assert len(events) > 50
    events |= {f"hand_off_{verdict}": "call.py" for verdict in Verdict}
    assert {event: file for event, file in events.items() if event not in told("Logs")} == {}


def test_every_figure_is_told_with_its_labels_and_no_other() -> None:
    rows = dict(re.findall(r"^\| `(eslbot_\w+)` \| ([\w, ]*)\|", section("Metrics"), re.M))
    assert rows.keys() == names()
    for name, labels in rows.items():
        of_it = samples().get(name) or samples()[f"{name}_count"]
        assert set(re.findall(r"\w+", labels)) == of_it - {"job", "instance"}


def test_every_column_is_told() -> None:
    assert told("Columns") == {column.name for column in calls.columns}


def test_every_outcome_fault_and_stage_is_told() -> None:
    assert told("Outcomes and faults") == set(Outcome)
    assert set(re.findall(r"`(\w+)`", section("Outcomes and faults"))) >= set(Fault)
    assert set(re.findall(r"`(\w+)`", section("Metrics"))) >= set(Stage) | set(Verdict)
