"""``eslbot tenant``: what becomes of the file, what is said, and what is refused."""

from __future__ import annotations

import fcntl
import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from eslbot.cli import main
from eslbot.config import edit
from eslbot.config.edit import CannotEdit, Draft

ACME = "2b37ba17-7b20-4b3e-b138-1161e351d5c5"
ID = "3c48cb28-8c31-4c4f-c249-2272f462e6d6"
#: As people write: comments everywhere, keys in their own order, another table between two of one tenant's.
FILE = f"""\
# What this file is for.
[server]
workers = 1   # one is enough here

# [web.tokens.operator]
[freeswitch]
external_ip = "35.227.95.16"

# The first tenant.
[workspaces.{ACME}]   # since spring
sources = ["203.0.113.10"]     # their gateway
name    = "acme"

[workspaces.{ACME}.bot]
url = "wss://bot.acme.io/stream"
headers = {{ Authorization = "${{ACME_BOT}}" }}

[logs]
mask_numbers = true

[workspaces.{ACME}.ameyo]
url = "https://management.ameyo.app:8887"
tenant_host = "acme.ameyo.app"
token = "${{ACME_TOKEN}}"
# The end.
"""
TOKEN, BOT = "token-of-acme-7d1f", "bot-of-acme-91ab"
ENVIRONMENT = {"ACME_BOT": BOT, "ACME_TOKEN": TOKEN}
ZETA = (
    *("--source", "198.51.100.7", "--bot-url", "wss://bot.zeta.io/stream"),
    *("--tenant-host", "zeta.ameyo.app", "--id", ID),
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "eslbot.toml"
    path.write_text(FILE)
    return path


def run(*arguments: str | Path, given: str | None = None, **environment: str) -> Result:
    runner = CliRunner(env={**ENVIRONMENT, **environment})
    return runner.invoke(main, [str(argument) for argument in arguments], input=given)


def add(file: Path, *options: str, name: str = "zeta", **more: Any) -> Result:
    return run("tenant", "add", name, "--config", file, *(options or ZETA), **more)


def untouched(file: Path) -> bool:
    return file.read_text() == FILE and [path.name for path in file.parent.iterdir()] == [file.name]


def comments(text: str) -> list[str]:
    return [line.partition("#")[2] for line in text.splitlines() if "#" in line]


# -- add --------------------------------------------------------------------------------------------------


def test_a_tenant_stands_at_the_end_and_all_else_as_it_stood(file: Path) -> None:
    file.chmod(0o640)
    result = add(file, *ZETA, "--property", "DID={did}", "--max-calls", "7", "--bot-property", "summary")
    assert result.exit_code == 0, result.output
    text = file.read_text()
    assert text.startswith(FILE)
    tenant = tomllib.loads(text)["workspaces"][ID]
    assert tenant == {
        "name": "zeta",
        "sources": ["198.51.100.7"],
        "max_calls": 7,
        "bot": {"url": "wss://bot.zeta.io/stream"},
        "ameyo": {
            "url": "https://management.ameyo.app:8887",
            "tenant_host": "zeta.ameyo.app",
            "token": f"${{file:{file.parent}/zeta-ameyo-token}}",
            "bot_properties": ["summary"],
            "properties": {"DID": "{did}"},
        },
    }
    assert file.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_what_is_said_names_secrets_next_steps_and_what_to_mail(file: Path) -> None:
    result = add(file)
    assert f"ameyo.token: write it, alone, into {file.parent}/zeta-ameyo-token" in result.stdout
    assert f"eslbot reload --config {file}" in result.stdout
    assert f"Going live: zeta ({ID})" in result.stdout
    assert "X-Workspace-ID" in result.stdout


def test_the_same_as_json(file: Path) -> None:
    found = json.loads(add(file, *ZETA, "--json").stdout)
    assert found["workspace"] == {"id": ID, "name": "zeta"}
    (secret,) = found["secrets"]
    assert (secret["key"], secret["there"]) == ("ameyo.token", False)
    assert found["onboard"]["workspace"]["name"] == "zeta"


def test_a_uuid_is_made(file: Path) -> None:
    options = [word for word in ZETA if word not in ("--id", ID)]
    assert add(file, *options).exit_code == 0
    assert add(file, *options, "--shared-source", name="eta").exit_code == 0
    assert len(tomllib.loads(file.read_text())["workspaces"]) == 3


def test_a_token_of_the_environments_is_named_with_what_that_takes(file: Path) -> None:
    result = add(file, *ZETA, "--token-env", "ZETA_TOKEN", "--bot-header", "Authorization=Bearer ${ZETA_BOT}")
    assert result.exit_code == 0, result.output
    assert "put ZETA_TOKEN=… into the service's environment (secrets.env), and restart it" in result.stdout
    tenant = tomllib.loads(file.read_text())["workspaces"][ID]
    assert tenant["ameyo"]["token"] == "${ZETA_TOKEN}"
    assert tenant["bot"]["headers"] == {"Authorization": "Bearer ${ZETA_BOT}"}


def test_who_lacks_the_secrets_of_others_is_warned_and_may_add(file: Path) -> None:
    runner = CliRunner(env={"ACME_BOT": None, "ACME_TOKEN": None})
    result = runner.invoke(main, ["tenant", "add", "zeta", "--config", str(file), *ZETA])
    assert result.exit_code == 0, result.output
    assert f"warning: workspaces.{ACME}.ameyo.token: the environment variable ACME_TOKEN" in result.stderr


def test_a_secret_is_asked_for_hidden_and_written_for_the_owner_alone(file: Path) -> None:
    result = add(file, *ZETA, "--ask", given="a-token-typed\n")
    assert result.exit_code == 0, result.output
    secret = file.parent / "zeta-ameyo-token"
    assert secret.read_text() == "a-token-typed\n"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert "a-token-typed" not in result.output
    assert "Still to be put in place" not in result.output


def test_a_secret_that_is_there_is_not_asked_for(file: Path) -> None:
    (file.parent / "zeta-ameyo-token").write_text("there-already\n")
    result = add(file, *ZETA, "--ask", given="")
    assert result.exit_code == 0, result.output
    assert (file.parent / "zeta-ameyo-token").read_text() == "there-already\n"


@pytest.mark.parametrize("typed", ["", "\n\n", "tökén\n", "a\x07b\n"])
def test_what_is_typed_and_is_no_token_is_not_written(file: Path, typed: str) -> None:
    result = add(file, *ZETA, "--ask", given=typed)
    assert result.exit_code in (1, 2)
    assert untouched(file)


def test_a_secret_file_goes_again_where_the_configuration_cannot_be_written(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(edit, "_replace", full)
    result = add(file, *ZETA, "--ask", given="a-token-typed\n")
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert untouched(file)


def without(option: str, *instead: str) -> list[str]:
    place = ZETA.index(option)
    return [*ZETA[:place], *ZETA[place + 2 :], *instead]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (without("--source", "--source", "gateway.zeta.io"), "expected an address or a CIDR block"),
        (without("--source", "--source", "10.0.0.5/8"), "did you mean '10.0.0.0/8'?"),
        (without("--source", "--source", "203.0.113.10"), "203.0.113.10/32 is also acme's"),
        (
            without("--source", "--source", "203.0.113.0/24"),
            "203.0.113.0/24 is also acme's (203.0.113.10/32)",
        ),
        (without("--bot-url", "--bot-url", "ws://bot.zeta.io/"), "sends everything in clear text"),
        (without("--bot-url", "--bot-url", "https://bot.zeta.io/"), "expected a URL like wss://"),
        (without("--id", "--id", ACME), "another tenant's already"),
        (without("--id", "--id", ACME.upper()), "another tenant's already"),
        (without("--id", "--id", "no-uuid"), "is not a valid UUID"),
        ([*ZETA, "--ameyo-url", "http://ameyo.zeta.io"], "sends everything in clear text"),
        ([*ZETA, "--property", "DID={nothing}"], "{nothing} is not known"),
        ([*ZETA, "--property", "DID"], "is not KEY=TEXT"),
        ([*ZETA, "--protocol", "sip"], "expected one of eslbot"),
        ([*ZETA, "--max-calls", "0"], "expected a whole number from 1"),
        ([*ZETA, "--max-duration", "soon"], "expected a duration"),
        ([*ZETA, "--token-env", "A", "--token-file", "b"], "name one"),
        ([*ZETA, "--token-env", "not-a-name"], "is neither ${NAME} nor"),
        (without("--tenant-host"), "Missing option '--tenant-host'"),
        (without("--source"), "Missing option '--source'"),
    ],
)
def test_what_cannot_be_used_is_code_2_and_changes_nothing(
    file: Path, options: list[str], expected: str
) -> None:
    result = add(file, *options)
    assert result.exit_code == 2, result.output
    assert expected in " ".join(result.stderr.split())
    assert untouched(file)


