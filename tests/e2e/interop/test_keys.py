"""Keys by SIP INFO (draft-kaplan-dispatch-info-dtmf-package; Cisco's ``application/dtmf-relay``)."""

from __future__ import annotations

import pytest

from tests.e2e.interop.conftest import Calling, bot_of, message_of
from tests.e2e.interop.controller import Channel
from tests.support.lab import Lab

RELAY, PLAIN = "application/dtmf-relay", "application/dtmf"

#: Content type, body, what FreeSWITCH makes of it, and what the bot is told.
INFOS = [
    (RELAY, "Signal=5\r\nDuration=160\r\n", "5", "5"),
    (RELAY, "Signal=*\r\nDuration=160\r\n", "*", "*"),
    (RELAY, "signal=#\nduration=160", "#", "#"),
    (RELAY, "Signal= 5 \r\nDuration= 160\r\n", "5", "5"),
    (RELAY, "Duration=160\r\nSignal=D\r\n", "D", "D"),
    (RELAY, "Signal=a\r\nDuration=160\r\n", "0", "A"),
    (RELAY, "Signal=10\r\nDuration=160\r\n", "*", "*"),
    (RELAY, "Signal=11", "#", "#"),
    (RELAY, "Signal=16\r\nDuration=160\r\n", "F", ""),
    (RELAY, "Signal=x\r\nDuration=160\r\n", "0", ""),
    (RELAY, "Signal=\r\nDuration=160\r\n", "0", ""),
    (RELAY, "Duration=160\r\n", "", ""),
    (PLAIN, "5", "5", "5"),
    (PLAIN, "5\r\n", "5", "5"),
    (PLAIN, "*", "0", "*"),
    (PLAIN, "#\r\n", "0", "#"),
    (PLAIN, "d", "0", "D"),
    (PLAIN, "10", "*", "*"),
    (PLAIN, "", "", ""),
    ("application/vnd.nortelnetworks.digits", "p=Digit-Collection\r\nd=7\r\n", "7", "7"),
    ("application/xml", "<key>5</key>", "", ""),
]
#: What no other key is, so that "none" has an end.
LAST = (RELAY, "Signal=B\r\nDuration=100\r\n")


def test_what_freeswitch_makes_of_them(calling: Calling, channel_of: object) -> None:
    call = calling()
    channel: Channel = channel_of(call)  # type: ignore[operator]
    for kind, body, key, _ in INFOS:
        assert call.ask("INFO", body, kind=kind).status == 200
        if key:
            event = channel.event("DTMF")
            assert (event["DTMF-Digit"], event["DTMF-Source"]) == (key, "ENDPOINT"), (kind, body)
    assert call.ask("INFO", LAST[1], kind=LAST[0]).status == 200
    assert channel.event("DTMF")["DTMF-Digit"] == "B"
    assert not [event for event in channel.events if event["Event-Name"] == "DTMF"]
    call.bye()


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_the_bot_is_told_the_key_or_none(lab: Lab, calling: Calling, transport: str) -> None:
    call = calling(transport=transport)
    call.established()
    bot = bot_of(lab, call)
    for kind, body, _, _ in (*INFOS, (*LAST, "", "")):
        assert call.ask("INFO", body, kind=kind).status == 200
    message_of(bot, "dtmf", digit="B")
    told = [received.message for received in bot.messages_of("dtmf")]
    assert [message["digit"] for message in told] == [key for *_, key in INFOS if key] + ["B"]
    assert (told[0]["duration_ms"], told[-1]["duration_ms"]) == (160, 100)
    call.bye()
