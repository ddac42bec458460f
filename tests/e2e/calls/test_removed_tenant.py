"""A tenant is taken out of the configuration while customers of it are on the line."""

from __future__ import annotations

import os
import signal
import tomllib
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import tomli_w

from eslbot.sim.bot import BotCall
from eslbot.sim.lab import Tenant
from eslbot.sim.pbx import PbxCall
from eslbot.sim.service import wait_gone
from tests.e2e.calls.conftest import one_kind
from tests.e2e.calls.test_call import accepted, call, ended_by_pbx, handed_off, logged
from tests.e2e.calls.test_speech import talking
from tests.support.lab import Lab
from tests.support.processes import until

CALLS = 5


@pytest.fixture(params=one_kind())
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Of one's own: its configuration is changed."""
    folder: Path = tmp_path_factory.mktemp(f"removed-{request.param}")
    tenants = [Tenant("leaves", "hold"), Tenant("stays", "talk?listen_ms=100")]
    with Lab(folder, tenants, switch=request.param, workers=2) as lab:
        yield lab


def crts() -> list[str]:
    return [f"d444-{uuid4().hex[:12]}-vce" for _ in range(CALLS)]


def take_out(lab: Lab) -> None:
    """The tenant that leaves, of the file."""
    tree = tomllib.loads(lab.config.read_text())
    del tree["workspaces"][lab.tenants["leaves"].id]
    lab.config.write_text(tomli_w.dumps(tree))


def kept(lab: Lab) -> Path:
    """The file with what it was."""
    return (
        Path(tomllib.loads(lab.config.read_text())["server"]["key_file"]).parent
        / "tenants"
        / f"{lab.tenants['leaves'].id}.json"
    )


def reloaded(lab: Lab, before: list[int]) -> None:
    lab.services[0].hup()
    assert wait_gone(before, 30)
    lab.services[0].wait_serving(lab.workers)


def refused(lab: Lab, crt: str) -> None:
    result = call(lab, "leaves", crt).wait()
    assert (result.status, result.answered) == (403, False)
    assert logged(lab, crt, "call_refused")["why"] == "unknown_workspace"


def ends(lab: Lab, calls: dict[str, tuple[PbxCall, BotCall]]) -> None:
    """Each bot ends, and Ameyo is told with the token of a tenant that no file has any more."""
    leaves = lab.tenants["leaves"]
    for crt, (pbx_call, bot) in calls.items():
        bot.end({"summary": f"of {crt}"})
        assert pbx_call.wait().completed
        (post,) = accepted(lab, crt)
        assert (post.header("Authorization"), post.header("Host")) == (leaves.token, leaves.host)
        assert post.json["properties"]["summary"] == f"of {crt}"
        ended_by_pbx(lab, crt, "bot_ended")


def test_its_calls_go_on_with_what_it_was_and_new_ones_are_refused(lab: Lab, crt: str) -> None:
    calls = {crt: talking(lab, "leaves", crt) for crt in crts()}
    take_out(lab)
    reloaded(lab, lab.services[0].wait_serving(lab.workers))
    refused(lab, crt)
    (line,) = [line for line in lab.log_lines() if line["event"] == "tenant_removed"]
    assert (line["workspace"], line["calls"]) == ("leaves", CALLS)
    # Whoever comes next knows it, too: another worker, another relay, another generation of both.
    os.kill(lab.services[0].wait_serving(lab.workers)[0], signal.SIGKILL)
    dialled = len(lab.bot.calls)
    lab.kill_relay()
    until(lambda: len(lab.bot.calls) == dialled + CALLS, 20, "the bots are dialled by the next relay")
    for again in lab.bot.calls[dialled:]:
        assert again.headers["Authorization"] == "Bearer bot-leaves"
        assert again.wait_for_message("start").message["resumed"] is True
    latest = {again.headers["X-CRT-Object-ID"]: again for again in lab.bot.calls}
    reloaded(lab, lab.services[0].wait_serving(lab.workers))
    ends(lab, {crt: (pbx_call, latest[crt]) for crt, (pbx_call, _) in calls.items()})
    handed_off(lab, "stays", f"{crt}-stays")
    assert [line for line in lab.log_lines() if line["event"] in ("workspace_gone", "stream_refused")] == []
    assert kept(lab).exists(), "some minutes more: a call may be on its way between two controllers"
    secret = lab.tenants["leaves"].token
    assert secret in kept(lab).read_text()
    assert secret not in lab.log_file.read_text()


def test_a_file_that_was_changed_before_a_restart_loses_no_customer(lab: Lab, crt: str) -> None:
    """As with `systemctl restart` instead of `reload`: the calls wait in FreeSWITCH meanwhile."""
    calls = {crt: talking(lab, "leaves", crt) for crt in crts()}
    take_out(lab)
    lab.stop_eslbot()
    assert kept(lab).exists()
    lab.start_eslbot()  # the relay has stayed with its calls, and the bots notice nothing
    refused(lab, crt)
    ends(lab, calls)
    handed_off(lab, "stays", f"{crt}-stays")
    assert [line for line in lab.log_lines() if line["event"] == "workspace_gone"] == []
