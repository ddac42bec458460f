"""The shape of the house: rooms that say what they are, files and functions that can be read at one go."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ESLBOT = Path(__file__).parents[2] / "eslbot"
#: alembic's: one function creates a version's tables.
MIGRATIONS = ESLBOT / "ledger" / "migrations" / "versions"
MODULES = [path for path in sorted(ESLBOT.rglob("*.py")) if MIGRATIONS not in path.parents]
PACKAGES = [path for path in MODULES if path.name == "__init__.py"]
#: What several rooms share and is no room.
AT_THE_TOP = {"__init__.py", "__main__.py", "outcome.py", "turns.py"}
MAX_FILE, MAX_FUNCTION = 500, 50


def name(path: Path) -> str:
    return path.relative_to(ESLBOT).as_posix()


def long_functions(path: Path) -> Iterator[str]:
    """Those with too many lines behind their signature and docstring, which may say as much as they like."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = ((node.end_lineno or 0) - body[0].lineno + 1) if body else 0
            if lines > MAX_FUNCTION:
                yield f"{node.name}: {lines} lines"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_files_and_functions_can_be_read_at_one_go(path: Path) -> None:
    assert path.read_text().count("\n") <= MAX_FILE
    assert list(long_functions(path)) == []


@pytest.mark.parametrize("path", PACKAGES, ids=name)
def test_each_room_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), "one sentence for who reads `ls`"


def test_modules_are_in_rooms() -> None:
    assert {path.name for path in ESLBOT.glob("*.py")} == AT_THE_TOP
