"""What a valid configuration says that nobody can mean."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from click.testing import CliRunner

from eslbot.cli import main
from eslbot.config import advice as room
from eslbot.config.advice import Advice, advice, advice_here, missing_driver
from eslbot.config.loader import from_tree
from eslbot.config.model import Config, Ledger, Secret
from tests.unit.test_config import ACME, put, small


def config(**keys: Any) -> Config:
    tree = small()
    for key, value in keys.items():
        put(tree, key.replace("__", "."), value)
    return from_tree(tree, {})


def told(given: Config) -> list[tuple[str, str, str]]:
    place = f"workspaces.{ACME}."
    return [(a.key.removeprefix(place), a.found, a.remedy) for a in advice(given)]


def test_a_sound_configuration_needs_none() -> None:
    sound = config(
        W__sources=["203.0.113.10", "203.0.113.0/24", "2001:db8::/48"],
        A__properties={name: f"{{{name}}}" for name in ("did", "crt_object_id", "outcome")}
        | {"json": '{"a": {"b": 1}, "c": "{did}"}', "set": "{}", "number": "{1}", "text": "a } b {"},
        B__headers={"X-Config": '{"tenant": "acme"}', "Authorization": "Bearer {token-of-theirs}"},
        B__url="wss://bot.example.com/talk?q=%7Bnot-ours%7D",
    )
    assert told(sound) == []


@pytest.mark.parametrize(
    ("network", "found"),
    [
        ("203.0.112.0/23", "203.0.112.0/23 is 512 addresses"),
        ("0.0.0.0/0", "0.0.0.0/0 is every address there is"),
        ("::/0", "::/0 is every address there is"),
        ("2001:db8::/47", "2001:db8::/47 is wider than a /48"),
    ],
)
def test_a_wide_source_is_told(network: str, found: str) -> None:
    assert told(config(W__sources=[network])) == [
        ("sources", found, "name the addresses of its SIP gateways")
    ]
    (switches,) = told(config(server__switches=[network]))
    assert switches[:2] == ("server.switches", found)


@pytest.mark.parametrize(
    ("text", "found", "remedy"),
    [
        ("{DID}", "{DID}", "write {did}"),
        ("number {Did}!", "{Did}", "write {did}"),
        ("{ did }", "{ did }", "write {did}"),
        ("{Campaign}", "{Campaign}", "known are {did}, {crt_object_id}, {workspace_id}, "),
        ("{agent-group}", "{agent-group}", "known are {did}, "),
        ("{did} and {DID}", "{DID}", "write {did}"),
    ],
)
def test_what_looks_like_a_placeholder_and_is_none(text: str, found: str, remedy: str) -> None:
    ((key, what, how),) = told(config(A__properties={"number": text, "did": "{did}"}))
    assert (key, what) == ("ameyo.properties.number", found)
    assert how.startswith(remedy)


def test_in_urls_and_headers_nothing_is_filled_in_and_no_secret_is_told() -> None:
    given = config(
        B__url=[
            "wss://bot.example.com/talk?did=%7Bdid%7D&key=%7Bsecret-1%7D",
            "wss://b.example.com/%7BDID%7D",
        ],
        A__url="https://a.example.com/%7Bworkspace%7D",
        B__headers={"X-Number": "is {DID}", "Authorization": "Bearer {hunter22}"},
    )
    assert [(key, found) for key, found, _ in told(given)] == [
        ("ameyo.url", "%7Bworkspace%7D"),
        ("bot.url", "%7Bdid%7D"),
        ("bot.url", "%7BDID%7D"),
        ("bot.headers.X-Number", "{DID}"),
    ]
    assert "hunter22" not in repr(list(advice(given)))
    assert "secret-1" not in repr(list(advice(given)))


def test_braces_as_they_stand_in_a_url_are_refused_before() -> None:
    with pytest.raises(Exception, match="characters that a URL must escape"):
        config(B__url="wss://bot.example.com/{DID}")


# -- on this host -----------------------------------------------------------------------------------------


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[Advice]]:
    """Advice where FreeSWITCH is ``nobody``; pytest's own directories, closed to others, count as open."""
    looks = room._step_shuts
    monkeypatch.setattr(room, "_PRIVATE", (Path("/nowhere"),))
    monkeypatch.setattr(
        room, "_step_shuts", lambda step, *who: tmp_path in step.parents and looks(step, *who)
    )

    def here(**keys: Any) -> list[Advice]:
        return list(advice_here(config(server__switch_user="nobody", **keys)))

    return here


