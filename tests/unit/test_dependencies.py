"""What eslbot takes from its dependencies that their owners do not promise: each name, and what it does.

A newer release that renames one of them is to fail here, where it is said, and not in a call.
"""

from __future__ import annotations

import ast
import configparser
import inspect
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import pytest
import requests
from greenswitch.esl import OutboundSession
from gunicorn import systemd
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config as GunicornConfig
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger
from gunicorn.sock import TCPSocket
from gunicorn.workers.ggevent import GeventWorker
from itsdangerous import TimestampSigner
from marshmallow import Schema, fields
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from picows import WSListener, WSTransport
from prometheus_client import metrics, values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.ssltransport import SSLTransport
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from eslbot.esl.session import Session
from eslbot.server.arbiter import CallArbiter
from eslbot.server.worker import CallWorker

REPOSITORY = Path(__file__).parents[2]

#: Private names of others that stand in eslbot's code; each has its test below.
PRIVATE = {
    "_accept": "gevent",
    "_dns_host": "urllib3",
    "_get_conn": "urllib3",
    "_put_conn": "urllib3",
    "_map": "waitress",
    "_sock": "waitress",
}


def names(path: Path) -> tuple[set[object], set[str], set[Path]]:
    """What a module defines, what it uses, and the modules of eslbot's that it imports from."""
    own: set[object] = {"_exit"}  # os._exit is promised
    used: set[str] = set()
    others: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.arg):
            own.add(node.arg)
        elif isinstance(node, ast.Constant):
            own.add(node.value)  # __slots__
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        elif isinstance(node, ast.Attribute):
            (own if isinstance(node.ctx, ast.Store) else used).add(node.attr)
        elif isinstance(node, ast.keyword):
            used.add(node.arg or "")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("eslbot."):
            others.add(REPOSITORY / f"{node.module.replace('.', '/')}.py")
    return own, used, others


def foreign_names(path: Path) -> Iterator[str]:
    """Private names that a module uses and does not define, nor a module of eslbot's that it imports from."""
    own, used, others = names(path)
    for other in filter(Path.is_file, others):
        own |= names(other)[0]
    return (name for name in used - own if re.match(r"_[a-z]", name))


@pytest.mark.slow
def test_no_private_name_of_others_is_used_that_has_no_test() -> None:
    used = {name for path in (REPOSITORY / "eslbot").rglob("*.py") for name in foreign_names(path)}
    assert used == set(PRIVATE)


def has(owner: object, *names: str) -> None:
    """Whether they are there, or are set by its methods; whatever is compiled has them all."""
    source = ""
    for kind in inspect.getmro(owner) if inspect.isclass(owner) else ():
        with suppress(OSError, TypeError):  # no Python
            source += inspect.getsource(kind)
    missing = [name for name in names if not hasattr(owner, name) and f"self.{name}" not in source]
    assert not missing, f"{owner} has no {missing}"


def takes(function: Any, *arguments: Any, **keywords: Any) -> None:
    inspect.signature(function).bind(*arguments, **keywords)


# -- urllib3, requests -------------------------------------------------------------------------------------


class Asked(Exception):
    """Raised by what is to be called."""


@pytest.mark.parametrize("kind", [HTTPConnection, HTTPSConnection])
def test_urllib3_connects_by_new_conn_with_the_name_in_dns_host(kind: type[HTTPConnection]) -> None:
    class Ours(kind):  # type: ignore[valid-type, misc]
        def _new_conn(self) -> socket.socket:
            raise Asked(self._dns_host)

    with pytest.raises(Asked, match="localhost"):
        Ours("localhost", 1).connect()


