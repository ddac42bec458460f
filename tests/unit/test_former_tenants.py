"""Tenants that were taken out of the configuration: what is kept of them, where, and for how long."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from eslbot.config import former_tenants
from eslbot.config.former_tenants import MAX_FILE, OLDEST, QUIET, FormerTenants, directory_of, read, write
from eslbot.config.loader import from_tree
from eslbot.config.model import Config, Workspace
from eslbot.config.schemas.workspace import WorkspaceSchema
from eslbot.config.secrets import secrets_of
from eslbot.config.show import workspace_table
from eslbot.server.call_counts import COLUMNS, CallCounts
from tests.unit.test_config import ACME, put, small

OTHER = "9c3a1f52-70d4-4d83-9c5b-0d5a8f1b2c3d"
TOKEN, PASSWORD = "ameyo-token-of-acme", "proxy-password-5c1e"
SEALING = "0123456789abcdef" * 4

#: Every key of a workspace, each with another value than its default.
EVERYTHING: dict[str, Any] = {
    "name": "acme",
    "sources": ["203.0.113.10", "2001:db8::/64"],
    "max_calls": 7,
    "max_cps": 8,
    "max_duration": "90s",
    "nat": True,
    "hold_sound": "/var/lib/sounds/hold.wav",
    "record": 0.25,
    "recording": {
        "announcement": "beep",
        "keep": "2h",
        "key": SEALING,
        "old_keys": [SEALING[::-1]],
    },
    "bot": {
        "url": ["wss://bot.example.com/stream?key=secret-in-a-query", "ws://10.0.0.7:80/b"],
        "protocol": "exotel",
        "sample_rate": 16000,
        "proxy": f"socks5://u:{PASSWORD}@10.0.0.9:1080",
        "connect_timeout": "2500ms",
        "first_audio_timeout": 0,
        "reconnect": True,
        "headers": {"Authorization": "Bearer token-of-the-bot", "X-Team": "support"},
        "insecure": True,
    },
    "ameyo": {
        "url": "https://management.ameyo.app:8887",
        "tenant_host": "acme.ameyo.app",
        "token": TOKEN,
        "ca_file": "/etc/ssl/ameyo.pem",
        "bot_properties": ["summary"],
        "properties": {"DID": "{did}", "note": 'a "quoted" text\twith ünicode'},
        "connect_timeout": "100ms",
        "timeout": "7s",
        "bye_timeout": "61.5s",
        "renotify": True,
        "insecure": True,
        "source_address": "10.0.0.21",
        "proxy": f"http://u:{PASSWORD}@10.0.0.9:3128",
    },
}


def made(tree: dict[str, Any], key: str = ACME) -> Workspace:
    return Workspace(id=key, **WorkspaceSchema().load(tree))


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., Config]:
    """A configuration with acme, another tenant, or both."""

    def configured(*keys: str, **acme: Any) -> Config:
        tree = put(small(), "server.key_file", str(tmp_path / "identity.key"))
        tree["workspaces"] = {
            **({ACME: {**EVERYTHING, **acme}} if ACME in keys else {}),
            **({OTHER: {**EVERYTHING, "name": "other"}} if OTHER in keys else {}),
        }
        return from_tree(tree, {})

    return configured


Configured = Callable[..., Config]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(former_tenants.time, "monotonic", lambda: now[0])
    return now


def files(config: Config) -> set[str]:
    directory = directory_of(config)
    return {path.name for path in directory.iterdir()} if directory.exists() else set()


# -- as it is written and read ----------------------------------------------------------------------------


def test_a_tenant_is_written_and_read_with_all_it_has(tmp_path: Path) -> None:
    workspace = made(EVERYTHING)
    write(tmp_path / "tenants", [workspace, made({**EVERYTHING, "name": "other"}, OTHER)])
    assert read(tmp_path / "tenants")[ACME] == workspace
    assert set(read(tmp_path / "tenants")) == {ACME, OTHER}


def test_everything_is_every_key_there_is() -> None:
    """Or the round trip above would not be one of all keys."""
    for schema, table in (
        (WorkspaceSchema(), EVERYTHING),
        (WorkspaceSchema().fields["bot"].schema, EVERYTHING["bot"]),  # type: ignore[attr-defined]
        (WorkspaceSchema().fields["ameyo"].schema, EVERYTHING["ameyo"]),  # type: ignore[attr-defined]
        (WorkspaceSchema().fields["recording"].schema, EVERYTHING["recording"]),  # type: ignore[attr-defined]
    ):
        assert {field.data_key or name for name, field in schema.fields.items()} == set(table)


@given(
    st.floats(0.1, 60).map(lambda seconds: round(seconds, 3)),
    st.text(st.characters(min_codepoint=32, exclude_characters="{}\x7f"), max_size=50),
)
def test_what_is_shown_of_a_tenant_is_a_table_again(seconds: float, text: str) -> None:
    tree = json.loads(json.dumps(EVERYTHING))
    tree["ameyo"]["connect_timeout"] = f"{seconds}s"
    tree["ameyo"]["properties"] = {"note": text}
    workspace = made(tree)
    assert made(workspace_table(workspace)) == workspace


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write(tmp_path / "tenants", [made(EVERYTHING)])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "tenants").stat().st_mode) == 0o700
    (path,) = (tmp_path / "tenants").iterdir()
    assert (path.name, stat.S_IMODE(path.stat().st_mode)) == (f"{ACME}.json", 0o600)
    assert TOKEN in path.read_text()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b"[" * 100_000,
        b" " * (MAX_FILE + 1),
        json.dumps({**EVERYTHING, "max_calls": f"is {TOKEN}"}).encode(),
        json.dumps({**EVERYTHING, "unknown": 1}).encode(),
    ],
    ids=["empty", "half", "bytes", "list", "null", "table", "deep", "long", "wrong", "of a later version"],
)
def test_what_is_no_tenant_is_told_without_its_secrets_and_deleted(tmp_path: Path, content: bytes) -> None:
    directory = tmp_path / "tenants"
    write(directory, [made({**EVERYTHING, "name": "other"}, OTHER)])
    (directory / f"{ACME}.json").write_bytes(content)
    with capture_logs() as lines:
        assert set(read(directory)) == {OTHER}
    (line,) = lines
    assert line["event"] == "former_tenant_not_read"
    assert TOKEN not in repr(lines)
    assert [path.name for path in directory.iterdir()] == [f"{OTHER}.json"]


def test_other_names_links_and_directories_are_not_read(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", [made(EVERYTHING)])
    directory = tmp_path / "tenants"
    directory.mkdir()
    (directory / f"{ACME}.json").symlink_to(tmp_path / "elsewhere" / f"{ACME}.json")
    (directory / f"{OTHER}.json").mkdir()
    (directory / "readme").write_text("mine")
    with capture_logs() as lines:
        assert read(directory) == {}
    assert {line["event"] for line in lines} == {"former_tenant_not_read", "former_tenant_not_deleted"}
    assert (directory / "readme").read_text() == "mine"
    assert (tmp_path / "elsewhere" / f"{ACME}.json").exists(), "the link is deleted, and not what it names"


def test_one_that_is_older_than_any_call_is_nobodys(tmp_path: Path) -> None:
    directory = tmp_path / "tenants"
    write(directory, [made(EVERYTHING)])
    path = directory / f"{ACME}.json"
    young = path.stat().st_mtime - OLDEST + 60
    os.utime(path, (young, young))
    assert set(read(directory)) == {ACME}
    os.utime(path, (young - 120, young - 120))
    assert read(directory) == {}
    assert not path.exists()


def test_without_a_directory_there_is_none_and_one_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    assert read(tmp_path / "none") == {}
    (tmp_path / "file").write_text("")
    with capture_logs() as lines:
        write(tmp_path / "file" / "tenants", [made(EVERYTHING)])
        assert read(tmp_path / "file" / "tenants") == {}
    assert [line["event"] for line in lines] == ["former_tenant_not_kept", "former_tenant_not_read"]
    assert TOKEN not in repr(lines)


# -- over reloads -----------------------------------------------------------------------------------------


def test_a_tenant_that_is_taken_out_is_kept_as_it_was_last(configured: Configured) -> None:
    room = FormerTenants()
    first = room.settle(None, configured(ACME, OTHER))
    changed = room.settle(first, configured(ACME, OTHER, max_calls=9))
    assert (first.former, changed.former, files(changed)) == ({}, {}, set())
    without = room.settle(changed, configured(OTHER))
    assert ACME not in without.workspaces
    kept = without.of_admitted(ACME)
    assert kept is not None
    assert (kept.max_calls, kept.ameyo.token.reveal()) == (9, TOKEN)
    assert without.of_admitted(OTHER) is without.workspaces[OTHER]
    assert files(without) == {f"{ACME}.json"}
    assert {TOKEN, "token-of-the-bot", PASSWORD} <= secrets_of(without), "no output may hold them"
    again = room.settle(without, configured(OTHER))
    assert again.former == without.former, "the next reload does not forget it"


def test_one_that_comes_back_is_as_the_file_says(configured: Configured) -> None:
    room = FormerTenants()
    without = room.settle(room.settle(None, configured(ACME, OTHER)), configured(OTHER))
    back = room.settle(without, configured(ACME, OTHER, max_calls=11))
    found = back.of_admitted(ACME)
    assert found is not None
    assert (found.max_calls, back.former, files(back)) == (11, {}, set())


def test_the_next_service_knows_them_by_their_files(configured: Configured) -> None:
    FormerTenants().settle(configured(ACME, OTHER), configured(OTHER))
    (kept,) = FormerTenants().settle(None, configured(OTHER)).former.values()
    assert kept == configured(ACME).workspaces[ACME]


def test_what_is_in_the_process_counts_more_than_a_file(configured: Configured) -> None:
    config = configured(ACME, OTHER)
    write(directory_of(config), [replace(config.workspaces[ACME], max_calls=1)])
    without = FormerTenants().settle(config, configured(OTHER))
    assert without.former[ACME].max_calls == 7
    assert read(directory_of(config))[ACME].max_calls == 7


def test_where_nothing_can_be_written_the_process_knows_it_all_the_same(
    configured: Configured, tmp_path: Path
) -> None:
    (tmp_path / "tenants").write_text("in the way")
    with capture_logs() as lines:
        without = FormerTenants().settle(configured(ACME, OTHER), configured(OTHER))
    assert set(without.former) == {ACME}
    assert "former_tenant_not_kept" in {line["event"] for line in lines}


def test_without_room_to_count_its_calls_none_is_kept_and_the_start_goes_on(configured: Configured) -> None:
    counts = CallCounts()
    counts.know([f"tenant {number}" for number in range(COLUMNS)])
    with capture_logs() as lines:
        without = FormerTenants().settle(configured(ACME, OTHER), configured(OTHER), counts.know)
    assert (without.former, files(without)) == ({}, set())
    (line,) = lines
    assert line["event"] == "former_tenant_not_kept"
    assert f"more than {COLUMNS} workspaces" in line["error"]


def test_another_place_leaves_none_behind(configured: Configured, tmp_path: Path) -> None:
    room = FormerTenants()
    without = room.settle(configured(ACME, OTHER), configured(OTHER))
    elsewhere = configured(OTHER)
    elsewhere = replace(elsewhere, server=replace(elsewhere.server, key_file=str(tmp_path / "other" / "key")))
    moved = room.settle(without, elsewhere)
    assert (files(without), files(moved)) == (set(), {f"{ACME}.json"})


# -- for how long -----------------------------------------------------------------------------------------


def test_it_is_kept_while_calls_are_up_and_some_minutes_behind_the_last(
    configured: Configured, clock: list[float]
) -> None:
    room, calls = FormerTenants(), {ACME: 5}
    config = room.settle(configured(ACME, OTHER), configured(OTHER))
    for _ in range(5):
        clock[0] += QUIET
        assert room.tend(config, calls.__getitem__) is config
    calls[ACME] = 0  # perhaps on its way from one controller to the next
    clock[0] += QUIET - 1
    assert room.tend(config, calls.__getitem__) is config
    assert files(config) == {f"{ACME}.json"}
    clock[0] += 1
    with capture_logs() as lines:
        config = room.tend(config, calls.__getitem__)
    assert (config.former, files(config)) == ({}, set())
    assert [line["event"] for line in lines] == ["tenant_forgotten"]


def test_a_reload_does_not_begin_its_time_anew(configured: Configured, clock: list[float]) -> None:
    room = FormerTenants()
    config = room.settle(configured(ACME, OTHER), configured(OTHER))
    clock[0] += QUIET - 1
    config = room.settle(config, configured(OTHER))
    clock[0] += 1
    assert room.tend(config, lambda _: 0).former == {}


def test_with_several_machines_it_is_kept_for_as_long_as_a_call(
    configured: Configured, clock: list[float]
) -> None:
    """Another host's call may come here when that host is lost."""
    after = configured(OTHER)
    far = from_tree(put(small(), "freeswitch.controllers", ["10.0.0.21:8084", "127.0.0.1:8084"]), {})
    after = replace(after, freeswitch=replace(after.freeswitch, controllers=far.freeswitch.controllers))
    room = FormerTenants()
    config = room.settle(configured(ACME, OTHER), after)
    clock[0] += QUIET + 89
    assert set(room.tend(config, lambda _: 0).former) == {ACME}
    clock[0] += 1
    assert room.tend(config, lambda _: 0).former == {}


