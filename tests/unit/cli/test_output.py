"""What holds for every command: help, a man page, ``--json``, exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from eslbot.cli import main
from tests.unit.test_config import DESIGN, ENVIRONMENT

ROOT = Path(__file__).parents[3]
#: What runs until it is told to stop; its lines are a log (``--log json``), or events as JSON already.
RUNNING = {"serve", "relay", "sim switch", "sim bot", "sim pbx"}


def commands(group: click.Command = main, above: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that people may give, with its words."""
    for name, command in getattr(group, "commands", {}).items():
        words = f"{above} {name}".strip()
        if not command.hidden:
            yield words, command
            yield from commands(command, words)


ALL = dict(commands())
ENDING = {
    words: command
    for words, command in ALL.items()
    if words not in RUNNING and (not isinstance(command, click.Group) or command.invoke_without_command)
}


def run(*arguments: str | Path, **environment: str | None) -> Result:
    return CliRunner(env={**ENVIRONMENT, **environment}).invoke(main, [str(a) for a in arguments])


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "eslbot.toml"
    path.write_text(
        DESIGN.replace("[server]", f'[server]\nkey_file = "{tmp_path}/identity.key"')
        .replace("/var/lib/eslbot/calls.db", f"{tmp_path}/calls.db")
        .replace("[freeswitch]", f'[freeswitch]\nrecovery_file = "{tmp_path}/freeswitch.json"', 1)
    )
    return path


@pytest.mark.parametrize("words", ALL)
def test_every_command_has_help_that_begins_with_a_sentence(words: str) -> None:
    result = run(*words.split(), "--help")
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")
    assert ALL[words].help
    assert ALL[words].get_short_help_str(200)


@pytest.mark.parametrize("words", ALL)
def test_every_option_is_explained_or_explains_itself(words: str) -> None:
    for option in ALL[words].params:
        if isinstance(option, click.Option) and not words.startswith("sim") and words != "demo":
            assert option.help or option.show_default, option.opts


@pytest.mark.parametrize("words", ENDING)
def test_every_command_that_ends_has_json(words: str) -> None:
    assert "--json" in {name for option in ENDING[words].params for name in option.opts}


@pytest.mark.parametrize("words", ENDING)
def test_wrong_usage_is_code_2_and_one_json_object_on_standard_error(words: str) -> None:
    result = run(*words.split(), "--json", "--nonsense")
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert json.loads(line).keys() == {"error", "problems", "exit_code"}
    assert "--nonsense" in json.loads(line)["error"]


def test_a_command_that_there_is_not_is_told_as_json_too() -> None:
    result = run("nonsense", "--json")
    assert result.exit_code == 2
    assert "nonsense" in json.loads(result.stderr)["error"]


NEEDS_A_CONFIGURATION = [
    ["check"],
    ["key"],
    ["conf", "--out", "nowhere"],
    ["onboard", "--workspace", "acme"],
    ["calls"],
    ["calls", "show", "x"],
    ["stats"],
    ["notify", "--call", "x", "--yes"],
    ["ledger", "migrate"],
    ["reload"],
    ["tenant", "list"],
    ["tenant", "show", "acme"],
    ["tenant", "remove", "acme", "--yes"],
]


@pytest.mark.parametrize("command", NEEDS_A_CONFIGURATION, ids=" ".join)
def test_a_configuration_that_cannot_be_used_is_code_2_with_its_problems(
    command: list[str], good: Path
) -> None:
    good.write_text(
        good.read_text().replace("workers  = 2", "workers = 0").replace('"eslbot"  ', '"elbot"  ')
    )
    result = run(*command, "--config", good, "--json")
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    told = json.loads(result.stderr.splitlines()[-1])
    assert told["exit_code"] == 2
    assert told["error"] == "the configuration has 2 problems"
    assert {problem.split(":")[0].split(".")[-1] for problem in told["problems"]} == {"workers", "protocol"}


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        (["check"], {"configuration", "warnings"}),
        (["key"], {"file", "signs", "believed"}),
        (["conf", "--out", "{folder}/freeswitch"], {"files", "notes"}),
        (["conf", "--out", "{folder}/rules", "--firewall"], {"files", "notes"}),
        (["ledger", "migrate"], {"url", "revision"}),
        (["tenant", "list"], {"tenants"}),
        (["tenant", "show", "acme"], {"id", "workspace", "calls"}),
        (["doctor", "--list"], {"checks"}),
        (["recovery"], {"file", "counted", "restarts", "flushes", "calls", "dropped", "last_restart",
                        "last_flush", "boot", "starts", "problem"}),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_is_well_is_one_json_document(command: list[str], keys: set[str], good: Path) -> None:
    words = [word.format(folder=good.parent) for word in command]
    result = run(*words, "--config", good, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout).keys() == keys
    for line in result.stderr.splitlines():
        assert json.loads(line).keys() <= {"warning", "progress"}
    for secret in ENVIRONMENT.values():
        assert secret not in result.output