@pytest.mark.parametrize("name", ["acme", "a/b", "", "..", "x" * 65, "a b", "-x"])
def test_a_name_that_is_taken_or_none_is_code_2(file: Path, name: str) -> None:
    result = run("tenant", "add", "--config", file, *ZETA, "--", name)
    assert result.exit_code == 2, result.output
    assert untouched(file)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--bot-header", "Authorization=the-secret-itself"], "is no reference"),
        (["--bot-url", "wss://bot.zeta.io/?api_key=the-secret-itself"], "looks like a secret"),
        (["--bot-url", "wss://bot.zeta.io/?x=the-secret-itself-which-is-long"], "looks like a secret"),
    ],
)
def test_a_secret_on_the_command_line_is_refused_and_not_repeated(
    file: Path, options: list[str], told: str
) -> None:
    result = add(file, *ZETA, *options)
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())
    assert "the-secret-itself" not in result.output
    assert untouched(file)


def test_there_is_no_option_that_takes_a_token(file: Path) -> None:
    assert add(file, *ZETA, "--token", "the-secret-itself").exit_code == 2
    assert untouched(file)


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        (without("--source", "--source", "10.0.0.0/23"), True),
        (without("--source", "--source", "10.0.0.0/24"), False),
        (without("--source", "--source", "2001:db8::/47"), True),
        (without("--source", "--source", "2001:db8::/48"), False),
    ],
)
def test_a_wide_source_is_warned_of_and_taken(file: Path, options: list[str], warned: bool) -> None:
    result = add(file, *options, "--json")
    assert result.exit_code == 0, result.output
    assert ("is wide" in result.stderr) is warned
    assert any("is wide" in one for one in json.loads(result.stdout)["warnings"]) is warned


