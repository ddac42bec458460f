"""The key file: made once, for its owner alone, and refused where it could be another's."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from eslbot.caller.keyfile import KeyFileError, load, load_or_make
from eslbot.cli import main
from eslbot.config.schemas.service import default_key_file


def test_the_first_start_makes_it_and_the_next_ones_read_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "identity.key"
    made = load_or_make(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o007 == 0
    assert load_or_make(path).fingerprints == load(path).fingerprints == made.fingerprints
    assert [found.name for found in path.parent.iterdir()] == ["identity.key"]
    assert load_or_make(tmp_path / "other.key").fingerprints != made.fingerprints


@pytest.mark.slow
def test_of_several_that_make_it_at_once_all_have_the_same(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        found = pool.map(fingerprints, [tmp_path / "identity.key"] * 16)
    assert len(set(found)) == 1
    assert [found.name for found in tmp_path.iterdir()] == ["identity.key"]


def fingerprints(path: Path) -> tuple[str, ...]:
    return load_or_make(path).fingerprints


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        ("", 0o600, "does not hold"),
        ("# only words\n", 0o600, "does not hold"),
        ("00" * 31, 0o600, "does not hold"),
        ("00" * 32 + "\nnonsense\n", 0o600, "does not hold"),
        (("00" * 32 + "\n") * 9, 0o600, "does not hold"),
        ("# " + "x" * 5000 + "\n" + "00" * 32, 0o600, "does not hold"),
        ("00" * 32, 0o640, "chmod 600"),
        ("00" * 32, 0o604, "chmod 600"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_remedy(
    tmp_path: Path, content: str, mode: int, said: str
) -> None:
    path = tmp_path / "identity.key"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(KeyFileError) as refused:
        load_or_make(path)
    assert str(path) in str(refused.value) and said in str(refused.value)
    assert path.read_text() == content


def test_a_key_file_is_a_file(tmp_path: Path) -> None:
    real = tmp_path / "real.key"
    load_or_make(real)
    (tmp_path / "link.key").symlink_to(real)
    (tmp_path / "dangling.key").symlink_to(tmp_path / "elsewhere.key")
    (tmp_path / "folder.key").mkdir()
    os.mkfifo(tmp_path / "fifo.key", 0o600)
    for name in ("link.key", "dangling.key", "folder.key", "fifo.key", "real.key/below.key"):
        with pytest.raises(KeyFileError):
            load_or_make(tmp_path / name)
    assert not (tmp_path / "elsewhere.key").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_somebody_elses_key_is_none(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    load_or_make(path)
    os.chown(path, 65534, 65534)
    with pytest.raises(KeyFileError, match="uid 65534"):
        load(path)


def test_comments_and_a_second_key_are_read(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    path.write_text(f"# of May\n{'ab' * 32}\n\n# of April\n{'cd' * 32}\n")
    path.chmod(0o600)
    assert len(load(path).fingerprints) == 2


def test_who_may_not_write_there_has_a_place_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setenv("XDG_STATE_HOME", "/home/somebody/state")
    assert default_key_file() == "/home/somebody/state/eslbot/identity.key"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_key_file() == "/home/somebody/.local/state/eslbot/identity.key"
    monkeypatch.setattr("os.access", lambda *_: True)
    assert default_key_file() == "/var/lib/eslbot/identity.key"


def test_the_command_shows_the_fingerprint_and_never_the_key(tmp_path: Path) -> None:
    config, path = tmp_path / "eslbot.toml", tmp_path / "identity.key"
    config.write_text(
        f'[server]\nkey_file = "{path}"\n'
        "[workspaces.2b37ba17-7b20-4b3e-b138-1161e351d5c5]\n"
        'name = "acme"\nsources = ["127.0.0.1"]\nbot.url = "wss://bot.example.com/"\n'
        'ameyo = {url = "https://a.example", tenant_host = "acme.example", token = "secret-token"}\n'
    )
    first = CliRunner().invoke(main, ["key", "--config", str(config)])
    assert (first.exit_code, first.stdout) == (0, f"{path}: {load(path).fingerprints[0]} signs\n")
    path.write_text(path.read_text() + "ab" * 32 + "\n")
    second = CliRunner().invoke(main, ["key", "--config", str(config)])
    assert second.stdout.splitlines()[1].endswith("is believed, too")
    assert not any(line in second.output for line in path.read_text().splitlines()[1:])
    path.chmod(0o644)
    refused = CliRunner().invoke(main, ["key", "--config", str(config)])
    assert refused.exit_code == 2 and "chmod 600" in refused.output
