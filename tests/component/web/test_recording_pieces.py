"""A part's sound, piece by piece and whole: which bytes, and whom it holds up."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from eslbot.recording import store as store_module
from eslbot.web import recordings, server
from eslbot.web.recordings import RANGE_SIZE, READ_SIZE
from tests.component.web.conftest import Page
from tests.component.web.test_recordings import LIST, SOUND, about, file_of, hear
from tests.support.page import TOKENS
from tests.support.recordings import record

# -- ranges -----------------------------------------------------------------------------------------------


@pytest.fixture
def long(directory: Path) -> bytes:
    """A part that is longer than a piece; its bytes."""
    record(directory, about(), 14.0)
    data = file_of(directory).read_bytes()
    assert RANGE_SIZE < len(data) < 2 * RANGE_SIZE + READ_SIZE
    return data


def test_the_whole_of_it(page: Page, long: bytes) -> None:
    got = hear(page, SOUND)
    assert (got.status, got.body == long) == (200, True)
    expected = {
        "Content-Type": "audio/flac",
        "Content-Length": str(len(long)),
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
    }
    assert {name: got.headers.get(name) for name in expected} == expected
    head, parts = page.open(SOUND, "HEAD", HTTP_AUTHORIZATION=f"Bearer {TOKENS['hearer']}")
    assert (head.status, parts.all()) == (200, b"")
    assert {name: head.headers.get(name) for name in expected} == expected


def test_a_player_that_asks_on_gets_all_of_it(page: Page, long: bytes) -> None:
    got, pieces = b"", []
    while len(got) < len(long):
        piece = hear(page, SOUND, range_=f"bytes={len(got)}-")
        assert piece.status == 206
        end = len(got) + len(piece.body) - 1
        assert piece.headers["Content-Range"] == f"bytes {len(got)}-{end}/{len(long)}"
        assert piece.headers["Content-Length"] == str(len(piece.body))
        got += piece.body
        pieces.append(len(piece.body))
    assert got == long
    assert max(pieces) == RANGE_SIZE


@pytest.mark.parametrize(
    ("range_", "begin", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=-7", -7, None),
        ("bytes=-99999999", 0, RANGE_SIZE),
        (f"bytes=100-{10**30}", 100, 100 + RANGE_SIZE),
        ("bytes= 5-9", 5, 10),
    ],
)
def test_a_range(page: Page, long: bytes, range_: str, begin: int, end: int | None) -> None:
    got = hear(page, SOUND, range_=range_)
    assert (got.status, got.body == long[begin:end]) == (206, True)


@pytest.mark.parametrize("range_", ["bytes=99999999-", f"bytes={10**30}-", "bytes=99999999-99999999"])
def test_a_range_behind_the_end(page: Page, long: bytes, range_: str) -> None:
    got = hear(page, SOUND, range_=range_)
    assert (got.status, got.headers["Content-Range"]) == (416, f"bytes */{len(long)}")


@pytest.mark.parametrize(
    "range_",
    [
        "bytes=", "bytes=-", "bytes=a-b", "bytes=9-3", "lines=0-1", "0-1", "bytes=0-0,5-5", "=", "bytes",
        "bytes=" + "0-0," * 1900, "bytes=" + "1" * 7000 + "-", "bytes=0x1-", "bytes=\xb2-",
    ],
)  # fmt: skip
def test_what_is_no_single_range_is_not_looked_at(page: Page, long: bytes, range_: str) -> None:
    got = hear(page, SOUND, range_=range_)
    assert (got.status, got.body == long) == (200, True)


def test_a_version_that_is_named_is_none_of_ours(page: Page, long: bytes) -> None:
    got = page.get(SOUND, "hearer", HTTP_RANGE="bytes=0-9", HTTP_IF_RANGE='"x"')
    assert (got.status, len(got.body)) == (200, len(long))


# -- who holds what up ------------------------------------------------------------------------------------


def test_a_piece_fits_into_what_the_server_lets_wait() -> None:
    """Or its thread waits for the browser."""
    assert RANGE_SIZE + server.MAX_UNSENT_BEFORE_NEXT + 4096 <= server.MAX_UNSENT


def test_a_disk_that_hangs_holds_a_few_threads(
    page: Page, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(directory, about(), 0.5)
    monkeypatch.setattr(recordings, "READER_TIMEOUT", 0.05)
    over, hanging = threading.Event(), threading.Semaphore(0)
    found = store_module.retention.scan

    def hangs(*arguments: Any) -> Any:
        hanging.release()
        assert over.wait(30)
        return found(*arguments)

    monkeypatch.setattr(store_module.retention, "scan", hangs)
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(hear(page, SOUND, range_="bytes=0-").status))
        for _ in range(recordings.MAX_READERS)
    ]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert hanging.acquire(timeout=20)
    for path in (LIST, SOUND):
        got = hear(page, path)
        assert (got.status, got.json["error"], got.headers["Retry-After"]) == (503, "busy", "2")
    assert page.get("/api/session", "hearer").status == 200
    over.set()
    for thread in threads:
        thread.join(20)
    assert answers == [206] * recordings.MAX_READERS
    assert hear(page, SOUND).status == 200


def test_one_download_of_a_session_at_a_time_and_pieces_all_the_while(page: Page, long: bytes) -> None:
    bearer = {"HTTP_AUTHORIZATION": f"Bearer {TOKENS['hearer']}"}
    for _ in range(3):  # each gives back what it took
        got, parts = page.open(SOUND, **bearer)
        assert got.status == 200
        again = hear(page, SOUND)
        assert (again.status, again.json["error"]) == (429, "too_many_downloads")
        assert hear(page, SOUND, range_="bytes=5-").status == 206
        head, nothing = page.open(SOUND, "HEAD", **bearer)
        nothing.close()
        assert head.status == 200
        next(parts)
        parts.close()
