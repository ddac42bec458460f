"""``eslbot bot check`` as its user sees it: what it takes, what it says, and its exit codes."""

from __future__ import annotations

import json
import wave
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from eslbot.botcheck import report
from eslbot.botcheck.checks import CHECKS, NAMES
from eslbot.botcheck.findings import Grade, Verdict, failed, passed, unseen, warned
from eslbot.botcheck.run import Result as Found
from eslbot.botcheck.target import of_url
from eslbot.cli import main
from eslbot.sim.bot import Bot
from eslbot.telemetry import redaction
from tests.unit.test_config import DESIGN, ENVIRONMENT

#: Checks that look at one call: nobody waits for the others here.
ONE_CALL = ("--only", "first-word", "--only", "upgrade")


@pytest.fixture(scope="module")
def bot() -> Iterator[Bot]:
    with Bot() as running:
        yield running


@pytest.fixture(autouse=True)
def _no_secrets_left() -> Iterator[None]:
    yield
    redaction.protect(frozenset())


def run(*arguments: str | Path, **environment: str) -> Result:
    env = {**ENVIRONMENT, **environment}
    return CliRunner(env=env).invoke(main, ["bot", "check", *map(str, arguments)])


def test_a_good_bot_is_code_0_and_a_table(bot: Bot) -> None:
    result = run(bot.url("one-breath"), *ONE_CALL, "--connect-timeout", "30s")
    assert result.exit_code == 0, result.output
    head, *lines = result.stdout.splitlines()
    assert head == f"{bot.url('one-breath')}, protocol eslbot, 8000 Hz"
    assert [line.split()[:2] for line in lines[:-1]] == [["pass", "upgrade"], ["pass", "first-word"]]
    assert lines[-1] == "nothing to mend (2 passed, 0 not seen, 0 not applicable)"
    assert result.stderr == ""


def test_a_bad_one_is_code_1_with_what_to_do_and_where_to_read(bot: Bot) -> None:
    result = run(bot.url("reject"), *ONE_CALL)
    assert result.exit_code == 1
    assert "fail      upgrade     the bot did not take this call: HTTP status 403" in result.stdout
    assert "do:  accept the upgrade at once" in result.stdout
    assert "see: docs/bot-protocol.md, “1. Connection”" in result.stdout
    assert "not seen  1 other checks: the bot was not reached" in result.stdout


