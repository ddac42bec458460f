"""Recordings on the page: who may hear which, ranges, seals, and what is not there or not as it was."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from eslbot.recording import store as store_module
from eslbot.recording.writer import CallInfo
from eslbot.web import recordings
from eslbot.web.recordings import RANGE_SIZE
from tests.component.web.conftest import Got, Page, make_page
from tests.support.fake_ledger import ACME, WORKSPACES, ZENITH, FakeLedger
from tests.support.page import TOKENS, page_tree
from tests.support.recordings import KEY, OTHER_KEY, age, begin, cut_off, record, sound

CALL, FOREIGN = "0b1a4ad5-6e7c-4d1a-8a2c-1d1b3b3b3b3b", "1b1a4ad5-6e7c-4d1a-8a2c-1d1b3b3b3b3b"
LIST, SOUND = f"/api/calls/{CALL}/recording", f"/api/calls/{CALL}/recording/1"


def about(call_id: str = CALL, workspace_id: str = ACME, key: str | None = None) -> CallInfo:
    name = WORKSPACES[workspace_id]
    return CallInfo(call_id, workspace_id, name, "crt-1", bytes.fromhex(key) if key else None)


def keyed_page(journal: Path, ledger: FakeLedger, **own: Any) -> Page:
    """The page process's configuration has these keys of `[workspaces.ID.recording]`, of acme."""
    tree = page_tree(journal)
    tree["workspaces"][ACME]["recording"] = own
    return make_page(tree, ledger)


def file_of(directory: Path, call_id: str = CALL, number: int = 1) -> Path:
    (found,) = directory.rglob(f"{call_id}.{number}.flac*")
    return found


def hear(page: Page, path: str, *, range_: str | None = None, token: str = "hearer") -> Got:
    return page.get(path, token, **({"HTTP_RANGE": range_} if range_ else {}))


# -- who may hear which -----------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["operator", "acme", "seer"])
@pytest.mark.parametrize("path", [LIST, SOUND, f"/api/calls/{FOREIGN}/recording", "/api/calls/x/recording/0"])
def test_a_token_without_the_right_learns_nothing(page: Page, directory: Path, token: str, path: str) -> None:
    """The same of a call that is recorded, of one that is not, and of what is no question at all."""
    record(directory, about())
    got = page.get(path, token)
    assert (got.status, got.json["error"]) == (403, "no_recordings")
    assert "recordings = true" in got.json["remedy"]
    assert page.get("/api/session", token).json["recordings"] is False


def test_without_a_session_nobody_hears_anything(page: Page, directory: Path) -> None:
    record(directory, about())
    assert [page.get(path).status for path in (LIST, SOUND)] == [401, 401]


def test_where_no_token_may_hear_anything_it_is_said_in_the_same_words(
    journal: Path, ledger: FakeLedger
) -> None:
    tree = page_tree(journal)
    for token in tree["web"]["tokens"].values():
        token.pop("recordings", None)
    assert hear(make_page(tree, ledger), LIST).json["error"] == "no_recordings"


def test_a_tenants_token_hears_its_own_calls_only(page: Page, directory: Path) -> None:
    record(directory, about(), 0.5)
    record(directory, about(FOREIGN, ZENITH), 0.5)
    foreign = f"/api/calls/{FOREIGN}/recording"
    for path in (foreign, f"{foreign}/1"):
        assert hear(page, path, token="zenith-hearer").status == 200
        assert hear(page, path).status == 200
    never = hear(page, "/api/calls/2b1a4ad5/recording", token="zenith-hearer")
    for path in (LIST, SOUND):
        got = hear(page, path, token="zenith-hearer")
        assert (got.status, got.body) == (404, never.body)  # as of one that never was


def test_another_tenants_file_in_ones_own_folder_is_not_heard(page: Page, directory: Path) -> None:
    record(directory, about(), 0.5)
    folder = file_of(directory).parent
    folder.rename(folder.with_name(ZENITH))
    got = hear(page, LIST, token="zenith-hearer")
    assert (got.status, got.json["error"]) == (500, "damaged")
    assert hear(page, SOUND, token="zenith-hearer").status == 500