def test_urllib3s_pool_gives_a_connection_and_takes_it_back() -> None:
    class Ours(HTTPConnection):
        looked = 0

        @property
        def is_connected(self) -> bool:
            Ours.looked += 1
            return True

    class Pool(HTTPConnectionPool):
        ConnectionCls = Ours

    with Pool("localhost", 1) as pool:
        connection = pool._get_conn()
        assert isinstance(connection, Ours)
        assert connection.is_closed
        pool._put_conn(connection)
        assert pool._get_conn() is connection, "kept"
        assert Ours.looked, "a connection that is kept is asked whether it is still one"


def test_urllib3s_pools_are_made_by_scheme_and_take_a_context() -> None:
    manager = PoolManager()
    assert set(manager.pool_classes_by_scheme) == {"http", "https"}
    manager.pool_classes_by_scheme = {"http": HTTPConnectionPool, "https": HTTPSConnectionPool}
    pool = manager.connection_from_url("https://localhost")
    context = ssl.create_default_context()
    pool.conn_kw["ssl_context"] = context
    assert pool._get_conn().ssl_context is context  # type: ignore[attr-defined]


def test_urllib3s_tls_within_tls_takes_what_we_give_it() -> None:
    takes(SSLTransport, "socket", "context", "name")
    has(HTTPConnection, "sock", "timeout", "source_address", "socket_options")


def test_requests_gives_the_pool_of_a_request() -> None:
    adapter = HTTPAdapter()
    request = requests.Request("POST", "http://localhost:1/").prepare()
    assert isinstance(adapter.get_connection_with_tls_context(request, verify=True), HTTPConnectionPool)
    takes(HTTPAdapter.init_poolmanager, adapter, 1, 1, source_address=("127.0.0.1", 0))
    has(HTTPAdapter, "poolmanager")


# -- waitress ----------------------------------------------------------------------------------------------


def test_waitress_serves_a_listener_that_it_is_given() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dispatcher = ThreadedTaskDispatcher()
        dispatcher.set_thread_count(1)
        server = TcpWSGIServer(
            lambda environ, start: [],
            {},
            _sock=listener,
            dispatcher=dispatcher,
            adj=Adjustments(sockets=[listener], cleanup_interval=1),
            bind_socket=False,
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
        )
        try:
            assert server.socket is listener
            assert server in server._map.values(), "its own map of sockets, by descriptor"
            has(server, "active_channels", "pull_trigger", "handle_accept", "maintenance", "channel_class")
            has(server, "task_dispatcher")
            takes(server.maintenance, 0.0)
            takes(wasyncore.loop, timeout=1, use_poll=True, map=server._map, count=1)
        finally:
            dispatcher.shutdown(timeout=0)
            wasyncore.close_all(server._map, ignore_all=True)


def test_waitress_asks_its_server_once_in_cleanup_interval() -> None:
    source = inspect.getsource(TcpWSGIServer.readable)
    assert "self.maintenance(now)" in source
    assert "cleanup_interval" in source


def test_waitress_channel_tells_what_its_bounds_are_judged_by() -> None:
    has(HTTPChannel, "requests", "request", "received", "will_close", "handle_close", "addr")
    has(HTTPChannel, "total_outbufs_len", "last_activity", "creation_time")


# -- gunicorn ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ours", "theirs"), [(CallArbiter, Arbiter), (CallWorker, GeventWorker)])
def test_gunicorn_calls_what_we_put_in_place_of_its_own(ours: type, theirs: type) -> None:
    replaced = {
        CallArbiter: "manage_workers spawn_worker reap_workers handle_ttin wait_for_signals stop reload",
        CallWorker: "init_process run notify",
    }[ours].split()
    for name in replaced:
        assert name in vars(ours), "not replaced any more: take it out of this test"
        assert list(inspect.signature(getattr(ours, name)).parameters) == list(
            inspect.signature(getattr(theirs, name)).parameters
        )
    called = "".join(
        inspect.getsource(base) for base in theirs.__mro__ if base.__module__.startswith("gunicorn")
    )
    for name in replaced:
        assert f".{name}(" in called or name.startswith("handle_"), f"gunicorn does not call {name}"


