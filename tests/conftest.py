"""What holds for every suite: its marks, its secrets, its time, and which files run at one time."""

from __future__ import annotations

import gc
import sys
from collections.abc import Generator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings

from eslbot.telemetry import redaction
from tests.support.turn import Turn

# No test is a timed one: on a busy machine an example may take as long as it likes.
settings.register_profile("eslbot", deadline=None)
#: For `scripts/test --fast`: a fault that few examples find is found by the whole run.
settings.register_profile("fast", deadline=None, max_examples=5)
settings.load_profile("eslbot")

HERE = Path(__file__).parent
#: What the tests in a directory are, as marks. The order of units and components is random: none of them may
#: need another one.
KINDS = {"unit": "unit", "component": "component", "process": "laboratory", "e2e": "laboratory"}
STAND_IN = "component/sim"
#: Of these, files that start services or databases, or measure: `slow`, as are some single tests.
SLOW = frozenset(
    {
        "unit/cli/test_reload.py",
        "component/esl/test_deploy.py",
        "component/esl/test_greenswitch_defects.py",
        "component/esl/test_greenswitch_server.py",
        "component/esl/test_peers.py",
        "component/esl/test_relay_child.py",
        "component/esl/test_worker.py",
        "component/ledger/test_database.py",
        "component/ledger/test_search.py",
        "component/ledger/test_service.py",
        "component/ledger/test_summary.py",
        "component/ledger/test_traces.py",
        "component/ledger/test_writer.py",
        "unit/test_ameyo_limits.py",
        "unit/test_ameyo_unkind.py",
        "unit/test_doctor.py",
        "unit/test_exposition.py",
        "unit/test_health_probes.py",
        "unit/test_recording_writer.py",
        "unit/test_relay_playout.py",
        "unit/test_relay_parent.py",
        "component/web/test_server.py",
    }
)
#: Seconds that a test may take that is `alone`: it runs for minutes on purpose. The others: pyproject.toml.
BOUND_ALONE = 1200

#: Directories whose files are soon over. In the others time goes by in calls and starts of processes.
SHORT = ("unit/", "component/ledger/", "component/web/")

#: What the processes of a run share (pytest-xdist); and in each of them its turn.
_SHARED = pytest.StashKey[TemporaryDirectory[str]]()
_TURN = pytest.StashKey[Turn]()


@pytest.fixture(autouse=True)
def _own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test makes this process keep to itself is no secret to the next one."""
    monkeypatch.setattr(redaction, "_known", frozenset())
    monkeypatch.setattr(redaction, "_redactor", redaction.Redactor())
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


def _alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


def _kind(item: pytest.Item) -> str:
    place = _place(item)
    return "standin" if place.startswith(STAND_IN) else KINDS.get(place.partition("/")[0], "laboratory")


def _place(item: pytest.Item) -> str:
    """Its file within this directory; those of ``integrations`` are beside it."""
    return item.path.relative_to(HERE).as_posix() if item.path.is_relative_to(HERE) else ""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what a test is, how long it may take, and whether its order is random."""
    kind = _kind(item)
    item.add_marker(kind)
    if _place(item) in SLOW:
        item.add_marker("slow")
    if _alone(item) and item.get_closest_marker("timeout") is None:
        item.add_marker(pytest.mark.timeout(BOUND_ALONE))
    if kind not in {"unit", "component"}:
        item.add_marker(pytest.mark.random_order(disabled=True))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First come the long files, then short ones, which fill up the end; last those that are to be alone."""
    items.sort(key=lambda item: (_alone(item), _place(item).startswith(SHORT)))


def pytest_collection_finish() -> None:
    """Let garbage be looked for in what tests make, not in all tests each time: a fifth of their work."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process that is to be started what it shares with the others."""
    if _SHARED not in node.config.stash:
        node.config.stash[_SHARED] = TemporaryDirectory(prefix="eslbot-tests-")
    shared = node.config.stash[_SHARED]
    node.workerinput["room"] = str(Path(shared.name) / "room")
    Path(node.workerinput["room"]).touch()


def pytest_configure(config: pytest.Config) -> None:
    if (shared := getattr(config, "workerinput", None)) is not None:
        config.stash[_TURN] = Turn(Path(shared["room"]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, bool, bool]:
    """A file marked ``alone`` runs while no other does: from the start of its laboratory to the end of it."""
    turn = item.config.stash.get(_TURN, None)
    if turn is None:  # one process has the run for itself
        return (yield)
    if not turn.taken:
        turn.begin(_alone(item))
    try:
        return (yield)
    finally:
        if nextitem is None or nextitem.path != item.path:
            turn.end()
