"""Bots as processes of their own: the examples in ``integrations``, and bots that nobody here wrote.

Of the latter neither the code nor what it runs in is part of eslbot. The environment says where it is, and
where the packages of the example for Node are:

* ``ESLBOT_NODE_WS``: a folder with the npm package ``ws``;

* ``ESLBOT_PIPECAT``: a Python that has ``pipecat-ai[runner,websocket]``;
* ``ESLBOT_TWILIO_SAMPLE``: the folder ``node/connect-basic`` of Twilio's ``media-streams`` samples, with its
  packages installed by ``npm install``;
* ``ESLBOT_OPENAI_AGENTS``: a folder with the npm packages ``@openai/agents``, ``@openai/agents-extensions``,
  ``ws`` and ``zod``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from eslbot.sim.addresses import free_port

HERE = Path(__file__).parent
INTEGRATIONS = HERE.parents[2] / "integrations"
PIPECAT_ESLBOT = INTEGRATIONS / "pipecat-eslbot"

#: Seconds until a bot listens; Pipecat imports for some.
START_LIMIT = 60.0


class Missing(Exception):
    """The machine has no such bot; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Running:
    """A bot that listens at ``url``; ``log`` has what it says."""

    url: str
    log: Path

    def lines(self, text: str) -> list[str]:
        """What it has said so far, of lines with ``text``."""
        return [line for line in self.log.read_text().splitlines() if text in line]

    def wait_said(self, text: str, times: int = 1, timeout: float = 20.0) -> None:
        """Wait until it has said ``text`` so many times. Raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while self.log.read_text().count(text) < times:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{text!r} is not in {self.log}")
            time.sleep(0.05)  # another process's log file: there is no event to wait for


@contextmanager
def pipecat(folder: Path) -> Iterator[Running]:
    """``pipecat_bot.py`` under Pipecat's own runner. Raises :class:`Missing`."""
    python = os.environ.get("ESLBOT_PIPECAT")
    if not python:
        raise Missing("no Pipecat: ESLBOT_PIPECAT names no Python that has pipecat-ai[runner,websocket]")
    port = free_port()
    command = [python, str(HERE / "pipecat_bot.py"), "-t", "twilio", "-x", "localhost"]
    # Without credentials Pipecat makes no transport; what they are nobody asks, for there is no Twilio.
    credentials = {f"{name}": "none" for name in ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN")}
    credentials |= {f"{name}": "none" for name in ("PLIVO_AUTH_ID", "PLIVO_AUTH_TOKEN")}
    with _run([*command, "--host", "127.0.0.1", "--port", str(port)], credentials, port, folder) as log:
        yield Running(f"ws://127.0.0.1:{port}/ws", log)


@contextmanager
def pipecat_native(folder: Path, script: Path = HERE / "pipecat_native_bot.py") -> Iterator[Running]:
    """A bot on ``pipecat-eslbot``. Raises :class:`Missing`."""
    python = os.environ.get("ESLBOT_PIPECAT")
    if not python:
        raise Missing("no Pipecat: ESLBOT_PIPECAT names no Python that has pipecat-ai[runner,websocket]")
    port = free_port()
    environment = {"PORT": str(port), "PYTHONPATH": str(PIPECAT_ESLBOT / "src")}
    with _run([python, str(script)], environment, port, folder) as log:
        yield Running(f"ws://127.0.0.1:{port}/", log)


@contextmanager
def twilio_sample(folder: Path) -> Iterator[Running]:
    """Twilio's own sample for bidirectional streams. Raises :class:`Missing`."""
    node, sample = shutil.which("node"), os.environ.get("ESLBOT_TWILIO_SAMPLE")
    if not node:
        raise Missing("no node on this machine")
    if not sample or not (Path(sample) / "node_modules").is_dir():
        raise Missing("ESLBOT_TWILIO_SAMPLE names no media-streams/node/connect-basic with its packages")
    port = free_port()
    command = [node, "--require", str(HERE / "port.cjs"), "server.js"]
    with _run(command, {"PORT": str(port)}, port, folder, Path(sample)) as log:
        yield Running(f"ws://127.0.0.1:{port}/", log)


@contextmanager
def openai_agents(folder: Path) -> Iterator[Running]:
    """``openai_bot.cjs`` on OpenAI's Twilio transport, without OpenAI. Raises :class:`Missing`."""
    node, packages = shutil.which("node"), os.environ.get("ESLBOT_OPENAI_AGENTS")
    if not node:
        raise Missing("no node on this machine")
    if not packages or not (Path(packages) / "node_modules" / "@openai" / "agents-extensions").is_dir():
        raise Missing("ESLBOT_OPENAI_AGENTS names no folder with @openai/agents-extensions")
    port = free_port()
    # It says where it thinks that some of the caller is missing.
    environment = {"PORT": str(port), "DEBUG": "openai-agents:extensions:twilio"}
    with _run([node, str(HERE / "openai_bot.cjs")], environment, port, folder, Path(packages)) as log:
        yield Running(f"ws://127.0.0.1:{port}/", log)


@contextmanager
def example(name: str, folder: Path, greeting: Path | None = None) -> Iterator[Running]:
    """The example ``plain``, ``sdk`` or ``node``; ``greeting`` is a WAV file. Raises :class:`Missing`."""
    port, examples = free_port(), INTEGRATIONS / "examples"
    environment = {"PORT": str(port)} | ({"GREETING": str(greeting)} if greeting else {})
    if name == "node":
        node, packages = shutil.which("node"), os.environ.get("ESLBOT_NODE_WS")
        if not node or not packages:
            raise Missing('no ws for Node: eval "$(scripts/prepare-outside FOLDER)" installs it')
        command = [node, str(examples / "node" / "bot.js")]
        environment["NODE_PATH"] = str(Path(packages) / "node_modules")
    else:
        command = [sys.executable, str(examples / f"python-{name}" / f"{name}_bot.py")]
        environment["PYTHONPATH"] = str(INTEGRATIONS / "eslbot-bot" / "src")
    with _run(command, environment, port, folder) as log:
        yield Running(f"ws://127.0.0.1:{port}/", log)


@contextmanager
def _run(
    command: list[str], environment: Mapping[str, str], port: int, folder: Path, where: Path | None = None
) -> Iterator[Path]:
    path = folder / "bot.log"
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    # A detector of voices would take a thread for each core, for 32 ms of sound at a time.
    inherited["OMP_NUM_THREADS"] = "1"
    with path.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=where or folder,
            env={**inherited, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _await_http(process, port, path)
        yield path
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_http(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until the bot's server answers anything at all."""
    opener, deadline = build_opener(ProxyHandler({})), time.monotonic() + START_LIMIT
    while True:
        try:
            opener.open(f"http://127.0.0.1:{port}/status", timeout=5)
            return
        except URLError as error:
            if not isinstance(error.reason, OSError):
                return  # an HTTP status: it is up
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the bot does not listen: {log.read_text()[-2000:]}")
        time.sleep(0.1)  # another process's socket: there is no event to wait for
