"""A real FreeSWITCH for the demo and the tests: found on this machine, run in the foreground, and stopped.

It is no stand-in, only the hand that starts and stops the real thing; what it runs is a directory that
``eslbot conf`` wrote. Command-line switches and reply formats are those of FreeSWITCH 1.10 and 1.11
(``src/switch.c``, ``mod_event_socket.c``).
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from io import BufferedRWPair
from pathlib import Path
from types import TracebackType
from typing import Self
from xml.etree import ElementTree

MODULE = "mod_audio_stream.so"
#: A FreeSWITCH built from source lives under one prefix.
PREFIXES = (Path("/opt/freeswitch"), Path("/usr/local/freeswitch"))
#: The Debian packages keep their modules here.
PACKAGED_MODULES = Path("/usr/lib/freeswitch/mod")

#: Seconds. A start takes about 1.6, a stop about 4.5 on the machine of the measurements.
START_TIMEOUT = 30.0
STOP_TIMEOUT = 15.0
API_TIMEOUT = 10.0

_POLL = 0.05
_LOG_TAIL = 40


class FreeSwitchError(Exception):
    """FreeSWITCH cannot be used, did not start, or did not answer; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Installation:
    """A FreeSWITCH with mod_audio_stream: its binary, its module directory, and what ``-version`` says."""

    binary: Path
    modules: Path
    version: str


def find() -> Installation | None:
    """The FreeSWITCH of this machine, or ``None`` when there is none with mod_audio_stream.

    ``ESLBOT_FREESWITCH`` names the binary and then is the only one considered: if it cannot be used, that is
    a :class:`FreeSwitchError`, because whoever set it did not mean "or something else".
    """
    if named := os.environ.get("ESLBOT_FREESWITCH"):
        return _installation(Path(named))
    candidates = [prefix / "bin" / "freeswitch" for prefix in PREFIXES]
    if on_path := shutil.which("freeswitch"):
        candidates.append(Path(on_path))
    for binary in candidates:
        if os.access(binary, os.X_OK) and _modules_of(binary):
            return _installation(binary)
    return None


def _modules_of(binary: Path) -> Path | None:
    prefix = binary.resolve().parent.parent
    places = (prefix / "lib" / "freeswitch" / "mod", prefix / "mod", PACKAGED_MODULES)
    return next((place for place in places if (place / MODULE).is_file()), None)


