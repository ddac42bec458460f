"""The relay's parent: it binds, forks relays, and forks another when one dies.

It has no event loop and no call. Everything that a relay needs is loaded here before the fork, so that
another one accepts within milliseconds. A generation is what was forked with one configuration::

    serving ──SIGHUP──▶ reloading: a new generation boots ──all of it accept──▶ serving; the one before leaves
                                └──BOOT_TIMEOUT, a death, another HUP──▶ serving, by the generation before
    serving ──SIGTERM, or our parent is gone──▶ leaving ──no relay is left, or `drain` is over──▶ ended
                └── a second SIGTERM, SIGINT, SIGQUIT: at once ──────────────────────────────────────▶ ended

A configuration that cannot be used changes nothing. Relays that leave stay until their calls are over. The
end of our parent is the end of a pipe (:func:`~eslbot.runtime.children.lifeline`).
"""

from __future__ import annotations

import asyncio
import gc
import mmap
import os
import resource
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import structlog

from eslbot import config as configuration
from eslbot.caller import keyfile
from eslbot.caller.identity import Signer
from eslbot.config.former_tenants import FormerTenants
from eslbot.config.model import Config, ConfigError
from eslbot.relay.dialler import tls
from eslbot.relay.worker import ACCEPTING, STARTING, Parts, Worker, shared_socket
from eslbot.runtime.children import lifeline
from eslbot.runtime.garbage import settle_memory
from eslbot.runtime.hardening import keep_to_ourselves
from eslbot.telemetry import logs, metrics

log = structlog.get_logger()

#: Seconds that the relays of a new generation have until they accept.
BOOT_TIMEOUT = 10.0
#: A relay that lives for less than this many seconds has not served; after so many the next start waits.
SHORT_LIFE, SHORT_LIVES = 1.0, 3
#: Seconds of that wait: the first, and at most; it doubles.
MIN_BACKOFF, MAX_BACKOFF = 0.2, 5.0
#: Seconds that relays have to end at once.
END_TIMEOUT = 2.0
#: Seconds beyond the longest call, until one that was told to leave is ended: the hold behind the bot's part.
HOLD_ALLOWANCE = 600.0
#: Seconds between two rounds: while something is under way that tells nothing when it is done, and else.
BUSY_POLL_INTERVAL, POLL_INTERVAL = 0.02, 1.0

#: What tells us something; all go through a pipe, so that nothing is done within a handler.
SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGCHLD,
)


@dataclass
class Generation:
    """Relays of one configuration; ``processes`` of them are wanted."""

    config: Config
    signer: Signer
    listening: socket.socket
    processes: int
    drain: float
    relays: dict[int, Relay] = field(default_factory=dict)


@dataclass
class Relay:
    """One forked process, by its parent's book."""

    pid: int
    #: A byte that both see.
    state: mmap.mmap
    born: float
    leaving: bool = False