def test_json_is_one_document_and_progress_is_on_standard_error(bot: Bot) -> None:
    result = run(bot.url("reject"), *ONE_CALL, "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["version"] == 1 and document["exit_code"] == 1 and document["protocol"] == "eslbot"
    assert document["counts"] == {"pass": 0, "not seen": 1, "not applicable": 0, "warn": 0, "fail": 1}
    first = document["checks"][0]
    assert first["check"] == "upgrade" and first["grade"] == "fail" and "403" in first["told"]
    assert first["proves"] and first["remedy"] and first["section"] and first["seconds"] == 0.0
    assert {"progress": "plain begins"} in [json.loads(line) for line in result.stderr.splitlines()]


def test_the_bot_of_a_workspace_is_dialled_as_it_is_configured(bot: Bot, tmp_path: Path) -> None:
    path = tmp_path / "eslbot.toml"
    path.write_text(
        DESIGN.replace("wss://bot.example.com/stream", bot.url("one-breath?key=very-secret-0815")).replace(
            "connect_timeout = ", "insecure = true\nconnect_timeout = ", 1
        )
    )
    result = run("--config", path, "--workspace", "acme", *ONE_CALL)
    assert result.exit_code == 0, result.output
    assert bot.calls[-1].headers["Authorization"] == ENVIRONMENT["ACME_BOT_TOKEN"]
    assert "very-secret" not in result.output
    for secret in ENVIRONMENT.values():
        assert secret not in result.output
    assert run("--config", path, "--workspace", "nobody").exit_code == 2
    assert run("--config", path, "--workspace", "acme", "--rate", "16000").exit_code == 2
    assert run("--workspace", "acme").exit_code == 2


def test_headers_are_sent_and_their_values_never_told(bot: Bot) -> None:
    secret = "Bearer s3cr3t-s3cr3t"
    arguments = ("--header", "Authorization=${BOT_TOKEN}", "--header", "X-Tenant=acme", *ONE_CALL)
    result = run(bot.url("one-breath"), *arguments, "--json", BOT_TOKEN=secret)
    assert result.exit_code == 0, result.output
    assert bot.calls[-1].headers["Authorization"] == secret
    assert bot.calls[-1].headers["X-Tenant"] == "acme"
    assert "s3cr3t" not in result.output
    missing = run(bot.url("one-breath"), "--header", "Authorization=${NOWHERE}")
    assert missing.exit_code == 2 and "NOWHERE is not set" in missing.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "say which bot"),
        (("ws://127.0.0.1:1/", "--workspace", "acme"), "say which bot"),
        (("ws://127.0.0.1:1/", "--only", "nonsense"), "there is no check nonsense"),
        (("ws://bot.example.com/",), "say --insecure"),
        (("http://127.0.0.1:1/",), "URL"),
        (("ws://127.0.0.1:1/", "--protocol", "twilio", "--rate", "16000"), "expected 8000"),
        (("ws://127.0.0.1:1/", "--header", "Host=evil"), "set by eslbot"),
        (("ws://127.0.0.1:1/", "--header", "nothing"), "NAME=VALUE"),
        (("ws://127.0.0.1:1/", "--say", "/nonexistent.wav"), "cannot be read"),
        (("ws://127.0.0.1:1/", "--timeout", "soon"), "--timeout"),
    ],
)
def test_a_wrong_question_is_code_2(arguments: tuple[str, ...], told: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert told in result.output and result.stdout == ""


def test_what_the_caller_says_is_a_file(bot: Bot, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.wav", tmp_path / "bad.wav"
    with wave.open(str(good), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(b"\x00\x40" * 1600)
    bad.write_bytes(b"RIFF")
    assert run(bot.url("one-breath"), "--say", good, *ONE_CALL).exit_code == 0
    result = run(bot.url("one-breath"), "--say", bad, *ONE_CALL)
    assert result.exit_code == 2 and "not a WAV file" in result.stderr


def test_list_names_every_check() -> None:
    lines = run("--list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [check.name for check in CHECKS]
    assert len(json.loads(run("--list", "--json").stdout)["checks"]) == len(CHECKS)


# -- the report -------------------------------------------------------------------------------------------

TARGET = of_url("ws://127.0.0.1:1/?key=0815", {}, [], b"")


def found(*verdicts: Verdict) -> list[Found]:
    return [Found(check, verdict, 0.5) for check, verdict in zip(CHECKS, verdicts, strict=False)]


ALL_GRADES = found(
    passed("fine"),
    failed("it says \x00\x1b[31m<&\"'>]]> ￾"),
    warned("late"),
    unseen("never"),
    Verdict(Grade.NOT_APPLICABLE, "no word"),
)


@pytest.mark.parametrize(("strict", "failures"), [(False, 1), (True, 2)])
def test_junit_has_the_shape_that_a_ci_reads(strict: bool, failures: int) -> None:
    content = report.as_junit(TARGET, ALL_GRADES, datetime(2026, 11, 28, tzinfo=UTC), strict=strict)
    root = ElementTree.fromstring(content)
    assert root.tag == "testsuites"
    (suite,) = root
    assert suite.tag == "testsuite" and suite.get("timestamp") == "2026-11-28T00:00:00"
    for element in (root, suite):
        assert element.get("name")
        assert (element.get("tests"), element.get("failures"), element.get("errors")) == (
            "5",
            str(failures),
            "0",
        )
        assert element.get("skipped") == "2" and float(element.get("time", "")) == 2.5
    cases = list(suite)
    assert [case.tag for case in cases] == ["testcase"] * 5
    assert all(case.get("classname") == "eslbot.bot.eslbot" and case.get("time") == "0.500" for case in cases)
    assert [case.get("name") for case in cases] == [check.name for check in CHECKS[:5]]
    bodies = [[child.tag for child in case] for case in cases]
    warning = "failure" if strict else "system-out"
    assert bodies == [["system-out"], ["failure"], [warning], ["skipped"], ["skipped"]]
    failure = cases[1][0]
    assert failure.get("type") == "fail" and "\x1b" not in str(failure.get("message"))
    assert CHECKS[1].remedy in str(failure.text)
    assert b"0815" not in content


def test_strict_counts_warnings() -> None:
    warned_only = found(passed("fine"), warned("late"))
    assert (report.exit_code(warned_only), report.exit_code(warned_only, strict=True)) == (0, 1)


def test_junit_is_written_beside_the_table(bot: Bot, tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    assert run(bot.url("one-breath"), *ONE_CALL, "--junit", path).exit_code == 0
    assert ElementTree.fromstring(path.read_bytes()).get("tests") == "2"
    result = run(bot.url("one-breath"), *ONE_CALL, "--junit", tmp_path / "none" / "junit.xml")
    assert result.exit_code == 2 and "cannot be written" in result.stderr


def test_colour_and_a_words_of_strangers_are_harmless() -> None:
    lines = list(report.text(TARGET, ALL_GRADES, colour=True))
    assert any("\x1b[31mfail" in line for line in lines)
    assert not any("\x1b" in line for line in report.text(TARGET, ALL_GRADES))
    assert set(NAMES) == {check.name for check in CHECKS}