def test_clear_text_and_shared_sources_are_taken_where_that_is_said(file: Path) -> None:
    options = [
        *without("--bot-url", "--bot-url", "ws://127.0.0.1:9000/"),
        *(
            "--ameyo-url",
            "http://127.0.0.1:8887",
            "--source",
            "203.0.113.10",
            "--insecure",
            "--shared-source",
        ),
    ]
    result = add(file, *options)
    assert result.exit_code == 0, result.output
    tenant = tomllib.loads(file.read_text())["workspaces"][ID]
    assert tenant["bot"]["insecure"] is tenant["ameyo"]["insecure"] is True
    assert "203.0.113.10/32 is also acme's" in result.stderr


def test_insecure_is_written_only_where_it_is_needed(file: Path) -> None:
    assert add(file, *ZETA, "--insecure").exit_code == 0
    tenant = tomllib.loads(file.read_text())["workspaces"][ID]
    assert "insecure" not in tenant["bot"]
    assert "insecure" not in tenant["ameyo"]


def test_a_broken_rest_of_the_file_is_code_2(file: Path) -> None:
    broken = FILE.replace("workers = 1", "workers = 0")
    file.write_text(broken)
    result = add(file)
    assert result.exit_code == 2
    assert "server.workers" in result.stderr
    assert file.read_text() == broken


@pytest.mark.parametrize(
    "content", ["not toml", "workspaces = {}\n", "[[workspaces]]\n", "\xff", "workspaces = 5"]
)
def test_a_file_that_nothing_can_be_added_to_is_code_2(file: Path, content: str) -> None:
    file.write_bytes(content.encode("latin-1"))
    result = add(file)
    assert result.exit_code == 2, result.output
    assert file.read_bytes() == content.encode("latin-1")


