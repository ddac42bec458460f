"""Each outage, provoked on the laboratory: page, `/readyz`, alert and log say it within ten seconds.

With the remedy; and they say it no more when it is over.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import gevent
import pytest
from gevent import socket

from eslbot.sim.lab import Tenant
from eslbot.sim.service import send
from tests.e2e.calls.conftest import one_kind
from tests.support.lab import Lab
from tests.support.switch import Channel
from tests.unit.signals.evaluate import firing

pytestmark = pytest.mark.timed

#: Seconds in which an outage is said, and in which it is over again.
WITHIN, AGAIN = 10.0, 40.0
TOKENS = {
    "operator": {"token": "operator-token-0123456789"},
    "rejected": {"token": "rejected-token-0123456789", "workspaces": ["rejected"]},
}
TENANTS = [
    Tenant("talk", "hold"),
    # Ameyo does not know this token: five customers wait, and no call has ended.
    Tenant("rejected", "talk?listen_ms=100", ameyo_keys={"token": "wrong-token-of-the-lab"}),
    Tenant("forgotten", "talk?listen_ms=100", ameyo_keys={"bye_timeout": "1s"}),
    Tenant("silent", "silent", bot_keys={"first_audio_timeout": "30s"}),
    Tenant("nobody", "ws://127.0.0.1:9/nobody-listens"),
]


class Watch:
    """What an operator, a load balancer and Prometheus see of a laboratory."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def health(self, token: str = "operator") -> dict[str, Any]:
        """`/api/health`; an empty one where it is not known."""
        request = urllib.request.Request(
            f"http://{self.lab.web[0]}:{self.lab.web[1]}/api/health",
            headers={"Authorization": f"Bearer {TOKENS[token]['token']}"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=5) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except OSError:
            return {"components": [], "calls": [], "ready": False}

    def state(self, component: str, workspace: str | None = None) -> dict[str, Any]:
        for state in self.health()["components"]:
            if state["component"] == component and state.get("workspace") == workspace:
                return dict(state)
        return {"colour": "unknown", "why": "", "remedy": ""}

    def needs(self, workspace: str | None) -> list[dict[str, Any]]:
        return [call for call in self.health()["calls"] if call["workspace"] == workspace]

    def readyz(self) -> int:
        try:
            return self.lab.http("/readyz")[0]
        except OSError:
            return 0

    def alerts(self) -> set[str]:
        try:
            return firing(self.lab.http("/metrics")[1])
        except OSError:
            return {"EslbotDown"}

    def logged(self, event: str, **values: Any) -> list[dict[str, Any]]:
        return [
            line
            for line in self.lab.log_lines()
            if line["event"] == event and all(line.get(name) == value for name, value in values.items())
        ]

    def says(
        self, component: str, colour: str, alert: str | None, ready: bool, workspace: str | None = None
    ) -> bool:
        """Whether all of them say it, with a reason and a remedy."""
        state = self.state(component, workspace)
        told = state["colour"] == colour and bool(state["why"]) and bool(state["remedy"])
        logged = self.logged(f"health_{colour}", component=component, workspace=workspace)
        return bool(
            told
            and logged
            and logged[-1]["remedy"]
            and (alert is None or alert in self.alerts())
            and (self.readyz() == 200) is ready
        )

    def is_well(self) -> bool:
        """Whether nothing of the service itself is red, no call needs anybody, and it is ready.

        What happened to a tenant's calls is remembered for ten minutes.
        """
        health = self.health()
        own = [state["colour"] for state in health["components"] if "workspace" not in state]
        return bool(own) and "red" not in own and not health["calls"] and self.readyz() == 200


def until(condition: Callable[[], object], seconds: float, what: Callable[[], object]) -> float:
    """Seconds until the condition held. The looks are at other processes: there is no event to wait for.

    gevent's sleep: a channel that a test plays goes on meanwhile.
    """
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"not within {seconds:g} s; {what()}")
        gevent.sleep(0.1)
    return time.monotonic() - began


@pytest.fixture(scope="module", params=one_kind())
def watch(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watch]:
    folder: Path = tmp_path_factory.mktemp("outages")
    with Lab(folder, TENANTS, switch=request.param, workers=2, ledger=True, page_tokens=TOKENS) as lab:
        watch = Watch(lab)
        until(watch.is_well, AGAIN, watch.health)
        yield watch
        assert [line for line in lab.log_lines() if "Traceback" in json.dumps(line)] == []


