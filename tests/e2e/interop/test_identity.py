"""Whose call it is was settled at its admission: nothing that the PBX sends later changes it.

The PBX of these tests says something else in each request behind its INVITE; then the worker that has the
call is killed, and the next one has nothing to go by but the channel.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.calls.test_call import accepted, logged
from tests.e2e.calls.test_take_over import kill_controller, taken_over, undisturbed
from tests.e2e.interop.conftest import Calling
from tests.e2e.interop.pbx import DID, Call
from tests.support.lab import Lab

SOMEBODY_ELSES = "0049301234567|somebody-elses"


def says_nobody(call: Call, other: str) -> None:
    """Many PBXs say it in the INVITE alone."""
    call.display = None
    assert call.reinvite(call.offer()).status == 200


def says_alice(call: Call, other: str) -> None:
    """As a PBX does that takes the caller's name for a display name."""
    call.display = "Alice"
    assert call.reinvite(call.offer()).status == 200


def says_another_call(call: Call, other: str) -> None:
    """Somebody else's CRT Object ID."""
    call.display = SOMEBODY_ELSES
    assert call.reinvite(call.offer()).status == 200


def says_another_tenant(call: Call, other: str) -> None:
    """The attack: another tenant's header, in a re-INVITE of a PBX that may call."""
    call.display = SOMEBODY_ELSES
    assert call.reinvite(call.offer(), [("X-Workspace-ID", other)]).status == 200


def updates(call: Call, other: str) -> None:
    """The same by UPDATE (RFC 3311)."""
    call.display = SOMEBODY_ELSES
    call.ask("UPDATE", call.offer(), [("X-Workspace-ID", other)])


SAYS = [says_nobody, says_alice, says_another_call, says_another_tenant, updates]


@pytest.mark.parametrize(
    ("says", "transport"), [*((says, "udp") for says in SAYS), (says_another_tenant, "tcp")]
)
def test_a_call_stays_whose_it_was(
    lab: Lab, calling: Calling, says: Callable[[Call, str], None], transport: str
) -> None:
    tenant, other = lab.tenants["hold"], lab.tenants["behind-nat"]
    call = calling(tenant.name, transport=transport)
    call.established()
    bot = lab.bot.wait_for_call(lambda c: c.headers.get("X-CRT-Object-ID") == call.crt)
    bot.wait_for_message("start")
    says(call, other.id)
    call.ask("OPTIONS")  # its answer comes behind the ACK: FreeSWITCH has read it
    kill_controller(lab)
    taken_over(lab, call.crt, 1)
    bot.end({"summary": "as it was"})
    lab.ameyo.wait_accepted(call.crt)
    (post,) = accepted(lab, call.crt)
    assert (post.header("Authorization"), post.header("Host")) == (tenant.token, tenant.host)
    assert post.properties["DID"] == DID
    assert lab.ameyo.requests_for("somebody-elses") == []
    call.bye()
    ended = logged(lab, call.crt, "call_ended")
    assert (ended["workspace"], ended["take_overs"]) == (tenant.name, 1)
    undisturbed(lab, call.crt, bot)
    mine = [c for c in lab.bot.calls if c.headers.get("X-Call-ID") == bot.headers["X-Call-ID"]]
    assert mine == [bot], "one connection, to its own bot"
