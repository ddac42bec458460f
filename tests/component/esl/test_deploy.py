"""Deploys that no caller hears, and what else may befall the processes: real ones, told by real signals."""

from __future__ import annotations

import os
import signal
import socket as std_socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket

from eslbot.runtime.tcp_keepalive import notice_dead_peers
from eslbot.sim.addresses import free_port
from eslbot.sim.processes import children, is_alive, tells
from tests.support import sockets
from tests.support.ameyo_server import AmeyoServer
from tests.support.ledger import OTHER
from tests.support.peer import bounded, eventually
from tests.support.processes import EslbotService, tree
from tests.support.switch import UUID, WORKSPACE, Channel

#: Each says within how many seconds a service has to do something.
pytestmark = pytest.mark.timed

#: A probe that takes for ever, one that never yields, and workers that cannot boot.
PAGES = """
import gevent, pathlib, eslbot.server.service as service, eslbot.server.probes as probes
import eslbot.server.arbiter
service.WATCHDOG, eslbot.server.arbiter.BOOT, probes.PATIENCE = 2, 3, 60
folder = pathlib.Path({folder!r})
load, answer = service.Service.load, probes.Probes._answer
def answering(self, head):
    if b"/slow" in head:
        (folder / "begun").touch()
        gevent.sleep(60)
    if b"/block" in head:
        while True:
            pass
    return answer(self, head)
probes.Probes._answer = answering
def loaded(self):
    while (folder / "slow-boot").exists():
        gevent.sleep(0.01)
    if (folder / "no-boot").exists():
        raise RuntimeError("cannot boot today")
    return load(self)
service.Service.load = loaded
"""


def pages(folder: Path) -> str:
    return PAGES.format(folder=str(folder))


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    with bounded(60):
        yield


def connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), 5)
    sock.settimeout(10)
    return sock


def greeting(service: EslbotService) -> bytes:
    """The first command on a connection of FreeSWITCH's; nothing when the worker leaves just then."""
    with connect(service.port) as sock:
        command, end, _ = sock.recv(100).partition(b"\n\n")
        return bytes(command + end)


def ask(sock: socket.socket, path: str = "/healthz") -> None:
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


def answer(sock: socket.socket) -> bytes:
    """A whole answer: head and JSON of one line."""
    data = b""
    while not data.endswith(b"}\n") and (more := sock.recv(4096)):
        data += more
    return data


def healthy(service: EslbotService) -> bool:
    with connect(service.health_port) as sock:
        ask(sock)
        return answer(sock).startswith(b"HTTP/1.1 200 ")


def owner(service: EslbotService, channel: Channel) -> int:
    """The worker that holds the other end of a call's connection."""
    pid = sockets.owner(service.children(), ("127.0.0.1", service.port), channel.peer.sock.getsockname())
    assert pid is not None, "nobody has the connection"
    return pid


def calls(service: EslbotService, workers: int = 1) -> dict[int, list[Channel]]:
    """Calls that talk, by worker: at least one of each."""
    found: dict[int, list[Channel]] = {}
    for number in range(100):
        channel = service.call(uuid=f"{UUID[:-3]}{number:03}")
        channel.wait_stage("talking")
        found.setdefault(owner(service, channel), []).append(channel)
        if len(found) == workers:
            return found
    raise AssertionError(f"all calls went to {list(found)}")


def greeting_of_another(service: EslbotService, pid: int) -> bool:
    """Whether a worker has stopped accepting."""
    return not service.served_by(pid) and greeting(service) == b"connect\n\n"


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def changed(service: EslbotService, before: list[int]) -> None:
    """Wait until there are new workers only, ready."""
    eventually(lambda: service.ready() and not set(before) & set(service.children()), 15, "new workers")


def intact(channel: Channel) -> bool:
    return channel.violations == [] and not channel._greenlet.ready()


def exit_code(service: EslbotService, seconds: float = 5) -> int:
    eventually(lambda: service.process.poll() is not None, seconds, "the end")
    code = service.process.returncode
    assert code is not None
    return code


# -- one worker -------------------------------------------------------------------------------------------