def test_calls_and_stats_of_an_empty_ledger(good: Path) -> None:
    assert run("ledger", "migrate", "--config", good).exit_code == 0
    assert json.loads(run("calls", "--config", good, "--json").stdout) == []
    assert json.loads(run("stats", "--config", good, "--json").stdout)["all"]["calls"] == 0
    rows = list(csv.reader(io.StringIO(run("stats", "--config", good, "--csv").stdout)))
    assert rows[0] == ["workspace", "figure", "value"]
    assert ["", "calls", "0"] in rows
    assert all(len(row) == 3 for row in rows)


@pytest.mark.parametrize("command", ["calls", "stats"])
def test_two_forms_at_once_are_code_2(command: str, good: Path) -> None:
    assert run(command, "--config", good, "--json", "--csv").exit_code == 2


def test_a_call_that_there_is_not_is_code_1_as_json(good: Path) -> None:
    assert run("ledger", "migrate", "--config", good).exit_code == 0
    result = run("calls", "show", "nobody", "--config", good, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stderr.splitlines()[-1])["exit_code"] == 1


@pytest.mark.parametrize(
    "command",
    [
        ["tenant", "remove", "acme"],
        ["notify", "--call", "x"],
        [
            *("tenant", "add", "x", "--source", "10.0.0.1", "--bot-url", "wss://x/"),
            "--tenant-host",
            "x",
            "--ask",
        ],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_program_is_asked_nothing(command: list[str], good: Path) -> None:
    result = run(*command, "--config", good, "--json")
    assert result.exit_code == 2
    assert "with --json nobody is asked" in json.loads(result.stderr)["error"]


def test_what_a_person_breaks_off_is_code_1(good: Path) -> None:
    more = good.read_text()[good.read_text().index("[workspaces.") :]
    both = good.read_text() + more.replace("2b37ba17", "3b37ba17").replace('"acme"', '"zeta"')
    good.write_text(both)
    assert run("tenant", "remove", "zeta", "--config", good).exit_code == 1  # standard input is at its end
    assert good.read_text() == both


def test_a_recovery_file_that_is_none_is_code_1_as_json(good: Path) -> None:
    (good.parent / "freeswitch.json").write_text("nothing")
    result = subprocess.run(
        [sys.executable, "-m", "eslbot", "recovery", "--config", str(good), "--json"],
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert json.loads(result.stderr)["exit_code"] == 1


def test_man_pages_are_made_for_every_command(tmp_path: Path) -> None:
    subprocess.run(
        [ROOT / "scripts" / "man", tmp_path],
        env={**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=120,
    )
    expected = {f"eslbot-{words.replace(' ', '-')}.1" for words in ALL} | {"eslbot.1"}
    assert {page.name for page in tmp_path.iterdir()} == expected
    for page in tmp_path.iterdir():
        text = page.read_text()
        assert text.startswith(".TH ")
        for section in ("NAME", "SYNOPSIS", "DESCRIPTION"):
            assert f"\n.SH {section}\n" in text, page.name
    assert r"\fB\-\-dry\-run\fP" in (tmp_path / "eslbot-reload.1").read_text()


def test_the_shell_completes_commands_and_options() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "_ESLBOT_COMPLETE": "bash_complete"}
    for words, position, expected in (("eslbot ten", 1, "tenant"), ("eslbot reload --dr", 2, "--dry-run")):
        found = subprocess.run(
            [sys.executable, "-c", "from eslbot.cli import main; main(prog_name='eslbot')"],
            env={**environment, "COMP_WORDS": words, "COMP_CWORD": str(position)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert f"plain,{expected}" in found.stdout


def test_help_loads_nothing_that_takes_its_time() -> None:
    heavy = (
        "marshmallow",
        "sqlalchemy",
        "gevent",
        "gunicorn",
        "requests",
        "tomlkit",
        "ssl",
        "socket",
        "eslbot.config",
    )
    script = (
        "import sys\nfrom eslbot.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.stderr.strip() == "[]"


def test_every_command_and_its_json_is_documented() -> None:
    text = (ROOT / "docs" / "commands.md").read_text()
    for words in ALL:
        assert f"`eslbot {words}" in text, words
