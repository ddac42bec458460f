"""The example: how much of it there is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
#: Lines that a talking bot may cost who writes it.
BAR = 40


def lines(path: Path) -> int:
    """Lines of code: neither empty, nor comments, nor docstrings."""
    text = path.read_text()
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        number
        for node in ast.walk(ast.parse(text))
        if isinstance(node, documented) and ast.get_docstring(node) is not None
        for number in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and number not in docstrings
        for number, line in enumerate(text.splitlines(), 1)
    )


def test_a_talking_bot_is_forty_lines_at_most() -> None:
    assert 20 < lines(EXAMPLES / "receptionist.py") <= BAR


def test_lines_are_counted_as_they_should_be(tmp_path: Path) -> None:
    path = tmp_path / "some.py"
    path.write_text('"""Two\nlines."""\n\n# why\nx = 1\n\n\ndef f():\n    """One."""\n    return x  # y\n')
    assert lines(path) == 3


def test_the_example_loads() -> None:
    receptionist = pytest.importorskip("receptionist")
    assert callable(receptionist.bot)


def test_the_readme_shows_the_example() -> None:
    shown = (EXAMPLES / "receptionist.py").read_text().split('"""\n', 1)[1].strip()
    assert f"```python\n{shown}\n```" in (EXAMPLES.parent / "README.md").read_text()


def test_the_readme_s_python_is_python() -> None:
    blocks = (EXAMPLES.parent / "README.md").read_text().split("```python\n")[1:]
    assert len(blocks) == 3
    for block in blocks:
        ast.parse(block.split("```", 1)[0])