def test_who_hears_what_is_told_once_for_a_while(
    page: Page, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(directory, about(), 0.5)

    def told() -> list[Any]:
        with capture_logs() as logs:
            for begin in (0, 100, 200):
                hear(page, SOUND, range_=f"bytes={begin}-")
            page.get(LIST, "hearer")
        return [(line["token_name"], line["call_id"]) for line in logs if "played" in line["event"]]

    assert told() == [("hearer", CALL)]
    assert told() == []
    monkeypatch.setattr(recordings, "PLAYED_LOG_INTERVAL", 0.0)
    assert told() == [("hearer", CALL)] * 3


# -- what there is ----------------------------------------------------------------------------------------


def test_a_recording_of_two_parts_is_told(page: Page, directory: Path) -> None:
    began = time.time() - 60
    record(directory, about(), 5.0, began_at=began)
    record(directory, about(), 2.0, began_at=began + 8)
    got = hear(page, LIST)
    assert (got.status, got.headers["Cache-Control"]) == (200, "private, no-store")
    told = got.json
    assert (told["call_id"], told["state"], told["seconds"], told["sealed"]) == (CALL, "whole", 7.0, False)
    assert (told["problem"], told["why"]) == (None, None)
    one, two = told["parts"]
    assert (one["number"], one["began_at"], one["seconds"], one["state"]) == (1, began, 5.0, "whole")
    assert (two["number"], two["began_at"], two["seconds"], two["sound"]) == (2, began + 8, 2.0, f"{LIST}/2")
    assert one["bytes"] == file_of(directory).stat().st_size and one["refused"] is None
    assert one["peaks"]["seconds"] == 0.1 and len(one["peaks"]["caller"]) == 50
    assert "did" not in told and "caller" not in told


def test_what_goes_on_is_not_heard_yet(page: Page, directory: Path) -> None:
    writer, track = begin(directory, about(), sound(1), sound(1))
    told = hear(page, LIST).json
    assert (told["state"], told["parts"][0]["state"], told["parts"][0]["sound"]) == ("recording",) * 2 + (
        None,
    )
    assert told["parts"][0]["refused"]["error"] == "still_recording"
    assert hear(page, SOUND).status == 409
    track.end()
    assert writer.close(20)
    assert hear(page, SOUND).status == 200


@pytest.mark.parametrize("key", [None, KEY])
def test_what_a_killed_relay_has_left_is_heard(
    journal: Path, ledger: FakeLedger, directory: Path, key: str | None
) -> None:
    page = keyed_page(journal, ledger, **({"key": key} if key else {}))
    cut_off(directory, about(key=key), sound(30), bytes(30 * 16000))
    record(directory, about(key=key), 0.5)  # the next relay's, just now
    one, two = hear(page, LIST).json["parts"]
    assert (one["state"], one["seconds"], one["peaks"]) == ("cut off", None, None)
    assert (two["state"], two["seconds"]) == ("whole", 0.5)
    got = hear(page, SOUND)
    assert (got.status, got.body[:4], len(got.body)) == (200, b"fLaC", one["bytes"])


def test_one_that_failed_says_why_and_is_heard_up_to_there(
    page: Page, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, track = begin(directory, about(), sound(2), sound(2))
    monkeypatch.setattr("eslbot.recording.writer.MAX_QUEUED_SECONDS", 0.0)
    with pytest.raises(Exception, match="behind"):
        track.write(sound(1), sound(1))
    assert writer.close(20)
    (part,) = hear(page, LIST).json["parts"]
    assert (part["state"], part["why"], part["seconds"]) == ("failed", "slow", 2.0)
    assert hear(page, SOUND).body[:4] == b"fLaC"


# -- sealed -----------------------------------------------------------------------------------------------


def test_a_sealed_one_is_opened_with_the_tenants_key(
    journal: Path, ledger: FakeLedger, directory: Path
) -> None:
    record(directory, about(), 14.0)
    plain = file_of(directory).read_bytes()
    file_of(directory).unlink()
    next(directory.rglob(f"{CALL}.json")).unlink()
    record(directory, about(key=KEY), 14.0)
    for own in ({"key": KEY}, {"key": OTHER_KEY, "old_keys": [KEY]}):
        page = keyed_page(journal, ledger, **own)
        told = hear(page, LIST).json
        assert (told["sealed"], told["parts"][0]["bytes"]) == (True, len(plain))
        assert hear(page, SOUND).body == plain
        for at in (0, 16000, len(plain) - 100):
            assert hear(page, SOUND, range_=f"bytes={at}-").body == plain[at : at + RANGE_SIZE]


@pytest.mark.parametrize("own", [{}, {"key": OTHER_KEY}], ids=["no key", "another key"])
def test_without_the_key_it_says_so_and_what_is_missing(
    journal: Path, ledger: FakeLedger, directory: Path, own: dict[str, Any]
) -> None:
    record(directory, about(key=KEY))
    page = keyed_page(journal, ledger, **own)
    (part,) = hear(page, LIST).json["parts"]
    assert (part["sound"], part["refused"]["error"]) == (None, "sealed")
    assert "old_keys" in part["refused"]["remedy"]
    got = hear(page, SOUND, range_="bytes=0-")
    assert (got.status, got.json) == (409, part["refused"])
    assert part["peaks"] is not None  # when somebody spoke is readable, what they said is not


def test_what_was_changed_is_not_played(journal: Path, ledger: FakeLedger, directory: Path) -> None:
    page = keyed_page(journal, ledger, key=KEY)
    record(directory, about(key=KEY), 14.0)
    file = file_of(directory)
    data = bytearray(file.read_bytes())
    data[200_000] ^= 1
    file.write_bytes(data)
    assert hear(page, SOUND, range_="bytes=0-999").status == 206  # another chunk
    got = hear(page, SOUND, range_="bytes=199000-")
    assert (got.status, got.json["error"]) == (500, "damaged")
    with capture_logs() as logs:
        whole = hear(page, SOUND)
    assert int(whole.headers["Content-Length"]) > len(whole.body)  # the browser sees that it is cut short
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == ["recording_broken_off"]
    file.write_bytes(data[:-10])
    assert hear(page, LIST).json["parts"][0]["refused"]["error"] == "damaged"
    beside = next(directory.rglob(f"{CALL}.json"))
    beside.write_text(beside.read_text().replace('"state":"whole"', '"state":"recording"'))
    age(directory, CALL, 600)
    assert "was changed" in hear(page, LIST).json["problem"]


# -- what is not there, and names that are none -----------------------------------------------------------


def test_a_call_that_was_not_recorded_or_whose_time_is_over(page: Page, directory: Path) -> None:
    for path in (LIST, SOUND):
        got = hear(page, path)
        assert (got.status, got.json["error"]) == (404, "no_recording")
        assert "recording.keep" in got.json["remedy"]


def test_a_file_that_is_gone(page: Page, directory: Path) -> None:
    record(directory, about(), 0.5)
    record(directory, about(), 0.5)
    file_of(directory).unlink()
    one, two = hear(page, LIST).json["parts"]
    assert (one["refused"]["error"], two["refused"]) == ("part_gone", None)
    got = hear(page, SOUND)
    assert (got.status, got.json["error"]) == (404, "part_gone")


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_what_is_no_file_is_not_read(page: Page, directory: Path, tmp_path: Path, kind: str) -> None:
    record(directory, about(), 0.5)
    file = file_of(directory)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    file.unlink()
    {"link": lambda: file.symlink_to(secret), "pipe": lambda: os.mkfifo(file), "directory": file.mkdir}[
        kind
    ]()
    got = hear(page, SOUND)
    assert (got.status, got.json["error"]) == (503, "recordings_unreadable")
    assert str(tmp_path) not in got.text  # whose paths are nobody's affair
    assert hear(page, LIST).json["parts"][0]["refused"] == got.json


@pytest.mark.parametrize("part", ["day", "workspace"])
def test_a_folder_that_is_a_link_is_none(page: Page, directory: Path, tmp_path: Path, part: str) -> None:
    record(directory, about(), 0.5)
    folder = file_of(directory).parent if part == "workspace" else file_of(directory).parent.parent
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert hear(page, SOUND).status == 404
    assert hear(page, SOUND, token="zenith-hearer").status == 404


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 10_000, b"x" * (3 << 20)])
def test_a_sidecar_that_is_none(page: Page, directory: Path, content: bytes) -> None:
    record(directory, about(), 0.5)
    next(directory.rglob(f"{CALL}.json")).write_bytes(content)
    for path in (LIST, SOUND):
        got = hear(page, path)
        assert (got.status, got.json["error"]) == (500, "damaged")


