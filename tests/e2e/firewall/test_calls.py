"""Whole calls through the rules: a tenant whose PBX floods, another one who calls, and a stranger."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from eslbot.sim.lab import Tenant
from eslbot.sim.switch.sip_message import SipMessage
from tests.e2e.calls.conftest import one_kind
from tests.e2e.edge.sip import Caller
from tests.support.flood import FloodingPbx, run
from tests.support.lab import Lab
from tests.support.netns import WHY_NOT, Namespace, cable

pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

HOST, ACME, ZETA, STRANGER = (f"198.51.100.{n}" for n in (1, 10, 20, 99))
CPS = 5
TENANTS = [
    Tenant("acme", "hold", sources=(ACME,), workspace={"max_cps": CPS}),
    Tenant("zeta", "hold", sources=(ZETA,), workspace={"max_cps": CPS}),
]


class Site:
    """A machine behind its firewall, in a namespace; PBXs in another one."""

    def __init__(self, lab: Lab, host: Namespace, world: Namespace) -> None:
        self.lab, self.host, self.world = lab, host, world

    def pbx(self, ip: str, **options: str) -> FloodingPbx:
        with self.world.inside():
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        made.bind((ip, 0))
        return FloodingPbx(made, self.lab.sip, self.lab.tenants["zeta"].id, **options)

    def dropped(self, counter: str) -> int:
        told = self.host.run("nft", "-j", "list", "counter", "inet", "eslbot", counter)
        return int(json.loads(told)["nftables"][-1]["counter"]["packets"])


@pytest.fixture(scope="module", params=one_kind())
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp(f"firewall-{request.param}")
    with Namespace() as host, Namespace() as world:
        cable(host, world)
        host.run("ip", "address", "add", f"{HOST}/24", "dev", "cable")
        for address in (ACME, ZETA, STRANGER):
            world.run("ip", "address", "add", f"{address}/24", "dev", "cable")
        with host.inside():
            lab = Lab(folder, TENANTS, switch=request.param, workers=2, ledger=True)
            lab.sip = (HOST, lab.sip[1])
            lab.start()
        try:
            command = [sys.executable, "-m", "eslbot", "conf", "--firewall", "--config", str(lab.config)]
            subprocess.run([*command, "--out", str(folder)], env=lab.environment(), check=True, timeout=30)
            host.run("nft", "-f", str(folder / "eslbot.nft"))
            yield Site(lab, host, world)
        finally:
            with host.inside():
                lab.stop()


@pytest.mark.timed
@pytest.mark.parametrize("display", ["00919990152080|crt-{number}", "Alice"])
def test_a_tenants_flood_is_that_tenants(site: Site, display: str) -> None:
    """Of another one's workspace, or with nonsense for a name: refused, and refused is not free."""
    flooding, other = site.pbx(ACME, display=display), site.pbx(ZETA)
    before = site.dropped("over_acme")
    with flooding.socket, other.socket:
        run([(flooding, 0.0, 100, 300), (other, 0.5, 4, 8)], patience=4)
    assert other.statuses() == {200: 8}
    assert max(attempt.seconds for attempt in other.attempts.values()) < 3.0  # 22 ms on a machine of its own
    assert flooding.statuses().keys() <= {0, 400, 403, 503}
    assert site.dropped("over_acme") - before > 100
    refused = [line for line in site.lab.log_lines() if line["event"] == "call_refused"]
    assert {line["source"] for line in refused} == {ACME}


def test_what_was_dropped_comes_again_and_is_answered(site: Site) -> None:
    """More than may come at one moment, and less than comes in while a PBX repeats it."""
    pbx = site.pbx(ZETA)
    dropped = site.dropped("over_zeta")
    with pbx.socket:
        run([(pbx, 0.0, 1000, 30)], patience=20)
    assert site.dropped("over_zeta") > dropped
    assert pbx.statuses().keys() <= {200, 503}  # eslbot's own budget is narrower, and says so
    assert pbx.statuses()[200] >= 2 * CPS


def test_a_stranger_gets_403_and_nothing_else(site: Site) -> None:
    with site.world.inside(), Caller(site.lab.sip, STRANGER) as stranger:
        for method in ("OPTIONS", "INFO", "MESSAGE", "BYE", "REGISTER", "SUBSCRIBE"):
            stranger.send(stranger.request(method))
        refused = stranger.asks(stranger.request("INVITE"))  # the first final response of all
        assert (refused.need("CSeq"), refused.status) == ("1 INVITE", 403)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(site.lab.sip, 5, (STRANGER, 0))


def test_a_pbx_that_asks_whether_we_live_is_told(site: Site) -> None:
    with site.world.inside(), Caller(site.lab.sip, ACME) as pbx:
        answer: SipMessage = pbx.asks(pbx.request("OPTIONS"))
        assert answer.need("CSeq") == "1 OPTIONS"
