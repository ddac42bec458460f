"""One relay process: an asyncio loop, its stream server, its calls.

It accepts at the socket that all relays share, and at one of its own that no other has: a call that was
prepared here gets its stream here. Its parent sees its state, a byte in memory that both share::

    STARTING ──listens──▶ ACCEPTING ──SIGTERM, or no parent any more──▶ LEAVING ──no call is left──▶ ended
                              └─────────────── SIGQUIT, or `drain` is over: at once ────────────────▶ ended

Leaving, it has closed the shared socket.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import socket
import time
from collections.abc import Callable, Container
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import structlog

from eslbot.caller.identity import Signer
from eslbot.caller.invite import Invite
from eslbot.config.model import Config, Workspace
from eslbot.relay.resources import Resources
from eslbot.relay.stream_server import Call, StreamRefused, StreamServer
from eslbot.runtime.tcp_keepalive import notice_dead_peers
from eslbot.telemetry import metrics

if TYPE_CHECKING:
    from eslbot.recording.recorder import Recorder
    from eslbot.relay.line.read_counter import ReadCounter
    from eslbot.relay.playout_delay import PlayoutDelay

log = structlog.get_logger()

#: What a worker shows its parent of itself.
STARTING, ACCEPTING, LEAVING = 0, 1, 2
#: Calls that one relay takes. Each has three files, two sockets and two watches; controllers admit fewer.
MAX_CALLS = 4096
#: Seconds for the stream of a call that was made or prepared for one; its caller may have hung up meanwhile.
STREAM_TIMEOUT = 10.0
#: Seconds between two sweeps, and after which files that nobody has touched are nobody's: their relay was
#: killed, and the call has ended without another one. A ring holds a minute, so all of it was heard by then.
SWEEP_INTERVAL, ORPHAN_AGE = 30.0, 120.0
#: What belongs to a call in the directory of line files.
SUFFIXES = (".a.r8", ".b.r8", ".line")
#: Seconds between two looks at what FreeSWITCH has read: 16,384 events have room, a call makes 200 a second.
READ_POLL_INTERVAL = 0.1
#: Names of hosts that are looked up at a time: each may take seconds, and none shall make another wait.
RESOLVER_THREADS = 64


class Parts(NamedTuple):
    """What a relay is put together from: a call (:class:`eslbot.relay.call.RelayCall`), and its tools."""

    call: Callable[[Invite, Workspace, Resources], Call]
    read_counter: Callable[[Path], ReadCounter]
    playout_delay: Callable[[], PlayoutDelay]
    recorder: Callable[[Config], Recorder]


class Worker:
    """Made in its own process; :meth:`run` returns when it has nothing left to do.

    Args:
        lifeline: the reading end of a pipe that ends with the parent.
        state: a byte that the parent sees, too.
        listening: the socket that all relays share.
        drain: seconds that calls have to end once it was told to leave.
    """

    def __init__(
        self,
        config: Config,
        signer: Signer,
        listening: socket.socket,
        state: mmap.mmap,
        lifeline: int,
        drain: float,
        parts: Parts,
    ) -> None:
        self._config, self._signer, self._listening = config, signer, listening
        self._state, self._lifeline, self._drain = state, lifeline, drain
        self._parts = parts
        self.calls: dict[str, Call] = {}
        self._awaited: dict[str, asyncio.TimerHandle] = {}
        self.url = ""

    async def run(self) -> None:
        """Serve until told to leave and every call is over, or told to end at once."""
        self._loop = loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="resolver"))
        self._done = asyncio.Event()
        self._server: asyncio.Server | None = None
        directory = Path(self._config.relay.directory)
        counter = self._parts.read_counter(directory)
        self._fetch_reads(counter)
        own = _listening_at(self._config.relay.listen.from_own_host.pair[0], 0)
        self.url = "ws://{}:{}/".format(*own.getsockname())
        traced = None if self._config.tracing is None else self._config.tracing.share
        recorder = self._recorder = self._parts.recorder(self._config)
        self._resources = Resources(
            directory,
            counter,
            self._parts.playout_delay,
            self.url,
            self._over,
            recorder=recorder,
            traced=traced,
        )
        streams = StreamServer(self._signer, self)
        private = await streams.open(own)
        for signum, told in ((signal.SIGTERM, self.leave), (signal.SIGQUIT, self.end)):
            loop.add_signal_handler(signum, told)
        loop.add_reader(self._lifeline, self._orphaned)
        self._server = await streams.open(self._listening)
        self._state[0] = ACCEPTING
        metrics.RELAY_READY.set(1)
        log.info("relay_ready", listen=str(self._config.relay.listen), own=self.url)
        self._sweep()
        await self._done.wait()
        private.close()
        with ThreadPoolExecutor(1) as apart:  # resolvers may hang in the other one
            await loop.run_in_executor(apart, self._recorder.close)
        log.info("relay_ends", calls=len(self.calls))

    # -- the end ------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Take no more streams from the shared socket, and end when the calls are over."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        self._state[0] = LEAVING
        metrics.RELAY_READY.set(0)
        self._recorder.leave()
        log.info("relay_leaves", calls=len(self.calls), drain=self._drain)
        self._loop.call_later(self._drain, self.end)
        self._look_done()

    def end(self) -> None:
        """End at once; bots are told, line files stay for the next relay."""
        self._state[0] = LEAVING
        for call in list(self.calls.values()):
            call.shutdown()
        self._done.set()

    def _orphaned(self) -> None:
        self._loop.remove_reader(self._lifeline)
        log.error(
            "relay_parent_lost",
            remedy="calls that are up stay; if serve or systemd starts no other relay, start one",
        )
        self.leave()

    def _look_done(self) -> None:
        if self._server is None and not self.calls:
            self._done.set()

    # -- calls (eslbot.relay.stream_server.Calls) ----------------------------------------------------------

    def find_or_make(self, invite: Invite) -> Call:
        """The call, made where there is none. Raises StreamRefused."""
        call = self.calls.get(invite.call_id)
        if call is not None:
            return call
        if self._server is None:  # who asks here comes late: another relay has it by now
            raise StreamRefused(503, "leaving")
        workspace = self._config.of_admitted(invite.workspace_id)  # the controllers admit; we verify
        if workspace is None:
            raise StreamRefused(403, "unknown_workspace")
        if len(self.calls) >= MAX_CALLS:
            raise StreamRefused(503, "full")
        call = self._parts.call(invite, workspace, self._resources)
        self.calls[invite.call_id] = call
        metrics.RELAY_CALLS.set(len(self.calls))
        # An upgrade may still be found wrong, or never come.
        self._awaited[invite.call_id] = self._loop.call_later(STREAM_TIMEOUT, self._drop, invite.call_id)
        return call

    def has_stream(self, call_id: str) -> None:
        """A stream of this call is up; from here on it says itself when it is over."""
        if (due := self._awaited.pop(call_id, None)) is not None:
            due.cancel()

    def _drop(self, call_id: str) -> None:
        del self._awaited[call_id]
        if (call := self.calls.get(call_id)) is not None:
            log.info("call_without_stream", call_id=call_id, seconds=STREAM_TIMEOUT)
            call.stream_gone(True)

    def _over(self, call_id: str) -> None:
        self.calls.pop(call_id, None)
        self.has_stream(call_id)
        metrics.RELAY_CALLS.set(len(self.calls))
        self._look_done()

    def _fetch_reads(self, counter: ReadCounter) -> None:
        """So that the kernel's queue does not overflow; a line that is spoken on looks when it has to know.

        A wake-up for each read of FreeSWITCH's would cost more than everything else about them.
        """
        self._loop.call_later(READ_POLL_INTERVAL, self._fetch_reads, counter)
        counter.drain(within=READ_POLL_INTERVAL / 2)

    # -- the directory ------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        self._loop.call_later(SWEEP_INTERVAL, self._sweep)
        sweep(self._resources.directory, self.calls, time.time())


def sweep(directory: Path, ours: Container[str], now: float) -> None:
    """Delete files of calls that no relay of this directory has; ``now`` in epoch seconds.

    Each relay touches those of its own calls, since a call that is silent for an hour writes none.
    """
    for entry in os.scandir(directory):
        if not entry.name.endswith(SUFFIXES):
            continue
        try:
            if entry.name.partition(".")[0] in ours:
                os.utime(entry.path, (now, now), follow_symlinks=False)
            elif now - entry.stat(follow_symlinks=False).st_mtime > ORPHAN_AGE:
                Path(entry.path).unlink()
                log.warning("line_swept", file=entry.name)
        except FileNotFoundError:
            continue  # another relay was faster, or the call is just over
        except OSError as error:
            log.error("line_not_swept", file=entry.name, error=str(error))


def shared_socket(host: str, port: int) -> socket.socket:
    """Listen where other relays may listen, too: a new release's, while this one still has calls."""
    return _listening_at(host, port, reuse=True)


def _listening_at(host: str, port: int, *, reuse: bool = False) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        notice_dead_peers(listening)
        listening.bind((host, port))
        listening.listen(1024)
    except OSError:
        listening.close()
        raise
    return listening