class Parent:
    """Of the relays of one configuration file. ``drain`` None: as long as the longest call."""

    def __init__(
        self, path: Path, parts: Parts, processes: int | None = None, drain: float | None = None
    ) -> None:
        self._path, self._parts, self._processes, self._drain = path, parts, processes, drain
        self._current: Generation | None = None
        #: Of a HUP under way: what there was before, and until when the new ones have to accept.
        self._before: Generation | None = None
        self._boot_until = 0.0
        #: Those that stay with their calls.
        self._leaving: list[Generation] = []
        self._stopping = self._asked_to_leave = False
        self._end_at = float("inf")
        self._kill_at = float("inf")
        self._short_lives, self._not_before = 0, 0.0
        self._former = FormerTenants()

    def run(self) -> None:
        """Until told to end. Raises ConfigError when the configuration cannot be used at the start."""
        self._lifeline = lifeline()
        # The relays' own: its writing end is nobody's but ours.
        self._pipe = os.pipe()
        self._current = self._generation(None)
        wake, woken = os.pipe()
        for descriptor in (wake, woken):
            os.set_blocking(descriptor, False)
        self._wake = wake
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        for signum in SIGNALS:
            signal.signal(signum, lambda *_: None)
        self._own = [wake, woken, self._pipe[1]]
        log.info("relay_begins", listen=str(self._current.config.relay.listen), pid=os.getpid())
        while not self._is_over():
            self._supervise()
            self._wait()
        log.info("relay_is_over")

    # -- what happens -------------------------------------------------------------------------------------

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if self._lifeline is not None and not self._stopping:
            poll.register(self._lifeline, select.POLLIN)
        busy = self._before is not None or self._stopping
        happened = dict(poll.poll(1000 * (BUSY_POLL_INTERVAL if busy else POLL_INTERVAL)))
        if self._lifeline in happened and not self._stopping:
            log.error(
                "arbiter_lost",
                remedy="start the service again; relays keep their calls, and take no new ones",
            )
            self._leave()
        if self._wake in happened:
            # At most one of each: what comes twice while it is dealt with is one wish.
            for signum in dict.fromkeys(os.read(self._wake, 4096)):
                self._signalled(signal.Signals(signum))

    def _signalled(self, signum: signal.Signals) -> None:
        match signum:
            case signal.SIGHUP:
                self._reload()
            case signal.SIGTERM | signal.SIGINT if not self._asked_to_leave:
                self._asked_to_leave = True
                if not self._stopping:  # it may leave already, its arbiter being gone
                    self._leave()
            case signal.SIGTERM | signal.SIGINT | signal.SIGQUIT:
                self._end()

    def _supervise(self) -> None:
        """Bury the dead, fork who is missing, see a HUP through, keep to the time."""
        self._reap()
        now = time.monotonic()
        current = self._current
        if self._stopping:
            if now >= self._kill_at:
                self._signal_all(signal.SIGKILL)
            elif now >= self._end_at:
                self._end()
            return
        assert current is not None
        if self._before is not None:
            if sum(relay.state[0] == ACCEPTING for relay in current.relays.values()) >= current.processes:
                self._complete(self._before)
            elif now >= self._boot_until:
                self._roll_back(f"no new relays accept after {BOOT_TIMEOUT:g} s")
                return
        while len(current.relays) < current.processes and now >= self._not_before:
            self._fork(current)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for generation in self._generations():
                if (relay := generation.relays.pop(pid, None)) is not None:
                    self._died(relay, status)
            self._leaving = [generation for generation in self._leaving if generation.relays]

    def _died(self, relay: Relay, status: int) -> None:
        how = f"signal {-code}" if (code := os.waitstatus_to_exitcode(status)) < 0 else f"exit code {code}"
        if relay.leaving or self._stopping:
            log.info("relay_has_left", pid=relay.pid, status=how)
            return
        metrics.RELAY_DEATHS.inc()
        log.error(
            "relay_died", pid=relay.pid, status=how, remedy="see its log lines above; another one is started"
        )
        if relay.state[0] == STARTING and self._before is not None:
            self._roll_back("a new relay died before it accepted")
            return
        if time.monotonic() - relay.born >= SHORT_LIFE:
            self._short_lives = 0
            return
        self._short_lives += 1
        if self._short_lives >= SHORT_LIVES:
            wait = min(MAX_BACKOFF, MIN_BACKOFF * 2.0 ** min(self._short_lives - SHORT_LIVES, 10))
            self._not_before = time.monotonic() + wait

    # -- generations --------------------------------------------------------------------------------------

    def _generations(self) -> list[Generation]:
        return [g for g in (self._current, self._before, *self._leaving) if g is not None]

    def _generation(self, before: Generation | None) -> Generation:
        """Of what the file says now. Raises ConfigError."""
        config = configuration.load(self._path)
        for warning in config.warnings:
            log.warning("configuration", about=warning)
        try:
            file = Path(config.server.key_file)
            signer = keyfile.load_or_make(file) if before is None else keyfile.load(file)
        except keyfile.KeyFileError as error:
            raise ConfigError([f"server.key_file: {error}"]) from error
        make_directory(Path(config.relay.directory))
        tls.cache_clear()
        tls()
        listen = config.relay.listen
        if before is not None and before.config.relay.listen == listen:
            listening = before.listening
        else:
            try:
                listening = shared_socket(*listen.pair)
            except OSError as error:
                raise ConfigError([f"relay.listen: cannot listen at {listen}: {error.strerror}"]) from error
        config = self._former.carry(before.config if before is not None else None, config)
        tenants = (*config.workspaces.values(), *config.former.values())
        longest = max(workspace.max_duration for workspace in tenants)
        return Generation(
            config,
            signer,
            listening,
            processes=self._processes or config.relay.processes or 1,
            drain=self._drain if self._drain is not None else longest + HOLD_ALLOWANCE,
        )

    def _reload(self) -> None:
        if self._stopping:
            return
        if self._before is not None:
            self._roll_back("another HUP came")
        current = self._current
        try:
            new = self._generation(current)
        except ConfigError as error:
            remedy = "the one before stays in force"
            log.error("configuration_refused", problems=error.problems, remedy=remedy)
            return
        self._current, self._before = new, current
        self._boot_until = time.monotonic() + BOOT_TIMEOUT
        self._short_lives, self._not_before = 0, 0.0

    def _complete(self, before: Generation) -> None:
        assert self._current is not None
        log.info("relay_reloaded", relays=len(self._current.relays), leaving=len(before.relays))
        self._before = None
        self._retire(before)
        if before.listening is not self._current.listening:
            before.listening.close()

    def _roll_back(self, why: str) -> None:
        """The relays before stay, with their configuration."""
        new, before = self._current, self._before
        assert new is not None and before is not None
        log.error(
            "reload_failed",
            error=why,
            remedy="see the lines above; the old relays and configuration stay in force",
        )
        self._current, self._before = before, None
        self._retire(new)
        if new.listening is not before.listening:
            new.listening.close()

    def _retire(self, generation: Generation) -> None:
        for relay in generation.relays.values():
            relay.leaving = True
            os.kill(relay.pid, signal.SIGTERM)
        if generation.relays:
            self._leaving.append(generation)

    # -- the end ------------------------------------------------------------------------------------------

    def _leave(self) -> None:
        """Take no more streams; the calls that are up have their time."""
        self._stopping = True
        generations = self._generations()
        self._end_at = time.monotonic() + max(generation.drain for generation in generations)
        for generation in generations:
            generation.listening.close()
        self._signal_all(signal.SIGTERM)

    def _end(self) -> None:
        if not self._stopping:
            self._leave()
        if self._kill_at == float("inf"):
            self._kill_at = time.monotonic() + END_TIMEOUT
            self._end_at = float("inf")
            self._signal_all(signal.SIGQUIT)

    def _signal_all(self, signum: signal.Signals) -> None:
        for generation in self._generations():
            for relay in generation.relays.values():
                os.kill(relay.pid, signum)  # nobody but us reaps it, so it is still this process

    def _is_over(self) -> bool:
        return self._stopping and not any(generation.relays for generation in self._generations())

    # -- forking ------------------------------------------------------------------------------------------

    def _fork(self, generation: Generation) -> None:
        state = mmap.mmap(-1, 1)
        gc.freeze()  # what is there is never garbage, and stays shared while the collector leaves it alone
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            pid = os.fork()
        except OSError as error:  # no memory, no process free: whoever has calls keeps them
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            self._not_before = time.monotonic() + MAX_BACKOFF
            log.error("relay_not_started", error=str(error), remedy="it is tried again")
            return
        if pid == 0:
            self._in_relay(generation, state, blocked)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        generation.relays[pid] = Relay(pid, state, time.monotonic())

    def _in_relay(
        self, generation: Generation, state: mmap.mmap, blocked: set[int | signal.Signals]
    ) -> NoReturn:
        """In the new process, which never returns from here."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for signum in SIGNALS:
                # From a terminal SIGINT and SIGHUP reach us, too; it is our parent who tells us what to do.
                ignored = signum in (signal.SIGINT, signal.SIGHUP)
                signal.signal(signum, signal.SIG_IGN if ignored else signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            for descriptor in self._own:
                os.close(descriptor)
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)  # or we would hold on to the arbiter's pipe
            os.close(nothing)
            for other in self._generations():
                if other.listening is not generation.listening:
                    other.listening.close()
            logs.guard(generation.config)
            metrics.expect_relay()
            settle_memory()
            worker = Worker(
                generation.config,
                generation.signer,
                generation.listening,
                state,
                self._pipe[0],
                generation.drain,
                self._parts,
            )
            asyncio.new_event_loop().run_until_complete(worker.run())
            code = 0
        except BaseException:
            log.exception("relay_failed")
        finally:
            sys.stderr.flush()
            # Not by sys.exit: a resolver that hangs in a thread would keep us.
            os._exit(code)


def make_directory(directory: Path) -> None:
    """Have the directory of line files, ours alone to write and its group's to read. Raises ConfigError."""
    try:
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        mode = directory.stat().st_mode & 0o7777
        if mode & 0o777 != 0o750:
            directory.chmod(mode & 0o7000 | 0o750)
        probe = directory / f".probe-{os.getpid()}"
        probe.touch(0o600)
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            [
                f"relay.directory: {directory} cannot be made a directory of this user's, mode 0750: "
                f"{error.strerror}; make it with `install -d -m 2750 -o USER -g GROUP {directory}` "
                "(the user who runs the relay, a group that FreeSWITCH is in)"
            ]
        ) from error


def run(path: Path, *, processes: int | None, drain: float | None, json_logs: bool) -> None:
    """Run relays until told to end. Raises ConfigError when the configuration cannot be used."""
    from eslbot.recording.recorder import Recorder
    from eslbot.relay.call import RelayCall
    from eslbot.relay.line.read_counter import ReadCounter
    from eslbot.relay.playout_delay import PlayoutDelay

    keep_to_ourselves()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    logs.configure(json_logs=json_logs, for_good=True)
    Parent(path, Parts(RelayCall, ReadCounter, PlayoutDelay, Recorder), processes, drain).run()