def test_the_first_tenant_of_a_file_without_one(file: Path) -> None:
    file.write_text("[server]\nworkers = 1")  # and no end of the line
    assert add(file).exit_code == 0
    assert list(tomllib.loads(file.read_text())["workspaces"]) == [ID]


def test_a_file_of_another_systems_line_ends_keeps_them(file: Path) -> None:
    file.write_bytes(FILE.replace("\n", "\r\n").encode())
    assert add(file).exit_code == 0
    assert file.read_bytes().startswith(FILE.replace("\n", "\r\n").encode())


# -- remove -----------------------------------------------------------------------------------------------


@pytest.fixture
def two(file: Path) -> Path:
    assert add(file).exit_code == 0
    return file


def remove(file: Path, name: str, *options: str, **more: Any) -> Result:
    return run("tenant", "remove", name, "--config", file, *options, **more)


@pytest.mark.parametrize("name", ["acme", ACME, ACME.upper()])
def test_its_tables_go_and_comments_stay(two: Path, name: str) -> None:
    before = two.read_text()
    result = remove(two, name, "--yes")
    assert result.exit_code == 0, result.output
    text = two.read_text()
    assert list(tomllib.loads(text)["workspaces"]) == [ID]
    assert "203.0.113.10" not in text
    kept = ["What this file is for.", "one is enough here", "[web.tokens.operator]", "The first tenant."]
    assert [comment.strip() for comment in comments(text)][:4] == kept
    assert not [line for line in text.splitlines() if line.startswith("# name")]
    rest = {key: value for key, value in tomllib.loads(before).items() if key != "workspaces"}
    assert {key: value for key, value in tomllib.loads(text).items() if key != "workspaces"} == rest


def test_a_tenant_that_was_added_is_gone_again(two: Path) -> None:
    assert remove(two, "zeta", "--yes").exit_code == 0
    assert two.read_text().rstrip() == FILE.rstrip()


def test_it_asks_and_says_that_calls_are_not_known(two: Path) -> None:
    before = two.read_text()
    refused = remove(two, "zeta", given="n\n")
    assert refused.exit_code == 1
    assert "calls that are up: how many is not known" in refused.output
    assert two.read_text() == before
    assert remove(two, "zeta", given="y\n").exit_code == 0


