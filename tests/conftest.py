"""What holds for every suite: its marks, its secrets, its time, and which files run at one time."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Generator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import structlog
from hypothesis import is_hypothesis_test, settings
from xdist.scheduler import LoadScopeScheduling

from eslbot.telemetry import redaction
from tests.support.again import Again
from tests.support.turn import Turn

# On a busy machine an example may take as long as it likes. Half as many as usual: each run has others.
settings.register_profile("eslbot", deadline=None, max_examples=50)
settings.load_profile("eslbot")

# Where `rich` is (import-linter has it), structlog draws tracebacks with all that was in them: for seconds.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)

HERE = Path(__file__).parent
#: What the tests in a directory are, as marks. The order of units and components is random: none of them may
#: need another one.
KINDS = {"unit": "unit", "component": "component", "process": "laboratory", "e2e": "laboratory"}
STAND_IN = "component/sim"
#: Of these, files that start processes or databases, or measure: `slow`, as are some single tests, and all
#: that go through examples by the hundred (hypothesis).
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
        "component/ledger/test_query_service.py",
        "component/ledger/test_search.py",
        "component/ledger/test_service.py",
        "component/ledger/test_summary.py",
        "component/ledger/test_traces.py",
        "component/ledger/test_writer.py",
        "unit/test_ameyo_limits.py",
        "unit/test_ameyo_unkind.py",
        "unit/test_botcheck.py",
        "unit/test_doctor.py",
        "unit/test_exposition.py",
        "unit/test_health_probes.py",
        "unit/test_imports.py",
        "unit/test_recording_writer.py",
        "unit/test_recovery.py",
        "unit/test_relay_playout.py",
        "unit/test_relay_parent.py",
        "component/web/test_server.py",
    }
)
#: Seconds that a test may take that is `alone`: it runs for minutes on purpose. The others: pyproject.toml.
BOUND_ALONE = 1200

#: Directories whose files share a laboratory for each kind of switch. They take longest.
LABORATORIES = ("e2e/calls/", "e2e/interop/")
#: Files in them that have one of their own, or none.
OWN = frozenset(
    {f"e2e/calls/test_{name}.py" for name in ("fault_of_ours", "ledger", "removed_tenant", "two_hosts")}
)
#: Others that take a minute and more.
LONG = ("process/install/", "process/load/", "component/esl/test_deploy.py", "unit/test_botcheck.py")
#: In which order they begin: short files, which fill up the end, come last.
ORDER = (*LABORATORIES, *LONG, "e2e/", "process/", "component/", "unit/")
KIND = re.compile(r"\[(?:.*-)?(stand-in|freeswitch)(?:-.*)?\]$")

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
    if _place(item) in SLOW or is_hypothesis_test(getattr(item, "obj", None)):
        item.add_marker("slow")
    if _alone(item) and item.get_closest_marker("timeout") is None:
        item.add_marker(pytest.mark.timeout(BOUND_ALONE))
    if kind not in {"unit", "component"}:
        item.add_marker(pytest.mark.random_order(disabled=True))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First come the long ones, then short ones; last those that are to be alone."""
    items.sort(key=lambda item: (_alone(item), _rank(_place(item))))


def _rank(place: str) -> int:
    return next((rank for rank, directory in enumerate(ORDER) if place.startswith(directory)), len(ORDER))


def share(test: str) -> str:
    """Of a run's tests, those that one of its processes takes at a time: what shares a laboratory, or a file.

    Where both kinds of switch are asked, each is a share of its own: a process has one laboratory, not two.
    """
    file = test.partition("::")[0]
    place = file.removeprefix("tests/")
    shared = next((lab for lab in LABORATORIES if place.startswith(lab) and place not in OWN), file)
    kind = KIND.search(test)
    return f"{shared}[{kind[1]}]" if kind else shared


class Shares(LoadScopeScheduling):
    """xdist's scheduling of scopes, which are :func:`share`."""

    def _split_scope(self, nodeid: str) -> str:
        return share(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Shares | None:
    """Of the whole run, which is by files; `scripts/test --fast` is by tests."""
    return Shares(config, log) if config.getoption("dist") == "loadfile" else None


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
    Again.install(config)
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