def _installation(binary: Path) -> Installation:
    if not (binary.is_file() and os.access(binary, os.X_OK)):
        raise FreeSwitchError(f"{binary} is not a program that can be run")
    modules = _modules_of(binary)
    if modules is None:
        raise FreeSwitchError(f"{binary} has no {MODULE}: it cannot carry audio to a bot")
    try:
        told = subprocess.run(
            [binary, "-version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise FreeSwitchError(f"{binary} -version failed: {error}") from error
    # "FreeSWITCH version: 1.11.3-dev+git~20260101T000000Z~abcdef0~64bit (git abcdef0 …)"
    match = re.search(r"version:\s*([^\s+~(]+)", told.stdout)
    return Installation(binary, modules, match[1] if match else told.stdout.strip())


@dataclass(frozen=True, slots=True)
class EventSocket:
    """An inbound event socket: where it listens and its password. One connection a command, no events."""

    host: str
    port: int
    password: str

    def api(self, command: str, timeout: float = API_TIMEOUT) -> str:
        """The reply to ``api <command>``, without the white space around it; ``timeout`` in seconds.

        Raises ``OSError`` when nobody answers, :class:`FreeSwitchError` when the answer is a refusal.
        """
        with (
            socket.create_connection((self.host, self.port), timeout) as connection,
            connection.makefile("rwb") as stream,
        ):
            self._expect(self._read(stream)[0], "Content-Type", "auth/request")
            stream.write(f"auth {self.password}\n\n".encode())
            stream.flush()
            self._expect(self._read(stream)[0], "Reply-Text", "+OK accepted")
            stream.write(f"api {command}\n\n".encode())
            stream.flush()
            headers, body = self._read(stream)
            self._expect(headers, "Content-Type", "api/response")
            return body.decode("utf-8", "replace").strip()

    @staticmethod
    def _read(stream: BufferedRWPair) -> tuple[dict[str, str], bytes]:
        headers: dict[str, str] = {}
        while True:
            line = stream.readline()
            if not line:
                raise ConnectionResetError("the event socket closed the connection")
            text = line.decode("utf-8", "replace").rstrip("\n")
            if not text and headers:
                return headers, stream.read(int(headers.get("Content-Length", 0)))
            name, _, value = text.partition(": ")
            headers[name] = value

    def _expect(self, headers: dict[str, str], name: str, value: str) -> None:
        if headers.get(name) != value:
            raise FreeSwitchError(f"the event socket at {self.host}:{self.port} said {headers}")


class FreeSwitchProcess:
    """A running FreeSWITCH; use it in a ``with`` statement.

    ``conf`` is a directory written by ``eslbot conf``; ``work`` gets ``log``, ``db``, ``run`` and ``temp``.
    Entering returns when the event socket answers and the SIP profile is up, or raises
    :class:`FreeSwitchError` with the end of the log; leaving returns when the process is gone.
    """

    def __init__(self, installation: Installation, conf: Path, work: Path, *, profile: str = "ameyo") -> None:
        self.installation = installation
        self.conf = conf.absolute()
        self.work = work.absolute()
        self.profile = profile
        self.log_file = self.work / "log" / "freeswitch.log"
        self.event_socket = _event_socket_of(self.conf)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id."""
        if self._process is None:
            raise FreeSwitchError("FreeSWITCH is not running")
        return self._process.pid

    def start(self) -> None:
        """Run it and wait until it takes calls."""
        self._run()
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def _run(self) -> None:
        for name in ("log", "db", "run", "temp"):
            (self.work / name).mkdir(parents=True, exist_ok=True)
        (self.work / "db").chmod(0o700)  # as scripts/install makes it
        switches = ["-nf", "-nc", "-nonat", "-nonatmap", "-nocal"]
        directories = {"conf": self.conf, **{n: self.work / n for n in ("log", "db", "run", "temp")}}
        for name, path in directories.items():
            switches += [f"-{name}", str(path)]
        switches += ["-mod", str(self.installation.modules)]
        with (self.work / "output").open("ab") as output:  # behind what the lives before have said
            self._process = subprocess.Popen(
                [self.installation.binary, *switches],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.work,
                umask=0o007,  # as its unit has it (deploy/freeswitch.conf)
            )
        # Likewise: to write a core file would take seconds in which nobody starts it again.
        resource.prlimit(self._process.pid, resource.RLIMIT_CORE, (0, 0))

    def crash(self, signum: int = signal.SIGKILL) -> None:
        """:meth:`kill` it, and start it again at once on what it left, as its unit does.

        Returns when the new process is started, :meth:`wait_until_ready` when that takes calls.
        """
        self.kill(signum)
        self._run()

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Have it die of ``signum``. Raises :class:`FreeSwitchError` where it does not."""
        if self._process is None:
            raise FreeSwitchError("FreeSWITCH is not running")
        self._process.send_signal(signum)
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired as error:
            raise FreeSwitchError(f"it outlives {signal.Signals(signum).name}") from error
        self._process = None

    def wait_until_ready(self) -> None:
        """Wait until it takes calls. Raises :class:`FreeSwitchError` where it ends, or takes too long."""
        deadline = time.monotonic() + START_TIMEOUT
        seen = "nothing"
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                raise FreeSwitchError(self._story(f"it ended with exit code {self._process.returncode}"))
            try:
                owner, core = self.api("global_getvar log_dir"), self.api("status")
                seen = self.api(f"sofia status profile {self.profile}")
            except (OSError, FreeSwitchError) as error:
                seen = str(error)
            else:
                if owner != str(self.work / "log"):
                    raise FreeSwitchError(
                        self._story(
                            f"another one, which logs to {owner}, has the event socket's port "
                            f"{self.event_socket.port}"
                        )
                    )
                # The profile is up before the core takes calls; "is ready" is the core's own word.
                if "is ready" in core and re.search(rf"^Name\s+{re.escape(self.profile)}$", seen, re.M):
                    return
            time.sleep(_POLL)
        raise FreeSwitchError(self._story(f"it was not ready after {START_TIMEOUT:g} s, and said: {seen}"))

    def _story(self, what: str) -> str:
        """``what`` went wrong, with what FreeSWITCH complained about, or else its last words."""
        lines = [f"FreeSWITCH ({self.installation.binary}) did not start: {what}"]
        for path in (self.work / "output", self.log_file):
            if path.exists():
                told = path.read_text(errors="replace").splitlines()
                complaints = [line for line in told if re.search(r"\[(WARNING|ERR|CRIT|ALERT)\]", line)]
                lines += [f"--- {path}", *(complaints or told)[-_LOG_TAIL:]]
        return "\n".join(lines)

    def api(self, command: str, timeout: float = API_TIMEOUT) -> str:
        """The reply to an API command, such as ``show channels count``."""
        return self.event_socket.api(command, timeout)

    def stop(self) -> None:
        """End it: at once where it has no call, for its own farewells take it seconds; else by SIGTERM (every
        call gets its BYE), and by SIGKILL if that takes longer than it may.
        """
        if self._process is None:
            return
        if self._is_idle():
            self._process.kill()
        else:
            self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _is_idle(self) -> bool:
        try:
            return self.api("show channels count", 1.0).split()[:1] == ["0"]
        except (OSError, FreeSwitchError):
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _event_socket_of(conf: Path) -> EventSocket:
    """Where the switch that runs ``conf`` can be asked, from its ``vars.xml``."""
    path = conf / "vars.xml"
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise FreeSwitchError(f"{path} is not what `eslbot conf` writes: {error}") from error
    settings = dict(node.get("data", "").split("=", 1) for node in root.iter("X-PRE-PROCESS"))
    try:
        return EventSocket(
            settings["event_socket_ip"], int(settings["event_socket_port"]), settings["event_socket_password"]
        )
    except (KeyError, ValueError) as error:
        raise FreeSwitchError(f"{path} is not what `eslbot conf` writes: {error!r}") from error
