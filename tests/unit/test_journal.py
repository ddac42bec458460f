"""The journal: whole lines, in order, whatever the disk does; and nobody waits for it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path
from typing import Any

import gevent
import pytest

from eslbot.ledger import journal as room
from eslbot.ledger.facts import What
from eslbot.ledger.journal import Journal
from eslbot.telemetry import metrics, redaction
from tests.unit.test_redaction import PLAIN, SPELLINGS


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "WRITE_INTERVAL", 0.01)
    monkeypatch.setattr(room, "RETRY_INTERVAL", 0.02)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"), key=lambda path: int(path.stem.rpartition("-")[2]))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in files(folder) for line in file.read_bytes().splitlines()]


def facts(folder: Path) -> list[dict[str, Any]]:
    return [line for line in lines(folder) if line["what"] != "journal"]


def test_facts_are_lines_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    for number in range(100):
        journal.append(f"call-{number}", What.MARK, {"name": "grüezi\n", "cleared": False})
    journal.flush(5)
    (file,) = files(tmp_path / "journal")
    head, *rest = lines(tmp_path / "journal")
    assert head.items() >= {"what": "journal", "version": 1, "pid": os.getpid()}.items()
    assert [line["call"] for line in rest] == [f"call-{number}" for number in range(100)]
    assert rest[0]["name"] == "grüezi\n"
    assert file.stat().st_mode & 0o777 == 0o640, "facts hold phone numbers"


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("before", [0, 490])
def test_no_fact_holds_a_secret_also_where_it_is_cut(tmp_path: Path, spelling: str, before: int) -> None:
    """What is in a journal goes to the database and to the page."""
    redaction.protect(frozenset({PLAIN}))
    spelt = SPELLINGS[spelling](PLAIN)
    text = "." * before + f"{spelt} is unknown" + "." * 5000
    journal = Journal(tmp_path / "journal")
    journal.append("a", What.ATTEMPT, {"detail": text, "media": {"deep": [spelt]}, "did": f"00{PLAIN}"})
    journal.flush(5)
    (fact,) = facts(tmp_path / "journal")
    pieces = {spelt[place : place + 5] for place in range(8 * ("login" in spelling), len(spelt) - 5)}
    assert fact["did"] == f"00{PLAIN}", "names stay what they are"
    for told in (fact["detail"], fact["media"]["deep"][0]):
        assert not {told[place : place + 5] for place in range(len(told))} & pieces
        assert "***" in told
    assert len(fact["detail"]) <= room.MAX_TEXT


def test_nobody_else_reads_it_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        journal = Journal(tmp_path / "journal")
        journal.append("a", What.ANSWERED, {})
        journal.flush(5)
    finally:
        os.umask(before)
    assert (tmp_path / "journal").stat().st_mode & 0o007 == 0
    assert files(tmp_path / "journal")[0].stat().st_mode & 0o777 == 0o640


def test_noting_does_not_touch_the_disk(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.append("a", What.ANSWERED, {})
    assert not (tmp_path / "journal").exists()
    journal.flush(5)
    assert [fact["call"] for fact in facts(tmp_path / "journal")] == ["a"]


def test_the_time_is_when_it_happened(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("a", What.ANSWERED, {})
    journal.append("a", What.SPEECH_BEGAN, {}, ago=10)
    journal.flush(5)
    now, before = [fact["at"] for fact in facts(tmp_path)]
    assert now - before == pytest.approx(10, abs=1)


def test_a_living_workers_journal_is_locked(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("a", What.ANSWERED, {})
    journal.flush(5)
    with files(tmp_path)[0].open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_what_cannot_be_written_is_kept_until_it_can(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    folder.write_text("a file where the directory should be")
    journal = Journal(folder)
    for number in range(10):
        journal.append(str(number), What.ANSWERED, {})
        journal.flush(0.03)
    folder.unlink()
    journal.flush(5)
    assert [fact["call"] for fact in facts(folder)] == [str(number) for number in range(10)]


def test_half_a_line_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full in the middle of a line, again and again, and in the middle of a full file."""
    monkeypatch.setattr(room, "MAX_FILE_BYTES", 200)

    class Disk:
        """Takes 25 bytes, is full, takes 25 bytes more …"""

        def __init__(self) -> None:
            self.full = False

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def write(self, file: int, data: bytes) -> int:
            self.full = not self.full
            if not self.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return os.write(file, data if b'"what":"journal"' in data else data[:25])

    monkeypatch.setattr(room, "os", Disk())
    journal = Journal(tmp_path)
    monkeypatch.setattr(room, "RETRY_INTERVAL", 0.001)
    for number in range(20):
        journal.append(str(number), What.ANSWERED, {"filling": "x" * 50})
    journal.flush(10)
    journal.append("20", What.ANSWERED, {})
    journal.flush(10)
    assert [fact["call"] for fact in facts(tmp_path)] == [str(number) for number in range(21)]
    assert len(files(tmp_path)) > 1


def test_a_full_file_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_FILE_BYTES", 300)
    journal = Journal(tmp_path)
    for number in range(12):
        journal.append(str(number), What.ANSWERED, {})
        journal.flush(5)
        gevent.sleep(0.002)  # a file's name is its millisecond
    assert len(files(tmp_path)) > 1
    assert [fact["call"] for fact in facts(tmp_path)] == [str(number) for number in range(12)]


def test_what_waits_is_bounded_and_what_is_lost_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_WAITING", 5)
    before = metrics.LEDGER_FACTS_LOST._value.get()
    journal = Journal(tmp_path)
    for number in range(8):
        journal.append(str(number), What.ANSWERED, {})
    journal.flush(5)
    assert [fact["call"] for fact in facts(tmp_path)] == ["0", "1", "2", "3", "4"]
    assert metrics.LEDGER_FACTS_LOST._value.get() == before + 3


def test_a_text_of_a_bots_is_bounded(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append("a", What.BOT_ENDED, {"reason": "x" * 10_000})
    journal.flush(5)
    assert len(facts(tmp_path)[0]["reason"]) == room.MAX_TEXT
