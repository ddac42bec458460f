"""The installation that is examined: what every check is given."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from eslbot.config.model import Config
from eslbot.doctor.host import Process, User, is_own
from eslbot.doctor.logs import log_of
from eslbot.doctor.rendering import Rendering
from eslbot.doctor.switch_state import SwitchState


@dataclass(frozen=True)
class Site:
    """An installation: its configuration, FreeSWITCH's answers, and this machine's part of it.

    ``patience``: seconds that one step over the network may take; ``deadline``, on the monotonic clock, of
    all. ``user``: whom the service runs as. ``freeswitch``, ``service`` and ``relay`` are their processes,
    where they run here and may be seen. ``conf_dir``: where FreeSWITCH's configuration is.
    """

    path: Path
    config: Config
    user: User
    freeswitch: Process | None
    service: Process | None
    patience: float
    deadline: float
    conf_dir: str
    relay: Process | None = None
    switch_state: SwitchState | None = None

    @property
    def inner_deadline(self) -> float:
        """Of what a check does at one time: early enough to tell which of it was late."""
        return self.deadline - 0.5

    @property
    def switch(self) -> SwitchState:
        """What FreeSWITCH has answered; only for checks that need it."""
        assert self.switch_state is not None, "this check is to be declared with needs_switch"
        return self.switch_state

    @cached_property
    def expected(self) -> Rendering:
        """What FreeSWITCH should have loaded."""
        local = self.switch.variables.get("local_ip_v4", "")
        return Rendering(self.config, {"local_ip_v4": local} if local else {})

    @property
    def switch_is_here(self) -> bool:
        """Whether FreeSWITCH runs on this machine, as far as its event socket's address tells."""
        return is_own(self.config.freeswitch.event_socket.ip)

    @property
    def calls(self) -> int:
        """The most calls at one time that the configuration admits on this machine."""
        server = self.config.server
        return min(
            server.workers * server.max_calls,
            sum(workspace.max_calls for workspace in self.config.workspaces.values()),
        )

    @property
    def log(self) -> str:
        """The command that shows the service's log."""
        return log_of(self.service, "eslbot")

    @property
    def render(self) -> str:
        """The command that writes FreeSWITCH's configuration anew."""
        return f"eslbot conf --config {self.path} --out {self.conf_dir}"
