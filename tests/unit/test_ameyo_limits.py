"""One tenant whose Ameyo is dead keeps no other tenant's notification waiting, and leaks nothing."""

from __future__ import annotations

import socket
from typing import Any

import gevent
import pytest
from gevent.event import Event as Flag

from eslbot.ameyo.client import MAX_POSTS
from eslbot.ameyo.semaphore import FifoSemaphore
from tests.support.ameyo_server import AmeyoServer
from tests.support.patched import run_patched

# -- the slots --------------------------------------------------------------------------------------------


class Visitor:
    """A greenlet that wants a slot, keeps it until told, and says what became of it."""

    def __init__(self, slots: FifoSemaphore, order: list[Visitor]) -> None:
        self.over, self.enough = Flag(), Flag()
        self.held: bool | None = None
        self._slots, self._order = slots, order
        self.greenlet = gevent.spawn(self._run)
        gevent.sleep(0)

    def _run(self) -> None:
        with self._slots.slot(self.over) as held:
            self.held = held
            if held:
                self._order.append(self)
                self.enough.wait()


def let_run() -> None:
    for _ in range(5):
        gevent.sleep(0)


def free(slots: FifoSemaphore) -> int:
    """How many can be had right now."""
    order: list[Visitor] = []
    visitors = [Visitor(slots, order) for _ in range(10)]
    number = len(order)
    for visitor in visitors:
        visitor.greenlet.kill()
    return number


def test_who_waits_is_served_in_the_order_of_coming() -> None:
    slots, order = FifoSemaphore(1), list[Visitor]()
    visitors = [Visitor(slots, order) for _ in range(4)]
    assert order == visitors[:1]
    for number in range(4):
        visitors[number].enough.set()
        visitors.append(Visitor(slots, order))  # a newcomer, just when one becomes free
        let_run()
        assert order == visitors[: number + 2]
    for visitor in visitors:
        visitor.greenlet.kill()
    assert free(slots) == 1


def test_who_is_over_leaves_the_queue_at_once_and_without_a_slot() -> None:
    slots, order = FifoSemaphore(1), list[Visitor]()
    first, second, third = (Visitor(slots, order) for _ in range(3))
    second.over.set()
    let_run()
    assert (second.greenlet.ready(), second.held) == (True, False)
    first.enough.set()
    let_run()
    assert order == [first, third]
    third.enough.set()
    let_run()
    assert free(slots) == 1


@pytest.mark.parametrize("others", [0, 1])
def test_who_is_killed_while_waiting_takes_no_slot_along(others: int) -> None:
    slots, order = FifoSemaphore(1), list[Visitor]()
    first, second, *rest = (Visitor(slots, order) for _ in range(2 + others))
    second.greenlet.kill()
    first.enough.set()
    let_run()
    assert order == [first, *rest]
    for visitor in rest:
        visitor.enough.set()
    let_run()
    assert free(slots) == 1


@pytest.mark.parametrize("others", [0, 1])
def test_who_is_killed_just_when_the_turn_came_hands_the_slot_on(others: int) -> None:
    slots, order = FifoSemaphore(1), list[Visitor]()
    first, second, *rest = (Visitor(slots, order) for _ in range(2 + others))
    first.enough.set()
    gevent.sleep(0)  # the first has given its slot to the second, which has not run yet
    second.greenlet.kill(block=False)
    let_run()
    assert second.greenlet.ready()
    assert order in ([first, *rest], [first, second, *rest])
    for visitor in rest:
        visitor.enough.set()
    let_run()
    assert free(slots) == 1


def test_a_slot_is_given_back_whatever_happens_with_it() -> None:
    slots = FifoSemaphore(2)
    for _ in range(5):
        with pytest.raises(ValueError, match="whatever"), slots.slot(Flag()) as held:
            assert held
            raise ValueError("whatever")
    assert free(slots) == 2


# -- the client -------------------------------------------------------------------------------------------
# A worker's sockets are gevent's. This process's are not, so these run in one of their own.

SETTINGS = """
import time, gevent
from gevent.event import Event
from eslbot.ameyo.client import AmeyoClient
from eslbot.config.model import Ameyo, Secret

def client(url, timeout=10.0):
    settings = Ameyo(url, "h", Secret("token"), None, (), {}, 3.0, timeout, True)
    return AmeyoClient(settings, jitter=lambda: 0.0)

def until(done):
    with gevent.Timeout(10):
        while not done():
            gevent.sleep(0.01)

def first(client, over, **more):
    return next(client.notify(b"{}", over, **more), None)
"""


class Dead:
    """A host that completes TCP connections, in its kernel, and never says a word."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Dead:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def run(code: str, **arguments: Any) -> Any:
    return run_patched(SETTINGS + code, **arguments)


def test_a_hundred_calls_of_a_dead_tenant_delay_no_other_tenants_post() -> None:
    with AmeyoServer() as server, Dead() as dead:
        begun, verdict, attempts, still_waiting = run(
            """
