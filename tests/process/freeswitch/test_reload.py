"""``eslbot tenant`` and ``eslbot reload`` on a real installation: FreeSWITCH lets a new tenant in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from eslbot.cli import main
from eslbot.config.model import Secret
from eslbot.config.model import loopback as at_loopback
from eslbot.esl.inbound import InboundClient
from eslbot.sim.freeswitch import find
from eslbot.sim.lab import EVENT_SOCKET_PASSWORD, Tenant
from tests.support.lab import Lab

SOURCE = "127.0.0.7"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if find() is None:
        pytest.skip(
            "no FreeSWITCH with mod_audio_stream on this machine (set ESLBOT_FREESWITCH to its binary)"
        )
    with Lab(tmp_path_factory.mktemp("lab"), [Tenant("acme")], switch="freeswitch", max_calls=20) as lab:
        yield lab


def admitted(lab: Lab) -> bool:
    with InboundClient(at_loopback(lab.event_socket[1]), Secret(EVENT_SOCKET_PASSWORD)) as client:
        return client.api(f"acl {SOURCE} ameyo") == "true"


def eslbot(lab: Lab, *words: str) -> dict[str, Any]:
    """What a command says that goes well; the service's secrets are not in this process's environment."""
    result = CliRunner().invoke(main, [*words, "--config", str(lab.config), "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_a_new_tenant_is_let_in_and_one_that_is_gone_is_not(lab: Lab, tmp_path: Path) -> None:
    assert not admitted(lab)
    token = tmp_path / "token"
    token.write_text("the-token-of-zeta")
    added = eslbot(
        lab,
        *("tenant", "add", "zeta", "--source", SOURCE, "--bot-url", "ws://127.0.0.1:9/", "--insecure"),
        *("--tenant-host", "zeta.ameyo.app", "--token-file", str(token)),
    )
    assert not admitted(lab)  # what is in the file is not in force
    found = eslbot(lab, "reload")
    assert [tenant["name"] for tenant in found["changes"]["added"]] == ["zeta"]
    assert {step["step"] for step in found["steps"] if step["ok"]} == {
        *("configuration", "service", "page", "rendering", "freeswitch", "acl")
    }
    assert admitted(lab)
    assert [row["calls"] for row in eslbot(lab, "tenant", "list")["tenants"]] == [0, 0]

    eslbot(lab, "tenant", "remove", added["workspace"]["id"], "--yes")
    assert admitted(lab)
    gone = eslbot(lab, "reload")
    assert gone["changes"]["removed"] == [{**added["workspace"], "calls": 0}]
    assert not admitted(lab)
