"""A keeper of the call ledger as the page knows one: its questions on a Unix socket, its calls in memory.

It also holds the keeper's lock, so that a real one of a service under test waits for ever.
"""

from __future__ import annotations

import fcntl
import json
import random
import socket
import socketserver
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

Row = dict[str, Any]

WORKSPACES = {
    "2b37ba17-7b20-4b3e-b138-1161e351d5c5": "acme",
    "11111111-1111-1111-1111-111111111111": "zenith",
}
ACME, ZENITH = WORKSPACES
COLUMNS = (
    *("call_id", "workspace_id", "workspace", "did", "crt_object_id", "caller", "called", "source"),
    *("invited_at", "answered_at", "bot_connected_at", "first_audio_at", "bot_ended_at", "notified_at"),
    *("handed_off_at", "ended_at", "updated_at", "stage", "outcome", "fault", "reason", "refusal_status"),
    *("refusal", "sip_hangup_disposition", "hangup_cause", "attempts", "take_overs", "byes_overdue"),
    *("restarts", "restarted_at", "restart_gap", "end_unseen", "media", "host"),
)


def row(number: int, workspace_id: str = ACME, **values: Any) -> Row:
    """A call that talks; ``values`` are other columns."""
    now = time.time()
    return {
        **dict.fromkeys(COLUMNS),
        "call_id": f"6e7cd1a1-0b1a-4ad5-8a2c-{number:012d}",
        "workspace_id": workspace_id,
        "workspace": WORKSPACES[workspace_id],
        "did": f"00919990{number:06d}",
        "crt_object_id": f"d444-6a1c8f2e-vce-{number}",
        "caller": f"09123{number:06d}",
        "called": "bot",
        "source": "203.0.113.10",
        "invited_at": now - 30,
        "answered_at": now - 29.9,
        "bot_connected_at": now - 29.7,
        "updated_at": now,
        "stage": "talking",
        "attempts": 0,
        "take_overs": 0,
        "byes_overdue": 0,
        "restarts": 0,
        "end_unseen": False,
        "host": "vm-1",
        **values,
    }


