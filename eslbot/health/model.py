"""What is said of the service's health: components and their colours, and calls that need somebody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any


class Colour(StrEnum):
    """Red: it does not work. Amber: it works, and somebody should look. Unknown: nobody here can tell."""

    GREEN = "green"
    AMBER = "amber"
    RED = "red"
    UNKNOWN = "unknown"


#: What the metric `eslbot_health` has for each.
NUMBERS = {Colour.GREEN: 2, Colour.AMBER: 1, Colour.RED: 0, Colour.UNKNOWN: -1}


class Component(StrEnum):
    """What has a colour. The last two are each tenant's own."""

    FREESWITCH = "freeswitch"
    EVENT_SOCKET = "event_socket"
    WORKERS = "workers"
    RELAYS = "relays"
    LEDGER = "ledger"
    BOT = "bot"
    AMEYO = "ameyo"


#: Where one of these is red no call is carried as it should be: the service is not ready.
CARRIES_CALLS = frozenset({Component.FREESWITCH, Component.WORKERS, Component.RELAYS})


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look has found. ``why`` and ``remedy`` are for people; empty where all is well.

    ``perhaps_late``: it did not answer in time, as on a machine at its limit; red at the second look only.
    ``never_seen``: it was not there since the service's start, so nothing has been lost yet.
    """

    colour: Colour
    why: str = ""
    remedy: str = ""
    perhaps_late: bool = False
    never_seen: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """What a finding is about. ``workspace_id`` is None for the service itself."""

    component: Component
    workspace_id: str | None = None


@dataclass(frozen=True, slots=True)
class State:
    """One component's. ``since``: when it got its colour, in epoch seconds. ``workspace``: its name."""

    place: Place
    finding: Finding
    since: float
    workspace: str | None = None

    @property
    def told(self) -> dict[str, Any]:
        """For the API."""
        told: dict[str, Any] = {
            "component": self.place.component.value,
            "colour": self.finding.colour.value,
            "since": self.since,
            "why": self.finding.why,
            "remedy": self.finding.remedy,
        }
        if self.place.workspace_id is not None:
            told |= {"workspace_id": self.place.workspace_id, "workspace": self.workspace}
        return told


class Need(StrEnum):
    """Why a call that lives needs somebody."""

    NOT_VERIFIED = "not_verified"  # nobody knows whose it is, and nothing is done with it
    HAND_OFF_FAILING = "hand_off_failing"  # the bot is done, and Ameyo does not take the customer
    BYE_OVERDUE = "bye_overdue"  # Ameyo has accepted, and nobody fetches the customer
    BOT_SILENT = "bot_silent"  # the customer has not heard the bot yet


@dataclass(frozen=True, slots=True)
class CallInNeed:
    """A call that lives and needs somebody. ``since``: when that began, in epoch seconds."""

    call_id: str
    need: Need
    since: float
    why: str
    remedy: str
    workspace_id: str | None = None
    workspace: str | None = None
    crt_object_id: str | None = None
    stage: str | None = None

    @property
    def told(self) -> dict[str, Any]:
        """For the API."""
        return {
            "call_id": self.call_id,
            "need": self.need.value,
            "since": self.since,
            "why": self.why,
            "remedy": self.remedy,
            "workspace_id": self.workspace_id,
            "workspace": self.workspace,
            "crt_object_id": self.crt_object_id,
            "stage": self.stage,
        }


@dataclass(frozen=True, slots=True)
class Health:
    """One round's result. ``checked_at``: when, in epoch seconds."""

    checked_at: float
    states: tuple[State, ...]
    calls: tuple[CallInNeed, ...] = ()

    @property
    def colour(self) -> Colour:
        """The worst of all; a call that needs somebody is red."""
        found = {state.finding.colour for state in self.states}
        if Colour.RED in found or self.calls:
            return Colour.RED
        return Colour.AMBER if Colour.AMBER in found else Colour.GREEN

    @property
    def in_the_way(self) -> tuple[State, ...]:
        """Why calls are not carried as they should be; empty where the service is ready.

        A service that is ready waits for its FreeSWITCH: one that was never there is not in the way.
        """
        return tuple(
            state
            for state in self.states
            if state.place.component in CARRIES_CALLS
            and state.finding.colour is Colour.RED
            and not state.finding.never_seen
        )

    def told(self, workspaces: frozenset[str] | None = None) -> dict[str, Any]:
        """For the API. ``workspaces``: the ids of the tenants that who asks may see, None for all.

        Who may not see all reads of the service itself which colour it has, and not why: that names addresses
        and may name others.
        """
        if workspaces is None:
            return {
                "checked_at": self.checked_at,
                "ready": not self.in_the_way,
                "colour": self.colour.value,
                "components": [state.told for state in self.states],
                "calls": [call.told for call in self.calls],
            }
        own = tuple(
            state
            if state.place.workspace_id
            else State(state.place, Finding(state.finding.colour), state.since)
            for state in self.states
            if state.place.workspace_id is None or state.place.workspace_id in workspaces
        )
        calls = tuple(call for call in self.calls if call.workspace_id in workspaces)
        return Health(self.checked_at, own, calls).told()


class Board:
    """Remembers since when each component has its colour; what has changed is for the log."""

    def __init__(self) -> None:
        self._states: dict[Place, State] = {}
        #: Those that were late at the look before.
        self._late: frozenset[Place] = frozenset()

    def settle(
        self, findings: Mapping[Place, Finding], names: Mapping[str, str], now: float
    ) -> tuple[tuple[State, ...], list[State]]:
        """The states now, and those that are news: another colour than before, or not a quiet one.

        ``names`` are those of the tenants, by id.
        """
        states, changed = [], []
        late = frozenset(place for place, finding in findings.items() if finding.perhaps_late)
        for place, finding in findings.items():
            if finding.perhaps_late and place not in self._late:
                finding = replace(finding, colour=Colour.AMBER)
            before = self._states.get(place)
            same = before is not None and before.finding.colour is finding.colour
            since = before.since if same and before is not None else now
            state = State(place, finding, since, names.get(place.workspace_id or ""))
            if not same and not (_is_quiet(finding) and (before is None or _is_quiet(before.finding))):
                changed.append(state)
            states.append(state)
        self._states, self._late = {state.place: state for state in states}, late
        return tuple(states), changed


def _is_quiet(finding: Finding) -> bool:
    """Whether it is well, or nothing has happened by which one could tell: that comes and goes unsaid."""
    return finding.colour is Colour.GREEN or (finding.colour is Colour.UNKNOWN and not finding.remedy)
