"""The words of health: components and their colours, and calls that need somebody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any


class Colour(StrEnum):
    """Red: it does not work. Amber: it works, and somebody should look. Unknown: nobody here can tell."""

    GREEN = "green"
    AMBER = "amber"
    RED = "red"
    UNKNOWN = "unknown"


#: The values of the metric `eslbot_health`.
METRIC_VALUES = {Colour.GREEN: 2, Colour.AMBER: 1, Colour.RED: 0, Colour.UNKNOWN: -1}


class Component(StrEnum):
    """What has a colour. Each tenant has a bot and an Ameyo of its own."""

    FREESWITCH = "freeswitch"
    EVENT_SOCKET = "event_socket"
    WORKERS = "workers"
    RELAYS = "relays"
    LEDGER = "ledger"
    BOT = "bot"
    AMEYO = "ameyo"


#: Where one of these is red, calls are not carried as they should be: the service is not ready.
CARRIES_CALLS = frozenset({Component.FREESWITCH, Component.WORKERS, Component.RELAYS})


@dataclass(frozen=True, slots=True)
class Finding:
    """What one probe has found. ``why`` and ``remedy`` are for people; they are empty where all is well.

    ``perhaps_late``: it did not answer in time, as on a machine at its limit. So it is red in the second
    round. ``never_seen``: it was never up since the service's start, so nothing has been lost yet.
    """

    colour: Colour
    why: str = ""
    remedy: str = ""
    perhaps_late: bool = False
    never_seen: bool = False


@dataclass(frozen=True, slots=True)
class Subject:
    """What a finding is about; ``workspace_id`` is None for the service itself."""

    component: Component
    workspace_id: str | None = None


@dataclass(frozen=True, slots=True)
class State:
    """A component's state. ``since``: when it got its colour, in epoch seconds. ``workspace``: its name."""

    subject: Subject
    finding: Finding
    since: float
    workspace: str | None = None

    def as_json(self) -> dict[str, Any]:
        """For the API."""
        document: dict[str, Any] = {
            "component": self.subject.component.value,
            "colour": self.finding.colour.value,
            "since": self.since,
            "why": self.finding.why,
            "remedy": self.finding.remedy,
        }
        if self.subject.workspace_id is not None:
            document |= {"workspace_id": self.subject.workspace_id, "workspace": self.workspace}
        return document


class Need(StrEnum):
    """Why a live call needs somebody."""

    NOT_VERIFIED = "not_verified"  # nobody knows whose it is, so nothing is done with it
    HAND_OFF_FAILING = "hand_off_failing"  # the bot is done, and Ameyo does not accept the notification
    BYE_OVERDUE = "bye_overdue"  # Ameyo has accepted, and the PBX does not fetch the customer
    BOT_SILENT = "bot_silent"  # the customer has not heard the bot yet


@dataclass(frozen=True, slots=True)
class CallInNeed:
    """A live call that needs somebody. ``since``: when that began, in epoch seconds."""

    call_id: str
    need: Need
    since: float
    why: str
    remedy: str
    workspace_id: str | None = None
    workspace: str | None = None
    crt_object_id: str | None = None
    stage: str | None = None


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
    def blocking(self) -> tuple[State, ...]:
        """Why calls are not carried as they should be; empty where the service is ready.

        A FreeSWITCH that was never up does not count: the service is ready, and waits for it.
        """
        return tuple(
            state
            for state in self.states
            if state.subject.component in CARRIES_CALLS
            and state.finding.colour is Colour.RED
            and not state.finding.never_seen
        )

    def as_json(self, workspaces: frozenset[str] | None = None) -> dict[str, Any]:
        """For the API. ``workspaces``: the ids of the tenants that the viewer may see, None for all.

        A viewer who may not see all gets the colours of the service itself and not their reasons, which name
        addresses and may name other tenants.
        """
        if workspaces is None:
            return {
                "checked_at": self.checked_at,
                "ready": not self.blocking,
                "colour": self.colour.value,
                "components": [state.as_json() for state in self.states],
                "calls": [{**asdict(call), "need": call.need.value} for call in self.calls],
            }
        states = tuple(
            state if state.subject.workspace_id else replace(state, finding=Finding(state.finding.colour))
            for state in self.states
            if state.subject.workspace_id is None or state.subject.workspace_id in workspaces
        )
        calls = tuple(call for call in self.calls if call.workspace_id in workspaces)
        return Health(self.checked_at, states, calls).as_json()


class StateTracker:
    """Remembers since when each component has its colour, and which changes are worth a line in the log."""

    def __init__(self) -> None:
        self._states: dict[Subject, State] = {}
        #: Those that were late in the round before.
        self._late: frozenset[Subject] = frozenset()

    def update(
        self, findings: Mapping[Subject, Finding], names: Mapping[str, str], now: float
    ) -> tuple[tuple[State, ...], list[State]]:
        """The states now, and those of them to be logged. ``names``: the tenants', by id."""
        states, changed = [], []
        late = frozenset(subject for subject, finding in findings.items() if finding.perhaps_late)
        for subject, finding in findings.items():
            if finding.perhaps_late and subject not in self._late:
                finding = replace(finding, colour=Colour.AMBER)
            before = self._states.get(subject)
            same = before is not None and before.finding.colour is finding.colour
            since = before.since if same and before is not None else now
            state = State(subject, finding, since, names.get(subject.workspace_id or ""))
            if not same and not (_is_quiet(finding) and (before is None or _is_quiet(before.finding))):
                changed.append(state)
            states.append(state)
        self._states, self._late = {state.subject: state for state in states}, late
        return tuple(states), changed


def _is_quiet(finding: Finding) -> bool:
    """Whether it is well, or there was no call by which one could tell: neither is worth a line."""
    return finding.colour is Colour.GREEN or (finding.colour is Colour.UNKNOWN and not finding.remedy)
