"""What a PBX can change of a channel's variables once the call is admitted (mod_sofia's ``sofia.c``)."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.interop.conftest import Calling
from tests.e2e.interop.controller import Channel
from tests.e2e.interop.pbx import DID, Call

Establish = Callable[[Call], Channel]


def test_an_ack_rewrites_who_calls(calling: Calling, channel_of: Establish) -> None:
    call = calling()
    channel = channel_of(call)
    assert channel.get("sip_from_display") == call.display

    call.display = "Alice"
    assert call.reinvite(call.offer(), [("x-workspace-id", "another")]).status == 200
    call.ask("OPTIONS")  # its answer comes behind the ACK
    assert channel.get("sip_from_display") == "Alice"
    assert '"Alice"' in channel.get("sip_full_from")
    assert channel.get("sip_h_X-Workspace-ID") == "another"

    call.display = None
    assert call.reinvite(call.offer()).status == 200
    call.ask("OPTIONS")
    assert channel.get("sip_from_display") == ""
    assert channel.get("sip_h_X-Workspace-ID") == "another", "one that is left out stays"

    call.display = f"{DID}|${{hostname}}"
    assert call.reinvite(call.offer()).status == 200
    call.ask("OPTIONS")
    assert channel.get("sip_from_display") == ""
    call.bye()


def test_info_and_update_rewrite_nothing_of_it(calling: Calling, channel_of: Establish) -> None:
    call = calling()
    channel = channel_of(call)
    display, call.display = call.display, "Alice"
    headers = [("X-Workspace-ID", "another")]
    for method in ("INFO", "UPDATE", "OPTIONS", "MESSAGE"):
        call.ask(method, headers=headers)
    assert channel.get("sip_from_display") == display
    assert channel.get("sip_h_X-Workspace-ID") == call.workspace
    assert channel.get("sip_info_h_X-Workspace-ID") == "another"
    call.bye()
