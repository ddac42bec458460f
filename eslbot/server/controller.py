"""The controller of the calls of one worker process: who may connect, how many, and with what.

"Controller" is FreeSWITCH's word for the program behind an outbound event socket.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path

import gevent
import structlog
from greenswitch.esl import OutboundSessionHasGoneAway

from eslbot.ameyo.client import AmeyoClient
from eslbot.ameyo.retry import Verdict
from eslbot.caller.identity import Signer
from eslbot.caller.invite import Invite, Refused
from eslbot.calls.call import Call
from eslbot.calls.events import Observer
from eslbot.calls.host import Leaves
from eslbot.calls.observers.log import log_observer
from eslbot.calls.observers.metrics import MetricsObserver
from eslbot.calls.resume_state import ResumeStates
from eslbot.config.model import Config, Workspace
from eslbot.esl.errors import EslError
from eslbot.esl.gone import ConnectionLost
from eslbot.esl.session import Session
from eslbot.ledger.journal import FactSink
from eslbot.ledger.observer import JournalObserver
from eslbot.server.call_counts import CallCounts
from eslbot.server.ended_calls import EndedCalls
from eslbot.server.peer_credentials import Gone, LocalPeers, Stranger
from eslbot.server.rate_limit import RateLimit
from eslbot.server.refusal_log import RefusalLog
from eslbot.server.token_buckets import TokenBuckets
from eslbot.telemetry import logs, metrics

log = structlog.get_logger()

#: Seconds a PBX should wait before it sends us a call again (Retry-After of a 503).
RETRY_AFTER = 30
#: Seconds before the dialplan calls again after a fault of ours.
FAULT_PAUSE = 1.0
#: Seconds that a call may need to leave: it waits for an answer of Ameyo's that is under way.
LEAVE_LIMIT = 12.0
#: How many calls leave at a time, so that the next controllers take each over without delay, and the seconds
#: between two times.
AT_ONCE = 5
POLL_INTERVAL = 0.02
#: Seconds that what is noted for the ledger may take to be on the disk, when the worker leaves.
LAST_FACTS = 1.0


class Controller:
    """Takes connections of FreeSWITCH's and makes calls of them."""

    def __init__(
        self,
        config: Config,
        signer: Signer,
        counts: CallCounts,
        row: int,
        journal: FactSink | None = None,
        *,
        buckets: TokenBuckets,
        ended: EndedCalls,
    ) -> None:
        self.config = config
        #: Signs whose call a call is, and knows it again.
        self.signer = signer
        #: What each source may send: charged before anything else is known of an INVITE.
        self._rate_limit = RateLimit(config, buckets)
        self._refusal_log = RefusalLog()
        self.draining = False
        #: Those that it has, and the customers whom it hands off without one.
        self.calls: set[Leaves] = set()
        #: What the ledger gets to know; None without ``[ledger]``.
        self.journal = journal
        #: What is known of calls whose connection was lost.
        self.resume_states = ResumeStates(Path(config.server.key_file).parent / "calls")
        self._local_peers = LocalPeers(config.server.switch_user)
        self._counts = counts
        self._ended = ended
        self._row = row
        self._admitted = 0
        self._ameyo: dict[str, AmeyoClient] = {}
        metrics.WORKERS_READY.set(1)
        metrics.WORKERS_WANTED.set(config.server.workers)
        metrics.WORKER_STARTED.set(time.time())
        metrics.WORKERS_CALLS_LIMIT.set(config.server.max_calls)
        metrics.LEDGER_CONFIGURED.set(config.ledger is not None)
        metrics.RELAY_WANTED.set(config.relay.processes)
        metrics.expect((workspace.name for workspace in config.workspaces.values()), Verdict)
        for workspace in config.workspaces.values():
            metrics.CALLS_LIMIT.labels(workspace.name).set(workspace.max_calls)

    def take(self, client: socket.socket, address: tuple[str, int]) -> None:
        """One connection, from its first byte to its last. Raises nothing; closes the socket."""
        if not self.config.server.knows_switch(address[0]):
            metrics.PEERS_REFUSED.inc()
            log.warning(
                "esl_peer_refused", peer=address[0], remedy="if this host is yours, add it to server.switches"
            )
            client.close()
            return
        if not self._let_in(client, address[0]):
            client.close()
            return
        about = logs.About()
        logs.speak_of(about)  # before the session begins to read
        session = Session(address, client)
        call = Call(session, self, about)
        self.calls.add(call)
        try:
            call.run()
        except (OutboundSessionHasGoneAway, EslError) as error:
            if session.uuid:
                log.warning("call_left_to_next_controller", error=f"{type(error).__name__}: {error}")
            else:
                metrics.CONNECTIONS_WITHOUT_CALL.inc()
                log.info("esl_connection_without_call", peer=address[0], error=str(error))
        except Exception:  # the dialplan calls the next controller; this worker lives on
            metrics.INTERNAL_ERRORS.inc()
            log.exception("call_failed")
            gevent.sleep(FAULT_PAUSE)  # the next one may be us, and the fault the same
        finally:
            self.calls.discard(call)
            if session.lost_events:
                metrics.EVENTS_LOST.inc(session.lost_events)
            session.stop()

    def _let_in(self, client: socket.socket, peer: str) -> bool:
        """Whether it may speak, being of another host or ``server.switch_user``'s; if not, that is told."""
        try:
            self._local_peers.let_in(client)
        except Gone as gone:
            metrics.CONNECTIONS_WITHOUT_CALL.inc()
            log.info("esl_connection_without_call", peer=peer, error=str(gone))
        except Stranger as stranger:
            metrics.PEERS_REFUSED.inc()
            expected = self._local_peers.user
            log.warning(
                "esl_peer_refused",
                peer=peer,
                uid=stranger.uid,
                expected=expected,
                error=str(stranger),
                remedy=stranger.remedy,
            )
        else:
            return True
        return False

    def hand_over(self, after: float) -> None:
        """Take no more calls, and after ``after`` seconds give those that are left to the next controller.

        At once, but not all in one moment; in mid-word a take-over is 20 ms of silence. A call whose POST is
        under way, or whose BYE is due, goes behind it. Returns when there are none, or when they have had
        their time.
        """
        self.draining = True
        metrics.WORKERS_READY.set(0)
        metrics.WORKERS_CALLS_LIMIT.set(0)
        self._wait_until_empty(after)
        staying = set(self.calls)
        while staying := staying & self.calls:
            for call in list(staying)[:AT_ONCE]:
                staying.discard(call)
                gevent.spawn(call.leave)
            gevent.sleep(POLL_INTERVAL)
        self._wait_until_empty(LEAVE_LIMIT)
        if self.calls:
            log.warning("calls_left_behind", calls=len(self.calls), after_seconds=LEAVE_LIMIT)
        self._refusal_log.sum_up()
        if self.journal is not None:
            self.journal.flush(LAST_FACTS)

    def _wait_until_empty(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.calls and (left := deadline - time.monotonic()) > 0:
            gevent.sleep(min(left, POLL_INTERVAL))

    # -- what a call asks (eslbot.calls.host.CallHost) ----------------------------------------------------

    def observers(self) -> list[Observer]:
        """New ones, for one call: who gets to know what happens to it.

        The ledger first: a fact's time is taken when it is noted, and writing a line may take its time.
        """
        ledger: list[Observer] = [] if self.journal is None else [JournalObserver(self.journal)]
        return [*ledger, MetricsObserver(), log_observer]

    def charge(self, source: str) -> None:
        """Count an INVITE against its source's rate limit, before anything else is known of it.

        Raises Refused.
        """
        self._rate_limit.charge(source)

    def reports_refusal(self, source: str, why: str) -> bool:
        """Whether this refusal gets a log line and a record of its own: in a flood most do not."""
        return self._refusal_log.reports(source, why)

    def admit(self, invite: Invite) -> Workspace:
        """The workspace of a new call, counted in. Raises Refused.

        Raises ConnectionLost when this worker is leaving: another one may still take the call, and where
        there is none, the dialplan answers 503 itself.
        """
        workspace = self.config.workspaces.get(invite.workspace_id)
        if workspace is None:
            raise Refused(403, "unknown_workspace", f"no workspace {invite.workspace_id} is configured")
        if not workspace.knows_source(invite.source_ip):
            raise Refused(
                403,
                "foreign_source",
                f"{invite.source_ip or 'what the edge does not name'} is not among the sources of workspace "
                f"{workspace.name} ({workspace.id})",
            )
        if self.draining:
            raise ConnectionLost("this worker is leaving")
        if self._admitted >= self.config.server.max_calls:
            limit = self.config.server.max_calls
            raise Refused(503, "worker_full", f"server.max_calls = {limit} is reached", RETRY_AFTER)
        if self._counts.total(workspace.id) >= workspace.max_calls:
            limit = workspace.max_calls
            raise Refused(
                503, "workspace_full", f"{workspace.name}: max_calls = {limit} is reached", RETRY_AFTER
            )
        self._enter(workspace)
        return workspace

    def workspace_of(self, invite: Invite) -> Workspace | None:
        """The workspace that ``invite`` names, if it came from one of that workspace's sources."""
        workspace = self.config.workspaces.get(invite.workspace_id)
        return workspace if workspace is not None and workspace.knows_source(invite.source_ip) else None

    def resume(self, invite: Invite) -> Workspace | None:
        """The workspace of a call that is answered already, counted in: no limit sends a customer away."""
        workspace = self.config.of_admitted(invite.workspace_id)
        if workspace is not None:
            self._enter(workspace)
        return workspace

    def _enter(self, workspace: Workspace) -> None:
        self._admitted += 1
        self._counts.add(self._row, workspace.id, 1)

    def leave(self, workspace: Workspace) -> None:
        """Count out a call that :meth:`admit` or :meth:`resume` has counted in."""
        self._admitted -= 1
        self._counts.add(self._row, workspace.id, -1)

    def remember_end(self, call_id: str) -> None:
        """Its PBX has ended the call: a FreeSWITCH that dies now may bring it back, and it is nobody's."""
        self._ended.add(self._row, call_id)

    def has_seen_end(self, call_id: str) -> bool:
        """Whether a worker of this host has."""
        return self._ended.knows(call_id)

    def ameyo(self, workspace: Workspace) -> AmeyoClient:
        """The connection pool to the workspace's own Ameyo; no two workspaces share one."""
        if workspace.id not in self._ameyo:
            # No series before a certificate was seen: its 0 would be one that has ended long ago.
            self._ameyo[workspace.id] = AmeyoClient(
                workspace.ameyo, until=lambda ends: metrics.CERTIFICATE_ENDS.labels(workspace.name).set(ends)
            )
        return self._ameyo[workspace.id]