def test_a_worker_told_to_leave_gives_its_calls_up_and_the_others_keep_theirs(tmp_path: Path) -> None:
    with EslbotService(tmp_path, tree(workers=2)) as service:
        found = calls(service, workers=2)
        leaving, staying = found
        os.kill(leaving, signal.SIGTERM)
        for channel in found[leaving]:
            channel.wait_closed(2)
            assert channel.violations == []
        assert greeting(service) == b"connect\n\n"
        eventually(lambda: gone(leaving))
        assert all(intact(channel) for channel in found[staying])
        eventually(lambda: service.ready() and leaving not in service.children(), 10)
        assert staying in service.children()
    assert "Traceback" not in service.log


@pytest.mark.parametrize("signum", [signal.SIGQUIT, signal.SIGINT])
def test_a_fast_shutdown_of_a_worker_gives_its_calls_up_too(tmp_path: Path, signum: int) -> None:
    with EslbotService(tmp_path, tree(), "--drain", "1h") as service:
        ((worker, (channel,)),) = calls(service).items()
        os.kill(worker, signum)
        channel.wait_closed(2)
        eventually(lambda: gone(worker))


def test_drain_lets_calls_end_while_a_new_worker_takes_the_next_ones(tmp_path: Path) -> None:
    with EslbotService(tmp_path, tree(), "--drain", "1h", before=pages(tmp_path)) as service:
        ((worker, (channel,)),) = calls(service).items()
        os.kill(worker, signal.SIGTERM)
        eventually(lambda: len(service.children()) == 2)
        ((other, (second,)),) = calls(service).items()
        assert other != worker
        gevent.sleep(4)  # twice the watchdog's patience of this test
        assert intact(channel)
        channel.hang_up()
        channel.wait_closed()
        eventually(lambda: gone(worker))
        assert service.children() == [other]
        second.hang_up()
        second.wait_closed()
    assert "WORKER TIMEOUT" not in service.log


def test_drain_ends(tmp_path: Path) -> None:
    with EslbotService(tmp_path, tree(), "--drain", "500ms") as service:
        ((_, (channel,)),) = calls(service).items()
        service.process.send_signal(signal.SIGTERM)
        eventually(lambda: "Handling signal: term" in service.log)
        assert intact(channel)
        channel.wait_closed(5)
        assert exit_code(service) == 0


def test_a_second_order_that_is_sooner_counts(tmp_path: Path) -> None:
    with EslbotService(tmp_path, tree(), "--drain", "1h") as service:
        ((worker, (channel,)),) = calls(service).items()
        os.kill(worker, signal.SIGTERM)
        eventually(lambda: len(service.children()) == 2)
        os.kill(worker, signal.SIGTERM)
        os.kill(worker, signal.SIGQUIT)
        channel.wait_closed(2)
        eventually(lambda: gone(worker))


# -- HUP --------------------------------------------------------------------------------------------------


def test_a_hup_refuses_no_connection_and_there_is_always_somebody_who_answers(tmp_path: Path) -> None:
    with EslbotService(tmp_path, tree(workers=2)) as service:
        stop = False
        heard: list[bytes] = []

        def keep_connecting() -> None:
            while not stop:
                heard.append(greeting(service))  # raises when it is refused, reset, or left unanswered
                if not heard[-1]:
                    heard.append(greeting(service))
                    assert heard[-1], "given up twice in a row"

        def keep_asking() -> None:
            while not stop:
                assert healthy(service)

        streams = [gevent.spawn(work) for work in (keep_connecting, keep_connecting, keep_asking)]
        for _ in range(2):
            before = service.children()
            service.process.send_signal(signal.SIGHUP)
            changed(service, before)
        stop = True
        gevent.joinall(streams, timeout=10, raise_error=True)
        assert len(heard) > 100
        assert set(heard) <= {b"connect\n\n", b""}
        assert heard.count(b"") < 10
    assert service.process.returncode == 0
    assert "Traceback" not in service.log


