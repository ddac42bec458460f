"""`eslbot recovery`: crash loops end, word is left, and nothing it meets keeps FreeSWITCH from starting."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eslbot.recovery import paths
from eslbot.recovery.before_start import before_start
from eslbot.recovery.command import main
from eslbot.recovery.core_database import PATIENCE
from eslbot.recovery.paths import DATABASES, FILE
from eslbot.recovery.state import KEPT, MAX_FILE, Recoveries, RecoveryFileError, read

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root takes another user's rights")
NOBODY = 65534
#: As FreeSWITCH makes it (switch_core_sqldb.c).
SCHEMA = """create table recovery (runtime_uuid VARCHAR(255), technology VARCHAR(255),
    profile_name VARCHAR(255), hostname VARCHAR(255), uuid VARCHAR(255), metadata text);
    create index recovery1 on recovery(technology); create index recovery3 on recovery(uuid);"""


class Host:
    """A host's databases and file, and a clock of its own."""

    def __init__(self, work: Path) -> None:
        self.db, self.file = work / "db", work / "word" / "freeswitch.json"
        self.core = self.db / "core.db"
        self.db.mkdir(mode=0o700)
        self.now = 1000.0

    def put(self, calls: int, script: str = SCHEMA) -> None:
        self.core.unlink(missing_ok=True)
        with closing(sqlite3.connect(self.core)) as core:
            core.executescript(script)
            row = ("old", "sofia", "ameyo", "host", "{}", "<cdr>" + "x" * 12_000 + "</cdr>")
            core.executemany(
                "insert into recovery values (?, ?, ?, ?, ?, ?)",
                [(*row[:4], f"uuid-{n}", row[5]) for n in range(calls)],
            )
            core.commit()

    @property
    def calls(self) -> list[str]:
        with closing(sqlite3.connect(self.core)) as core:
            return [uuid for (uuid,) in core.execute("select uuid from recovery order by rowid")]

    def start(self, calls: int | None = None, after: float = 10.0) -> list[str]:
        """A start ``after`` seconds, behind a crash with so many calls."""
        if calls is not None:
            self.put(calls)
        self.now += after
        return before_start(self.db, self.file, clock=lambda: self.now)

    @property
    def word(self) -> Recoveries:
        return read(self.file)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# -- counting ---------------------------------------------------------------------------------------------


def test_a_first_start_finds_nothing_and_has_files_that_nobody_else_reads(host: Host) -> None:
    assert host.start() == []
    assert {path.name: mode(path) for path in host.db.iterdir()} == {
        "core.db": 0o600,
        "sofia_reg_ameyo.db": 0o600,
    }
    assert mode(host.file) == 0o644
    assert (host.word.restarts, host.word.flushes, host.word.problem) == (0, 0, "")


def test_a_clean_restart_is_none(host: Host) -> None:
    for _ in range(5):
        assert host.start(calls=0, after=1) == []
    assert (host.word.restarts, host.word.starts) == (0, ())


def test_crashes_are_counted_and_their_calls_left_to_be_taken_up(host: Host) -> None:
    before = time.time()
    host.start(calls=3)
    host.start(calls=2)
    assert host.calls == ["uuid-0", "uuid-1"]
    word = host.word
    assert (word.restarts, word.calls, word.flushes, word.dropped) == (2, 5, 0, 0)
    assert word.last_restart is not None
    assert before <= word.last_restart <= time.time()
    assert word.last_flush is None


@pytest.mark.parametrize(
    ("gaps", "flushed"),
    [((1, 1), True), ((29, 30), True), ((30, 30), False), ((59, 59), False), ((0.1, 0.1), True)],
)
def test_the_third_crash_within_a_minute_begins_without_calls(
    host: Host, gaps: tuple[float, float], flushed: bool
) -> None:
    host.start(calls=4)
    host.start(calls=4, after=gaps[0])
    told = host.start(calls=4, after=gaps[1])
    word = host.word
    assert host.calls == ([] if flushed else ["uuid-0", "uuid-1", "uuid-2", "uuid-3"])
    assert (word.restarts, word.flushes, word.dropped) == (3, int(flushed), 4 if flushed else 0)
    assert (word.last_flush is not None) == flushed
    assert any("without them" in line for line in told) == flushed