begun, over, dead = [], Event(), client(dead_url)
calls = [gevent.spawn(first, dead, over, begin=begun.append) for _ in range(100)]
until(lambda: len(begun) == 32)
attempt = first(client(live_url), Event())
result = [len(begun), attempt.verdict, attempt.number, sum(not call.ready() for call in calls)]
""",
            dead_url=dead.url,
            live_url=server.url,
        )
    assert (verdict, attempts) == ("accepted", 1)
    assert begun == MAX_POSTS == 32
    assert still_waiting == 100


def test_the_time_in_the_queue_is_not_the_attempts() -> None:
    with Dead() as dead:
        found = run(
            """
dead = client(dead_url, timeout=0.5)
calls = [gevent.spawn(first, dead, Event()) for _ in range(65)]  # three times 0.5 s
attempts = [call.get(timeout=10) for call in calls]
result = [[attempt.verdict, attempt.detail, attempt.seconds] for attempt in attempts]
""",
            dead_url=dead.url,
        )
    assert {(verdict, detail) for verdict, detail, _ in found} == {("failed", "no answer within 0.5 s")}
    assert all(seconds >= 0.5 for _, _, seconds in found), "each had the whole of its time"


def test_a_call_that_ends_in_the_queue_leaves_at_once_and_sends_nothing() -> None:
    with Dead() as dead:
        begun, answer, waited = run(
            """
begun, over, dead = [], Event(), client(dead_url, timeout=60.0)
calls = [gevent.spawn(first, dead, Event(), begin=begun.append) for _ in range(32)]
until(lambda: len(begun) == 32)
late = gevent.spawn(first, dead, over, begin=begun.append)
gevent.sleep(0)
began = time.monotonic()
over.set()
result = [len(begun), late.get(timeout=10), time.monotonic() - began]
""",
            dead_url=dead.url,
        )
    assert (begun, answer) == (32, None)
    assert waited < 5


@pytest.mark.parametrize("end", ["kill", "time-out", "over", "exception"])
def test_no_slot_and_no_greenlet_is_left_behind(end: str) -> None:
    with Dead() as dead, AmeyoServer() as server:
        left, accepted, details = run(
            """
import gc
from eslbot.ameyo import client as module
module.LAST_ANSWER = 0.0

class End(Exception):
    pass

def fail(number):
    raise End

def greenlets():
    return sum(not g.ready() for g in gc.get_objects() if isinstance(g, gevent.Greenlet))

def one(over):
    try:
        with gevent.Timeout(0.2 if end == "time-out" else None):
            first(tenant, over, begin=fail if end == "exception" else begun.append)
    except (End, gevent.Timeout):
        pass

tenant = client(dead_url, timeout=60.0)
for _ in range(2):
    over, begun = Event(), []
    calls = [gevent.spawn(one, over) for _ in range(40)]
    if end in ("kill", "over"):
        until(lambda: len(begun) == 32)
    if end == "kill":
        gevent.killall(calls)
    if end == "over":
        over.set()
    gevent.joinall(calls, timeout=10, raise_error=True)
left = greenlets()
tenant._connections = client(live_url)._connections  # the same slots
calls = [gevent.spawn(first, tenant, Event()) for _ in range(40)]
attempts = [call.get(timeout=10) for call in calls]
accepted = sum(attempt.verdict == "accepted" for attempt in attempts)
result = [left, accepted, sorted({attempt.detail for attempt in attempts})]
""",
            dead_url=dead.url,
            live_url=server.url,
            end=end,
        )
    assert left == 0
    assert accepted == 40, details


def test_a_name_server_that_hangs_for_one_tenant_delays_no_other() -> None:
    with AmeyoServer() as server:
        verdict, asked, dead_verdicts, afterwards = run(
            """
import _socket, _thread, types
import gevent.resolver.thread
from gevent.monkey import get_original

gate = get_original("_thread", "allocate_lock")()
gate.acquire()
asked = []

def getaddrinfo(host, *more):
    asked.append(host)
    if host == "dead.example.com":
        gate.acquire()  # a native thread, as it hangs in the C library
        gate.release()
        raise _socket.gaierror(_socket.EAI_NONAME, "unknown after all")
    return _socket.getaddrinfo("127.0.0.1", *more)

gevent.resolver.thread._socket = types.SimpleNamespace(
    getaddrinfo=getaddrinfo, gaierror=_socket.gaierror, herror=_socket.herror)
dead = client("http://dead.example.com", timeout=0.5)
calls = [gevent.spawn(first, dead, Event()) for _ in range(100)]
until(lambda: "dead.example.com" in asked)
gevent.sleep(0.7)  # its first attempts are given up; their threads hang on
attempt = first(client(f"http://live.example.com:{port}", timeout=5.0), Event())
gave_up = [call.get(timeout=15).verdict for call in calls]
hanging = asked.count("dead.example.com")
gate.release()
result = [attempt.verdict, hanging, sorted(set(gave_up)), first(dead, Event()).detail]
""",
            port=server.port,
        )
    assert verdict == "accepted"
    assert asked == 2, "threads of this tenant, and no more"
    assert dead_verdicts == ["failed"]
    assert "unknown after all" in afterwards