def test_a_hup_hands_the_calls_over_when_new_workers_accept(tmp_path: Path) -> None:
    with EslbotService(tmp_path, tree(), before=pages(tmp_path)) as service:
        ((worker, (channel,)),) = calls(service).items()
        (tmp_path / "slow-boot").touch()
        service.process.send_signal(signal.SIGHUP)
        eventually(lambda: service.log.count("Booting worker") == 2)
        assert healthy(service)  # by the old worker: there is no other that could
        assert greeting(service) == b"connect\n\n"
        assert intact(channel)
        (tmp_path / "slow-boot").unlink()
        channel.wait_closed(15)
        assert greeting(service) == b"connect\n\n"
        eventually(lambda: gone(worker))


def test_workers_that_cannot_boot_leave_the_old_ones_in_place(tmp_path: Path) -> None:
    with EslbotService(tmp_path, tree(workers=2), before=pages(tmp_path)) as service:
        before = service.children()
        found = calls(service, workers=2)
        (tmp_path / "no-boot").touch()
        service.process.send_signal(signal.SIGHUP)
        eventually(lambda: '"event": "reload_failed"' in service.log, 10)
        eventually(lambda: service.children() == before)
        assert healthy(service)
        assert all(intact(channel) for channels in found.values() for channel in channels)

        (tmp_path / "no-boot").unlink()
        service.process.send_signal(signal.SIGHUP)
        changed(service, before)
    assert service.process.returncode == 0


def test_workers_that_do_not_come_to_accept_leave_the_old_ones_in_place(tmp_path: Path) -> None:
    with EslbotService(tmp_path, tree(), before=pages(tmp_path)) as service:
        ((worker, (channel,)),) = calls(service).items()
        (tmp_path / "slow-boot").touch()
        service.process.send_signal(signal.SIGHUP)
        eventually(lambda: '"event": "reload_failed"' in service.log, 10)
        (tmp_path / "slow-boot").unlink()
        eventually(lambda: service.children() == [worker])
        assert intact(channel)
        assert healthy(service)


def test_a_second_hup_before_the_first_is_done(tmp_path: Path) -> None:
    with EslbotService(tmp_path, tree(), before=pages(tmp_path)) as service:
        ((worker, (channel,)),) = calls(service).items()
        (tmp_path / "slow-boot").touch()
        service.process.send_signal(signal.SIGHUP)
        eventually(lambda: len(service.children()) == 2)
        (second,) = set(service.children()) - {worker}
        service.process.send_signal(signal.SIGHUP)
        eventually(lambda: len(service.children()) == 3)
        assert intact(channel)
        (tmp_path / "slow-boot").unlink()
        changed(service, [worker, second])
        channel.wait_closed()


def test_no_more_than_one_generation_drains(tmp_path: Path) -> None:
    with EslbotService(tmp_path, tree(), "--drain", "1h") as service:
        ((first, (channel,)),) = calls(service).items()
        service.process.send_signal(signal.SIGHUP)
        eventually(lambda: len(service.children()) == 2)
        eventually(lambda: greeting_of_another(service, first), 10)
        ((second, (next_channel,)),) = calls(service).items()
        assert second != first
        assert intact(channel)
        service.process.send_signal(signal.SIGHUP)
        channel.wait_closed()
        eventually(lambda: gone(first))
        assert intact(next_channel)
        next_channel.hang_up()
        next_channel.wait_closed()


def test_a_worker_that_cannot_boot_does_not_end_the_service_of_the_others(tmp_path: Path) -> None:
    with EslbotService(tmp_path, tree(workers=2), before=pages(tmp_path)) as service:
        first, second = service.children()
        (tmp_path / "no-boot").touch()
        os.kill(first, signal.SIGKILL)
        eventually(lambda: '"event": "worker_cannot_boot"' in service.log, 10)
        assert service.children() == [second]
        assert healthy(service)
        (tmp_path / "no-boot").unlink()
        eventually(service.ready, 15)


def test_workers_that_cannot_boot_at_the_first_start_end_it(tmp_path: Path) -> None:
    (tmp_path / "no-boot").touch()
    service = EslbotService(tmp_path, tree(), before=pages(tmp_path))
    service.process = service._spawn(service.command())
    assert exit_code(service, 15) == 3
    assert "cannot boot today" in service.log


