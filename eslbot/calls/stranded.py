"""Stranded customers: FreeSWITCH has lost their call without a BYE, and Ameyo is notified without it.

FreeSWITCH dies, and a call does not come back with it: its PBX has refused the re-INVITE, the recovery was
flushed, or FreeSWITCH stays away. Ameyo can be notified all the same: it has the customer, and gives them to
an agent. Each worker looks for resume states (:mod:`eslbot.calls.resume_state`) that no controller has taken.
Where FreeSWITCH does not have the call any more, it is handed off.

The worker that does so writes it into the resume state, as a controller does on the channel: a FreeSWITCH
that was away for long may bring the call back all the same, and another worker may have to go on.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import replace
from enum import Enum
from ipaddress import ip_address

import gevent
import structlog
from gevent.event import Event as Flag

from eslbot.ameyo.client import Attempt
from eslbot.ameyo.notification import notification_of
from eslbot.ameyo.retry import Verdict
from eslbot.caller import identity
from eslbot.caller.invite import Invite
from eslbot.calls import events
from eslbot.calls.channel_state import SWITCH, ChannelState
from eslbot.calls.events import BotEnd, CallEvent
from eslbot.calls.host import CallHost
from eslbot.calls.resume_state import ResumeState
from eslbot.config.model import FreeSwitch, Workspace
from eslbot.esl.errors import EslError
from eslbot.esl.frames import whole_number
from eslbot.esl.inbound import InboundClient
from eslbot.freeswitch.password import NoPassword, event_socket_password
from eslbot.outcome import Outcome, Stage
from eslbot.runtime.greenlets import spawn
from eslbot.telemetry import logs, metrics

log = structlog.get_logger()

#: Seconds for a call to come back, to a FreeSWITCH that runs. It takes two to three; a customer waits in
#: silence meanwhile.
BACK_DUE = 15.0
#: Seconds between two looks for such calls.
SEARCH_INTERVAL = 5.0
#: Seconds for FreeSWITCH to say whether it has a call, and in which its word counts.
ASK_DUE, FRESH = 2.0, 1.0
#: Seconds for Ameyo to accept; whoever still waits then has hung up.
NOTIFY_FOR = 300.0


class Fate(Enum):
    """What has become of a call that nobody has come for."""

    LIVES = "FreeSWITCH has it"
    ENDED = "it has ended, and FreeSWITCH lives on"
    DROPPED = "FreeSWITCH had taken it up, and has dropped it"
    LOST = "another FreeSWITCH has come, and does not have it"
    STARTING = "another FreeSWITCH has just come: it answers before it takes up its calls"
    AWAY = "FreeSWITCH is not there"


class Unknown(Exception):
    """Nobody here can tell."""


class Returned(Exception):
    """FreeSWITCH has come back with the call after all."""


class StrandedCalls:
    """One worker's search for them."""

    def __init__(self, host: CallHost) -> None:
        self._host = host
        #: Calls that the log has as perhaps stranded.
        self._logged: set[str] = set()

    def watch(self) -> None:
        """Look until the worker leaves."""
        while not self._host.draining:
            gevent.sleep(SEARCH_INTERVAL)
            self.look()

    def look(self) -> None:
        """Look once at each call that nobody has come for."""
        lost = list(self._host.resume_states.lost())
        self._logged.intersection_update(lost)
        with closing(Switch(self._host.config.freeswitch)) as switch:
            for call_id in lost:
                if self._host.draining:
                    return
                about = logs.About()
                logs.speak_of(about)
                about.facts["call_id"] = call_id
                try:
                    self._see_to(call_id, switch)
                except Exception:  # the others are seen to all the same
                    metrics.INTERNAL_ERRORS.inc()
                    log.exception("call_failed")
                gevent.sleep(0)  # so many may be lost at once

    def _see_to(self, call_id: str, switch: Switch) -> None:
        with self._host.resume_states.claim(call_id) as claim:
            if claim is None:
                return
            late = time.monotonic() - claim.state.lost_at >= BACK_DUE
            if not (late or claim.state.recovered):
                return
            try:
                fate = switch.fate_of(call_id, claim.state)
                if fate is Fate.STARTING or (not late and fate not in (Fate.DROPPED, Fate.ENDED)):
                    return
                gone = fate in (Fate.DROPPED, Fate.LOST, Fate.AWAY)
                hand_off = self._hand_off(call_id, claim.state) if gone else None
            except Unknown as error:
                if late and call_id not in self._logged:
                    self._logged.add(call_id)
                    log.error(
                        "call_perhaps_stranded",
                        error=str(error),
                        remedy="its customer may wait in silence: see `eslbot calls`, and tell Ameyo",
                    )
                return
            if hand_off is not None:
                if not self._host.draining:
                    hand_off.begin()
            elif fate is not Fate.AWAY:  # there what Ameyo has accepted counts, should the call come back
                claim.done()

    def _hand_off(self, call_id: str, saved: ResumeState) -> StrandedHandOff | None:
        """None where Ameyo has accepted before, or nobody has seen the answer. Raises Unknown."""
        state = ChannelState({"Answer-State": "answered"}, saved)
        if state.stage in (None, Stage.ADMITTED, Stage.HELD):
            return None
        # Not by this worker's configuration: another one may be of before a reload, or behind it.
        invite = self._host.signer.verify(call_id, saved.variables.get(identity.VARIABLE, ""))
        if invite is None:
            raise Unknown("no key of ours says whose call it is")
        workspace = self._host.config.of_admitted(invite.workspace_id)
        if workspace is None:
            raise Unknown(f"its workspace {invite.workspace_id} is not configured")
        return StrandedHandOff(self._host, saved, state, invite, workspace)


