"""The service as its users run it: ``eslbot serve`` in a process, FreeSWITCH's end played over TCP."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from eslbot.config import load
from eslbot.relay.control import Order
from eslbot.server.worker import CallWorker
from tests.support.ameyo_server import AmeyoServer, Answer
from tests.support.inbound_switch import PASSWORD, InboundSwitch
from tests.support.peer import bounded, eventually
from tests.support.processes import EslbotService, descriptors, tree, until
from tests.support.switch import CRT, UUID, WORKSPACE
from tests.support.tcp import peer, says

OTHER = "11111111-1111-1111-1111-111111111111"
SECRETS = ["secret-of-the-bot", "secret-of-ameyo"]


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EslbotService]:
    """For tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("service")
    with EslbotService(folder, tree(workers=2)) as service:
        yield service
    assert_clean(service)


def assert_clean(service: EslbotService) -> None:
    """It ended when it was told to, and told no secret and no fault."""
    assert service.process.returncode == 0, service.log
    for secret in SECRETS:
        assert secret not in service.log
    assert "Traceback" not in service.log


# -- the web ----------------------------------------------------------------------------------------------


def test_health(two_workers: EslbotService) -> None:
    for ask in (two_workers.get, two_workers.probe):
        code, content_type, text = ask("/healthz")
        assert (code, content_type, json.loads(text)) == (200, "application/json", {"status": "ok"})
    assert two_workers.get("/healthz", "HEAD") == (200, "application/json", "")
    assert two_workers.probe("/healthz", "HEAD")[0] == 405


def test_it_is_ready_when_freeswitch_is_there_and_no_longer(tmp_path: Path) -> None:
    """The relay is none of this service's (``relay.processes = 0``): a stand-in answers for it."""

    def status(path: str, page: bool) -> int:
        return (service.get if page else service.probe)(path)[0]

    relay = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nrelay\n"
    with InboundSwitch() as switch, peer(says(relay)) as relay_at, bounded(90):
        config = tree(workers=2)
        config["relay"] = {"processes": 0, "listen": str(relay_at)}
        config["freeswitch"] = {
            "event_socket": f"127.0.0.1:{switch.port}",
            "event_socket_password": PASSWORD,
            "recovery_file": str(tmp_path / "freeswitch.json"),
        }
        with EslbotService(tmp_path, config) as service:
            switch.holds(load(service.config))
            until(lambda: status("/readyz", page=True) == 200, what="the page says ready")
            until(lambda: status("/readyz", page=False) == 200, what="a worker says ready")
            assert service.metric("eslbot_ready") == 1
            switch.stop()
            until(lambda: status("/readyz", page=True) == 503, what="the page says not ready")
            until(lambda: status("/readyz", page=False) == 503, what="a worker says not ready")
            (part,) = json.loads(service.get("/readyz")[2])["parts"]
            assert (part["component"], part["colour"]) == ("freeswitch", "red")
            assert part["remedy"]
            until(lambda: service.metric("eslbot_ready") == 0)
            assert '"health_red"' in service.log
            assert '"switch_gone"' in service.log
            assert service.get("/healthz")[0] == 200
    assert_clean(service)


def test_metrics(two_workers: EslbotService) -> None:
    code, content_type, text = two_workers.get("/metrics")
    assert code == 200
    assert content_type.startswith("text/plain; version=")
    for name in ("eslbot_peers_refused_total", "eslbot_internal_errors_total", "eslbot_send_bye_total"):
        assert f"\n{name} " in text
    assert "\neslbot_workers_ready 2.0\n" in text
    assert '\neslbot_calls_limit{workspace="acme"} ' in text
    assert '\neslbot_bye_overdue_total{workspace="acme"} 0.0\n' in text  # else its first rise is not seen


def test_metrics_have_what_freeswitchs_host_has_counted(tmp_path: Path) -> None:
    file = tmp_path / "freeswitch.json"
    name = "eslbot_switch_{}_total".format
    config = tree()
    config["freeswitch"] = {**config.get("freeswitch", {}), "recovery_file": str(file)}
    with EslbotService(tmp_path, config) as service, bounded(30):
        assert f"\n{name('restarts')} 0.0\n" in service.get("/metrics")[2]  # else its first rise is not seen
        told = {"restarts": 4, "flushes": 1, "calls": 40, "dropped": 9, "starts": []}
        file.write_text(json.dumps(told))
        for kind, value in (("restarts", 4), ("flushes", 1), ("calls_dropped", 9)):
            assert f"\n{name(kind)} {value}.0\n" in service.get("/metrics")[2]
        file.write_text("?")
        assert "eslbot_switch_" not in service.get("/metrics")[2]
        assert "recovery_file_unreadable" in service.log