def test_a_hup_moves_a_listener_and_keeps_the_other(tmp_path: Path) -> None:
    configuration = tree()
    with EslbotService(tmp_path, configuration) as service:
        before, old_port = service.children(), service.health_port
        service.health_port = free_port()
        service.write(configuration)
        service.process.send_signal(signal.SIGHUP)
        changed(service, before)
        assert healthy(service)
        assert greeting(service) == b"connect\n\n"
        with pytest.raises(ConnectionRefusedError):
            connect(old_port)
    assert service.process.returncode == 0


def test_a_hup_with_a_ca_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    configuration = tree(workers=1)
    with EslbotService(tmp_path, configuration) as service:
        before = service.children()
        (workspace,) = configuration["workspaces"].values()
        workspace["ameyo"]["ca_file"] = str(tmp_path / "none.pem")
        service.write(configuration)
        service.process.send_signal(signal.SIGHUP)
        changed(service, before)
        assert '"event": "configuration_refused"' in service.log
        assert "ca_file" in service.log
        assert healthy(service)


def test_a_hup_without_the_key_file_makes_none_and_keeps_the_calls(tmp_path: Path) -> None:
    """A new key would make nobody's of every call that is up."""
    with EslbotService(tmp_path, tree(workers=1)) as service:
        before = service.children()
        ((_, (channel,)),) = calls(service).items()
        key_file = tmp_path / "identity.key"
        key_file.unlink()
        service.process.send_signal(signal.SIGHUP)
        changed(service, before)
        assert '"event": "configuration_refused"' in service.log
        assert "server.key_file" in service.log
        assert not key_file.exists()
        taken = service.call(channel.variables, answered=True, uuid=channel.uuid)
        taken.wait(lambda: "set eslbot_take_overs" in taken.story)
        assert '"event": "identity_not_verified"' not in service.log


def test_a_hup_to_an_address_that_is_taken_is_refused(tmp_path: Path) -> None:
    configuration = tree()
    with EslbotService(tmp_path, configuration) as service, std_socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        before, good_port = service.children(), service.health_port
        service.health_port = taken.getsockname()[1]
        service.write(configuration)
        service.health_port = good_port
        service.process.send_signal(signal.SIGHUP)
        changed(service, before)
        assert f"cannot listen at 127.0.0.1:{taken.getsockname()[1]}" in service.log
        assert healthy(service)


def test_ttin_and_ttou(tmp_path: Path) -> None:
    with EslbotService(tmp_path, tree()) as service:
        (first,) = service.children()
        service.process.send_signal(signal.SIGTTIN)
        eventually(lambda: len(service.children()) == 2)
        service.process.send_signal(signal.SIGTTOU)
        eventually(lambda: len(service.children()) == 1, 10)
        assert first not in service.children()
        eventually(service.ready, 10)


# -- the whole service ------------------------------------------------------------------------------------


def test_term_ends_it_all_though_somebody_keeps_a_connection(tmp_path: Path) -> None:
    before = pages(tmp_path) + "\nimport eslbot.server.worker as w\nw.REQUESTS = 30"
    with EslbotService(tmp_path, tree(workers=2), before=before) as service:
        ((_, (channel,)),) = calls(service).items()
        idle = [connect(service.health_port) for _ in range(5)]
        ask(idle[0], "/slow")
        eventually((tmp_path / "begun").exists)
        service.process.send_signal(signal.SIGTERM)
        channel.wait_closed(2)
        assert exit_code(service, 4) == 0
        assert [sock.recv(100) for sock in idle] == [b""] * 5


def test_when_the_arbiter_is_killed_its_workers_leave_and_the_next_one_gets_the_port(tmp_path: Path) -> None:
    with EslbotService(tmp_path, tree(workers=2), "--drain", "1h") as service:
        workers = service.children()
        found = calls(service, workers=2)
        service.process.kill()
        service.process.wait()
        service.start_again()
        for channel in [channel for channels in found.values() for channel in channels]:
            channel.wait_closed(2)
        eventually(lambda: all(gone(pid) for pid in workers))
        eventually(service.ready, 15)
        assert greeting(service) == b"connect\n\n"
    assert service.process.returncode == 0