def test_files_that_a_refused_reload_has_left_are_swept(configured: Configured, clock: list[float]) -> None:
    room = FormerTenants()
    config = room.settle(None, configured(ACME, OTHER))
    room.settle(config, configured(OTHER))  # and its workers did not come up: the one before is in force
    assert files(config) == {f"{ACME}.json"}
    clock[0] += former_tenants.SWEEP
    assert room.tend(config, lambda _: 1) is config
    assert files(config) == set()


def test_a_service_that_ends_leaves_those_with_calls(configured: Configured) -> None:
    room = FormerTenants()
    config = room.settle(None, configured(ACME, OTHER))
    room.leave(config, {ACME: 2, OTHER: 0}.__getitem__)
    assert files(config) == {f"{ACME}.json"}
    assert set(FormerTenants().settle(None, configured(OTHER)).former) == {ACME}
    assert FormerTenants().settle(None, configured(ACME, OTHER)).former == {}
    assert files(config) == set(), "who is configured needs no file"


def test_a_relays_parent_keeps_them_for_as_long_as_a_call_and_writes_none(
    configured: Configured, clock: list[float]
) -> None:
    room = FormerTenants()
    config = room.carry(configured(ACME, OTHER), configured(OTHER))
    assert (set(config.former), files(config)) == ({ACME}, set())
    clock[0] += 90 + QUIET - 1
    config = room.carry(config, configured(OTHER))
    assert set(config.former) == {ACME}
    clock[0] += 1
    assert room.carry(config, configured(OTHER)).former == {}
    write(directory_of(config), [configured(ACME).workspaces[ACME]])
    assert set(FormerTenants().carry(None, configured(OTHER)).former) == {ACME}