class FakeKeeper:
    """``obedient=False``: it forgets to look at the rights. ``period``: seconds between lines of `watch`."""

    def __init__(self, journal: Path, *, period: float = 0.05, obedient: bool = True) -> None:
        self.journal = journal
        self.period = period
        self.obedient = obedient
        self.calls: dict[str, Row] = {}
        self.timelines: dict[str, list[Row]] = {}
        self.notifications: dict[str, list[Row]] = {}
        self.tenants: list[Row] = []
        self.ledger: Row = {"up": True, "backlog": 0}
        #: Every question, in order.
        self.asked: list[Row] = []
        #: Instead of the true answer: bytes, or None for none at all.
        self.answer: Any = ...
        self.news = threading.Condition()
        self.watching = 0
        self._count = 0
        self._ended = False
        self._connections: set[socket.socket] = set()
        self._server: socketserver.BaseServer | None = None
        journal.mkdir(parents=True, exist_ok=True)
        self._lock = (journal / "keeper.lock").open("a")

    # -- its life -----------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.start()
        return self

    def start(self) -> None:
        """Listen."""
        keeper = self
        self._ended = False

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                keeper._connections.add(self.request)
                with suppress(OSError, ValueError):
                    for line in self.rfile:
                        keeper._answer(json.loads(line), self.wfile)
                keeper._connections.discard(self.request)

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True
            request_queue_size = 64

        path = self.journal / "keeper.sock"
        path.unlink(missing_ok=True)
        self._server = Server(str(path), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Go away, with every connection; :meth:`start` comes again."""
        assert self._server is not None
        self._ended = True
        with self.news:
            self.news.notify_all()
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        (self.journal / "keeper.sock").unlink(missing_ok=True)

    def __exit__(self, *_: object) -> None:
        if not self._ended:
            self.stop()
        self._lock.close()

    # -- what a test does ---------------------------------------------------------------------------------

    def put(self, *rows: Row) -> None:
        """Calls that are new or have changed."""
        with self.news:
            self._count += 1
            for one in rows:
                self.calls[one["call_id"]] = {**one, "_version": self._count}
            self.news.notify_all()

    def change(self, call_id: str, **values: Any) -> None:
        """Some columns of one."""
        self.put({**self.calls[call_id], **values})

    def end(self, call_id: str, **values: Any) -> None:
        """It is over."""
        ending = {"ended_at": time.time(), "outcome": "bot_ended", "fault": "none"}
        self.change(call_id, **{**ending, "sip_hangup_disposition": "recv_bye", **values})

    def say(self, **ledger: Any) -> None:
        """How the ledger is."""
        with self.news:
            self._count += 1
            self.ledger = {**self.ledger, **ledger}
            self.news.notify_all()

    # -- its questions ------------------------------------------------------------------------------------

    def _answer(self, question: Row, wire: Any) -> None:
        self.asked.append(question)
        if self.answer is not ...:
            if self.answer is not None:
                wire.write(self.answer)
            return
        if question.get("ask") == "watch":
            self._watch(question, wire)
            return
        questions = {
            "calls": self._calls,
            "call": self._call,
            "tenants": self._tenants,
            "restarts": self._restarts,
        }
        answer = questions.get(str(question.get("ask")), lambda _: {"error": "bad_question"})(question)
        wire.write(json.dumps(answer).encode() + b"\n")

    def _mine(self, question: Row, rows: list[Row]) -> list[Row]:
        allowed = question.get("workspaces")
        if allowed is None or not self.obedient:
            return rows
        return [one for one in rows if one["workspace_id"] in allowed]

    def _rows(self, question: Row) -> list[Row]:
        return self._mine(question, [_bare(one) for one in list(self.calls.values())])

    def _calls(self, question: Row) -> Row:
        wanted = question.get("filter", {})
        rows = [one for one in self._rows(question) if _matches(one, wanted)]
        rows = [one for one in rows if one["invited_at"] < question.get("before", float("inf"))]
        rows.sort(key=lambda one: -one["invited_at"])
        return {"calls": rows[: question["limit"]]}

    def _call(self, question: Row) -> Row:
        for one in self._rows(question):
            if one["call_id"] == question["id"]:
                timeline = self.timelines.get(one["call_id"], [])
                return {
                    "call": one,
                    "timeline": timeline,
                    "notifications": self.notifications.get(one["call_id"], []),
                }
        return {"error": "unknown_call"}

    def _tenants(self, question: Row) -> Row:
        return {"tenants": self._mine(question, self.tenants)}

    def _restarts(self, question: Row) -> Row:
        since = time.time() - 3600
        rows = [one for one in self._rows(question) if (one["restarted_at"] or 0) >= since]
        gaps = [one["restart_gap"] for one in rows if one["restart_gap"] is not None]
        last = max((one["restarted_at"] for one in rows), default=None)
        return {"restarts": {"calls": len(rows), "last": last, "gap": max(gaps, default=None)}}

    def _watch(self, question: Row, wire: Any) -> None:
        with self.news:
            seen = self._count
            live = [one for one in self._rows(question) if one["ended_at"] is None]
            said = self.ledger
        self.watching += 1
        try:
            _write(wire, {"live": live, "ledger": said})
            while True:
                with self.news:
                    self.news.wait_for(lambda seen=seen: self._count > seen or self._ended, 10)
                time.sleep(self.period)
                if self._ended:
                    return
                with self.news:
                    newer = [_bare(one) for one in self.calls.values() if one["_version"] > seen]
                    seen, said = self._count, self.ledger
                rows = self._mine(question, newer)
                changed = [one for one in rows if one["ended_at"] is None]
                ended = [one for one in rows if one["ended_at"] is not None]
                _write(wire, {"changed": changed, "ended": ended, "ledger": said})
        finally:
            self.watching -= 1


def _write(wire: Any, document: Row) -> None:
    wire.write(json.dumps(document).encode() + b"\n")
    wire.flush()


def _bare(one: Row) -> Row:
    return {name: value for name, value in one.items() if name != "_version"}


def _matches(one: Row, wanted: Row) -> bool:
    names = ("crt_object_id", "did", "caller", "call_id")
    for name, value in wanted.items():
        match name:
            case "text":
                found = value in [one[column] for column in names]
            case "workspace":
                found = value in (one["workspace"], one["workspace_id"])
            case "live":
                found = (one["ended_at"] is None) is value
            case "since":
                found = one["invited_at"] >= value
            case "until":
                found = one["invited_at"] <= value
            case "crt":
                found = one["crt_object_id"] == value
            case "handed_off":
                found = (one["handed_off_at"] is not None) is value
            case _:
                found = one[name] == value
        if not found:
            return False
    return True


# -- many calls ---------------------------------------------------------------------------------------------

STAGES = ("connecting", "talking", "talking", "talking", "handing_off", "held", "held")


def many(count: int, seed: int = 5) -> list[Row]:
    """``count`` live calls in all stages."""
    chance = random.Random(seed)
    now = time.time()
    rows = []
    for number in range(count):
        began = now - chance.uniform(1, 900)
        stage = chance.choice(STAGES)
        handed_off = began + 40 if stage == "held" else None
        rows.append(
            row(
                number,
                chance.choice((ACME, ACME, ZENITH)),
                invited_at=began,
                answered_at=began + 0.1,
                stage=stage,
                handed_off_at=handed_off,
                attempts=chance.choice((1, 1, 1, 3)) if stage in ("handing_off", "held") else 0,
                take_overs=chance.choice((0,) * 20 + (1, 2)),
                outcome="bot_ended" if stage in ("handing_off", "held") else None,
            )
        )
    return rows


def stir(keeper: FakeKeeper, changes: int, chance: random.Random, number: int) -> None:
    """``changes`` calls go on: to another stage mostly; one in ten ends, and a new one begins."""
    live = [call_id for call_id, one in keeper.calls.items() if one["ended_at"] is None]
    for call_id in chance.sample(live, changes):
        if chance.random() < 0.1:
            keeper.end(call_id)
            number += 1
            keeper.put(row(100_000 + number * 1000 + chance.randrange(1000), invited_at=time.time()))
        else:
            keeper.change(call_id, stage=chance.choice(STAGES), attempts=chance.choice((0, 1, 2)))