def test_what_a_dead_worker_has_counted_stays(tmp_path: Path) -> None:
    with EslbotService(tmp_path, tree()) as service, bounded(30):
        service.connect().close()
        until(lambda: service.metric("eslbot_connections_without_call_total"))
        worker = service.accepting()
        before = service.get("/metrics")[2]
        (folder,) = tmp_path.glob("eslbot-metrics-*")
        counters = {path.name for path in folder.glob("counter_*.db")}
        os.kill(worker, signal.SIGKILL)
        until(lambda: service.children() != [worker] and service.ready(), what="another worker")
        after = service.get("/metrics")[2]
        assert {path.name for path in folder.glob("counter_*.db")} == counters
    for name in ("eslbot_connections_without_call_total", "eslbot_workers_ready"):
        of_it = [line for line in before.splitlines() if line.startswith(name)]
        assert of_it == [f"{name} 1.0"]
        assert of_it == [line for line in after.splitlines() if line.startswith(name)]


def test_other_pages_and_methods(two_workers: EslbotService) -> None:
    assert two_workers.get("/")[0] == 403  # no token is configured
    assert two_workers.get("/metrics/../etc/passwd")[0] == 404
    assert two_workers.get("/healthz", "POST")[0] == 405
    assert two_workers.probe("/healthz", "POST")[0] == 405
    assert two_workers.probe("/metrics")[0] == 404


# -- who connects -----------------------------------------------------------------------------------------


@pytest.mark.timed
def test_a_peer_outside_switches_is_closed_at_once_and_counted(two_workers: EslbotService) -> None:
    before = two_workers.metric("eslbot_peers_refused_total")
    began = time.monotonic()
    for _ in range(5):
        with bounded(2), two_workers.connect("127.0.0.2") as sock:
            assert sock.recv(100) == b""
    assert time.monotonic() - began < 1
    assert two_workers.metric("eslbot_peers_refused_total") == before + 5
    assert two_workers.log.count('"peer": "127.0.0.2"') >= 5


NOISE = [
    b"",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 50,
    b"Content-Length: -1\n\n",
    b"Content-Type: command/reply\nReply-Text: -ERR no\n\n",
    b"Content-Type: text/disconnect-notice\nContent-Disposition: linger\n\n",
    b"x" * 300_000,
]


def test_probes_silence_and_noise_are_no_calls_and_leave_nothing_behind(two_workers: EslbotService) -> None:
    workers = two_workers.children()
    before = descriptors(workers)
    counted = two_workers.metric("eslbot_connections_without_call_total")

    def probe(noise: bytes) -> None:
        sock = two_workers.connect()
        sock.settimeout(None)
        try:
            sock.sendall(noise)
            while sock.recv(100):  # "connect", and then the end
                pass
        except ConnectionError:
            pass  # closed while there was more to read
        sock.close()

    began = time.monotonic()
    probes = [gevent.spawn(probe, noise) for noise in NOISE * 3]
    for _ in range(200):
        two_workers.connect().close()
    gevent.joinall(probes, timeout=10, raise_error=True)
    assert all(probe.ready() for probe in probes)
    assert time.monotonic() - began < 10
    wanted = counted + 200 + len(probes)
    until(lambda: two_workers.metric("eslbot_connections_without_call_total") == wanted)
    assert two_workers.children() == workers
    until(lambda: descriptors(workers) <= before)


# -- calls ------------------------------------------------------------------------------------------------


@pytest.fixture
def ameyo() -> Iterator[AmeyoServer]:
    with AmeyoServer() as server:
        yield server