def test_usr2_and_term_change_the_whole_service(tmp_path: Path) -> None:
    with EslbotService(tmp_path, tree()) as service:
        ((worker, (channel,)),) = calls(service).items()
        service.process.send_signal(signal.SIGUSR2)
        eventually(lambda: len(service.children()) == 2)
        (new,) = set(service.children()) - {worker}
        try:
            eventually(lambda: service.log.count("Booting worker") == 2, 10)
            (successor,) = eventually_children(new)
            eventually(lambda: service.served_by(successor), 10)
            assert intact(channel)
            service.process.send_signal(signal.SIGTERM)
            channel.wait_closed(3)
            assert exit_code(service) == 0
            assert healthy(service)
            assert greeting(service) == b"connect\n\n"
            assert service.get("/healthz")[0] == 200  # its page process had to wait for the port
        finally:
            os.kill(new, signal.SIGTERM)
            eventually(lambda: not is_alive(new))
    assert "Traceback" not in service.log


# -- a tenant that goes -----------------------------------------------------------------------------------


def without_acme(service: EslbotService, configuration: dict[str, Any]) -> None:
    """Its file without the tenant of all calls, and with another one."""
    acme = configuration["workspaces"][WORKSPACE]
    service.write(
        {**configuration, "workspaces": {OTHER: {**acme, "name": "other", "sources": ["127.0.0.9"]}}}
    )


def is_handed_off(service: EslbotService, channel: Channel, ameyo: AmeyoServer) -> None:
    """The call, whose bot is done, comes to whoever is there, and is handed off with its tenant's token."""
    ended = {**channel.variables, "eslbot_stage": "ended", "eslbot_outcome": "bot_ended"}
    again = service.call(ended, answered=True, uuid=channel.uuid)
    again.wait_stage("held", 10)
    assert ameyo.requests[-1].header("Authorization") == ["secret-of-ameyo"]
    again.hang_up()
    again.wait_closed()


def is_refused(service: EslbotService) -> None:
    channel = service.call(uuid=f"{UUID[:-3]}999")
    channel.wait(lambda: "respond 403 Forbidden" in channel.story)
    channel.wait_closed()


def test_calls_of_a_tenant_that_is_removed_or_broken_keep_what_it_was(tmp_path: Path) -> None:
    with AmeyoServer() as ameyo:
        configuration = tree(ameyo.url)
        with EslbotService(tmp_path, configuration) as service:
            ((_, (channel,)),) = calls(service).items()
            before = service.children()
            broken = tree(ameyo.url)
            broken["workspaces"][WORKSPACE]["ameyo"]["token"] = ""
            service.write(broken)
            service.process.send_signal(signal.SIGHUP)
            changed(service, before)
            assert '"event": "configuration_refused"' in service.log
            assert f"workspaces.{WORKSPACE}.ameyo.token: is empty" in service.log
            is_handed_off(service, channel, ameyo)
            before = service.children()
            without_acme(service, configuration)
            service.process.send_signal(signal.SIGHUP)
            changed(service, before)
            is_refused(service)
            is_handed_off(service, channel, ameyo)
            (worker,) = service.children()
            os.kill(worker, signal.SIGKILL)
            eventually(lambda: service.ready() and worker not in service.children(), 10)
            is_handed_off(service, channel, ameyo)
            assert '"event": "workspace_gone"' not in service.log
            assert "secret-of-ameyo" not in service.log
            # It is back, and another: what the file says now counts for the calls that are up, too.
            before = service.children()
            configuration["workspaces"][WORKSPACE]["ameyo"]["token"] = "mended-secret"
            service.write(configuration)
            service.process.send_signal(signal.SIGHUP)
            changed(service, before)
            again = {**channel.variables, "eslbot_stage": "ended", "eslbot_outcome": "bot_ended"}
            service.call(again, answered=True, uuid=channel.uuid).wait_stage("held", 10)
            assert ameyo.requests[-1].header("Authorization") == ["mended-secret"]
            assert not (tmp_path / "tenants" / f"{WORKSPACE}.json").exists()