class StrandedHandOff:
    """One customer's, without their call."""

    def __init__(
        self,
        host: CallHost,
        saved: ResumeState,
        state: ChannelState,
        invite: Invite,
        workspace: Workspace,
    ) -> None:
        self._host = host
        self._saved, self._state, self._invite = saved, state, invite
        self.call_id, self.stage = invite.call_id, state.stage
        self.workspace: Workspace = workspace
        self._observers = host.observers()
        self._over = Flag()
        self._leaving = False
        self._began = self._asked = time.monotonic()
        self._noted = dict(saved.variables)

    @property
    def seconds(self) -> float:
        """Since this worker has it."""
        return round(time.monotonic() - self._began, 3)

    def begin(self) -> None:
        """Begin it; nobody else does from here on."""
        self._host.calls.add(self)
        ended = self._state.ended if self.stage in (Stage.ENDED, Stage.HANDING_OFF) else None
        if ended is None:
            ended = BotEnd(Outcome.SWITCH_LOST, "FreeSWITCH has died, and the call did not come back")
            self._noted |= {"eslbot_outcome": ended.outcome, "eslbot_reason": ended.reason}
            self._noted["eslbot_properties"] = "{}"
            self._publish(events.BotEnded(ended))
        self._save(under_way=True, eslbot_stage=Stage.HANDING_OFF)
        self._publish(events.Stranded(self._invite.crt_object_id, self.stage))
        spawn(self._notify, ended)

    def leave(self) -> None:
        """Leave it to the next worker, behind a POST that is under way."""
        self._leaving = True
        self._over.set()

    def _notify(self, ended: BotEnd) -> None:
        late = gevent.spawn_later(NOTIFY_FOR, self._over.set)
        last: dict[str, str] = {}
        returned = False
        try:
            body = notification_of(
                self.workspace, self._invite, ended.outcome, ended.reason, ended.properties
            )
            attempts = self._host.ameyo(self.workspace).notify(
                body, self._over, before=self._state.attempts, begin=self._attempt_begins, hung_up=Flag()
            )
            for attempt in attempts:
                last = self._noted_of(attempt)
                self._publish(events.AttemptEnded(attempt))
        except Returned:
            returned = True
            self._publish(events.CameBack())
        finally:
            late.kill()
            self._save(under_way=False, **last)
            if not (self._leaving or returned or "eslbot_held_at" in last):
                self._host.resume_states.forget(self.call_id)
            self._host.calls.discard(self)

    def _attempt_begins(self, number: int) -> None:
        """Raises Returned."""
        if time.monotonic() - self._asked > FRESH and self._lives():
            raise Returned
        # While we have it, nobody else is to know when the next one would be due.
        self._save(under_way=True, eslbot_attempts=str(number), eslbot_next_attempt="")

    def _publish(self, event: CallEvent) -> None:
        for observe in self._observers:
            observe(self, event)

    def _lives(self) -> bool:
        with closing(Switch(self._host.config.freeswitch)) as switch:
            try:
                return switch.fate_of(self.call_id, self._saved) in (Fate.LIVES, Fate.STARTING)
            except Unknown:
                return False

    def _noted_of(self, attempt: Attempt) -> dict[str, str]:
        """What is noted of an attempt that is over; nothing where nobody knows what became of it."""
        now = time.monotonic() - self._saved.invited_at  # the call's own clock
        if attempt.verdict is Verdict.ACCEPTED:
            return {"eslbot_stage": Stage.HELD, "eslbot_held_at": f"{now:.3f}"}
        if attempt.sent and attempt.verdict is Verdict.INTERRUPTED:
            return {}
        return {"eslbot_next_attempt": f"{now + attempt.delay:.3f}"}

    def _save(self, *, under_way: bool, **variables: str) -> None:
        self._noted |= variables
        state = replace(self._saved, variables=self._noted, under_way=under_way)
        self._host.resume_states.save(self.call_id, state)