Here = Callable[..., list[Advice]]


def test_a_directory_that_freeswitchs_user_may_not_enter(here: Here, tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.mkdir(mode=0o755)
    assert here(relay__directory=str(lines)) == []
    lines.chmod(0o750)
    (found,) = here(relay__directory=str(lines))
    assert found.found == f"FreeSWITCH's user nobody may not enter {lines}"
    assert here(relay__directory=str(tmp_path / "not-made-yet")) == []
    assert here(relay__directory=str(lines), freeswitch__event_socket="10.0.0.5:8021") == [], "its host"


def test_a_hold_sound_that_is_not_there_or_not_for_freeswitch(here: Here, tmp_path: Path) -> None:
    sound = tmp_path / "hold.wav"
    (found,) = here(W__hold_sound=str(sound))
    assert (found.key, found.found) == (f"workspaces.{ACME}.hold_sound", f"{sound} is not there")
    sound.touch(0o600)
    (found,) = here(W__hold_sound=str(sound))
    assert found.found == f"FreeSWITCH's user nobody may not read {sound}"
    sound.chmod(0o644)
    assert here(W__hold_sound=str(sound)) == []
    assert here(W__hold_sound="tone") == []


def test_modes_are_read_as_the_kernel_does(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    owner, group = os.geteuid(), file.stat().st_gid
    for mode, by_owner, by_group, by_others in (
        (0o640, True, True, False),
        (0o604, True, False, True),
        (0o044, False, True, True),
        (0o600, True, False, False),
    ):
        file.chmod(mode)
        assert room._step_shuts(file, owner, set()) is not by_owner
        assert room._step_shuts(file, 4_000_000, {group}) is not by_group
        assert room._step_shuts(file, 4_000_000, set()) is not by_others
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(0o701)
    assert not room._step_shuts(folder, 4_000_000, set()), "to enter is enough"


def test_a_directory_that_systemd_makes_private_is_told() -> None:
    (found,) = list(advice_here(config(relay__directory="/tmp/lines", server__switch_user="any")))
    assert (found.key, found.found) == ("relay.directory", "/tmp/lines is below /tmp")


def test_a_driver_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(Secret("postgresql+psycopg://u:hunter22@db/calls"), "/var/lib/eslbot/journal", 1.0)
    given = replace(config(), ledger=ledger)
    assert missing_driver(ledger) == "", "it is here, as a test needs it"

    def gone(name: str) -> None:
        raise ImportError(f"No module named {name!r}\nand more")

    monkeypatch.setattr(room, "import_module", gone)
    (found,) = [one for one in advice_here(given) if one.key == "ledger.url"]
    assert found.found == "the driver psycopg cannot be used: No module named 'psycopg'"
    assert "pip install 'eslbot[postgres]'" in found.remedy
    assert "hunter22" not in str(found)
    assert missing_driver(replace(ledger, url=Secret("sqlite:////var/lib/eslbot/calls.db"))) == ""


# -- who tells it -----------------------------------------------------------------------------------------


def test_check_warns_and_says_that_it_is_valid(tmp_path: Path) -> None:
    tree = put(put(small(), "W.sources", ["0.0.0.0/0"]), "A.properties", {"number": "{DID}"})
    path = tmp_path / "eslbot.toml"
    path.write_text(tomli_w.dumps(tree))
    result = CliRunner().invoke(main, ["check", "--config", str(path)])
    assert result.exit_code == 0
    assert f"warning: workspaces.{ACME}.sources: 0.0.0.0/0 is every address there is: " in result.stderr
    assert (
        f"warning: workspaces.{ACME}.ameyo.properties.number: {{DID}}: it is not filled in" in result.stderr
    )
    assert "write {did}" in result.stderr
    assert "warning" not in result.stdout
