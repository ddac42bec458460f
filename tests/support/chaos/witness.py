"""Gathers what everybody saw of a run, as the records that :mod:`tests.support.audit` judges."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from eslbot.sim.bot import BotCall
from eslbot.sim.pbx import Notification, PbxCall
from tests.support.audit import PATIENCE, Account, Fault, Leftovers, Placed, Post, account
from tests.support.lab import Lab
from tests.support.proxy import Passage
from tests.support.sockets import connections, established, open_sockets

#: Seconds everything gets to be tidied up when the last call is over.
TIDY_LIMIT = 20.0
#: Seconds between two looks at other processes: there is no event to wait for.
_LOOK = 0.1


class Witness:
    """Of one lab; ``faults`` are what was done to it, in order."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.faults: list[Fault] = []
        self._lock = threading.Lock()
        self._calls: dict[str, tuple[PbxCall, str]] = {}
        self._known: dict[Passage, str] = {}
        # What was there before is not of this account.
        self._posts, self._tracebacks = len(lab.ameyo.requests), self._count_tracebacks()
        self._files = {path.name for path in lab.lines.glob("*")}

    # -- while it runs ------------------------------------------------------------------------------------

    def placed(self, call: PbxCall, tenant: str) -> PbxCall:
        """A call was placed; it belongs to the account."""
        with self._lock:
            self._calls[call.crt_object_id] = (call, tenant)
        return call

    @property
    def calls(self) -> list[PbxCall]:
        """All calls of the account."""
        with self._lock:
            return [call for call, _ in self._calls.values()]

    @contextmanager
    def fault(
        self, kind: str, hits: str, calls: Iterable[str] | None = None, detail: str = ""
    ) -> Iterator[None]:
        """The block does a fault; ``calls`` are those hit, None for all."""
        at = time.time()
        try:
            yield
        finally:
            named = None if calls is None else frozenset(calls)
            with self._lock:
                self.faults.append(Fault(kind, at, time.time(), hits, named, detail))

    def call_of(self, passage: Passage) -> str | None:
        """Whose connection it is: the CRT Object ID; None while the switch has not said it."""
        if passage not in self._known:
            crt = next((call.crt_object_id for call in self.calls if passage.says(call.crt_object_id)), None)
            if crt is None:
                return None
            self._known[passage] = crt
        return self._known[passage]

    def passages(self) -> list[Passage]:
        """The connections of the switch that are up, in all proxies."""
        return [passage for proxy in self.lab.proxies for passage in proxy.open_passages()]

    def passages_of(self, pid: int) -> list[Passage]:
        """The connections that this worker has accepted."""
        ends = {(c.laddr, c.raddr) for c in connections(pid)}
        return [p for p in self.passages() if (p.server_address, p.server_peer) in ends]

    def calls_of(self, pid: int) -> list[str]:
        """The CRT Object IDs of the calls this worker has; needs a lab with proxies."""
        found = (self.call_of(passage) for passage in self.passages_of(pid))
        return [crt for crt in found if crt is not None]

    # -- when it is over ----------------------------------------------------------------------------------

    def wait_over(self, timeout: float) -> list[PbxCall]:
        """Wait until all calls are over; those that are not within ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        waiting = []
        for call in self.calls:
            try:
                call.wait(max(0.0, deadline - time.monotonic()))
            except TimeoutError:
                waiting.append(call)
        return waiting

    def account(self, *, patience: float = PATIENCE) -> Account:
        """What became of it all; waits until everything is tidied up, or does not get any tidier."""
        left = self.left()
        told = self._told()
        posts = [self.post(request) for request in list(self.lab.ameyo.requests)[self._posts :]]
        with self._lock:
            calls = [self._placed(call, tenant, told) for call, tenant in self._calls.values()]
        return account(calls, posts, self.faults, left, patience=patience)

    def _told(self) -> dict[str, list[dict[str, str]]]:
        """eslbot's log lines by CRT Object ID."""
        told: dict[str, list[dict[str, str]]] = {}
        for line in self.lab.log_lines():
            if line.get("crt_object_id"):
                told.setdefault(line["crt_object_id"], []).append(line)
        return told

    def _placed(self, call: PbxCall, tenant: str, told: dict[str, list[dict[str, str]]]) -> Placed:
        lines = told.get(call.crt_object_id, [])
        bots = [b for b in self.lab.bot.calls if b.headers.get("X-CRT-Object-ID") == call.crt_object_id]
        ends = [bot.ended_at for bot in bots if bot.ended_at is not None]
        said = [bot.end_message for bot in bots if bot.end_message is not None and _reached(bot)]
        closes = [bot.closed_at for bot in bots if bot.closed_at is not None]
        result = call.result
        return Placed(
            crt_object_id=call.crt_object_id,
            tenant=tenant,
            answered=result.answered if result else call.answered,
            status=result.status if result else None,
            ended_by=result.ended_by if result else None,
            cause=result.cause if result else None,
            error=result.error if result else "not over",
            answered_at=result.answered_at if result else None,
            ended_at=result.ended_at if result else None,
            bye_at=result.bye_at if result else None,
            bot_ended_at=min(ends) if ends else max(closes, default=None),
            promised=said[-1]["properties"] if said else None,
            dispositions=[
                line["sip_hangup_disposition"]
                for line in lines
                if line.get("event") == "call_ended" and "sip_hangup_disposition" in line
            ],
            take_overs=sum(line.get("event") == "call_taken_over" for line in lines),
            call_id=next((line["call_id"] for line in lines if line.get("call_id")), None),
        )

    def post(self, request: Notification) -> Post:
        """What Ameyo saw, as the account wants it."""
        tenants = {tenant.host: tenant.name for tenant in self.lab.tenants.values()}
        length = request.header("Content-Length") or ""
        return Post(
            at=request.at,
            answered_at=request.answered_at,
            accepted=request.accepted,
            status=request.status,
            crt_object_id=request.crt_object_id,
            tenant=tenants.get(request.header("Host") or ""),
            problem=request.problem,
            properties=request.properties,
            cut_off=length.isdigit() and len(request.body) < int(length),
        )

    def left(self) -> Leftovers:
        """What is still there, once everything is tidied up, or does not get any tidier."""
        deadline = time.monotonic() + TIDY_LIMIT
        while True:
            left = self._look()
            if not (left.channels or left.calls_active or left.event_sockets or left.files):
                return left
            if time.monotonic() > deadline:
                return left
            # What is swept by age needs much longer; no need to wait for it once the rest is tidy.
            if not (left.channels or left.calls_active or left.event_sockets):
                deadline = min(deadline, time.monotonic() + 2.0)
            time.sleep(_LOOK)

    def _look(self) -> Leftovers:
        workers = {pid: service.listen for service in self.lab.services for pid in service.worker_pids()}
        running = [service for service in self.lab.services if service.process is not None]
        return Leftovers(
            channels=self.lab.live_channels(),
            calls_active=sum(service.metric("eslbot_calls_active") for service in running),
            files=sorted({path.name for path in self.lab.lines.glob("*")} - self._files),
            event_sockets=sum(established(pid, listen[1]) for pid, listen in workers.items()),
            sockets={pid: open_sockets(pid) for pid in workers},
            internal_errors=self._count_tracebacks() - self._tracebacks,
        )

    def _count_tracebacks(self) -> int:
        return sum("exception" in line for line in self.lab.log_lines())


def _reached(bot: BotCall) -> bool:
    """Whether the bot's ``end`` went out while its connection was up."""
    return bot.ended_at is not None and (bot.closed_at is None or bot.closed_at > bot.ended_at)
