"""The service: gunicorn's arbiter, configured by our file instead of gunicorn's own settings.

gunicorn brings the pre-forked workers, HUP, TTIN/TTOU, USR2, the watchdog over hung workers and the privilege
drop. This module is the arbiter's side. What runs in a worker is imported by :meth:`Service.run`, before the
first fork: it costs a worker nothing then.
"""

from __future__ import annotations

import atexit
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from gunicorn.app.base import BaseApplication

import eslbot
from eslbot import config as configuration
from eslbot.caller import keyfile
from eslbot.caller.identity import Signer
from eslbot.config import Config, ConfigError
from eslbot.config.former_tenants import FormerTenants
from eslbot.config.sources import Sources
from eslbot.runtime.children import PAGE, RELAY, ChildProcess
from eslbot.runtime.garbage import settle_memory
from eslbot.runtime.hardening import keep_to_ourselves
from eslbot.server import peer_credentials
from eslbot.server.arbiter import CallArbiter
from eslbot.server.call_counts import CallCounts
from eslbot.server.ended_calls import EndedCalls
from eslbot.server.status_file import UP, StatusFile
from eslbot.server.token_buckets import TokenBuckets
from eslbot.server.worker import HAND_OVER
from eslbot.telemetry import logs

if TYPE_CHECKING:
    from eslbot.server.controller import Controller

log = structlog.get_logger()

#: The directory of the processes' metrics, when it is ours and not the operator's.
_metrics_directory: str | None = None

#: Seconds without a sign of life after which the arbiter kills a worker; it looks every second. A hung worker
#: still accepts calls, and FreeSWITCH gives a silent controller 25 s while the bot hears nothing. Killing one
#: costs its calls next to nothing, as others take them over; and who misses five beats is not just busy.
WATCHDOG = 5
#: Seconds beyond a worker's own bounds after which the arbiter kills it at its own end.
MARGIN = 2
#: Connections beyond the calls: port probes, refusals on their way.
HEADROOM = 1000
#: What a worker runs. Not imported with this module, since metrics are made where ``eslbot serve`` has said.
OF_WORKERS = (
    "eslbot.calls.stranded",
    "eslbot.ledger.journal",
    "eslbot.server.controller",
    "eslbot.server.probes",
)


