"""The questions to the ledger, and how the command line tells the answers."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from click.testing import CliRunner, Result
from sqlalchemy import Connection, select

from eslbot.ameyo.notification import notification
from eslbot.cli import main
from eslbot.config import load
from eslbot.config.model import Ledger, Secret
from eslbot.ledger import queries, tenants, terminal
from eslbot.ledger.database import migrate, open_database, reading
from eslbot.ledger.filters import BadFilter, Filter
from eslbot.ledger.parsing import read_fact
from eslbot.ledger.percentile import percentile
from eslbot.ledger.queries import Place
from eslbot.ledger.resend import CannotResend, Resend
from eslbot.ledger.schema import notifications
from eslbot.ledger.statistics import statistics
from eslbot.ledger.store import Batch, LedgerStore
from tests.support.ameyo_server import AmeyoServer
from tests.support.ledger import ACME, NOON, OTHER, fact, identity, whole_call
from tests.support.processes import ROOT, tree

CALLS = [
    *whole_call("good", NOON, crt_object_id="crt-a1"),
    *whole_call("good2", NOON + 100, crt_object_id="crt-a2", caller="918888001234"),
    # Ameyo does not accept.
    *whole_call("lost", NOON + 200, crt_object_id="crt-b1")[:12],
    fact("lost", "attempt_began", 6.2, NOON + 200, number=1),
    fact("lost", "attempt", 6.4, NOON + 200, number=1, verdict="rejected", status=401, seconds=0.2,
         detail="no"),
    fact("lost", "ended", 20, NOON + 200, outcome="bot_ended", handed_off=False,
         disposition="recv_bye", cause="N"),
    fact("refused", "refused", 0, NOON + 300, **identity(at=NOON + 300, crt_object_id="crt-c1"), status=403,
         why="foreign_source", detail="display name '00919990152080|x': no"),
    *whole_call("lives", NOON + 400, crt_object_id="crt-d1")[:6],
    # FreeSWITCH has died under these.
    fact("good2", "switch_restarted", 3, NOON + 100, restarts=1, gap=0.8),
    fact("lives", "switch_restarted", 10, NOON + 400, restarts=1, gap=1.74),
    fact("lives", "switch_restarted", 70, NOON + 400, restarts=2, gap=1.5),
    *whole_call("theirs", NOON + 500, workspace=OTHER, name="other", crt_object_id="crt-a1"),
]  # fmt: skip


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    folder = tmp_path_factory.mktemp("ledger")
    ledger = Ledger(Secret(f"sqlite:///{folder}/calls.db"), str(folder), 1.0)
    engine = open_database(ledger, create=True)
    migrate(engine)
    batch = Batch(offsets={"j": (0, 1)})
    for line in CALLS:
        one = read_fact(json.dumps(line).encode())
        assert one is not None
        batch.add(one)
    LedgerStore(engine, "here").write(batch, NOON + 600)
    engine.dispose()
    return ledger


@pytest.fixture
def connection(ledger: Ledger) -> Iterator[Connection]:
    engine = open_database(ledger)
    with reading(engine) as connection:
        yield connection
    engine.dispose()


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ["theirs", "lives", "refused", "lost", "good2", "good"]),
        ({"workspace": "other"}, ["theirs"]),
        ({"workspace": OTHER.upper()}, ["theirs"]),
        ({"crt": "crt-a1"}, ["theirs", "good"]),
        ({"crt": "crt-a*"}, ["theirs", "good2", "good"]),
        ({"crt": "*"}, ["theirs", "lives", "refused", "lost", "good2", "good"]),
        ({"crt": "crt_a%"}, []),
        ({"caller": "918888001234"}, ["good2"]),
        ({"did": "00919990152080", "live": True}, ["lives"]),
        ({"live": False, "handed_off": False}, ["refused", "lost"]),
        ({"outcome": "bot_ended", "fault": "ameyo"}, ["lost"]),
        ({"stage": "refused"}, ["refused"]),
        ({"since": NOON + 100, "until": NOON + 300}, ["lost", "good2"]),
        ({"prefix": "crt-c"}, ["refused"]),
        ({"prefix": "good"}, ["good2", "good"]),
        ({"prefix": "918888"}, ["good2"]),
        ({"prefix": "00919990152080"}, ["theirs", "lives", "refused", "lost", "good2", "good"]),
        ({"prefix": "crt-a", "workspace": ACME}, ["good2", "good"]),
        ({"prefix": "' OR 1=1 --"}, []),
        ({"prefix": "crt_a%"}, []),
        ({"prefix": "\ud7ff"}, []),
        ({"prefix": "\U0010ffff"}, []),
        ({"attention": True}, ["lost"]),
        ({"attention": False, "live": False}, ["theirs", "refused", "good2", "good"]),
        ({"workspace": OTHER, "live": False}, ["theirs"]),
        ({"live": None}, ["theirs", "lives", "refused", "lost", "good2", "good"]),
    ],
)
def test_filters(connection: Connection, wanted: dict[str, Any], found: list[str]) -> None:
    assert [row["call_id"] for row in queries.find_calls(connection, Filter.of(wanted))] == found


@pytest.mark.parametrize(
    "wanted",
    [{"nothing": 1}, {"live": 1}, {"since": "now"}, {"since": float("nan")}, {"did": 17}, {"did": ""},
     {"did": "x" * 129}, {"did": "a\x00"}, {"outcome": "great"}, {"fault": "mine"}, {"workspaces": []}],
)  # fmt: skip
def test_a_filter_that_asks_for_nothing_there_is(wanted: dict[str, Any]) -> None:
    with pytest.raises(BadFilter, match=next(iter(wanted))):
        Filter.of(wanted)


def test_pages_of_calls(connection: Connection) -> None:
    first = queries.find_calls(connection, Filter(), 4)
    rest = queries.find_calls(connection, Filter(), 4, Place.of(first[-1]))
    assert [row["call_id"] for row in first + rest] == ["theirs", "lives", "refused", "lost", "good2", "good"]


def test_tenants(connection: Connection) -> None:
    acme, other = tenants.tenants(connection, NOON + 600)
    assert acme == {
        "workspace_id": ACME,
        "workspace": "acme",
        "active": 1,
        "last_hour": {"bot_ended": 3, "refused": 1},
        "faults": {"none": 2, "ameyo": 1, "pbx": 1},
        "last_handed_off_at": NOON + 106.3,
        "not_handed_off": 1,
        "post_seconds_p50": 0.1,
        "post_seconds_p95": 0.2,
    }
    assert other["workspace"] == "other"
    later = tenants.tenants(connection, NOON + 5000)[0]
    assert (later["last_hour"], later["active"], later["last_handed_off_at"]) == ({}, 1, NOON + 106.3)
    assert [row["workspace"] for row in tenants.tenants(connection, NOON + 600, frozenset([OTHER]))] == [
        "other"
    ]


def test_stats(connection: Connection) -> None:
    found = statistics(connection, Filter.of({"workspace": "acme"}))
    assert list(found["workspaces"]) == ["acme"]
    told = found["all"]
    assert (told["calls"], told["answered"], told["live"], told["refused"]) == (5, 4, 1, 1)
    assert (told["hand_off_due"], told["handed_off"], told["hand_off_rate"]) == (3, 2, 0.666667)
    assert told["outcomes"] == {"bot_ended": 3}
    assert told["faults"] == {"none": 2, "ameyo": 1, "pbx": 1}
    assert told["refusals"] == {"foreign_source": 1}
    assert told["seconds"]["hold_until_bye"]["count"] == 2
    assert told["seconds"]["hold_until_bye"]["p50"] == pytest.approx(3.0)
    assert told["seconds"]["bot_end_to_post"]["p95"] == pytest.approx(0.1, abs=1e-5)
    assert statistics(connection, Filter.of({"did": "0"}))["all"]["hand_off_rate"] is None


def test_stats_of_restarts(connection: Connection) -> None:
    def told(**wanted: Any) -> tuple[Any, ...]:
        group = statistics(connection, Filter.of(wanted))["all"]
        return (group["recovered"], group["restarts"], group["restart_gap"])

    assert told() == (2, 3, 1.74)
    assert told(crt="crt-a2") == (1, 1, 0.8)
    assert told(workspace="other") == (0, 0, None)


@pytest.mark.parametrize(
    ("after", "found"),
    [
        (600, (2, NOON + 470, 1.74)),
        (3600 + 103, (2, NOON + 470, 1.74)),
        (3600 + 104, (1, NOON + 470, 1.74)),  # of the other it is longer ago than an hour
        (3600 + 471, (0, None, None)),
    ],
)
def test_restarts_of_the_last_hour(connection: Connection, after: float, found: tuple[Any, ...]) -> None:
    told = tenants.restarts(connection, NOON + after)
    assert (told["calls"], told["last"], told["gap"]) == found


def test_restarts_of_another_tenants_calls_are_not_told(connection: Connection) -> None:
    assert tenants.restarts(connection, NOON + 600, frozenset([ACME]))["calls"] == 2
    assert tenants.restarts(connection, NOON + 600, frozenset([OTHER]))["calls"] == 0
    assert tenants.restarts(connection, NOON + 600, frozenset())["calls"] == 0


@pytest.mark.parametrize(("share", "value"), [(50, 5), (95, 10), (99, 10), (10, 1), (1, 1)])
def test_percentiles(share: int, value: float) -> None:
    assert percentile([float(n) for n in range(1, 11)], share) == value


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2h", 1_000_000 - 7200),
        ("0s", 1_000_000),
        ("2026-11-23", datetime(2026, 11, 23, tzinfo=UTC).timestamp()),
        ("2026-11-23T10:15", datetime(2026, 11, 23, 10, 15, tzinfo=UTC).timestamp()),
        ("2026-11-23T15:45+05:30", datetime(2026, 11, 23, 10, 15, tzinfo=UTC).timestamp()),
    ],
)
def test_times_of_the_command_line(text: str, at: float) -> None:
    assert terminal.parse_time(text, 1_000_000) == at


# -- the command line ----------------------------------------------------------------------------------------


@pytest.fixture
def configuration(ledger: Ledger, tmp_path: Path) -> Path:
    path = tmp_path / "eslbot.toml"
    path.write_text(
        tomli_w.dumps({**tree(), "ledger": {"url": ledger.url.reveal(), "journal": ledger.journal}})
    )
    return path


def run(configuration: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments, "--config", str(configuration)])


def test_calls_are_listed_with_their_numbers_masked(configuration: Path) -> None:
    result = run(configuration, "calls", "--crt", "crt-a*", "--since", "2027-01-01")
    assert result.exit_code == 0
    heading, *lines = result.stdout.splitlines()
    assert [line.split()[-1] for line in [heading, *lines]] == ["ID", "theirs", "good2", "good"]
    assert "0091••••••••80" in lines[0]
    assert "00919990152080" not in result.stdout
    assert "00919990152080" in run(configuration, "calls", "--numbers").stdout


def test_a_call_that_freeswitch_died_under_is_told_everywhere(configuration: Path) -> None:
    lines = {line.split()[-1]: line for line in run(configuration, "calls").stdout.splitlines()}
    assert "FreeSWITCH restarted 2 times, up to 1.7 s without it" in lines["lives"]
    assert "FreeSWITCH restarted, 0.8 s without it" in lines["good2"]
    assert "FreeSWITCH" not in lines["good"]
    (row,) = json.loads(run(configuration, "calls", "--json", "--crt", "crt-d1").stdout)
    assert (row["restarts"], row["restarted_at"], row["restart_gap"]) == (2, NOON + 470, 1.74)
    told = run(configuration, "calls", "show", "good2").stdout
    assert "recovered   FreeSWITCH restarted, 0.8 s without it" in told
    assert "+3.000  FreeSWITCH restarted               restarts=1  gap=0.8" in told
    assert "recovered" not in run(configuration, "calls", "show", "theirs").stdout
    stats = run(configuration, "stats").stdout
    assert "recovered   2 (FreeSWITCH restarted, up to 1.7 s without it)" in stats
    assert "recovered" not in run(configuration, "stats", "--workspace", "other").stdout
    assert json.loads(run(configuration, "stats", "--json").stdout)["all"]["recovered"] == 2


def test_calls_as_json_and_as_csv(configuration: Path) -> None:
    told = json.loads(run(configuration, "calls", "--json", "--limit", "2", "--numbers").stdout)
    assert [(row["call_id"], row["did"]) for row in told] == [
        ("theirs", "00919990152080"),
        ("lives", "00919990152080"),
    ]
    assert json.loads(run(configuration, "calls", "--json", "--did", "0").stdout) == []
    found = json.loads(run(configuration, "calls", "--json", "--prefix", "0091", "--attention").stdout)
    assert [row["call_id"] for row in found] == ["lost"]
    rows = list(csv.DictReader(io.StringIO(run(configuration, "calls", "--csv").stdout)))
    assert [row["call_id"] for row in rows] == ["theirs", "lives", "refused", "lost", "good2", "good"]
    assert rows[2]["reason"] == "display name '0091••••••••80|x': no"


@pytest.mark.parametrize("text", ["=cmd|'/c calc'!A1", "+91", "-1", "@SUM(1)", "\t=1", "\r=1", "  =1", "＝1"])
def test_no_cell_is_a_formula(text: str) -> None:
    out = io.StringIO()
    row = dict.fromkeys((column.name for column in queries.calls.columns), None)
    terminal.write_csv([{**row, "caller": text, "invited_at": NOON + 0.25}], out)
    (told,) = csv.DictReader(io.StringIO(out.getvalue(), newline=""))
    assert (told["caller"], told["invited_at"]) == ("'" + text, "2027-01-15T08:00:00.250Z")


def test_no_text_is_an_order_to_the_terminal() -> None:
    assert terminal.printable("a\x1b[2Jb\u202ec\n") == "a?[2Jb?c?"


def test_one_call_is_told(configuration: Path) -> None:
    told = run(configuration, "calls", "show", "lost").stdout
    assert "+6.200  notification to Ameyo goes out" in told
    assert "1: rejected, status 401, 0.200 s: no" in told
    assert (
        "Ameyo did not take the customer in 1 attempt, and answered 401 last; the PBX ended the call. "
        "The fault was Ameyo's." in told
    )
    assert "00919990152080" not in told
    assert "00919990152080" in run(configuration, "calls", "show", "lost", "--numbers").stdout
    story = json.loads(run(configuration, "calls", "show", "crt-b1", "--json").stdout)
    assert (story["call"]["call_id"], len(story["timeline"])) == ("lost", 15)
    refused = run(configuration, "calls", "show", "refused").stdout
    assert "Refused with 403: it came from an address that is not this workspace's" in refused
    assert "(display name '0091••••••••80|x': no)." in refused
    two = run(configuration, "calls", "show", "crt-a1")
    assert "theirs" in two.stdout
    assert two.stderr.splitlines()[-1] == "also with this CRT Object ID: good"


def test_stats_at_the_command_line(configuration: Path) -> None:
    result = run(configuration, "stats", "--workspace", "acme")
    assert "acme: 5 calls, 4 answered, 1 live" in result.stdout
    assert "handed off  2 (66.67 % of 3)" in result.stdout
    assert json.loads(run(configuration, "stats", "--json").stdout)["all"]["calls"] == 6


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["calls", "--outcome", "great"], 2, "outcome: 'great' cannot be looked for; known are bot_closed,"),
        (["calls", "--since", "soon"], 2, "'soon' is no time; expected 2h, 2026-11-23"),
        (["calls", "--limit", "0"], 2, "0 is not in the range"),
        (["calls", "show", "nobody"], 1, "the ledger has no call 'nobody'"),
        (["calls", "show"], 2, "Missing argument 'ID'"),
        (["stats", "--fault", "x"], 2, "known are ameyo, bot, eslbot, none, pbx"),
    ],
)
def test_what_cannot_be_asked(configuration: Path, arguments: list[str], code: int, message: str) -> None:
    result = run(configuration, *arguments)
    assert (result.exit_code, message in result.output) == (code, True), result.output


@pytest.mark.parametrize("command", [["calls"], ["calls", "show", "x"], ["stats"], ["ledger", "migrate"]])
def test_without_a_ledger_is_code_2(tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "eslbot.toml"
    path.write_text(tomli_w.dumps(tree()))
    result = run(path, *command)
    assert (result.exit_code, "has no [ledger]" in result.output) == (2, True), result.output


@pytest.mark.parametrize("command", [["calls"], ["calls", "show", "x"], ["stats"]])
def test_the_configuration_must_be_named(command: list[str]) -> None:
    result = CliRunner(env={"ESLBOT_CONFIG": None}).invoke(main, command)
    assert (result.exit_code, "Missing option '--config'" in result.output) == (2, True)


def test_no_database_is_code_2_and_migrate_makes_one(tmp_path: Path) -> None:
    path = tmp_path / "eslbot.toml"
    url = f"sqlite:///{tmp_path}/calls.db"
    path.write_text(tomli_w.dumps({**tree(), "ledger": {"url": url, "journal": str(tmp_path)}}))
    result = run(path, "calls")
    assert (result.exit_code, "there is no database" in result.output) == (2, True)
    assert run(path, "ledger", "migrate").stdout == f"{url} is at revision 0005\n"
    assert run(path, "calls", "--json").stdout == "[]\n"
    assert "keep" not in run(path, "ledger", "--help").output  # it is for the arbiter


# -- sending again -------------------------------------------------------------------------------------------


def notify(configuration: Path, *arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    """A process: it patches the standard library."""
    command = [sys.executable, "-m", "eslbot", "notify", "--config", str(configuration), *arguments]
    environment = {**os.environ, "SUDO_USER": "operator"}
    return subprocess.run(
        command, input=answer, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30
    )


@pytest.fixture
def with_ameyo(ledger: Ledger, tmp_path: Path) -> Iterator[tuple[Path, AmeyoServer]]:
    path = tmp_path / "eslbot.toml"
    with AmeyoServer() as ameyo:
        configured = tree(ameyo.url)
        configured["workspaces"][ACME]["ameyo"]["properties"] = {"DID": "{did}", "why": "{outcome}"}
        path.write_text(
            tomli_w.dumps({**configured, "ledger": {"url": ledger.url.reveal(), "journal": ledger.journal}})
        )
        yield path, ameyo


def sent_by_hand(ledger: Ledger) -> list[dict[str, Any]]:
    engine = open_database(ledger)
    with reading(engine) as connection:
        found = select(notifications).where(notifications.c.sent_by.is_not(None)).order_by(notifications.c.id)
        rows = [dict(row) for row in connection.execute(found).mappings()]
    engine.dispose()
    return rows


@pytest.mark.slow
def test_a_notification_is_sent_again_and_recorded(
    with_ameyo: tuple[Path, AmeyoServer], ledger: Ledger
) -> None:
    path, ameyo = with_ameyo
    no = notify(path, "--call", "crt-b1", answer="n\n")
    assert (no.returncode, ameyo.requests, sent_by_hand(ledger)) == (1, [], [])
    assert "Authorization: ********" in no.stdout
    assert '"DID": "0091••••••••80", "why": "bot_ended"' in no.stdout
    done = notify(path, "--call", "lost", "--yes")
    assert (done.returncode, done.stdout.splitlines()[-1].split(",")[0]) == (0, "accepted: status 200"), done
    (request,) = ameyo.requests
    body = json.loads(request.body)
    assert (body["uniqueId"], body["properties"]) == ("crt-b1", {"DID": "00919990152080", "why": "bot_ended"})
    (row,) = sent_by_hand(ledger)
    assert (row["call_id"], row["number"], row["verdict"], row["status"], row["sent_by"]) == (
        "lost", 2, "accepted", 200, "operator"
    )  # fmt: skip
    assert "secret-of-ameyo" not in no.stdout + no.stderr + done.stdout + done.stderr


def test_whose_notification_it_is_can_be_read_whatever_it_looks_like(configuration: Path) -> None:
    """A CRT Object ID may be all digits; it is no phone number."""
    call = {"handed_off_at": None, "ended_at": None}
    workspace = load(configuration).workspaces[ACME]
    body = notification("12345678901", {"DID": "00919990152080", "agents": 3})
    shown = "\n".join(Resend(call, workspace, body).shown(numbers=False))
    assert '"uniqueId": "12345678901"' in shown
    assert '{"DID": "0091••••••••80", "agents": 3}' in shown


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody", "the ledger has no call 'nobody'"),
        ("refused", "was never answered"),
        ("theirs", f"workspace {OTHER} is not configured any more"),
        ("crt-a1", "2 calls have this CRT Object ID; name one by its call id: theirs, good"),
    ],
)
def test_what_cannot_be_sent_again(configuration: Path, ledger: Ledger, name: str, message: str) -> None:
    engine = open_database(ledger)
    with pytest.raises(CannotResend) as caught:
        Resend.prepare(engine, load(configuration), name)
    assert message in str(caught.value)
    engine.dispose()


@pytest.mark.slow
def test_nothing_is_sent_that_could_not_be_recorded(with_ameyo: tuple[Path, AmeyoServer]) -> None:
    path, ameyo = with_ameyo
    path.write_text(path.read_text().replace("calls.db", "no.db"))
    done = notify(path, "--call", "lost", "--yes")
    assert (done.returncode, "the ledger cannot be used" in done.stderr, ameyo.requests) == (2, True, [])