def test_usr2_takes_along_what_its_file_lacks(tmp_path: Path) -> None:
    with AmeyoServer() as ameyo, EslbotService(tmp_path, tree(ameyo.url)) as service:
        ((worker, (channel,)),) = calls(service).items()
        without_acme(service, tree(ameyo.url))
        service.process.send_signal(signal.SIGUSR2)
        eventually(lambda: len(service.children()) == 2)
        (new,) = set(service.children()) - {worker}
        try:
            eventually(lambda: service.log.count("Booting worker") == 2, 10)
            (successor,) = eventually_children(new)
            eventually(lambda: service.served_by(successor), 10)
            service.process.send_signal(signal.SIGTERM)
            channel.wait_closed(3)
            assert exit_code(service) == 0
            is_refused(service)
            is_handed_off(service, channel, ameyo)
        finally:
            os.kill(new, signal.SIGTERM)
            eventually(lambda: not is_alive(new))
    assert "Traceback" not in service.log


def test_a_start_with_another_file_than_the_stop_had(tmp_path: Path) -> None:
    with AmeyoServer() as ameyo, EslbotService(tmp_path, tree(ameyo.url)) as service:
        ((_, (channel,)),) = calls(service).items()
        service.process.send_signal(signal.SIGTERM)
        channel.wait_closed(5)
        assert exit_code(service) == 0
        without_acme(service, tree(ameyo.url))
        service.start_again()
        eventually(service.ready, 15)
        is_refused(service)
        is_handed_off(service, channel, ameyo)


def eventually_children(pid: int) -> list[int]:
    def workers() -> list[int]:
        return [child for child in children(pid) if not tells(child)]

    eventually(workers, 10)
    return workers()


# -- workers that hang ------------------------------------------------------------------------------------


def test_a_stopped_worker_is_killed_and_replaced(tmp_path: Path) -> None:
    with EslbotService(tmp_path, tree(), before=pages(tmp_path)) as service:
        ((worker, (channel,)),) = calls(service).items()
        os.kill(worker, signal.SIGSTOP)
        channel.wait_closed(10)
        eventually(lambda: service.ready() and worker not in service.children(), 10)
        assert greeting(service) == b"connect\n\n"


def test_a_worker_in_an_endless_loop_is_killed_and_replaced(tmp_path: Path) -> None:
    with EslbotService(tmp_path, tree(), before=pages(tmp_path)) as service:
        ((worker, (channel,)),) = calls(service).items()
        with connect(service.health_port) as sock:
            ask(sock, "/block")
            channel.wait_closed(10)
        eventually(lambda: service.ready() and worker not in service.children(), 10)
        assert greeting(service) == b"connect\n\n"


# -- peers that are gone ----------------------------------------------------------------------------------


def test_a_dead_peer_is_noticed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        notice_dead_peers(listener)
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with ours, theirs:
        assert ours.getsockopt(std_socket.SOL_SOCKET, std_socket.SO_KEEPALIVE) == 1
        options = (std_socket.TCP_KEEPIDLE, std_socket.TCP_KEEPINTVL, std_socket.TCP_KEEPCNT)
        assert [ours.getsockopt(std_socket.IPPROTO_TCP, option) for option in options] == [10, 5, 3]
        assert ours.getsockopt(std_socket.IPPROTO_TCP, std_socket.TCP_USER_TIMEOUT) == 30_000


def test_the_connections_of_calls_are_watched(tmp_path: Path) -> None:
    with EslbotService(tmp_path, tree()) as service:
        ((_, (channel,)),) = calls(service).items()
        ends = (
            f"0100007F:{service.port:04X}",
            f"0100007F:{channel.peer.sock.getsockname()[1]:04X}",
        )

        def timer() -> str:
            lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
            (line,) = [line for line in lines if (line[1], line[2]) == ends]
            return line[5].split(":")[0]

        eventually(lambda: timer() == "02", what="the kernel's keepalive timer")  # proc_net_tcp.txt
