"""Who is measured: the eslbot of this checkout, and the one of the commit before the relay."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from benchmarks.outcome import CannotRun
from eslbot.sim.processes import children, relays, tells
from tests.support.sockets import established

#: The last commit whose speech goes through files and playbacks.
BEFORE = "53915c5"
#: Seconds for all of it to come up: FreeSWITCH, PBX, Ameyo, eslbot.
START_LIMIT = 90.0
HERE = Path(__file__).resolve().parents[2]
#: How long somebody is waited for, and the time between two looks where there is no event.
PATIENCE, _LOOK = 30.0, 0.002


class NoSubject(CannotRun):
    """It cannot be measured here; the text says why."""


@dataclass(frozen=True)
class Subject:
    """``name`` for people; ``binary``: whether its bots may speak binary; ``root``: its checkout."""

    name: str
    root: Path
    binary: bool
    revision: str


def this() -> Subject:
    """The eslbot of this checkout."""
    return Subject("eslbot", HERE, not _old(HERE), _revision(HERE))


@contextmanager
def before(commit: str) -> Iterator[Subject]:
    """The eslbot of a commit, in a temporary worktree. It runs with this checkout's packages.

    Raises:
        NoSubject: the commit is not there: a copy without history.
    """
    with TemporaryDirectory(prefix="eslbot-before-") as folder:
        root = Path(folder) / "checkout"
        git = ["git", "-C", str(HERE), "worktree"]
        made = subprocess.run(
            [*git, "add", "--detach", "--quiet", str(root), commit],
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode:
            raise NoSubject(f"no checkout of {commit}: {made.stderr.strip()[-200:]}")
        # An installed eslbot looks for it in the checkout that was installed, which is ours.
        (root / "eslbot" / "freeswitch_conf").symlink_to(root / "freeswitch-conf")
        try:
            yield Subject("the commit before", root, not _old(root), _revision(root))
        finally:
            subprocess.run([*git, "remove", "--force", str(root)], capture_output=True, check=False)


def _old(root: Path) -> bool:
    """Whether speech goes through files and playbacks, and bots may not speak binary yet."""
    return (root / "eslbot/bot/path_speech.py").exists()


def _revision(root: Path) -> str:
    told = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip() or "no git revision"


class Site:
    """A subject that runs, with FreeSWITCH, Ameyo and a PBX around it; a context manager.

    Args:
        subject: whose.
        folder: for its logs and configurations.
        tenants: its workspaces, and where the bots of each are.
        workers: its controllers.
        not_rtp: a range of ports that another site has.
    """

    def __init__(
        self,
        subject: Subject,
        folder: Path,
        tenants: Mapping[str, str],
        workers: int,
        not_rtp: Sequence[int] = (),
    ) -> None:
        self.subject, self.folder = subject, folder
        self._wanted = {
            "tenants": dict(tenants),
            "workers": workers,
            "folder": str(folder),
            "not_rtp": list(not_rtp),
        }
        self.facts: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        root = str(self.subject.root)
        # -P: not the script's own directory; the checkout comes before whatever is installed.
        environment = {**os.environ, "PYTHONPATH": root}
        with (self.folder / "site.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).with_name("site.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=root,
                env=environment,
            )
        try:
            self.facts = self._told(self._wanted, START_LIMIT)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        if self.facts["package"] != root:
            self.__exit__(None, None, None)
            raise NoSubject(f"the eslbot of {self.facts['package']} ran instead of that of {root}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ask(self, what: str, *args: object, timeout: float = PATIENCE) -> Any:
        """A question to the laboratory (:func:`benchmarks.speech.site.answer`)."""
        return self._told([what, *args], timeout)["answer"]

    def _told(self, question: object, timeout: float) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise NoSubject(self._story()) from None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            raise NoSubject(self._story())
        told: dict[str, Any] = json.loads(line)
        if "failed" in told:
            raise NoSubject(str(told["failed"]))
        return told

    def _story(self) -> str:
        log = (self.folder / "site.log").read_text(errors="replace")
        return f"{self.subject.name} says nothing: {log[-1500:]}"

    # -- its processes ------------------------------------------------------------------------------------

    @property
    def sip(self) -> tuple[str, int]:
        """Where INVITEs go."""
        return self.facts["sip"][0], self.facts["sip"][1]

    @property
    def freeswitch(self) -> int:
        """FreeSWITCH's process."""
        return int(self.facts["freeswitch"])

    @property
    def relay_parents(self) -> list[int]:
        """Those that fork relays."""
        return [pid for pid in children(self.facts["service"]) if relays(pid)]

    @property
    def relays(self) -> list[int]:
        """The relays, without their parents."""
        return [pid for parent in self.relay_parents for pid in children(parent)]

    @property
    def controllers(self) -> list[int]:
        """The controllers, without their arbiter."""
        pids = children(self.facts["service"])
        return [pid for pid in pids if not relays(pid) and not tells(pid)]

    @property
    def own(self) -> list[int]:
        """All of eslbot's processes."""
        return [self.facts["service"], *self.controllers, *self.relay_parents, *self.relays]

    def controller_with_a_call(self, not_: int | None = None, timeout: float = PATIENCE) -> int:
        """A controller that has a connection of the switch's. Raises TimeoutError."""
        listen = self.facts["listen"][1]
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for pid in self.controllers:
                if pid != not_ and established(pid, listen):
                    return pid
            time.sleep(_LOOK)
        raise TimeoutError(f"no controller has a call after {timeout:g} s")

    def complaints(self) -> list[str]:
        """What FreeSWITCH and eslbot have written to their logs as errors."""
        found = []
        for log in self.folder.glob("run/log/*.log"):
            found += [
                line
                for line in log.read_text(errors="replace").splitlines()
                if "[ERR]" in line or "[CRIT]" in line
            ]
        return found


def kill(pid: int) -> float:
    """Kill a process; when that was."""
    at = time.time()
    os.kill(pid, signal.SIGKILL)
    return at
