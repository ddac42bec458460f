"""A Kamailio of this machine, in the foreground, on what ``eslbot conf --edge`` has written."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import tomli_w

from eslbot.sim.lab import colon, end_process, free_port

#: Where PBXs and switches meet it; nobody else in the tests has this address.
EDGE = "127.0.0.20"
#: Seconds. A start takes about 0.3; the switches are asked every 2, and a dead one is so after 3 more.
START_LIMIT, STATE_LIMIT = 20.0, 20.0
_LOOK = 0.02

MISSING = next(
    (name for name in ("kamailio", "kamcmd") if shutil.which(name, path="/usr/sbin:/usr/bin") is None), None
)
WHY_MISSING = "Kamailio is not installed (apt-get install kamailio, or scripts/prepare test --sipp)"


class Kamailio:
    """An edge; a context manager, or :meth:`start` and :meth:`stop`, and again.

    ``sources`` are those of workspaces, by their names, and ``max_cps`` each one's; ``switches`` SIP
    addresses; ``keys`` more of ``[edge]``; ``edits`` replace texts of kamailio.cfg.
    """

    def __init__(
        self,
        folder: Path,
        switches: list[tuple[str, int]],
        sources: Mapping[str, list[str]],
        keys: Mapping[str, Any] | None = None,
        edits: Mapping[str, str] | None = None,
        max_cps: int = 1000,
    ) -> None:
        self.folder = folder
        self.address, self.inner = (EDGE, free_port(EDGE)), (EDGE, free_port(EDGE))
        #: The table of the configuration.
        self.table = {
            "sip_ip": EDGE,
            "sip_port": self.address[1],
            "inner_port": self.inner[1],
            "switches": [colon(switch) for switch in switches],
            **(keys or {}),
        }
        self.sources, self.edits, self.max_cps = dict(sources), edits or {}, max_cps
        self.log_file = folder / "kamailio.log"
        self.process: subprocess.Popen[bytes] | None = None

    def render(self) -> None:
        """``eslbot conf --edge``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "edge.toml"
        path.write_text(tomli_w.dumps({"edge": self.table, "workspaces": self._workspaces()}))
        command = [sys.executable, "-m", "eslbot", "conf", "--edge", "--config", str(path)]
        subprocess.run([*command, "--out", str(self.conf)], check=True, capture_output=True, timeout=30)
        text = (self.conf / "kamailio.cfg").read_text()
        for old, new in self.edits.items():
            assert old in text
            text = text.replace(old, new)
        (self.conf / "kamailio.cfg").write_text(text)

    @property
    def conf(self) -> Path:
        """Its configuration."""
        return self.folder.absolute() / "kamailio"

    def start(self) -> None:
        """Render, run, and wait until it has asked every switch once."""
        self.render()
        # Not in the folder: the path of a socket must be short.
        self._run = TemporaryDirectory(prefix="eslbot-edge-")
        command = ["/usr/sbin/kamailio", "-f", str(self.conf / "kamailio.cfg"), "-DD", "-E"]
        command += ["-Y", self._run.name, "-P", f"{self._run.name}/pid", "-m", "32", "-M", "4"]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_LIMIT
        while any("X" in flags for flags in self.states().values()) or not self.states():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"Kamailio did not come up:\n{self.log_file.read_text()[-3000:]}")
            time.sleep(_LOOK)

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            end_process(self.process)
            self.process = None
            self._run.cleanup()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def command(self, *words: str) -> str:
        """What kamcmd says; empty where Kamailio is not there."""
        socket = f"unixs:{self._run.name}/kamailio_ctl"
        told = subprocess.run(
            ["/usr/sbin/kamcmd", "-s", socket, *words], capture_output=True, text=True, timeout=10
        )
        return told.stdout

    def states(self) -> dict[str, str]:
        """The dispatcher's flags by the switch's address: A active, I inactive, D disabled, then P, or X."""
        return dict(re.findall(r"URI: sip:(\S+)\s+FLAGS: (\w+)", self.command("dispatcher.list")))

    def wait_state(self, switch: tuple[str, int], letter: str) -> None:
        """Wait until a switch is in a state. Raises TimeoutError."""
        deadline = time.monotonic() + STATE_LIMIT
        while not self.states().get(colon(switch), "").startswith(letter):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{switch} is not {letter}: {self.states()}\n{self.log()[-2000:]}")
            time.sleep(_LOOK)

    def log(self) -> str:
        """What it has said."""
        return self.log_file.read_text(errors="replace")

    def _workspaces(self) -> dict[str, Any]:
        return {
            f"00000000-0000-4000-8000-{number:012}": {
                "name": name,
                "sources": networks,
                "max_cps": self.max_cps,
                "bot": {"url": "wss://bot.invalid/"},
                "ameyo": {"url": "https://ameyo.invalid/", "tenant_host": "a.invalid", "token": "no-token"},
            }
            for number, (name, networks) in enumerate(self.sources.items())
        }