def test_it_says_how_many_calls_are_up(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eslbot.admin.live_calls.living_calls", lambda web: {"zeta": 4})
    result = remove(two, "zeta", "--yes", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["calls"] == 4


@pytest.mark.parametrize(
    ("spoil", "name", "expected"),
    [
        ("", "nobody", "there is no tenant 'nobody'"),
        (
            '[web.tokens.one]\ntoken = "0123456789abcdef"\nworkspaces = ["zeta"]\n',
            "zeta",
            "no workspace of the name",
        ),
    ],
)
def test_what_cannot_be_removed_is_code_2(two: Path, spoil: str, name: str, expected: str) -> None:
    two.write_text(two.read_text() + spoil)
    before = two.read_text()
    result = remove(two, name, "--yes")
    assert result.exit_code == 2, result.output
    assert expected in result.stderr
    assert two.read_text() == before


def test_the_last_one_cannot_be_removed(file: Path) -> None:
    result = remove(file, "acme", "--yes")
    assert result.exit_code == 2
    assert "expected at least one" in result.stderr
    assert untouched(file)


# -- list, show -------------------------------------------------------------------------------------------


def test_the_list_has_each_with_its_sources(two: Path) -> None:
    result = run("tenant", "list", "--config", two)
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["NAME", "acme", "zeta"]
    (acme, zeta) = json.loads(run("tenant", "list", "--config", two, "--json").stdout)["tenants"]
    assert (acme["id"], acme["sources"], acme["calls"]) == (ACME, ["203.0.113.10/32"], None)
    assert zeta["name"] == "zeta"


def test_one_is_shown_with_its_secrets_masked(file: Path) -> None:
    result = run("tenant", "show", "acme", "--config", file)
    assert result.exit_code == 0, result.output
    assert tomllib.loads(result.stdout)["workspaces"][ACME]["ameyo"]["token"] == "********"
    found = json.loads(run("tenant", "show", ACME, "--config", file, "--json").stdout)
    assert found["workspace"]["bot"]["headers"] == {"Authorization": "********"}
    for secret in (TOKEN, BOT):
        assert secret not in result.output
    assert run("tenant", "show", "nobody", "--config", file).exit_code == 2


# -- the file ---------------------------------------------------------------------------------------------


def test_a_file_that_was_changed_meanwhile_is_not_replaced(file: Path) -> None:
    draft = Draft.of(file)
    file.write_text(FILE + "# a word more\n")
    with pytest.raises(CannotEdit, match="was changed since it was read"):
        draft.save(draft.without_tenant(ACME))
    assert file.read_text() == FILE + "# a word more\n"


def test_a_file_that_is_another_one_by_now_is_not_replaced(file: Path) -> None:
    draft = Draft.of(file)
    other = file.with_name("other")
    other.write_text(FILE + "#\n")
    other.replace(file)
    with pytest.raises(CannotEdit, match="was changed since it was read"):
        draft.save(FILE)


def test_two_at_one_time_do_not_lose_one_of_both(file: Path) -> None:
    draft = Draft.of(file)
    with file.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(CannotEdit, match="is being changed by another eslbot"):
            draft.save(FILE)
    draft.save(FILE)


def test_no_link_is_followed(file: Path) -> None:
    link = file.with_name("link.toml")
    link.symlink_to(file)
    result = add(link)
    assert result.exit_code == 2
    assert "is a symbolic link, and none is followed" in result.stderr
    assert file.read_text() == FILE


def test_no_link_is_written_through_for_a_secret(file: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    (file.parent / "zeta-ameyo-token").symlink_to(target)
    result = add(file, *ZETA, "--ask", given="a-token-typed\n")
    assert result.exit_code == 2
    assert "is there already" in result.stderr
    assert not target.exists()
    assert file.read_text() == FILE


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo"])
def test_what_is_no_file_is_code_2_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "eslbot.toml"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    assert add(path).exit_code == 2


def test_owner_and_mode_are_kept(file: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(file, 12345, 12346)
    file.chmod(0o604)
    assert add(file).exit_code == 0
    about = file.stat()
    assert (about.st_uid, about.st_gid, about.st_mode & 0o777) == (12345, 12346, 0o604)


def test_a_secret_beside_roots_configuration_is_for_the_same_group(file: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(file, 0, 12346)
    file.chmod(0o640)
    assert add(file, *ZETA, "--ask", given="a-token-typed\n").exit_code == 0
    about = (file.parent / "zeta-ameyo-token").stat()
    assert (about.st_uid, about.st_gid, about.st_mode & 0o777) == (0, 12346, 0o640)


def test_a_file_that_may_not_be_written_is_code_2(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write anything; so the kernel's word is put into its mouth.
    real = os.access
    monkeypatch.setattr(os, "access", lambda *what, **how: "dir_fd" not in how and real(*what, **how))
    result = add(file)
    assert result.exit_code == 2
    assert "does not let this user write eslbot.toml: Permission denied" in result.stderr
    assert untouched(file)


@pytest.mark.parametrize(
    "text",
    [
        f'[workspaces]\n[workspaces."{ACME}"]\nname = "acme"\n',
        f'[workspaces.{ACME}]\nname = "acme"\n[workspaces.{ID}]\nname = "zeta"\n'
        f"[workspaces.{ACME}.bot]\nurl = 1\n",
        f'workspaces.{ACME}.name = "acme"\nworkspaces.{ID}.name = "zeta"\n',
        f'[workspaces]\n{ACME} = {{ name = "acme" }}\n{ID} = {{ name = "zeta" }}\n',
        f'workspaces = {{ {ACME} = {{ name = "acme" }}, {ID} = {{ name = "zeta" }} }}\n',
    ],
)
def test_however_it_is_written_the_rest_says_the_same_or_nothing_is_done(file: Path, text: str) -> None:
    file.write_text(text)
    draft = Draft.of(file)
    try:
        changed = draft.without_tenant(ACME)
    except CannotEdit as error:
        assert "by hand" in str(error)
        return
    left = {key: value for key, value in draft.tree["workspaces"].items() if key != ACME}
    assert tomllib.loads(changed).get("workspaces", {}) == left