class Service(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """One configuration file, served until told to stop."""

    def __init__(self, path: Path, drain: float = 0.0, *, json_logs: bool = False) -> None:
        self.path = path
        #: Seconds a worker that leaves waits for its calls; then the next controller takes them over.
        self.drain = drain
        self._lifeline = os.pipe()
        self.counts = CallCounts()
        self.former = FormerTenants()
        self.buckets = TokenBuckets()
        self.ended = EndedCalls()
        options = ["--config", str(path), "--log", "json" if json_logs else "console"]
        self._in_force = StatusFile(path)
        #: What was wrong with the configuration of the last HUP, which is therefore not in force.
        self.refused: list[str] = []
        self._page, self._relay = (ChildProcess(kind, options, self._lifeline[0]) for kind in (PAGE, RELAY))
        self.config: Config | None = None
        #: How many times a configuration was read: each HUP is the relay's, too, whatever has changed.
        self._reloads = 0
        #: How many times one was to be read: at the start, and at each HUP.
        self._reads = 0
        self.signer: Signer | None = None
        self.row = 0
        super().__init__()

    def load_config(self) -> None:
        """Read our file, at the start and at each HUP. A bad file is refused, and the old one kept."""
        self._reads += 1
        try:
            config = usable(self.path)
            self.signer = signer_of(config, make=self.signer is None)
            log.info("identity_key", file=config.server.key_file, signs=self.signer.fingerprints[0])
            self.counts.know(list(config.workspaces))
            self.buckets.know(Sources(config).parties)
            config = self.former.settle(self.config, config, self.counts.know)
            for warning in config.warnings:
                log.warning("configuration", about=warning)
            if self.config is not None:
                self._tell_removed(self.config, config)
            self.config = config
            self._reloads += 1
            self.refused = []
            logs.guard(config)
        except (ConfigError, ValueError) as error:  # what leaves here ends the arbiter
            if self.config is None:
                raise
            self.refused = error.problems if isinstance(error, ConfigError) else [str(error)]
            log.error(
                "configuration_refused",
                problems=self.refused,
                remedy="correct the file and reload; the previous configuration stays in force",
            )
        if self._reloads == 1 and not self.refused:
            log.info(
                "service_starts",
                version=eslbot.__version__,
                configuration=str(self.path),
                tenants=sorted(workspace.name for workspace in self.config.workspaces.values()),
                workers=self.config.server.workers,
            )
            self.tell(UP)
        for name, value in self._settings(self.config).items():
            self.cfg.set(name, value)

    def _tell_removed(self, before: Config, config: Config) -> None:
        for key in before.workspaces.keys() - config.workspaces.keys():
            log.warning(
                "tenant_removed",
                workspace=before.workspaces[key].name,
                workspace_id=key,
                calls=self.counts.total(key),
                remedy="new calls of it are refused with 403; those that are up go on with what it was",
            )

    def _settings(self, config: Config) -> dict[str, Any]:
        return {
            "bind": [str(config.server.listen), str(config.server.health)],
            "workers": config.server.workers,
            "worker_class": "eslbot.server.worker.CallWorker",
            "worker_connections": config.server.max_calls + HEADROOM,
            "backlog": 4096,  # a burst of calls must not meet a full backlog
            "timeout": WATCHDOG,
            "graceful_timeout": math.ceil(self.drain + HAND_OVER + MARGIN),
            "proc_name": "eslbot",
            "control_socket_disable": True,  # it would be one file for every service of this user
            "logger_class": logs.GunicornLogger,
            "accesslog": None,
            "pre_fork": self._before_fork,
            "post_fork": self._after_fork,
            "child_exit": self._after_exit,
            "pre_exec": self._before_exec,
        }

    def _before_fork(self, arbiter: Any, worker: Any) -> None:
        worker.row = self.row = self.counts.take_row()
        worker.lifeline = self._lifeline

    def _after_fork(self, arbiter: CallArbiter, worker: Any) -> None:
        arbiter.in_worker()

    def _after_exit(self, arbiter: Any, worker: Any) -> None:
        self.counts.free_row(worker.row)

    def _before_exec(self, arbiter: Any) -> None:
        """At USR2: the new service has a metrics directory of its own, as this one removes ours."""
        self.leave_tenants()
        if _metrics_directory is not None:
            arbiter.cfg.env_orig.pop("PROMETHEUS_MULTIPROC_DIR", None)

    def tend_tenants(self) -> None:
        """Forget former tenants without calls."""
        if self.config is not None:
            self.config = self.former.tend(self.config, self.counts.total)

    def leave_tenants(self) -> None:
        """Another service follows this one, and its file may have other tenants than calls that are up."""
        if self.config is not None:
            self.former.leave(self.config, self.counts.total)

    def tell(self, state: str, problems: Sequence[str] = ()) -> None:
        """Leave word of what came of the last HUP, for ``eslbot reload``."""
        if self.config is not None:
            self._in_force.tell(self.config, self._reads - 1, state, problems)

    def tend_children(self) -> None:
        """Have the page process running, and the relay, unless it runs by itself."""
        config = self.config
        self._page.tend(config)
        self._relay.tend((config, self._reloads) if config is not None and config.relay.processes else None)

    def end_children(self, *, graceful: bool) -> None:
        """End them; the relay stays with the calls it has, if there are any."""
        self._relay.end(graceful=graceful)
        self._page.end()
        self._in_force.withdraw()

    def run(self) -> None:
        """Run until a signal ends it; leaves by SystemExit."""
        for module in OF_WORKERS:
            import_module(module)
        settle_memory()  # what is there now is every worker's, and none has to look through it
        CallArbiter(self).run()

    def load(self) -> Controller:
        """In the worker, for which :meth:`run` has imported it all."""
        from eslbot.ledger.journal import Journal
        from eslbot.server.controller import Controller

        assert self.config is not None and self.signer is not None
        logs.guard(self.config)  # the arbiter may have read another one since
        logs.hear_gevent()
        ledger = self.config.ledger
        journal = Journal(Path(ledger.journal)) if ledger else None
        return Controller(
            self.config,
            self.signer,
            self.counts,
            self.row,
            journal,
            buckets=self.buckets,
            ended=self.ended,
        )


def serve(path: Path, *, drain: float = 0.0, json_logs: bool) -> None:
    """Run until a signal ends it. Raises ConfigError when the configuration cannot be used.

    A worker that leaves gives its calls ``drain`` seconds to end before others take them over.
    """
    signer_of(usable(path), make=True)
    keep_to_ourselves()
    logs.configure(json_logs=json_logs, for_good=True)  # from here on this process does nothing else
    _share_metrics()
    Service(path, drain, json_logs=json_logs).run()


def usable(path: Path, environment: Mapping[str, str] | None = None) -> Config:
    """The configuration, if a service with that environment, by default ours, can run with it.

    Raises ConfigError.
    """
    config = configuration.load(path, environment)
    unreadable = [warning for warning in config.warnings if "ca_file" in warning]
    unenforced = peer_credentials.problem(config.server.switch_user, config.server.listen.ip)
    if unreadable or unenforced:
        raise ConfigError([*unreadable, *([unenforced] if unenforced else [])])
    return config


def signer_of(config: Config, *, make: bool) -> Signer:
    """What signs the identity of calls. Raises ConfigError.

    With ``make``, at the start, the key is made where there is none. A reload makes none: with another key
    the calls that are up would be nobody's.
    """
    file = Path(config.server.key_file)
    try:
        return keyfile.load_or_make(file) if make else keyfile.load(file)
    except keyfile.KeyFileError as error:
        raise ConfigError([f"server.key_file: {error}"]) from error


def _share_metrics(make: Callable[..., str] = tempfile.mkdtemp) -> None:
    """A directory in which the processes of this service add up their metrics."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        return
    global _metrics_directory
    _metrics_directory = directory = make(prefix="eslbot-metrics-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(directory, ignore_errors=True)

    atexit.register(remove)
