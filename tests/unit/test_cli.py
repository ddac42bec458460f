"""The command line: what it says, and with which code it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import eslbot
from eslbot.cli import main
from tests.unit.test_config import DESIGN, ENVIRONMENT


@pytest.fixture(autouse=True)
def _metrics_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``serve`` would set it for this process, and for every other process the tests start."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "eslbot.toml"
    path.write_text(DESIGN)
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.toml"
    path.write_text(DESIGN.replace("workers  = 2", "workers = 0").replace('"eslbot"  ', '"elbot"  '))
    return path


def run(*arguments: str | Path, environment: dict[str, str] | None = None) -> Result:
    return CliRunner(env=ENVIRONMENT if environment is None else environment).invoke(
        main, [str(argument) for argument in arguments]
    )


def test_help_names_every_command() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for command in ("serve", "check", "conf", "demo", "sim"):
        assert f"\n  {command} " in result.output
    assert run("-h").output == result.output


@pytest.mark.parametrize(
    "command",
    [["serve"], ["check"], ["conf"], ["demo"], ["sim"], *(["sim", s] for s in ("switch", "pbx", "bot"))],
)
def test_every_command_explains_itself(command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")


def test_version() -> None:
    assert eslbot.__version__ in run("--version").output


def test_check_prints_what_is_in_force_with_secrets_masked(good: Path) -> None:
    result = run("check", "--config", good)
    assert result.exit_code == 0
    assert tomllib.loads(result.stdout)["workspaces"].popitem()[1]["ameyo"]["token"] == "********"
    assert "warning: workspaces." in result.stderr
    for secret in ENVIRONMENT.values():
        assert secret not in result.output


@pytest.mark.parametrize("command", ["serve", "check", "conf"])
def test_a_bad_configuration_is_code_2_with_every_problem_on_a_line(
    command: str, bad: Path, tmp_path: Path
) -> None:
    arguments = ["--out", tmp_path / "out"] if command == "conf" else []
    result = run(command, "--config", bad, *arguments)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    first, *problems = result.stderr.splitlines()
    assert first == "the configuration has 2 problems:"
    assert [problem.split(":")[0].split(".")[-1] for problem in problems] == ["workers", "protocol"]
    assert result.stdout == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_missing_file_is_code_2(command: str, tmp_path: Path) -> None:
    result = run(command, "--config", tmp_path / "none.toml")
    assert result.exit_code == 2
    assert "cannot be read: No such file or directory" in result.output


def test_a_missing_variable_is_named_and_none_that_is_there_is_shown(good: Path) -> None:
    result = run("check", "--config", good, environment={**ENVIRONMENT, "ACME_AMEYO_TOKEN": None})  # type: ignore[dict-item]
    assert result.exit_code == 2
    assert "the configuration has 1 problem:" in result.output
    assert "ameyo.token: the environment variable ACME_AMEYO_TOKEN is not set" in result.output
    assert "bot-token-91ab" not in result.output


@pytest.mark.parametrize(
    "arguments", [["check"], ["serve"], ["conf", "--config", "x"], ["nonsense"], ["check", "--nonsense"]]
)
def test_wrong_usage_is_code_2(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize("drain", ["30", "-1s", "soon", "2000h"])
def test_a_drain_that_is_no_duration_is_code_2(good: Path, drain: str) -> None:
    result = run("serve", "--config", good, f"--drain={drain}")
    assert result.exit_code == 2
    assert "Invalid value for '--drain'" in result.output
    assert "expected" in result.output
    assert repr(drain) in result.output


@pytest.mark.parametrize(("arguments", "seconds"), [([], 0.0), (["--drain", "30m"], 1800.0)])
def test_drain_reaches_the_service(
    good: Path, arguments: list[str], seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    monkeypatch.setattr("eslbot.server.service.serve", lambda path, drain, json_logs: told.append(drain))
    assert run("serve", "--config", good, *arguments).exit_code == 0
    assert told == [seconds]


def test_the_configuration_may_come_from_the_environment(good: Path) -> None:
    assert run("check", environment={**ENVIRONMENT, "ESLBOT_CONFIG": str(good)}).exit_code == 0


def test_conf_writes_a_tree(good: Path, tmp_path: Path) -> None:
    result = run("conf", "--config", good, "--out", tmp_path / "fs")
    assert result.exit_code == 0, result.output
    assert list((tmp_path / "fs").rglob("*.xml"))
    assert "fs-password-5d1f" not in result.output


@pytest.mark.parametrize("command", ["serve", "check"])
def test_python_m_eslbot_is_the_same_program_and_shows_no_traceback(command: str, bad: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "eslbot", command, "--config", str(bad)],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert result.returncode == 2
    assert "server.workers: expected a whole number from 1 to 64, got 0" in result.stderr
    assert "Traceback" not in result.stderr