@pytest.mark.parametrize("file", ["../../../secret", "/etc/passwd", f"{FOREIGN}.1.flac", f"{CALL}.1.json"])
def test_a_sidecar_cannot_name_another_file(page: Page, directory: Path, file: str) -> None:
    record(directory, about(), 0.5)
    record(directory, about(FOREIGN), 0.5)
    beside = next(directory.rglob(f"{CALL}.json"))
    document = json.loads(beside.read_text())
    document["parts"][0]["file"] = file
    beside.write_text(json.dumps(document))
    assert hear(page, SOUND).json["error"] == "damaged"


@pytest.mark.parametrize(
    "peaks",
    [[1, 2, 256], [-1], [True], ["1"], [1.5], None, 5, {"0": 1}, [0] * 10_001],
)
def test_a_waveform_that_is_none(page: Page, directory: Path, peaks: Any) -> None:
    record(directory, about(), 0.5)
    beside = next(directory.rglob(f"{CALL}.json"))
    document = json.loads(beside.read_text())
    document["parts"][0]["peaks"]["caller"] = peaks
    beside.write_text(json.dumps(document))
    assert hear(page, LIST).json["error"] == "damaged"


@pytest.mark.parametrize(
    "name",
    ["..", ".", f"{CALL}.1", "a" * 65, "a b", f"..%2f{CALL}", "%00", "*", f"{CALL}%0a", "\xc3\xa4", "x/../y"],
)
def test_a_call_id_is_no_path(page: Page, directory: Path, name: str) -> None:
    record(directory, about(), 0.5)
    for path in (f"/api/calls/{name}/recording", f"/api/calls/{name}/recording/1"):
        assert hear(page, path).status in (400, 404)
        assert b"fLaC" not in hear(page, path).body


