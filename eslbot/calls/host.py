"""What a call asks of the worker process that it runs in (:class:`eslbot.server.controller.Controller`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from eslbot.ameyo.client import AmeyoClient
from eslbot.caller.identity import Signer
from eslbot.caller.invite import Invite
from eslbot.calls.events import Observer
from eslbot.calls.resume_state import ResumeStates
from eslbot.config.model import Config, Workspace


class Leaves(Protocol):
    """What a worker that leaves gives to the next one."""

    def leave(self) -> None:
        """Give it away, at once or as soon as nothing is lost by it."""


class CallHost(Protocol):
    """Who admits calls, counts them, and has what they share."""

    config: Config
    signer: Signer
    resume_states: ResumeStates
    #: Whether this worker leaves, and takes no new calls.
    draining: bool
    #: What it has to give away before it ends.
    calls: set[Leaves]

    def observers(self) -> Sequence[Observer]:
        """New ones, for one call: who gets to know what happens to it."""

    def charge(self, source: str) -> None:
        """Count an INVITE against its source's rate limit, before anything else is known of it.

        Raises Refused.
        """

    def admit(self, invite: Invite) -> Workspace:
        """The workspace of a new call, counted in. Raises Refused, ConnectionLost."""

    def resume(self, invite: Invite) -> Workspace | None:
        """The workspace of an answered call, counted in; None where it is configured no longer."""

    def leave(self, workspace: Workspace) -> None:
        """Count out a call that was counted in."""

    def workspace_of(self, invite: Invite) -> Workspace | None:
        """The workspace that ``invite`` names, if it came from one of that workspace's sources."""

    def reports_refusal(self, source: str, why: str) -> bool:
        """Whether this refusal gets a log line and a record of its own: in a flood most do not."""

    def remember_end(self, call_id: str) -> None:
        """Its PBX has ended the call."""

    def has_seen_end(self, call_id: str) -> bool:
        """Whether a worker of this host has seen it end."""

    def ameyo(self, workspace: Workspace) -> AmeyoClient:
        """The workspace's own client."""