class Switch:
    """FreeSWITCH, asked for all calls of a look by one connection, which is made for the first."""

    def __init__(self, switch: FreeSwitch) -> None:
        self._switch = switch
        self._connection = ExitStack()
        self._client: InboundClient | None = None
        self._failure: Unknown | None = None
        self._core, self._uptime = "", 0

    def close(self) -> None:
        """End the connection, if there is one."""
        self._connection.close()

    def fate_of(self, call_id: str, saved: ResumeState) -> Fate:
        """What it says of a call. Raises Unknown; then it is not asked again.

        One that does not have a call which it had recovered has dropped it without a BYE: the PBX has refused
        its re-INVITE. Where the first one lives, a call that it does not have has ended between two
        controllers.
        """
        address = self._switch.event_socket.ip
        if not _same_host(saved.peer, str(address)):
            raise Unknown(f"the FreeSWITCH at {saved.peer} is not the one of freeswitch.event_socket")
        if self._failure is not None:
            raise self._failure
        try:
            lives = self._ask(f"uuid_exists {call_id}") == "true"
        except ConnectionRefusedError:
            return Fate.AWAY
        except Unknown as unknown:
            self._failure = unknown
            raise
        except (OSError, EslError) as error:  # a network that is cut, or we are full: it may live
            self._failure = Unknown(f"{type(error).__name__}: {error}")
            raise self._failure from error
        same = self._core == saved.variables.get(SWITCH)
        if not same and self._uptime < BACK_DUE:
            return Fate.STARTING
        if lives:
            return Fate.LIVES
        if not same:
            return Fate.LOST
        return Fate.DROPPED if saved.recovered else Fate.ENDED

    def _ask(self, command: str) -> str:
        if self._client is None:
            try:
                password = event_socket_password(self._switch)
            except NoPassword as error:
                raise Unknown(str(error)) from error
            client = InboundClient(self._switch.event_socket, password, ASK_DUE)
            self._connection.enter_context(client)
            self._core = client.api("global_getvar core_uuid")
            self._uptime = whole_number(client.api("uptime"))
            self._client = client
        return self._client.api(command)


def _same_host(peer: str, event_socket: str) -> bool:
    try:
        return peer == event_socket or (ip_address(peer).is_loopback and ip_address(event_socket).is_loopback)
    except ValueError:
        return False