@pytest.mark.parametrize(
    "number",
    [
        "0",
        "01",
        "-1",
        "1.flac",
        "1e0",
        "\xd9\xa3",
        "\xc2\xb2",
        "999",
        "9" * 5000,
        "1/..",
        "..",
        "%31%00",
        "",
        " 1",
    ],
)
def test_a_parts_number_is_a_number(page: Page, directory: Path, number: str) -> None:
    record(directory, about(), 0.5)
    got = hear(page, f"{LIST}/{number}")
    assert got.status in (400, 404) and b"fLaC" not in got.body


def test_a_part_that_there_never_was(page: Page, directory: Path) -> None:
    record(directory, about(), 0.5)
    assert hear(page, f"{LIST}/2").json["error"] == "unknown_part"


def test_fields_and_methods_that_are_none(page: Page, directory: Path) -> None:
    record(directory, about(), 0.5)
    for path in (LIST, SOUND):
        assert hear(page, f"{path}?download=1").status == 400
        got, parts = page.open(path, "DELETE", HTTP_AUTHORIZATION=f"Bearer {TOKENS['hearer']}")
        parts.close()
        assert got.status == 405


def test_a_directory_that_cannot_be_read(
    page: Page, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(directory, about(), 0.5)

    def refused(*_: object) -> Iterator[Any]:
        raise PermissionError(13, "Permission denied", str(directory))

    monkeypatch.setattr(store_module.retention, "scan", refused)
    for path in (LIST, SOUND):
        got = hear(page, path)
        assert (got.status, got.json["error"]) == (503, "recordings_unreadable")
        assert str(directory) not in got.text
        assert "relay's host" in got.json["remedy"]
