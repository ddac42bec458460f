"""What is different between what is in force and what stands in the file."""

from __future__ import annotations

import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from eslbot.admin.config_diff import Changes, between
from eslbot.config import load
from eslbot.server import status_file
from tests.support.processes import tree
from tests.support.switch import WORKSPACE

ZETA = "3c48cb28-8c31-4c4f-c249-2272f462e6d6"


def changed(folder: Path, change: Any) -> Changes:
    """What a service with :func:`tree` would see when ``change`` was done to its file."""
    path, configuration = folder / "eslbot.toml", tree()
    configuration["server"]["key_file"] = str(folder / "identity.key")
    configuration["web"] = {"tokens": {"one": {"token": "token-of-the-page-1"}}}
    path.write_text(tomli_w.dumps(configuration))
    status_file.StatusFile(path).tell(load(path), 0, status_file.UP, [])
    notice = status_file.running(load(path), path)
    assert notice.pid == os.getpid()
    change(configuration)
    path.write_text(tomli_w.dumps(configuration))
    return between(notice, load(path))


def test_nothing(tmp_path: Path) -> None:
    assert not changed(tmp_path, lambda tables: None).any


def test_a_value_that_is_the_default_is_no_change(tmp_path: Path) -> None:
    assert not changed(tmp_path, lambda tables: tables["server"].update(max_calls=1000)).any


def test_tenants(tmp_path: Path) -> None:
    def change(tables: dict[str, Any]) -> None:
        acme = tables["workspaces"].pop(WORKSPACE)
        tables["workspaces"][ZETA] = {**deepcopy(acme), "name": "zeta"}

    found = changed(tmp_path, change)
    assert [(one.id, one.name) for one in found.added] == [(ZETA, "zeta")]
    assert [(one.id, one.name) for one in found.removed] == [(WORKSPACE, "acme")]
    assert not (found.changed or found.keys)


@pytest.mark.parametrize(
    ("table", "key", "value", "expected"),
    [
        ("", "max_calls", 7, ["max_calls"]),
        ("", "sources", ["127.0.0.1", "127.0.0.2"], ["sources"]),
        ("bot", "url", "wss://other.example.com/", ["bot.url"]),
        ("bot", "url", "wss://bot.example.com/?key=other", ["bot.url", "secrets"]),
        ("bot", "headers", {"Authorization": "Bearer another-secret"}, ["secrets"]),
        ("bot", "reconnect", True, ["bot.reconnect"]),
        ("ameyo", "token", "another-secret", ["secrets"]),
        ("ameyo", "properties", {"DID": "{did}"}, ["ameyo.properties.DID"]),
    ],
)
def test_keys_of_a_tenant(tmp_path: Path, table: str, key: str, value: Any, expected: list[str]) -> None:
    def change(tables: dict[str, Any]) -> None:
        acme = tables["workspaces"][WORKSPACE]
        (acme[table] if table else acme)[key] = value

    (acme,) = changed(tmp_path, change).changed
    assert acme.keys == expected


@pytest.mark.parametrize(
    ("table", "key", "value", "needs"),
    [
        ("server", "workers", 3, ""),
        ("freeswitch", "sip_port", 5070, "restart of FreeSWITCH"),
        ("freeswitch", "external_ip", "35.227.95.16", "restart of FreeSWITCH"),
        ("freeswitch", "media_timeout", "1m", ""),
        ("relay", "listen", "127.0.0.1:9999", ""),
        ("logs", "mask_numbers", True, ""),
    ],
)
def test_other_keys_and_what_they_need(tmp_path: Path, table: str, key: str, value: Any, needs: str) -> None:
    found = changed(tmp_path, lambda tables: tables.setdefault(table, {}).update({key: value}))
    (one,) = found.keys
    assert one.key == f"{table}.{key}"
    assert (needs in one.needs) if needs else one.needs == ""


def test_a_relay_by_itself_needs_its_own_reload(tmp_path: Path) -> None:
    found = changed(tmp_path, lambda tables: tables.update(relay={"processes": 0}))
    assert "systemctl reload eslbot-relay" in found.keys[0].needs


def test_a_token_of_the_page_is_a_change_and_is_not_told(tmp_path: Path) -> None:
    def change(tables: dict[str, Any]) -> None:
        tables["web"]["tokens"]["one"]["token"] = "token-of-the-page-2"

    (one,) = changed(tmp_path, change).keys
    assert one.key == "secrets"
    assert "token-of-the-page" not in repr(one)
