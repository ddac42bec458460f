"""The living calls in memory: what has changed since somebody looked, and no more than is bounded."""

from __future__ import annotations

import threading
import time

import pytest

from eslbot.ledger import projection
from eslbot.ledger.projection import LedgerHealth, LiveCall, Projection, Update
from tests.support.fake_ledger import row


def names(entries: list[LiveCall]) -> list[int]:
    return [int(entry.row["call_id"][-3:]) for entry in entries]


def told(update: Update) -> tuple[bool, list[int], list[int]]:
    return update.anew, names(update.changed), names(update.ended)


def test_what_has_changed_and_what_has_ended() -> None:
    calls = Projection()
    calls.put([row(1, invited_at=5.0), row(2, invited_at=7.0)])
    first = calls.since(None)
    assert told(first) == (True, [2, 1], [])  # the newest first
    calls.put([row(3), row(1, stage="held")])
    second = calls.since(first.version)
    assert told(second) == (False, [3, 1], [])
    assert second.changed[1].row["stage"] == "held"
    calls.put([row(1, ended_at=9.0)])
    third = calls.since(second.version)
    assert told(third) == (False, [], [1])
    assert told(calls.since(first.version)) == (False, [3], [1])
    assert told(calls.since(third.version)) == (False, [], [])
    calls.put([row(1)])  # another controller has it, after all
    assert told(calls.since(third.version)) == (False, [1], [])
    assert sorted(int(call_id[-3:]) for call_id in calls.living) == [1, 2, 3]


def test_calls_that_another_host_has_have_ended_here() -> None:
    calls = Projection()
    calls.put([row(1), row(2)])
    version = calls.since(None).version
    calls.drop([row(1)["call_id"], "never-heard-of"])
    assert told(calls.since(version)) == (False, [], [1])


def test_who_looks_too_seldom_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "MAX_ENDED_CALLS", 3)
    calls = Projection()
    calls.put([row(0)])
    seldom = calls.since(None).version
    for number in range(1, 4):
        calls.put([row(number, ended_at=9.0)])
    assert told(calls.since(seldom)) == (False, [], [1, 2, 3])
    calls.put([row(4, ended_at=9.0)])
    assert told(calls.since(seldom)) == (True, [0], [])
    assert told(calls.since(seldom + 1)) == (False, [], [2, 3, 4])


def test_the_living_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "MAX_LIVE", 2)
    calls = Projection()
    calls.put([row(1), row(2), row(3)])
    assert sorted(names(calls.since(None).changed)) == [2, 3]


def test_how_the_ledger_is_is_news_once() -> None:
    calls = Projection()
    version = calls.since(None).version
    calls.set_health(LedgerHealth(True, 7))
    update = calls.since(version)
    assert (update.version, update.health, calls.health) == (
        version + 1,
        LedgerHealth(True, 7),
        LedgerHealth(True, 7),
    )
    calls.set_health(LedgerHealth(True, 7))
    assert calls.since(version).version == version + 1


def test_waiting() -> None:
    calls = Projection()
    assert not calls.wait(0, 0.01)
    began = time.monotonic()
    threading.Timer(0.05, calls.put, [[row(1)]]).start()
    assert calls.wait(0, 10)
    assert calls.wait(0, 10)
    assert not calls.wait(calls.since(None).version, 0.01)
    threading.Timer(0.05, calls.close).start()
    assert not calls.wait(calls.since(None).version, 10)
    assert calls.closed
    assert time.monotonic() - began < 9