@pytest.fixture(autouse=True)
def over(watch: Watch) -> Iterator[None]:
    """Behind each test all is well again."""
    yield
    until(watch.is_well, AGAIN, watch.health)


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Processes that do nothing for a while."""
    for pid in pids:
        send(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            send(pid, signal.SIGCONT)


def arbiter(watch: Watch) -> int:
    service = watch.lab.service
    assert service is not None
    return service.pid


def test_freeswitch_is_killed(watch: Watch) -> None:
    assert watch.readyz() == 200
    watch.lab.switch.kill()
    try:
        until(
            lambda: watch.says("freeswitch", "red", "EslbotFreeSwitchGone", ready=False), WITHIN, watch.health
        )
        assert "systemctl" in watch.state("freeswitch")["remedy"]
        parts = json.loads(watch.lab.http("/readyz")[1])["parts"]
        assert [part["component"] for part in parts] == ["freeswitch"]
        until(lambda: watch.lab.services[0].probe("/readyz")[0] == 503, WITHIN, watch.health)
        assert watch.logged("switch_gone")[-1]["remedy"]
    finally:
        watch.lab.switch.start()
    until(lambda: watch.lab.services[0].probe("/readyz")[0] == 200, AGAIN, watch.health)


def test_freeswitch_hangs(watch: Watch) -> None:
    with stopped(watch.lab.switch_pid):
        until(
            lambda: watch.says("freeswitch", "red", "EslbotFreeSwitchGone", ready=False), WITHIN, watch.health
        )
        assert "hangs" in watch.state("freeswitch")["why"]


def test_workers_are_missing_and_then_gone(watch: Watch) -> None:
    service = watch.lab.services[0]
    first, second = service.wait_serving(2)
    with stopped(arbiter(watch)):  # or it would start others at once
        os.kill(first, signal.SIGKILL)
        until(
            lambda: watch.says("workers", "amber", "EslbotWorkersMissing", ready=True), WITHIN, watch.health
        )
        os.kill(second, signal.SIGKILL)
        until(lambda: watch.says("workers", "red", "EslbotNotReady", ready=False), WITHIN, watch.health)


def test_relays_are_gone(watch: Watch) -> None:
    service = watch.lab.services[0]
    parent = service.relay_parent_pid()
    assert parent is not None
    with stopped(parent):  # or it would fork another at once
        for pid in service.relay_pids():
            os.kill(pid, signal.SIGKILL)
        until(lambda: watch.says("relays", "red", "EslbotRelaysGone", ready=False), WITHIN, watch.health)


def test_five_customers_wait_for_an_ameyo_that_rejects_their_token(watch: Watch) -> None:
    """The page said `acme ● well, not handed off 0`."""
    lab = watch.lab
    ids = [f"rejected-{uuid4().hex[:8]}" for _ in range(5)]
    calls = [lab.pbx.call("00919990152080", crt, lab.tenants["rejected"].id) for crt in ids]
    try:
        for crt in ids:
            until(lambda crt=crt: lab.ameyo.requests_for(crt), 20, watch.health)  # type: ignore[misc]
        until(
            lambda: (
                watch.says("ameyo", "red", "EslbotHandOffFailingNow", ready=True, workspace="rejected")
                and len(watch.needs("rejected")) == 5
            ),
            WITHIN,
            watch.health,
        )
        assert watch.state("ameyo", "rejected")["why"].startswith(
            "5 customers wait for it: Ameyo answers 401"
        )
        needs = watch.needs("rejected")
        assert {call["crt_object_id"] for call in needs} == set(ids)
        assert {call["need"] for call in needs} == {"hand_off_failing"}
        assert all("401" in call["why"] and "token" in call["remedy"] for call in needs)
        assert "wrong-token-of-the-lab" not in json.dumps(watch.health())
        # The tenant's own people see it, too.
        assert {call["crt_object_id"] for call in watch.health("rejected")["calls"]} == set(ids)
    finally:
        for call in calls:
            call.hang_up()
        for call in calls:
            call.wait(30)
    until(lambda: not watch.needs("rejected"), AGAIN, watch.health)
    # Its customers have left without an agent: nobody says that it is well.
    assert watch.state("ameyo", "rejected")["colour"] == "red"
    until(lambda: not lab.services[0].metric("eslbot_calls_hand_off_failing"), AGAIN, watch.health)


def test_a_bye_is_overdue(watch: Watch) -> None:
    lab = watch.lab
    crt = f"forgotten-{uuid4().hex[:8]}"
    before, lab.pbx.bye_delay = lab.pbx.bye_delay, 30.0
    try:
        call = lab.pbx.call("00919990152080", crt, lab.tenants["forgotten"].id)
        lab.ameyo.wait_accepted(crt, 20)
        until(
            lambda: (
                watch.says("ameyo", "red", "EslbotByeOverdue", ready=True, workspace="forgotten")
                and [one["need"] for one in watch.needs("forgotten")] == ["bye_overdue"]
            ),
            WITHIN,
            watch.health,
        )
        assert watch.needs("forgotten")[0]["crt_object_id"] == crt
        assert watch.logged("bye_overdue")[-1]["remedy"]
        call.hang_up()
        call.wait(30)
    finally:
        lab.pbx.bye_delay = before


def test_a_bot_says_nothing_and_another_is_not_there(watch: Watch) -> None:
    lab = watch.lab
    silent = lab.pbx.call("00919990152080", f"silent-{uuid4().hex[:8]}", lab.tenants["silent"].id)
    nobody = lab.pbx.call("00919990152080", f"nobody-{uuid4().hex[:8]}", lab.tenants["nobody"].id)
    silent.wait_answered(20)
    until(lambda: [one["need"] for one in watch.needs("silent")] == ["bot_silent"], WITHIN, watch.health)
    nobody.wait(30)
    until(lambda: watch.says("bot", "red", None, ready=True, workspace="nobody"), WITHIN, watch.health)
    assert "no URL of the bot's" in watch.state("bot", "nobody")["why"]
    silent.hang_up()
    silent.wait(30)


def test_a_call_of_nobody(watch: Watch) -> None:
    sock = socket.create_connection(watch.lab.listen, 10)
    sock.settimeout(None)
    channel = Channel(
        sock, {"eslbot_stage": "held", "eslbot_identity": "forged"}, uuid=str(uuid4()), answered=True
    )
    until(
        lambda: (
            "EslbotIdentityNotVerified" in watch.alerts()
            and [one["need"] for one in watch.needs(None)] == ["not_verified"]
        ),
        WITHIN,
        watch.health,
    )
    assert "server.key_file" in watch.needs(None)[0]["remedy"]
    assert watch.health("rejected")["calls"] == []  # it is no tenant's
    channel.hang_up()
    channel.wait_closed()


def test_the_database_is_locked(watch: Watch) -> None:
    with ExitStack() as stack:
        stack.enter_context(looking(watch.lab))
        database = sqlite3.connect(watch.lab.folder / "eslbot.db", timeout=10, isolation_level=None)
        stack.callback(database.close)
        database.execute("BEGIN EXCLUSIVE")
        # Something to write; only then its lock is met. The call itself notices nothing.
        call = watch.lab.pbx.call("00919990152080", uuid4().hex, watch.lab.tenants["talk"].id)
        stack.callback(call.hang_up)
        until(lambda: watch.says("ledger", "red", "EslbotLedgerDown", ready=True), WITHIN, watch.health)
        assert "eslbot.db" in watch.state("ledger")["why"]
        database.execute("ROLLBACK")
        until(lambda: watch.state("ledger")["colour"] == "green", AGAIN, watch.health)


@contextmanager
def looking(lab: Lab) -> Iterator[None]:
    """Somebody has the page open."""
    request = urllib.request.Request(
        f"http://{lab.web[0]}:{lab.web[1]}/api/live",
        headers={"Authorization": f"Bearer {TOKENS['operator']['token']}"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30):
        yield


def test_the_journals_disk_is_full(watch: Watch, tmp_path: Path) -> None:
    journal = watch.lab.journal(watch.lab.services[0])
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(journal)]
    told = subprocess.run(mount, capture_output=True, text=True, check=False)
    if told.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {told.stderr.strip()}")
    try:
        (journal / "ballast").write_bytes(bytes(60 * 1024))
        with (journal / "rest").open("wb", buffering=0) as rest:
            while True:
                try:
                    rest.write(bytes(4096))
                except OSError:
                    break
        until(lambda: watch.says("ledger", "red", "EslbotLedgerDown", ready=True), WITHIN, watch.health)
        assert "No space left on device" in watch.state("ledger")["why"]
    finally:
        subprocess.run(["umount", str(journal)], check=True)


def test_the_page_process_is_killed_and_comes_back_without_touching_a_call(watch: Watch) -> None:
    lab = watch.lab
    page = lab.services[0].page_pid()
    assert page is not None
    call = lab.pbx.call("00919990152080", f"goes-on-{uuid4().hex[:8]}", lab.tenants["talk"].id)
    call.wait_answered(20)
    os.kill(page, signal.SIGKILL)
    until(lambda: watch.readyz() == 0 and watch.alerts() == {"EslbotDown"}, WITHIN, watch.health)
    assert lab.services[0].probe("/readyz")[0] == 200  # calls go on
    until(watch.is_well, AGAIN, watch.health)
    assert lab.services[0].page_pid() != page
    call.hang_up()
    assert call.wait(30).ended_by == "pbx"