def test_a_loop_that_goes_on_is_flushed_again_and_one_that_is_over_forgotten(host: Host) -> None:
    for _ in range(5):
        host.start(calls=1, after=2)
    assert host.word.flushes == 3
    host.start(calls=1, after=61)
    assert (host.word.flushes, host.word.restarts) == (3, 6)
    assert host.calls == ["uuid-0"]


def test_another_boot_has_another_clock(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.start(calls=1)
    host.start(calls=1, after=1)
    monkeypatch.setattr("eslbot.recovery.before_start._boot", lambda: "another")
    host.start(calls=1, after=1)
    assert (host.word.flushes, host.word.boot, len(host.word.starts)) == (0, "another", 1)
    assert host.word.restarts == 1, "since the host's boot"


def test_a_clock_that_goes_back_ends_no_call(host: Host) -> None:
    host.start(calls=1)
    host.start(calls=1, after=1)
    host.start(calls=1, after=-500)
    assert host.word.flushes == 0


def test_a_thousand_crashes_leave_a_small_file(host: Host) -> None:
    host.start(calls=1)
    many = host.word
    text = json.loads(host.file.read_text()) | {"starts": [host.now + n / 100 for n in range(KEPT)]}
    host.file.write_text(json.dumps(text))
    host.start(calls=1, after=1)
    assert len(host.word.starts) == KEPT
    assert host.word.restarts == many.restarts + 1
    assert host.file.stat().st_size < 2000


def test_no_customer_is_in_the_file(host: Host) -> None:
    host.put(2)
    with closing(sqlite3.connect(host.core)) as core:
        core.execute("update recovery set metadata='hush', uuid='hush', profile_name='hush'")
        core.commit()
    told = host.start()
    assert "hush" not in host.file.read_text() + str(told)


# -- rights -----------------------------------------------------------------------------------------------


def test_what_others_could_read_is_closed(host: Host) -> None:
    host.put(1)
    host.db.chmod(0o755)
    host.core.chmod(0o644)
    (host.db / "call_limit.db-journal").touch(0o660)
    (told, _) = host.start()
    assert "open to others (mode 755)" in told
    assert {mode(path) for path in host.db.iterdir()} == {0o600}
    assert mode(host.db) == 0o700
    assert "open to others" in host.word.problem


@pytest.fixture
def reached() -> Iterator[Path]:
    """A directory that any user may enter."""
    path = Path(tempfile.mkdtemp(prefix="eslbot-recovery-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@root_only
def test_root_looks_with_the_rights_of_the_directorys_owner(reached: Path) -> None:
    """What is linked there is not touched by root."""
    host = Host(reached)
    victim = Host(Path(tempfile.mkdtemp(dir=reached)))
    victim.put(2)
    os.chown(host.db, NOBODY, NOBODY)
    for name in ("core.db", "other.db"):
        (host.db / name).symlink_to(victim.core)
    for _ in range(3):
        host.start(after=1)
    assert len(victim.calls) == 2
    assert host.word.restarts == 0
    (host.db / "core.db").unlink()
    host.start()
    assert (host.core.stat().st_uid, mode(host.core)) == (NOBODY, 0o600)


@root_only
def test_root_makes_the_directory_for_freeswitchs_user(reached: Path) -> None:
    db = reached / "made"
    assert before_start(db, reached / "word.json", user="nobody") == []
    assert (db.stat().st_uid, mode(db)) == (NOBODY, 0o700)
    assert (db / "core.db").stat().st_uid == NOBODY


@root_only
def test_root_closes_no_directory_that_is_another_users(reached: Path) -> None:
    """FreeSWITCH could not open its databases any more, or who has the directory not enter it."""
    host = Host(reached)
    host.put(2)
    host.db.chmod(0o777)
    (told,) = before_start(host.db, host.file, user="nobody")
    assert f"belongs to user 0, not to FreeSWITCH's, {NOBODY}" in told
    assert (mode(host.db), [path.name for path in host.db.iterdir()]) == (0o777, ["core.db"])
    assert host.word.problem == told


def test_what_is_everybodys_stays_open(host: Host) -> None:
    """As /dev/shm is, which somebody may take for the tmpfs that is wanted."""
    host.db.chmod(0o1777)
    (told,) = host.start()
    assert "is everybody's" in told
    assert (mode(host.db), list(host.db.iterdir())) == (0o1777, [])


@root_only
def test_a_database_that_its_directorys_owner_cannot_open_is_told(reached: Path) -> None:
    host = Host(reached)
    host.put(2)
    os.chown(host.db, NOBODY, NOBODY)
    (told,) = host.start()
    assert f"{host.core} belongs to user 0, its directory to {NOBODY}" in told
    assert len(host.calls) == 2


@root_only
def test_a_user_that_there_is_not_is_told(host: Host) -> None:
    host.put(2)
    (told,) = before_start(host.db, host.file, user="nosuch")
    assert "there is no user nosuch (--user)" in told
    assert host.word.problem == told


@root_only
def test_root_makes_and_writes_nothing_where_somebody_else_could_change_it(reached: Path) -> None:
    theirs = reached / "theirs"
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    told = before_start(theirs / "db", theirs / "word.json", user="nobody")
    assert len(told) == 2
    assert all("not this user's alone" in line for line in told), told
    assert list(theirs.iterdir()) == []


def test_a_link_in_the_place_of_the_file_is_replaced_not_followed(host: Host, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("{}")
    host.file.parent.mkdir()
    host.file.symlink_to(victim)
    host.start(calls=1)
    assert victim.read_text() == "{}"
    assert host.word.restarts == 1


# -- databases that are none ------------------------------------------------------------------------------


def torn(host: Host) -> None:
    """As one that was killed while it wrote: some pages are of before, some of after."""
    data = bytearray(host.core.read_bytes())
    data[-8192:] = random.Random(1).randbytes(8192)
    host.core.write_bytes(data)


def locked(host: Host) -> Callable[[], None]:
    other = sqlite3.connect(host.core, isolation_level=None)
    other.execute("begin exclusive")
    return other.close


def test_a_torn_database_is_put_aside_and_its_calls_are_saved(host: Host) -> None:
    host.put(40)
    torn(host)
    told = host.start()
    assert any("was torn" in line for line in told)
    saved = host.calls
    assert f"FreeSWITCH died with at least {len(saved)} calls up" in told
    assert 30 < len(saved) <= 40
    assert saved == [f"uuid-{n}" for n in range(len(saved))]
    assert {path.name for path in host.db.iterdir()} == {"core.db", "core.db.torn", "sofia_reg_ameyo.db"}
    assert {mode(path) for path in host.db.iterdir()} == {0o600}
    assert (host.word.restarts, host.word.calls) == (1, len(saved))


@pytest.mark.parametrize("content", [b"x" * 8192, b"SQLite format 3\0" + b"\xff" * 5000, b"\0" * 4096])
def test_what_is_no_database_is_put_aside(host: Host, content: bytes) -> None:
    host.core.write_bytes(content)
    host.start()
    assert host.core.stat().st_size == 0
    assert (host.db / "core.db.torn").read_bytes() == content
    assert host.word.restarts == 1


def test_torn_ones_in_a_loop_are_flushed_too(host: Host) -> None:
    for _ in range(3):
        host.put(40)
        torn(host)
        host.start(after=1)
    assert host.core.stat().st_size == 0
    assert (host.word.restarts, host.word.flushes) == (3, 1)
    assert "was torn" in host.word.problem and "saved" not in host.word.problem


@pytest.mark.timed
def test_a_locked_one_is_left_alone_and_told(host: Host) -> None:
    host.put(3)
    free = locked(host)
    began = time.monotonic()
    told = host.start()
    assert time.monotonic() - began < PATIENCE + 1
    free()
    assert "locked" in " ".join(told)
    assert "locked" in host.word.problem
    assert len(host.calls) == 3


FOREIGN = {
    "no such table": ("create table other (a); insert into other values (1);", ""),
    "a view": ("create view recovery as select 1 as uuid;", "is a view"),
    "a view without end": (
        "create view recovery as "
        "with recursive r(n) as (select 1 union all select n + 1 from r) select n from r;",
        "is a view",
    ),
    "another table of the name": ("create table recovery (n);", ""),
}


@pytest.mark.parametrize("script", FOREIGN)
def test_a_foreign_database_is_told_and_stays_as_it_is(host: Host, script: str) -> None:
    with closing(sqlite3.connect(host.core)) as core:
        core.executescript(FOREIGN[script][0])
    before = host.core.read_bytes()
    told = " ".join(host.start())
    assert FOREIGN[script][1] in told
    assert host.core.read_bytes() == before
    assert host.word.restarts == 0


@pytest.mark.timed
@pytest.mark.slow
def test_one_that_takes_for_ever_is_given_up(host: Host) -> None:
    """A trigger that somebody else put there: the delete would never end."""
    endless = "with recursive r(n) as (select 1 union all select n + 1 from r) select count(*) from r"
    script = SCHEMA + f"create trigger t before delete on recovery begin select ({endless}); end;"
    told: list[str] = []
    began = 0.0
    for _ in range(3):
        host.put(1, script)
        began = time.monotonic()
        host.now += 1
        told = before_start(host.db, host.file, clock=lambda: host.now)
    assert time.monotonic() - began < PATIENCE + 2
    assert "did not answer" in " ".join(told)
    assert (host.word.flushes, "did not answer" in host.word.problem) == (0, True)


@pytest.mark.parametrize("kind", ["fifo", "directory", "link"])
def test_something_else_in_its_place_is_told(host: Host, kind: str, tmp_path: Path) -> None:
    if kind == "fifo":
        os.mkfifo(host.core)
    elif kind == "directory":
        host.core.mkdir()
    else:
        host.core.symlink_to(tmp_path / "nowhere")
    assert "is no file" in " ".join(host.start())
    assert "is no file" in host.word.problem


@pytest.mark.parametrize("kind", ["missing", "file", "link"])
def test_a_directory_that_is_none_is_told(host: Host, kind: str, tmp_path: Path) -> None:
    host.db.rmdir()
    if kind == "file":
        host.db.touch()
    elif kind == "link":
        (tmp_path / "real").mkdir()
        host.db.symlink_to(tmp_path / "real")
    (told,) = host.start()
    assert str(host.db) in told
    assert host.word.problem == told
    assert not list(tmp_path.glob("real/*"))


def test_a_file_that_cannot_be_written_is_told(host: Host) -> None:
    host.file.parent.touch()
    assert "nobody is told" in " ".join(host.start(calls=1))


# -- the file ---------------------------------------------------------------------------------------------

CHANGES: list[dict[str, object]] = [
    {"restarts": -1},
    {"restarts": True},
    {"flushes": 1.5},
    {"calls": "3"},
    {"dropped": 2**60},
    {"starts": {}},
    {"starts": ["1"]},
    {"starts": [float("nan")]},
    {"starts": [float("inf")]},
    {"starts": [1.0] * (KEPT + 1)},
    {"last_restart": "yesterday"},
    {"last_flush": 1e300},
    {"boot": 1},
    {"problem": []},
]
BROKEN = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b"{",
    b"\xff\xfe",
    b"[" * 12_000,
    b" " * (MAX_FILE + 1),
    *(
        json.dumps({"restarts": 0, "flushes": 0, "calls": 0, "dropped": 0, "starts": []} | change).encode()
        for change in CHANGES
    ),
]


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_a_file_that_is_not_ours_is_refused_and_begun_anew(host: Host, text: bytes) -> None:
    host.file.parent.mkdir()
    host.file.write_bytes(text)
    with pytest.raises(RecoveryFileError, match="is not what eslbot writes"):
        read(host.file)
    told = host.start(calls=1)
    assert "begun anew" in told[0]
    assert host.word.restarts == 1


@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(str).map(str.encode)
)
def test_whatever_is_in_it_it_is_read_or_refused(text: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(text)
        file.flush()
        with pytest.raises(RecoveryFileError):
            read(Path(file.name))


def test_no_file_is_no_restart(tmp_path: Path) -> None:
    assert read(tmp_path / "none") == Recoveries()


def test_what_is_no_file_does_not_hold_up_the_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path):
        with pytest.raises(RecoveryFileError):
            read(path)


# -- the command ------------------------------------------------------------------------------------------


@pytest.fixture
def config(host: Host, tmp_path: Path) -> Path:
    path = tmp_path / "eslbot.toml"
    path.write_text(f'[freeswitch]\ndb = "{host.db}"\nrecovery_file = "{host.file}"\n')
    return path


def test_the_command_as_the_unit_runs_it(host: Host, config: Path) -> None:
    host.put(2)
    command = [
        sys.executable,
        "-I",
        "-m",
        "eslbot.recovery",
        "--before-start",
        "--config",
        str(config),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "eslbot recovery: FreeSWITCH died with 2 calls up\n"
    assert host.word.calls == 2


def test_it_loads_little(config: Path) -> None:
    command = [
        sys.executable,
        "-I",
        "-X",
        "importtime",
        "-m",
        "eslbot.recovery",
        "--config",
        str(config),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "sqlite3" in loaded
    assert not loaded & {"click", "marshmallow", "gevent", "structlog", "sqlalchemy", "eslbot.config"}


def test_without_before_start_it_only_shows(
    host: Host, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(3):
        host.start(calls=2, after=1)
    host.put(5)
    for _ in range(3):
        assert main(["--config", str(config)]) == 0
    said = capsys.readouterr().out
    assert "restarts with calls up   3, the last at 20" in said
    assert "calls dropped by that    2" in said
    assert len(host.calls) == 5


def test_a_file_that_cannot_be_shown_is_an_error(
    host: Host, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host.file.parent.mkdir()
    host.file.write_text("?")
    assert main(["--config", str(config)]) == 1
    assert "not what eslbot writes" in capsys.readouterr().err


def test_no_configuration_is_the_usual_places(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "FILE", "/nowhere/freeswitch.json")
    monkeypatch.setenv("ESLBOT_CONFIG", "")
    assert main([]) == 0
    said = capsys.readouterr()
    assert "/nowhere/freeswitch.json is not there: no start of FreeSWITCH was counted" in said.out
    assert said.err == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[freeswitch", "Expected ']'"),
        ("freeswitch = 3", "freeswitch is no table"),
        ("#" * (paths.MAX_CONFIG + 1), "bytes"),
        ("[freeswitch]\ndb = 3", "freeswitch.db is 3 instead of an absolute path"),
        ('[freeswitch]\ndb = "x"', "freeswitch.db is 'x' instead of"),
        ('[freeswitch]\ndb = "/\\u0000"', "freeswitch.db is '/\\x00' instead of"),
        (
            '[freeswitch]\nrecovery_file = "/etc/passwd"',
            "freeswitch.recovery_file is '/etc/passwd' instead of",
        ),
    ],
    ids=range(7),
)
def test_a_configuration_that_is_being_edited_does_not_count(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "eslbot.toml"
    path.write_text(text)
    databases, file, (problem,) = paths.configured(path)
    assert (str(databases), str(file)) == (DATABASES, FILE)
    assert why in problem and "taken" in problem


def test_each_fault_of_the_configuration_is_told_and_left_word_of(tmp_path: Path, host: Host) -> None:
    path = tmp_path / "eslbot.toml"
    path.write_text('[freeswitch]\ndb = "x"\nrecovery_file = 7')
    problems = paths.configured(path)[2]
    assert [problem.split()[0] for problem in problems] == ["freeswitch.db", "freeswitch.recovery_file"]
    missing = paths.configured(tmp_path / "none")
    assert missing == (
        Path(DATABASES),
        Path(FILE),
        [f"{tmp_path / 'none'}: No such file or directory; {DATABASES} and {FILE} are taken"],
    )
    assert before_start(host.db, host.file, problems=problems) == problems
    assert host.word.problem == "; ".join(problems)
