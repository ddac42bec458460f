"""The laboratory of the tests: eslbot on several hosts, networks in between, and everything that can die."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

from eslbot.sim import lab
from eslbot.sim.addresses import colon, free_port
from eslbot.sim.events import Emit, silent
from eslbot.sim.lab import Tenant
from eslbot.sim.pbx import Pbx
from eslbot.sim.service import START_LIMIT, STOP_LIMIT, EslbotService, LabError, send, wait_gone
from tests.support.proxy import TcpProxy
from tests.support.relay_alone import RelayAlone
from tests.support.service import LabService


class Lab(lab.Lab):
    """That of the demo, and what tests do to it.

    Args:
        controllers: are tried by the switch, in order, before eslbot's own listeners: something in between.
        hosts: addresses of loopback; on each runs an ``eslbot serve`` of its own (``services``), with
            ``workers`` workers, run by the command ``within`` has for that host, if any.
        proxied: the switch reaches them only through ``proxies``, one each.
        ledger: they record their calls, each host in a database of its own or all in that of the URL.
        page_tokens: tables ``[web.tokens.NAME]``.
        edge: the table ``[edge]``, read at the start: the switch then takes calls of that edge only.
        refreshes: the PBX sends a re-INVITE behind each ACK.
        relays: how many processes carry the bots' voice; the service starts them, or with several hosts
            the lab does, beside the switch.
    """

    def __init__(
        self,
        folder: Path,
        tenants: Sequence[Tenant],
        *,
        switch: str = "auto",
        workers: int = 1,
        max_calls: int = 1000,
        controllers: Sequence[tuple[str, int]] = (),
        hosts: Sequence[str] = ("127.0.0.1",),
        within: Mapping[str, Sequence[str]] = MappingProxyType({}),
        proxied: bool = False,
        ledger: bool | str = False,
        page_tokens: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
        edge: Mapping[str, Any] | None = None,
        refreshes: bool = False,
        relays: int = 1,
        emit: Emit = silent,
    ) -> None:
        self._hosts, self._within = hosts, within
        self._ledger, self._page_tokens, self._edge = ledger, page_tokens, edge
        super().__init__(folder, tenants, switch=switch, workers=workers, max_calls=max_calls, emit=emit)
        self._relay_alone = (
            RelayAlone(self.config, folder / "relay.log", relays, self.tokens) if len(hosts) > 1 else None
        )
        self.relays = relays
        listeners = [service.listen for service in self.services]
        self.proxies = [TcpProxy(("127.0.0.1", free_port()), at) for at in listeners] if proxied else []
        self.controllers = [*controllers, *([proxy.address for proxy in self.proxies] or listeners)]
        self.pbx = Pbx(self.sip, ameyo=self.ameyo, refreshes=refreshes, emit=emit)

    def _eslbot(self) -> LabService:
        self.services = [self._service(number, host) for number, host in enumerate(self._hosts, 1)]
        return self.services[0]

    def _service(self, number: int, host: str) -> LabService:
        name = "eslbot" if number == 1 else f"eslbot-{number}"
        return LabService(
            self.folder / f"{name}.toml",
            self.folder / f"{name}.log",
            listen=(host, free_port(host)),
            health=(host, free_port(host)),
            web=(host, free_port(host)),
            workers=self.workers,
            environment=self.tokens,
            within=self._within.get(host, ()),
        )

    def _start_eslbot(self) -> None:
        for service in self.services:
            self._run(service)
        if self._relay_alone is not None:
            self._stack.callback(self._relay_alone.stop)
            self._relay_alone.start()

    def _start_switch(self) -> None:
        for proxy in self.proxies:
            self._stack.enter_context(proxy)
        super()._start_switch()

    # -- eslbot: the first service, where there are several ------------------------------------------------

    def start_eslbot(self) -> None:
        """Run ``eslbot serve`` and wait until it is ready. Raises LabError."""
        self.services[0].start()
        # The page process has the port where FreeSWITCH's refusals are told.
        deadline = time.monotonic() + START_LIMIT
        while not any(at.laddr and at.laddr[1] == self.capture[1] for at in psutil.net_connections("udp4")):
            if time.monotonic() > deadline:
                raise LabError(f"nobody has {colon(self.capture)} (freeswitch.capture)")
            time.sleep(0.02)

    def stop_eslbot(self) -> None:
        """End ``eslbot serve``: the calls in it go to nobody."""
        self.services[0].stop()

    @property
    def listen(self) -> tuple[str, int]:
        """``server.listen``."""
        return self.services[0].listen

    @property
    def web(self) -> tuple[str, int]:
        """``web.listen``."""
        return self.services[0].web

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.services[0].config

    @property
    def log_file(self) -> Path:
        """What eslbot says."""
        return self.services[0].log_file

    def http(self, path: str) -> tuple[int, str]:
        """Status and body of a page of eslbot's page process."""
        return self.services[0].http(path)

    def log_lines(self) -> list[dict[str, Any]]:
        """What every eslbot has logged so far, and the relay."""
        lines = [line for service in self.services for line in service.log_lines()]
        return lines + (self._relay_alone.log_lines() if self._relay_alone is not None else [])

    # -- the relay ----------------------------------------------------------------------------------------

    def relay_pids(self) -> list[int]:
        """The relays, without their parent."""
        of = self._relay_alone if self._relay_alone is not None else self.services[0]
        return of.relay_pids()

    def kill_relay(self) -> list[int]:
        """KILL of all relays; their parent has others at once. Returns their ids when they are gone."""
        pids = self.relay_pids()
        for pid in pids:
            send(pid, signal.SIGKILL)
        if not wait_gone(pids, STOP_LIMIT):
            raise LabError(f"relays {pids} outlive a KILL")
        return pids

    # -- the switch ---------------------------------------------------------------------------------------

    def crash_switch(self, signum: int = signal.SIGKILL) -> None:
        """Have the switch die of ``signum``; another one is started at once, and takes up its calls.

        Returns when that is started, which is before it takes calls.
        """
        self.switch.crash(signum)

    def wait_switch_ready(self) -> None:
        """Wait until the switch takes calls, behind a crash."""
        self.switch.wait_until_ready()

    @property
    def switch_pid(self) -> int:
        """The process id of the switch, which is another one behind a crash."""
        return self.switch.pid

    def live_channels(self) -> int:
        """How many channels the switch has now."""
        if self.real_switch is not None:
            return int(self.real_switch.api("show channels count").split()[0])
        assert self.stand_in is not None
        return self.stand_in.live

    # -- configuration ------------------------------------------------------------------------------------

    def journal(self, service: EslbotService) -> Path:
        """``ledger.journal`` of a service."""
        return self.folder.absolute() / f"journal-{service.config.stem}"

    def configuration(self, service: EslbotService) -> dict[str, Any]:
        """Of one of the services."""
        told = super().configuration(service)
        if self._ledger:
            url = self._ledger if isinstance(self._ledger, str) else ""
            told["ledger"] = {
                "url": url or f"sqlite:///{self.folder.absolute()}/{service.config.stem}.db",
                "journal": str(self.journal(service)),
            }
        if self._edge:
            told["edge"] = dict(self._edge)
        # Of several hosts none is FreeSWITCH's, where the relay has to be.
        told["relay"]["processes"] = 0 if self._relay_alone else self.relays
        told["web"]["tokens"] = {name: dict(token) for name, token in self._page_tokens.items()}
        return told

    @property
    def sip_peers(self) -> list[str]:
        """Whose INVITEs the switch takes."""
        return [self._edge["sip_ip"]] if self._edge else super().sip_peers
