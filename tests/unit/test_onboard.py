"""The go-live checklist: what is owed by whom, and texts that may be mailed."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from eslbot.ameyo.notification import PATH
from eslbot.cli import main

ID = "2b37ba17-7b20-4b3e-b138-1161e351d5c5"
TOKEN = "a-secret-nobody-may-see"

COMPLETE = f"""
[freeswitch]
external_ip = "35.227.95.16"

[workspaces.{ID}]
name = "acme"
sources = ["100.64.9.10", "100.64.9.64/28"]

[workspaces.{ID}.bot]
url = "wss://bot.acme.io/stream?key=also-a-secret"
headers = {{ Authorization = "the-bots-secret" }}

[workspaces.{ID}.ameyo]
url = "https://management.ameyo.app:8887"
tenant_host = "acme.ameyo.app"
token = "${{ACME_AMEYO_TOKEN}}"
bot_properties = ["agent_group"]
properties = {{ DID = "{{did}}", campaign = "it's \\"support\\" & $HOME" }}
"""


def onboard(tmp_path: Path, text: str, *options: str, **environment: str | None) -> Result:
    path = tmp_path / "eslbot.toml"
    path.write_text(text)
    runner = CliRunner(env={"ACME_AMEYO_TOKEN": TOKEN} | environment)
    return runner.invoke(main, ["onboard", "--config", str(path), "--workspace", "acme", *options])


def owed(result: Result) -> dict[str, str]:
    return {item["what"]: item["owed_by"] for item in json.loads(result.stdout)["items"] if item["owed_by"]}


@pytest.mark.parametrize("form", [[], ["--markdown"], ["--json"]])
def test_when_all_is_there_nothing_is_owed_and_no_secret_is_told(tmp_path: Path, form: list[str]) -> None:
    result = onboard(tmp_path, COMPLETE, "--invite-confirmed", "--egress", "34.47.162.59", *form)
    assert result.exit_code == 0, result.output
    for secret in (TOKEN, "also-a-secret", "the-bots-secret"):
        assert secret not in result.output
    for told in ("35.227.95.16", "34.47.162.59", "100.64.9.10", "100.64.9.64/28", "10000", "60000", ID):
        assert told in result.output


@pytest.mark.parametrize(
    ("before", "after", "what", "who"),
    [
        ('sources = ["100.64.9.10", "100.64.9.64/28"]', "", "SIP gateway addresses", "Ameyo"),
        ('"100.64.9.10", "100.64.9.64/28"', '"203.0.113.10"', "SIP gateway addresses", "Ameyo"),
        ('"100.64.9.10"', '"127.0.0.1"', "SIP gateway addresses", "Ameyo"),
        ('"100.64.9.10"', '"<gateway>"', "SIP gateway addresses", "Ameyo"),
        ('tenant_host = "acme.ameyo.app"', "", "Tenant host of the REST server", "Ameyo"),
        ('"acme.ameyo.app"', '"todo"', "Tenant host of the REST server", "Ameyo"),
        ('token = "${ACME_AMEYO_TOKEN}"', "", "Authorization token", "Ameyo"),
        ("${ACME_AMEYO_TOKEN}", "${NOT_SET}", "Authorization token", "Ameyo"),
        ("${ACME_AMEYO_TOKEN}", "changeme", "Authorization token", "Ameyo"),
        ("{did}", "<ask Ameyo>", "Properties of the notification", "Ameyo"),
        ('external_ip = "35.227.95.16"', "", "Our SIP address", "us"),
    ],
)
def test_what_is_missing_or_made_up_is_owed(
    tmp_path: Path, before: str, after: str, what: str, who: str
) -> None:
    text = COMPLETE.replace(before, after)
    assert text != COMPLETE
    options = ["--invite-confirmed", "--json", "--egress", "34.47.162.59"]
    result = onboard(tmp_path, text, *options)
    assert result.exit_code == 1, result.output
    assert owed(result) == {what: who}


def test_the_addresses_of_the_configuration_are_for_ameyos_allow_list(tmp_path: Path) -> None:
    text = COMPLETE + '\n[egress]\naddresses = ["35.227.95.20", "2a01:4f8::20"]\n'
    result = onboard(tmp_path, text, "--invite-confirmed")
    assert "Ameyo, in to https://management.ameyo.app:8887: from 35.227.95.20, 2a01:4f8::20." in result.output
    found = json.loads(onboard(tmp_path, text, "--json").stdout)
    assert found["ours"]["rest_egress"] == ["35.227.95.20", "2a01:4f8::20"]
    assert json.loads(onboard(tmp_path, COMPLETE, "--json").stdout)["ours"]["rest_egress"] == ["35.227.95.16"]


def test_without_properties_and_a_confirmed_invite_both_are_owed(tmp_path: Path) -> None:
    text = COMPLETE.partition("bot_properties")[0]
    assert set(owed(onboard(tmp_path, text, "--json"))) == {"INVITE format", "Properties of the notification"}


def test_without_the_table_of_ameyo_the_rest_is_told(tmp_path: Path) -> None:
    text = COMPLETE.partition(f"[workspaces.{ID}.ameyo]")[0]
    result = onboard(tmp_path, text, "--json", "--invite-confirmed")
    assert set(owed(result)) == {
        "Properties of the notification",
        "Tenant host of the REST server",
        "Authorization token",
    }
    assert "invalid" not in result.output


def test_the_curl_is_what_the_service_posts(tmp_path: Path) -> None:
    found = json.loads(onboard(tmp_path, COMPLETE, "--json").stdout)["notification"]
    words = shlex.split(found["curl"].replace("\\\n", ""))
    assert words[:2] == ["curl", "https://management.ameyo.app:8887" + PATH]
    options = list(zip(words[2::2], words[3::2], strict=True))
    assert [text for name, text in options if name == "--header"] == [
        "Authorization: ********",
        "Host: acme.ameyo.app",
        "policy-name: token",
        "Content-Type: application/json",
    ]
    (data,) = [text for name, text in options if name == "--data"]
    assert json.loads(data) == found["body"]
    assert found["body"] == {
        "notificationId": "95",
        "uniqueId": "d444-69139d35-vce-daf-3883",
        "callResponse": True,
        "sessionId": "na",
        "properties": {
            "agent_group": "<agent_group>",
            "DID": "00919990152080",
            "campaign": 'it\'s "support" & $HOME',
        },
    }


def test_the_invite_has_the_tenants_values(tmp_path: Path) -> None:
    text = COMPLETE.replace('external_ip = "35.227.95.16"', 'external_ip = "2600:1::5"\nsip_port = 5070')
    invite = json.loads(onboard(tmp_path, text, "--json").stdout)["invite"]
    assert invite.splitlines() == [
        "INVITE sip:<extension>@[2600:1::5]:5070 SIP/2.0",
        'From: "00919990152080|d444-69139d35-vce-daf-3883" <sip:<caller>@100.64.9.10>;tag=...',
        "To: <sip:<extension>@[2600:1::5]:5070>",
        f"X-Workspace-ID: {ID}",
    ]


EDGE = """
[edge]
sip_ip = "10.0.0.4"
sip_port = 5080
external_ip = "35.227.95.20"
switches = ["10.0.0.5:5060"]
"""


def test_behind_an_edge_sip_goes_there_and_rtp_to_the_machines(tmp_path: Path) -> None:
    text = onboard(tmp_path, COMPLETE + EDGE).stdout
    assert "Our SIP address: 35.227.95.20:5080" in text
    assert "Our addresses for REST calls: 35.227.95.16" in text
    assert "to and from 35.227.95.20: SIP 5080 (UDP, TCP)." in text
    assert "to and from 35.227.95.16, and each further machine of ours: RTP 10000-60000 (UDP)." in text
    assert "INVITE sip:<extension>@35.227.95.20:5080 SIP/2.0" in text
    ours = json.loads(onboard(tmp_path, COMPLETE + EDGE, "--json").stdout)["ours"]
    assert (ours["sip"], ours["sip_port"], ours["rtp"]) == ("35.227.95.20", 5080, "35.227.95.16")
    without = COMPLETE.replace('external_ip = "35.227.95.16"', "")
    assert (
        "(our address for RTP: still missing), and each further" in onboard(tmp_path, without + EDGE).stdout
    )


def test_without_an_edge_one_address_has_it_all(tmp_path: Path) -> None:
    text = onboard(tmp_path, COMPLETE).stdout
    assert "to and from 35.227.95.16: SIP 5060 (UDP, TCP), RTP 10000-60000 (UDP)." in text


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        (COMPLETE.replace('"acme"', '"other"'), [], f"there is other ({ID})"),
        (COMPLETE, ["--egress", "bot.acme.io"], "'bot.acme.io' is not an IP address"),
        (COMPLETE.replace("wss://", "wsss://"), [], f"workspaces.{ID}.bot.url"),
        (COMPLETE.replace("[freeswitch]", "[nothing]"), [], "nothing"),
        ("workspaces = 5", [], "there is none"),
        ("not toml", [], "not valid TOML"),
        ("x = " + "[" * 50000, [], "nested too deeply"),
    ],
)
def test_what_cannot_begin_says_why(tmp_path: Path, text: str, options: list[str], expected: str) -> None:
    result = onboard(tmp_path, text, *options)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert TOKEN not in result.output