def test_gunicorns_arbiter_has_what_a_reload_changes() -> None:
    has(Arbiter, "START_CTX", "WORKERS", "LISTENERS", "worker_age", "reexec_pid", "num_workers", "log", "cfg")
    takes(Arbiter.kill_worker, None, 1, 15)
    takes(Arbiter.setup, None, "app")
    assert HaltServer("why", 1).reason == "why"
    takes(systemd.sd_notify, "MAINPID=1", "log")
    takes(TCPSocket, ("127.0.0.1", 0), "configuration", "log")


def test_gunicorns_worker_has_what_calls_are_accepted_with() -> None:
    has(GeventWorker, "alive", "sockets", "handle_exit", "tmp", "worker_connections", "app", "log", "pid")
    assert "self.wsgi = self.app.wsgi()" in inspect.getsource(GeventWorker.load_wsgi), (
        "how a controller is loaded"
    )
    settings = GunicornConfig().settings
    used = {"pre_fork", "post_fork", "child_exit", "pre_exec", "graceful_timeout", "worker_connections"}
    assert used <= settings.keys()


def test_gunicorns_logger_has_two_logs_to_redirect() -> None:
    has(Logger, "setup", "error_log", "access_log")
    assert "self.setup(cfg)" in inspect.getsource(Logger.__init__)


# -- gevent ------------------------------------------------------------------------------------------------


def test_gevents_hub_tells_of_a_failed_greenlet_by_print_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[Any, ...]] = []
    monkeypatch.setattr(gevent.get_hub(), "print_exception", lambda *what: told.append(what))

    def fail() -> None:
        raise Asked

    gevent.spawn(fail).join(timeout=5)
    [(context, kind, error, trace)] = told
    assert kind is Asked
    assert isinstance(error, Asked)
    assert context is not None
    assert trace is not None


def test_gevents_loop_tells_when_a_socket_can_be_read() -> None:
    here, there = socket.socketpair()
    with here, there:
        readable = gevent.get_hub().loop.io(here.fileno(), 1)
        told = gevent.event.Event()
        readable.start(told.set)
        try:
            there.send(b"x")
            assert told.wait(timeout=5)
        finally:
            readable.stop()


def test_gevents_loop_has_timers_that_do_not_keep_it_running() -> None:
    timer = gevent.get_hub().loop.timer(0.0)
    told = gevent.event.Event()
    timer.start(told.set)
    assert told.wait(timeout=5)
    timer.stop()


def test_gevents_server_reads_connections_by_do_read_from_its_listener() -> None:
    with gevent.server.StreamServer(("127.0.0.1", 0), handle=print) as server:
        server.start()
        with pytest.raises(BlockingIOError):
            server.socket._accept()
        assert "self.do_read()" in inspect.getsource(gevent.baseserver.BaseServer._do_read)


def test_gevents_server_accepts_as_many_at_a_time_as_it_is_told() -> None:
    assert isinstance(gevent.server.StreamServer.max_accept, int)
    assert "self.max_accept" in inspect.getsource(gevent.baseserver.BaseServer)


# -- greenswitch -------------------------------------------------------------------------------------------


#: What of it is as greenswitch has it.
KEPT = {
    "bridge",
    "hangup",
    "linger",
    "myevents",
    "park",
    "play_and_get_digits",
    "playback",
    "register_handle",
    "say",
}


def test_what_is_left_of_greenswitchs_session_finds_all_it_looks_for() -> None:
    """Our session does not call its constructor; a method that is not replaced may want what that makes."""
    here, there = socket.socketpair()
    with here, there:
        session = Session(("127.0.0.1", 1), gevent.socket.socket(fileno=here.detach()))
        try:
            wanted = {
                (name, node.attr)
                for name, method in inspect.getmembers(OutboundSession, inspect.isfunction)
                if getattr(Session, name) is method and name in KEPT
                for node in ast.walk(ast.parse(inspect.getsource(method).strip()))
                if isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "self"
            }
            assert [(name, attribute) for name, attribute in wanted if not hasattr(session, attribute)] == []
        finally:
            session.stop()


