"""``eslbot reload``: a changed configuration brought into force, in eslbot and in FreeSWITCH.

What cannot be used is refused before anything is told. Then the arbiter gets its HUP, FreeSWITCH's list of
who may call is written and read again, and both are asked what they have now. Every wait is bounded.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

from marshmallow import ValidationError

from eslbot.admin import config_diff, live_calls
from eslbot.config.fields import AddressField
from eslbot.config.loader import SUBSTITUTE
from eslbot.config.model import Config, ConfigError, Network, Secret
from eslbot.config.secrets import secrets_of
from eslbot.doctor.checks.event_socket import password_of
from eslbot.doctor.findings import Finding, clean
from eslbot.doctor.host import Process, is_own, listener
from eslbot.doctor.switch_state import ACL, MAX_ASKED
from eslbot.esl.errors import CommandTimeout, EslError
from eslbot.esl.inbound import InboundClient
from eslbot.freeswitch import configuration, firewall
from eslbot.freeswitch.configuration import MARKER
from eslbot.freeswitch.files import RenderError
from eslbot.freeswitch.password import CONF_DIR
from eslbot.server.service import usable
from eslbot.server.status_file import CHANGING, UP, Notice, NotInForce, running
from eslbot.telemetry import redaction

#: Seconds between two looks at what the arbiter says.
POLL_INTERVAL = 0.05
#: Seconds for the page process to be there again; it takes two to three.
PAGE_DUE = 15.0
#: Seconds for one command of FreeSWITCH's.
PATIENCE = 5.0
_RENDER = "render FreeSWITCH's configuration on its host (eslbot conf), and say eslbot reload again"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done or looked at. ``ok``: None where it is only worth knowing."""

    step: str
    ok: bool | None
    told: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for.

    ``conf_dir``: where FreeSWITCH's configuration is; None: as the running one says, else where packages have
    it, if that is ours. ``freeswitch``: whether it is told at all. ``timeout``: seconds for the service's
    change. ``tell`` is called with each step as it is done, ``progress`` with what is waited for.
    """

    path: Path
    conf_dir: Path | None = None
    freeswitch: bool = True
    timeout: float = 30.0
    dry_run: bool = False
    tell: Callable[[Step], None] = lambda _: None
    progress: Callable[[str], None] = lambda _: None


@dataclass
class Outcome:
    """What came of it. ``calls``: of removed tenants, how many are up, by their names; None: not known."""

    changes: config_diff.Changes | None = None
    calls: Mapping[str, int] | None = None
    steps: list[Step] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """Whether all of it is in force."""
        return all(step.ok is not False for step in self.steps)


def reload(request: Request) -> Outcome:
    """Do it. Raises ConfigError where the configuration cannot be used, and then nothing was done."""
    return _Reload(request).run()


class _Reload:
    def __init__(self, request: Request) -> None:
        self.request = request
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Step by step; what fails ends it where the rest would be worth nothing."""
        request = self.request
        config, notice = self._looked()
        redaction.protect(secrets_of(config))
        self._tell("configuration", True, _count(len(config.workspaces), "tenant"))
        if notice is None:
            return self.outcome
        self.outcome.changes = found = config_diff.between(notice, config)
        self._changes(found, notice)
        if request.dry_run:
            self._dry(config)
            return self.outcome
        if not self._service(config, notice):
            return self.outcome
        gone = _gone(notice, config)
        if request.freeswitch:
            self._switch(config, gone)
        self._beside(config)
        return self.outcome

    # -- looking --------------------------------------------------------------------------------------------

    def _looked(self) -> tuple[Config, Notice | None]:
        """The configuration as the service would read it, with its environment where that may be seen.

        Raises ConfigError.
        """
        path = self.request.path
        try:
            ours = usable(path)
        except ConfigError:
            # The service may have secrets that we have not. Where it is to be found, no secret tells.
            try:
                notice = running(usable(path, _Any()), path)
            except (NotInForce, ConfigError):
                notice = None
            environment = Process(notice.pid).environment if notice is not None else None
            return usable(path, environment), notice
        try:
            notice = running(ours, path)
        except NotInForce as error:
            remedy = "start it: systemctl start eslbot; as another user than the service's, with sudo"
            self._tell("service", False, f"no service of {path} is known to run here: {error}", remedy)
            return ours, None
        try:
            return usable(path, Process(notice.pid).environment), notice
        except ConfigError as error:  # our environment has what the service's has not
            more = "for the service, whose environment only a restart reads again; ${file:/path} needs none"
            raise ConfigError([f"{problem} {more}" for problem in error.problems]) from error

    def _changes(self, found: config_diff.Changes, notice: Notice) -> None:
        if not found.any:
            self._tell("changes", None, "none: what is in force stands in the file")
        for tenant in found.added:
            self._tell("changes", None, f"tenant {tenant.name} ({tenant.id}) is new")
        for tenant in found.changed:
            self._tell("changes", None, f"tenant {tenant.name}: {', '.join(tenant.keys)}")
        for key in found.keys:
            what = (
                "secrets outside the tenants"
                if key.key == config_diff.SECRETS
                else f"{key.key}: {key.before} → {key.after}"
            )
            self._tell("changes", None, what + (f"; needs {key.needs}" if key.needs else ""))
        if not found.removed:
            return
        calls: Mapping[str, int] | None = None
        with suppress(
            live_calls.CannotCount, ValidationError
        ):  # where its page is in force, not where it will be
            calls = live_calls.living_calls(AddressField().read(str(notice.tree["web"]["listen"])))
        if calls is not None:
            self.outcome.calls = {tenant.name: calls.get(tenant.name, 0) for tenant in found.removed}
        for tenant in found.removed:
            count = None if calls is None else calls.get(tenant.name, 0)
            up = (
                "it is not known whether calls of it are up"
                if count is None
                else f"{_count(count, 'call')} of it up"
            )
            keeps = "; they keep its configuration until they end" if count else ""
            self._tell("changes", None, f"tenant {tenant.name} ({tenant.id}) goes; {up}{keeps}")

    def _dry(self, config: Config) -> None:
        if not self.request.freeswitch:
            return
        folder, why = self._conf_dir(config)
        if folder is None:
            self._tell("freeswitch", None, why)
            return
        self._tell(
            "freeswitch",
            None,
            f"{folder / configuration.ACL} would be rendered, and reloadxml, reloadacl said",
        )

    # -- the service ----------------------------------------------------------------------------------------

    def _service(self, config: Config, notice: Notice) -> bool:
        """HUP, and wait for what comes of it."""
        deadline = time.monotonic() + self.request.timeout
        if notice.state == CHANGING:
            self.request.progress("the service is in the middle of a change; that is waited for")
            while notice.state == CHANGING and time.monotonic() < deadline:
                time.sleep(POLL_INTERVAL)
                with suppress(NotInForce):
                    notice = running(config, self.request.path)
        try:
            os.kill(notice.pid, signal.SIGHUP)
        except OSError as error:
            self._tell(
                "service", False, f"process {notice.pid} takes no HUP: {error.strerror}", "say it with sudo"
            )
            return False
        self.request.progress(
            f"the service (process {notice.pid}) reads the configuration, and starts new workers"
        )
        while True:
            with suppress(NotInForce):  # between two releases, say
                notice_now = running(config, self.request.path)
                if notice_now.hups > notice.hups and notice_now.state != CHANGING:
                    break
            if time.monotonic() > deadline:
                bound = f"{self.request.timeout:g} s"
                why = f"process {notice.pid} has not said within {bound} that the change is done"
                self._tell("service", False, why, "look at its log: eslbot.log, or journalctl -u eslbot")
                return False
            time.sleep(POLL_INTERVAL)
        problems = "; ".join(notice_now.problems)
        if notice_now.state != UP:
            what = f"did not take it, and the configuration before stays in force: {problems}"
            self._tell("service", False, what, "mend that, and say eslbot reload again")
            return False
        left = config_diff.between(notice_now, config)
        if left.any:
            self._tell(
                "service",
                False,
                "took another configuration than this: the file was changed meanwhile",
                "say eslbot reload again",
            )
            return False
        workers = _count(config.server.workers, "worker")
        self._tell("service", not problems, problems or f"{workers} with the new configuration")
        self._page(config)
        return True

    def _page(self, config: Config) -> None:
        """The page process begins anew with a configuration; until then nobody tells what happens."""
        address = config.web.listen.from_own_host
        self.request.progress(f"the page process comes up at {address}")
        deadline = time.monotonic() + PAGE_DUE
        while (why := live_calls.is_silent(address)) and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL)
        if why:
            what = f"the page process does not answer at {address}: {why}"
            remedy = "calls are not affected; see lines page_ in the service's log (is the address taken?)"
            self._tell("page", False, what, remedy)
            return
        self._tell("page", True, f"answers at {address}")

    # -- FreeSWITCH -----------------------------------------------------------------------------------------

    def _switch(self, config: Config, gone: Sequence[Network]) -> None:
        folder, why = self._conf_dir(config)
        if folder is None:
            self._tell("rendering", None, why)
        elif not self._render(config, folder):
            return
        password = password_of(config, str(folder or CONF_DIR))
        if isinstance(password, Finding):
            self._tell("freeswitch", False, f"{password.looked_at}: {password.found}", password.remedy)
            return
        redaction.protect(secrets_of(config) | {password.reveal()})
        self.request.progress(
            f"FreeSWITCH (event socket {config.freeswitch.event_socket}) reads its configuration"
        )
        try:
            self._ask(config, password, gone)
        except (EslError, OSError) as error:
            address = config.freeswitch.event_socket
            text = (isinstance(error, OSError) and error.strerror) or str(error)
            remedy = (
                "eslbot doctor --only event-socket says more; --no-freeswitch where there is none to tell"
            )
            self._tell("freeswitch", False, f"the event socket {address}: {text}", remedy)

    def _conf_dir(self, config: Config) -> tuple[Path | None, str]:
        """Where FreeSWITCH's configuration is; else why that is not known."""
        if self.request.conf_dir is not None:
            return self.request.conf_dir, ""
        address = config.freeswitch.event_socket
        process = listener(address) if is_own(address.ip) else None
        usual = (process and process.argument("-conf")) or CONF_DIR
        with suppress(OSError, UnicodeDecodeError):
            if MARKER in (Path(usual) / "freeswitch.xml").read_text("utf-8"):
                return Path(usual), ""
        return None, (
            f"not rendered: {usual} holds no configuration of eslbot's that this user may read; name the "
            "directory with --freeswitch-conf, or render it on FreeSWITCH's host"
        )

    def _render(self, config: Config, folder: Path) -> bool:
        try:
            written = [change for change in configuration.render(config, folder) if change.what == "written"]
        except RenderError as error:
            self._tell("rendering", False, str(error), "say it with sudo, or with --freeswitch-conf DIR")
            return False
        names = ", ".join(str(change.path) for change in written)
        self._tell("rendering", True, f"written: {names}" if written else f"{folder} is as it should be")
        return True

    def _ask(self, config: Config, password: Secret, gone: Sequence[Network]) -> None:
        with InboundClient(config.freeswitch.event_socket, password, PATIENCE) as client:
            for command in ("reloadxml", "reloadacl"):
                reply = client.api(command)
                fine = "+OK" in reply
                self._tell(
                    "freeswitch",
                    fine,
                    f"{command}: {redaction.printable(reply)}",
                    "" if fine else "see FreeSWITCH's log; what it had loaded before stays in force",
                )
                if not fine:
                    return
            peers = config.sip_peers[:MAX_ASKED]
            deadline = time.monotonic() + self.request.timeout
            shut = [
                network
                for network in peers
                if not all(_admits(client, ip, deadline) for ip in {network[0], network[-1]})
            ]
            for network in shut:
                names = ", ".join(w.name for w in config.workspaces.values() if network in w.sources)
                self._tell(
                    "acl",
                    False,
                    f"the list {ACL} does not let {network} in ({names or 'the edge'})",
                    _RENDER,
                )
            open_still = [network for network in gone if _admits(client, network[0], deadline)]
            for network in open_still:
                self._tell(
                    "acl",
                    False,
                    f"the list {ACL} lets {network} in, which is nobody's source any more",
                    _RENDER,
                )
            if not (shut or open_still):
                more = f" (of {len(config.sip_peers)})" if len(config.sip_peers) > MAX_ASKED else ""
                self._tell("acl", True, f"FreeSWITCH lets {_count(len(peers), 'source')}{more} in")

    # -- beside it ------------------------------------------------------------------------------------------

    def _beside(self, config: Config) -> None:
        """Rules of the firewall and of the edge name sources, too; they are their owners' to load."""
        rules = self.request.path.absolute().with_name(str(firewall.RULES))
        there = ""
        with suppress(OSError, UnicodeDecodeError):
            there = rules.read_text("utf-8")
        if firewall.MARKER in there and there.strip() != firewall.text(config).strip():
            self._tell(
                "firewall",
                False,
                f"{rules} is of another configuration",
                f"eslbot conf --firewall --out {rules.parent} && systemctl reload eslbot-firewall",
            )
        if config.edge is not None and self.outcome.changes is not None and self.outcome.changes.any:
            self._tell(
                "edge",
                None,
                "it has its own rendering of the sources",
                "eslbot conf --edge on each edge, and kamcmd permissions.addressReload (docs/edge.md)",
            )

    def _tell(self, step: str, ok: bool | None, told: str, remedy: str = "") -> None:
        one = Step(step, ok, clean(told), clean(remedy))
        self.outcome.steps.append(one)
        self.request.tell(one)


class _Any(Mapping[str, str]):
    """An environment that has everything: for what no secret decides."""

    def __getitem__(self, name: str) -> str:
        return SUBSTITUTE

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __contains__(self, name: object) -> bool:
        return True


def _admits(client: InboundClient, ip: object, deadline: float) -> bool:
    """Raises CommandTimeout behind the deadline: one that takes its time for each answer is asked often."""
    if time.monotonic() > deadline:
        raise CommandTimeout("its answers come too slowly to ask for every source")
    return client.api(f"acl {ip} {ACL}") == "true"


def _gone(notice: Notice, config: Config) -> list[Network]:
    """Sources of before that nobody has any more, not as a part of his own either."""
    if config.edge is not None:
        return []
    before: set[Network] = set()
    for table in notice.tree.get("workspaces", {}).values():
        with suppress(ValueError):
            before.update(ip_network(source) for source in table.get("sources", []))
    return [
        network
        for network in sorted(before, key=str)
        if not any(network.version == s.version and network.overlaps(s) for s in config.sources)
    ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
