"""Customers whose call FreeSWITCH has lost without a BYE: they hear nothing, and their PBX keeps them.

FreeSWITCH dies, and a call does not come back with it: its PBX has refused the re-INVITE, the recovery was
flushed, or FreeSWITCH stays away. Ameyo can be told all the same: it has the customer, and gives them to an
agent. Each worker looks at what was left of calls (:mod:`eslbot.survival`) and that nobody has come for;
where FreeSWITCH does not have the call any more, it is handed off.
"""

from __future__ import annotations

import time
from enum import Enum
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import gevent
import structlog
from gevent.event import Event as Flag

from eslbot import identity, logs, metrics
from eslbot.ameyo.notification import notification_of
from eslbot.ameyo.told import tell
from eslbot.bot import BotEnd
from eslbot.config.model import Config, FreeSwitch, Secret
from eslbot.esl.errors import EslError
from eslbot.esl.inbound import InboundClient
from eslbot.ledger.facts import What
from eslbot.notes import SWITCH, Notes
from eslbot.outcome import Outcome, Stage
from eslbot.switchconf import CONF_DIR, kept_password

if TYPE_CHECKING:
    from eslbot.controller import Controller
    from eslbot.survival import Left

log = structlog.get_logger()

#: Seconds for a call to come back. FreeSWITCH takes two to three; a customer waits in silence meanwhile.
BACK_DUE = 15.0
#: Seconds between two looks.
LOOK = 5.0
#: Seconds for FreeSWITCH to say whether it has a call.
ASK_DUE = 2.0
#: Seconds for Ameyo to accept; whoever still waits then has hung up.
NOTIFY_FOR = 300.0


class Fate(Enum):
    """What has become of a call that nobody has come for."""

    LIVES = "FreeSWITCH has it"
    ENDED = "it has ended, and FreeSWITCH lives on"
    DROPPED = "FreeSWITCH had taken it up, and has dropped it"
    LOST = "another FreeSWITCH has come, and does not have it"
    AWAY = "FreeSWITCH is not there"


class Unknown(Exception):
    """Nobody here can tell."""


class Stranded:
    """One worker's look for them."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._told: set[str] = set()

    def watch(self) -> None:
        """Look for ever."""
        while True:
            gevent.sleep(LOOK)
            self.look()

    def look(self) -> None:
        """Look once: each call that nobody has come for gets a greenlet of its own."""
        for call_id in self._controller.survival.lost():
            gevent.spawn(self._see_to, call_id)

    def _see_to(self, call_id: str) -> None:
        about = logs.About()
        logs.speak_of(about)
        about.facts["call_id"] = call_id
        with self._controller.survival.claim(call_id) as claim:
            if claim is None:
                return
            late = time.monotonic() - claim.left.lost_at >= BACK_DUE
            if not (late or claim.left.recovered):
                return
            try:
                fate = fate_of(self._controller.config, call_id, claim.left)
            except Unknown as error:
                if late and call_id not in self._told:
                    self._told.add(call_id)
                    log.error(
                        "call_perhaps_stranded",
                        error=str(error),
                        remedy="its customer may wait in silence: see `eslbot calls`, and tell Ameyo",
                    )
                return
            if not late and fate in (Fate.LIVES, Fate.LOST, Fate.AWAY):
                return  # FreeSWITCH answers here before it takes up its calls
            if fate in (Fate.DROPPED, Fate.LOST, Fate.AWAY):
                self._hand_off(call_id, claim.left)
            claim.done()
            self._told.discard(call_id)

    def _hand_off(self, call_id: str, left: Left) -> None:
        """Notify Ameyo, unless it has accepted before."""
        notes = Notes({"Answer-State": "answered"}, left)
        invite = self._controller.signer.verify(call_id, left.variables.get(identity.VARIABLE, ""))
        workspace = None if invite is None else self._controller.config.workspaces.get(invite.workspace_id)
        if invite is None or workspace is None or notes.stage in (None, Stage.ADMITTED, Stage.HELD):
            return
        ended = notes.ended if notes.stage in (Stage.ENDED, Stage.HANDING_OFF) else None
        journal = self._controller.journal
        if ended is None:
            ended = BotEnd(Outcome.SWITCH_LOST, "FreeSWITCH has died, and the call did not come back")
            journal.note(call_id, What.BOT_ENDED, {"outcome": ended.outcome, "reason": ended.reason})
        metrics.CALLS_STRANDED.labels(workspace.name).inc()
        log.error(
            "call_stranded",
            workspace=workspace.name,
            crt_object_id=invite.crt_object_id,
            stage=notes.stage,
            remedy="FreeSWITCH has died and does not have it any more; its customer goes to an agent",
        )
        over = Flag()
        late = gevent.spawn_later(NOTIFY_FOR, over.set)
        try:
            body = notification_of(workspace, invite, ended.outcome, ended.reason, ended.properties)
            for attempt in self._controller.ameyo(workspace).notify(body, over, before=notes.attempts):
                journal.note(call_id, What.ATTEMPT, tell(attempt, workspace.name))
        finally:
            late.kill()


def fate_of(config: Config, call_id: str, left: Left) -> Fate:
    """What FreeSWITCH says of it. Raises Unknown.

    One that does not have a call which it had recovered has dropped it without a BYE: the PBX has refused its
    re-INVITE. Where the first one lives, a call that it does not have has ended between two controllers.
    """
    switch = config.freeswitch
    if not _same_host(left.peer, str(switch.event_socket.ip)):
        raise Unknown(f"the FreeSWITCH at {left.peer} is not the one of freeswitch.event_socket")
    try:
        with InboundClient(switch.event_socket, _password(switch), ASK_DUE) as client:
            if client.api(f"uuid_exists {call_id}") == "true":
                return Fate.LIVES
            same = client.api("global_getvar core_uuid") == left.variables.get(SWITCH)
    except ConnectionRefusedError:
        return Fate.AWAY
    except (OSError, EslError) as error:  # a network that is cut, or we are full: it may live
        raise Unknown(f"{type(error).__name__}: {error}") from error
    if not same:
        return Fate.LOST
    return Fate.DROPPED if left.recovered else Fate.ENDED


def _password(switch: FreeSwitch) -> Secret:
    """The event socket's: the configured one, or that which `eslbot conf` has made. Raises Unknown."""
    if switch.event_socket_password is not None:
        return switch.event_socket_password
    try:
        kept = kept_password(Path(CONF_DIR))
    except (OSError, UnicodeDecodeError, ElementTree.ParseError) as error:
        raise Unknown(
            f"freeswitch.event_socket_password is not set, and {CONF_DIR} has none: {error}"
        ) from error
    if kept is None:
        raise Unknown(f"freeswitch.event_socket_password is not set, and {CONF_DIR} has none")
    return Secret(kept)


def _same_host(peer: str, event_socket: str) -> bool:
    try:
        return peer == event_socket or (ip_address(peer).is_loopback and ip_address(event_socket).is_loopback)
    except ValueError:
        return False