# -- prometheus_client -------------------------------------------------------------------------------------


def test_prometheus_client_names_a_file_by_the_process_that_we_name(tmp_path: Path) -> None:
    """In a process of its own: the library reads the directory when it is imported."""
    code = (
        "from prometheus_client import values\n"
        "values.ValueClass = values.MultiProcessValue(lambda: 7)\n"
        "import prometheus_client\n"
        "prometheus_client.Counter('a', 'x').inc()\n"
        "prometheus_client.Gauge('b', 'x', multiprocess_mode='livesum').set(2)\n"
    )
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["counter_7.db", "gauge_livesum_7.db"]
    merged = MultiProcessCollector.merge([str(tmp_path / name) for name in files])
    assert {metric.name: metric.samples[0].value for metric in merged} == {"a": 1.0, "b": 2.0}
    [(key, value, *_)] = MmapedDict.read_all_values_from_file(str(tmp_path / "counter_7.db"))
    assert (key.startswith('["a"'), value) == (True, 1.0)


def test_prometheus_client_makes_a_child_by_labels() -> None:
    takes(metrics.MetricWrapperBase.labels, None, "workspace")
    assert callable(values.ValueClass)


# -- others ------------------------------------------------------------------------------------------------


def test_marshmallow_reads_a_value_by_deserialize() -> None:
    class Ours(fields.Field[str]):
        def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
            return f"{attr}: {value}"

    assert Schema.from_dict({"key": Ours()})().load({"key": 1}) == {"key": "key: 1"}


def test_itsdangerous_asks_its_signer_for_the_time() -> None:
    class Ours(TimestampSigner):
        def get_timestamp(self) -> int:
            return 7

    signer = Ours("key")
    _, when = signer.unsign(signer.sign("x"), return_timestamp=True)
    assert when.timestamp() == 7


def test_picows_has_what_a_relay_asks_a_socket() -> None:
    has(WSListener, "on_ws_connected", "on_ws_frame", "on_ws_disconnected", "pause_writing", "resume_writing")
    has(WSTransport, "underlying_transport", "is_close_frame_sent", "is_disconnected", "close_handshake")
    has(WSTransport, "send", "send_ping", "send_pong", "send_close", "disconnect")


# -- versions ----------------------------------------------------------------------------------------------

#: Subclassed, patched or used by a private name: a newer release of theirs may break us.
BOUNDED = {
    "gevent",
    "greenswitch",
    "gunicorn",
    "itsdangerous",
    "marshmallow",
    "picows",
    "prometheus-client",
    "requests",
    "sqlalchemy",
    "urllib3",
    "waitress",
}


def requirements() -> list[Requirement]:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    texts = [setup["options"]["install_requires"], *dict(setup["options.extras_require"]).values()]
    lines = [line for text in texts for line in text.splitlines() if line]
    return [one for one in map(Requirement, lines) if one.name != "eslbot"]


def constraints() -> dict[str, str]:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    exact = [re.fullmatch(r"([a-z0-9-]+)==([0-9A-Za-z.+!]+)", line) for line in lines if line[:1] != "#"]
    assert None not in exact, "nothing but names and versions: no address of where they came from"
    return {match[1]: match[2] for match in exact if match}


def test_what_is_subclassed_has_an_upper_bound() -> None:
    bounded = {
        canonicalize_name(one.name)
        for one in requirements()
        if any(part.operator in {"<", "==", "~="} for part in one.specifier)
    }
    assert bounded >= BOUNDED


def test_constraints_hold_everything_that_setup_asks_for() -> None:
    exact = constraints()
    wrong = [
        str(one)
        for one in requirements()
        if not one.specifier.contains(exact.get(canonicalize_name(one.name), "0"), prereleases=True)
    ]
    assert wrong == [], "run scripts/lock"
