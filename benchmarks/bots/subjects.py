"""The bots that are measured: one line each. All of them do the same.

They say 440 Hz for three seconds; 550 Hz where the caller interrupts them by speaking; on the key 1 or 2
660 Hz (:data:`SAID`, where they have no properties that tell the key); and end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.outcome import CannotRun
from eslbot.sim.addresses import free_port
from eslbot.sim.service import wait_listening

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "integrations" / "examples"
OUTSIDE = REPOSITORY / "tests" / "e2e" / "outside"
UNCHANGED = Path(__file__).parent / "pipecat_twilio.py"
PIPECAT_ESLBOT = REPOSITORY / "integrations" / "pipecat-eslbot" / "src"

#: Seconds until a bot listens; Pipecat imports for some.
START_LIMIT = 90.0

GREETING, YES, GOODBYE = 440, 550, 660
#: Behind which key a bot that has no properties says what instead of 660 Hz.
SAID = {"1": GOODBYE, "2": 770}
GROUPS = {"1": "sales", "2": "support"}


@dataclass(frozen=True)
class Subject:
    """A bot.

    Attributes:
        program: whose argument the script is: ``python``, ``node``, or ``pipecat``'s Python.
        script: in this checkout; it listens on the port of the environment variable ``PORT``.
        path: of its URL.
        environment: what it needs besides.
        properties: whether its protocol has some: they tell the key, and how the greeting went; else its tone
            tells the key.
    """

    name: str
    protocol: str
    program: str
    script: Path
    path: str = "/"
    environment: Mapping[str, str] = field(default_factory=dict)
    properties: bool = True

    @property
    def outcome(self) -> str:
        """What becomes of its calls."""
        return "bot_ended" if self.protocol == "eslbot" else "bot_closed"


_SDK = {"PYTHONPATH": str(REPOSITORY / "integrations" / "eslbot-bot" / "src")}
_NATIVE = {"PYTHONPATH": str(PIPECAT_ESLBOT)}
#: Pipecat makes no transport for Twilio without; what they are nobody asks.
_TWILIO = {"TWILIO_ACCOUNT_SID": "none", "TWILIO_AUTH_TOKEN": "none"}

SUBJECTS = (
    Subject("python-plain", "eslbot", "python", EXAMPLES / "python-plain" / "plain_bot.py"),
    Subject("python-sdk", "eslbot", "python", EXAMPLES / "python-sdk" / "sdk_bot.py", environment=_SDK),
    Subject("node", "eslbot", "node", EXAMPLES / "node" / "bot.js"),
    Subject("pipecat-eslbot", "eslbot", "pipecat", OUTSIDE / "pipecat_native_bot.py", environment=_NATIVE),
    Subject("pipecat-twilio", "twilio", "pipecat", UNCHANGED, "/ws", _TWILIO, properties=False),
)


def command(subject: Subject) -> tuple[list[str], dict[str, str]]:
    """How it is started, and with which environment. Raises :class:`CannotRun`."""
    if not subject.script.exists():
        raise CannotRun(f"there is no {subject.script.relative_to(REPOSITORY)}")
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= subject.environment
    match subject.program:
        case "node":
            program, packages = shutil.which("node"), os.environ.get("ESLBOT_NODE_WS")
            environment["NODE_PATH"] = f"{packages}/node_modules"
        case "pipecat":
            program, packages = os.environ.get("ESLBOT_PIPECAT"), ""
        case _:
            program, packages = sys.executable, ""
    if not program or packages is None:
        raise CannotRun(
            f'no {subject.program}: eval "$(scripts/prepare-outside FOLDER)" installs what it needs'
        )
    return [program, str(subject.script)], environment


@contextmanager
def running(subject: Subject, folder: Path) -> Iterator[tuple[str, int]]:
    """Run it while in the block; where it listens. Raises :class:`CannotRun`."""
    started, environment = command(subject)
    address = ("127.0.0.1", free_port())
    with (folder / f"{subject.name}.log").open("wb") as log:
        process = subprocess.Popen(
            started,
            env={**environment, "PORT": str(address[1])},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_listening(address, START_LIMIT)
            yield address
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