def test_a_call_from_the_invite_to_the_bye_at_the_cap(ameyo: AmeyoServer, tmp_path: Path) -> None:
    ameyo.answers[:] = [Answer(500, b"secret-of-ameyo is not known"), Answer(200)]
    with EslbotService(tmp_path, tree(ameyo.url, max_calls=1)) as service, bounded(30):
        first = service.call()
        first.wait_stage("talking")
        assert service.metric("eslbot_calls_active") == 1

        second = service.call(uuid=UUID[:-1] + "2")
        second.wait_closed()
        assert second.applications == [
            ("set", "sip_rh_Retry-After=30"),
            ("respond", "503 Service Unavailable"),
        ]
        assert service.metric("eslbot_refusals_total") == 1

        first.ends()
        first.wait_stage("held", 10)
        first.hang_up()
        first.wait_closed()
        assert [json.loads(request.body)["uniqueId"] for request in ameyo.requests] == [CRT, CRT]
        until(lambda: service.metric("eslbot_calls_active") == 0)
        assert service.metric("eslbot_calls_total") == 1
        assert service.metric("eslbot_notification_attempts_total") == 2

        third = service.call(uuid=UUID[:-1] + "3")
        third.wait_stage("talking")
        third.hang_up()
        third.wait_closed()
        metrics = service.get("/metrics")[2]
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        service.process.wait(10)
        assert time.monotonic() - began < 5, "nothing is left to wait for"
    assert_clean(service)
    for secret in SECRETS:
        assert secret not in metrics
    assert [call.violations for call in (first, second, third)] == [[], [], []]
    events = [json.loads(line).get("event") for line in service.log.splitlines() if line.startswith("{")]
    for event in ("call_admitted", "call_answered", "hand_off_failed", "hand_off_accepted", "call_ended"):
        assert event in events


def test_a_worker_that_is_killed_takes_its_count_with_it(tmp_path: Path) -> None:
    configuration = tree()
    configuration["workspaces"][WORKSPACE]["max_calls"] = 1
    with EslbotService(tmp_path, configuration) as service, bounded(30):
        call = service.call()
        call.wait_stage("talking")
        (worker,) = service.children()
        os.kill(worker, signal.SIGKILL)
        call.wait_closed()
        until(lambda: service.children() not in ([], [worker]) and service.ready(), what="a new worker")

        # The dialplan calls the next controller, where the answered call goes on, …
        again = service.call(call.variables, answered=True)
        again.attached = True
        again.wait(lambda: again.relay.told(Order.HELLO))
        assert service.metric("eslbot_calls_active") == 1
        again.hang_up()
        again.wait_closed()
        eventually(lambda: service.metric("eslbot_calls_active") == 0)
        # … and there is room for a new one.
        new = service.call()
        new.wait_stage("talking")
        new.hang_up()
        new.wait_closed()


# -- signals ----------------------------------------------------------------------------------------------


def hung_up(service: EslbotService) -> None:
    """HUP, and wait until new workers are there."""
    before = service.children()
    os.kill(service.process.pid, signal.SIGHUP)
    until(lambda: service.ready() and not set(before) & set(service.children()), what="the change of workers")


def test_hup_reads_the_configuration_again_and_refuses_a_bad_one(tmp_path: Path) -> None:
    with EslbotService(tmp_path, tree()) as service, bounded(60):
        service.config.write_text("[server]\nworkers = 0\n")
        hung_up(service)
        assert '"event": "configuration_refused"' in service.log
        assert "server.workers: expected a whole number from 1 to 64, got 0" in service.log
        call = service.call()
        call.wait_stage("talking")
        call.hang_up()
        call.wait_closed()

        other = tree()
        other["workspaces"][OTHER] = {**other["workspaces"][WORKSPACE], "name": "other"}
        service.write(other)
        hung_up(service)
        call = service.call({"sip_h_X-Workspace-ID": OTHER})
        call.wait_stage("talking")
        call.hang_up()
        call.wait_closed()
    assert_clean(service)


def test_term_while_the_workers_start(tmp_path: Path) -> None:
    service = EslbotService(tmp_path, tree(workers=2))
    service.process = service._spawn(service.command())
    try:
        until(lambda: len(service.children()) == 2)
        service.process.send_signal(signal.SIGTERM)
        service.process.wait(10)
    finally:
        if service.process.poll() is None:
            service.kill()
    assert_clean(service)


def test_term_before_the_application_is_loaded() -> None:
    worker = CallWorker.__new__(CallWorker)
    worker.alive = True
    worker.handle_exit(signal.SIGTERM, None)
    assert worker.alive is False
