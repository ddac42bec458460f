"""A Kamailio of this machine on what ``eslbot conf --edge`` has written."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from eslbot.sim.addresses import colon, free_port
from tests.support.kamailio import LOOK, KamailioProcess

#: Where PBXs and switches meet it; nobody else in the tests has this address.
EDGE = "127.0.0.20"
#: Seconds. The switches are asked every 2, and a dead one is so after 3 more.
STATE_LIMIT = 20.0


class Kamailio(KamailioProcess):
    """An edge.

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
        #: Its configuration.
        self.conf = folder.absolute() / "kamailio"
        super().__init__(folder, self.conf / "kamailio.cfg")
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

    def render(self) -> None:
        """``eslbot conf --edge``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "edge.toml"
        path.write_text(tomli_w.dumps({"edge": self.table, "workspaces": self._workspaces()}))
        command = [sys.executable, "-m", "eslbot", "conf", "--edge", "--config", str(path)]
        subprocess.run([*command, "--out", str(self.conf)], check=True, capture_output=True, timeout=30)
        text = self.configuration.read_text()
        for old, new in self.edits.items():
            assert old in text
            text = text.replace(old, new)
        self.configuration.write_text(text)

    def ready(self) -> bool:
        """Whether it has asked every switch once."""
        states = self.states()
        return bool(states) and not any("X" in flags for flags in states.values())

    def states(self) -> dict[str, str]:
        """The dispatcher's flags by the switch's address: A active, I inactive, D disabled, then P, or X."""
        return dict(re.findall(r"URI: sip:(\S+)\s+FLAGS: (\w+)", self.command("dispatcher.list")))

    def wait_state(self, switch: tuple[str, int], letter: str) -> None:
        """Wait until a switch is in a state. Raises TimeoutError."""
        deadline = time.monotonic() + STATE_LIMIT
        while not self.states().get(colon(switch), "").startswith(letter):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{switch} is not {letter}: {self.states()}\n{self.log()[-2000:]}")
            time.sleep(LOOK)

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
