"""Whole calls: SIPp → switch → eslbot → bot and Ameyo → BYE. In all of them no BYE comes from our side."""

from __future__ import annotations

import time

import pytest

from eslbot.sim.bot import GOODBYE, GREETING
from eslbot.sim.pbx import CallResult, Notification, Pbx, PbxCall
from eslbot.sim.pbx.media import CALLER_TONE
from tests.e2e.calls.conftest import FOREIGN_SOURCE, OTHER_SOURCE
from tests.support.lab import Lab
from tests.support.unkind_ameyo import unkind_answer

DID = "00919990152080"


def call(lab: Lab, tenant: str, crt: str, **options: object) -> PbxCall:
    return lab.pbx.call(DID, crt, lab.tenants[tenant].id, **options)  # type: ignore[arg-type]


def handed_off(lab: Lab, tenant: str, crt: str, timeout: float = 20.0, **options: object) -> CallResult:
    """A call that ends in one accepted hand-off and the PBX's BYE."""
    result = call(lab, tenant, crt, timeout=timeout, **options).wait(timeout + 10)
    assert result.completed, result
    assert result.cause == "accepted"
    assert len(accepted(lab, crt)) == 1
    return result


def accepted(lab: Lab, crt: str) -> list[Notification]:
    return [request for request in lab.ameyo.requests_for(crt) if request.accepted]


def logged(lab: Lab, crt: str, event: str) -> dict[str, object]:
    """The one line ``event`` of this call; it is written before eslbot lets go of the channel."""
    deadline = time.monotonic() + 10
    while True:
        lines = [
            line
            for line in lab.log_lines()
            if line["event"] == event
            and crt in (line.get("crt_object_id"), *str(line.get("detail")).split("|"))
        ]
        if lines or time.monotonic() > deadline:
            assert len(lines) == 1, (event, crt, lines)
            return lines[0]
        time.sleep(0.02)  # another process's log file: there is no event to wait for


def ended_by_pbx(lab: Lab, crt: str, outcome: str) -> None:
    line = logged(lab, crt, "call_ended")
    assert line["sip_hangup_disposition"] == "recv_bye"
    assert line["outcome"] == outcome


@pytest.mark.parametrize("codec", ["PCMU", "PCMA"])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_happy_path(lab: Lab, crt: str, transport: str, codec: str) -> None:
    result = handed_off(lab, "talk", crt, transport=transport, codec=codec)
    bot = lab.bot.wait_for_call(lambda c: c.headers.get("X-CRT-Object-ID") == crt)

    assert bot.headers["X-DID"] == DID
    assert bot.headers["X-Workspace-ID"] == lab.tenants["talk"].id
    assert bot.headers["Authorization"] == "Bearer bot-talk"
    start = bot.wait_for_message("start").message
    assert start == {
        "type": "start",
        "version": "1",
        "call_id": bot.headers["X-Call-ID"],
        "workspace_id": lab.tenants["talk"].id,
        "did": DID,
        "crt_object_id": crt,
        "from": start["from"],
        "to": "bot",
        "audio": {"encoding": "l16", "sample_rate": 8000, "channels": 1},
    }
    assert bot.wait_for_message("stop").message["reason"] == "ended"
    bot.wait_closed()
    assert bot.close_code == 1000

    from eslbot.sim.audio import heard

    assert heard(bot.audio(), CALLER_TONE) >= 0.2, "the bot hears the caller"
    # The bot's greeting lasts 0.6 s and its good-bye 0.4 s; played file by file, edges are lost.
    assert result.recording.heard(GREETING) >= 0.4
    assert result.recording.heard(GOODBYE) >= 0.3

    (post,) = accepted(lab, crt)
    assert post.json == {
        "notificationId": "95",
        "uniqueId": crt,
        "callResponse": True,
        "sessionId": "na",
        "properties": {
            "agent_group": "sales",
            "summary": "The caller wants to buy.",
            "DID": DID,
            "outcome": "bot_ended",
        },
    }
    ended_by_pbx(lab, crt, "bot_ended")


def test_display_name_counts_not_asserted_identity(lab: Lab, crt: str) -> None:
    handed_off(lab, "talk", crt, extra_headers=['P-Asserted-Identity: "Other Name" <sip:4711@127.0.0.1>'])


def test_header_name_in_any_case(lab: Lab, crt: str) -> None:
    handed_off(lab, "talk", crt, workspace_header="x-WORKSPACE-id")


@pytest.mark.parametrize("tail", ["$x-$", "a\\b", "{x}:y=z", "#1!~^[]<>"])
def test_odd_crt_object_ids_arrive_unchanged(lab: Lab, crt: str, tail: str) -> None:
    # In a quoted-string a backslash is escaped; FreeSWITCH keeps the escape (measured), and so do we.
    odd = f"{crt}-{tail}".replace("\\", "\\\\")
    ringing = call(lab, "talk", crt, display=f'"{DID}|{odd}"')
    assert lab.ameyo.wait_accepted(odd, 20)
    ringing.hang_up()
    assert ringing.wait().completed


@pytest.mark.parametrize(
    ("source", "tenant", "status"),
    [(FOREIGN_SOURCE, "talk", 403), (OTHER_SOURCE, "talk", 403)],
    ids=["unknown to the switch", "of another tenant"],
)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_wrong_source(lab: Lab, crt: str, source: str, tenant: str, status: int, transport: str) -> None:
    with Pbx(lab.sip, source) as pbx:
        result = pbx.call(DID, crt, lab.tenants[tenant].id, transport=transport).wait()
    assert (result.status, result.answered) == (status, False)
    if source == OTHER_SOURCE:
        assert logged(lab, crt, "call_refused")["why"] == "foreign_source"


def test_other_tenant_from_its_own_source(lab: Lab, crt: str) -> None:
    with Pbx(lab.sip, OTHER_SOURCE, lab.ameyo) as pbx:
        result = pbx.call(DID, crt, lab.tenants["other"].id).wait()
    assert result.completed, result
    (post,) = accepted(lab, crt)
    assert post.header("Authorization") == lab.tenants["other"].token
    assert post.header("Host") == lab.tenants["other"].host


def test_unknown_workspace(lab: Lab, crt: str) -> None:
    result = lab.pbx.call(DID, crt, "00000000-0000-4000-8000-000000000000").wait()
    assert (result.status, result.reason) == (403, "Forbidden")
    assert logged(lab, crt, "call_refused")["why"] == "unknown_workspace"


@pytest.mark.parametrize("workspace", [None, "not-a-uuid"])
def test_missing_or_malformed_workspace_header(lab: Lab, crt: str, workspace: str | None) -> None:
    result = lab.pbx.call(DID, crt, workspace).wait()
    assert (result.status, result.reason) == (400, "Bad Request")


@pytest.mark.parametrize(
    "display",
    [
        f'"{DID}"',
        f'"{DID}|d444|extra"',
        '"|d444"',
        f'"{DID}|"',
        '"+919990152080|d444"',
        f'"{DID}|d444%0Aevil"',
        f'"{DID}%7Cd444"',
        f'"{DID}|${{hostname}}"',  # FreeSWITCH keeps no variable with a ${…} in it
        '"12345|d444"',
        f'"{DID}|d4 44"',
        "",
    ],
    ids=[
        "no bar",
        "two bars",
        "no DID",
        "no CRT Object ID",
        "plus",
        "%0A",
        "%7C",
        "variable",
        "no 00",
        "space",
        "no display name",
    ],
)
def test_malformed_display_name(lab: Lab, display: str) -> None:
    result = lab.pbx.call(workspace_id=lab.tenants["talk"].id, display=display).wait()
    assert (result.status, result.reason) == (400, "Bad Request"), result


def test_no_common_codec(lab: Lab, crt: str) -> None:
    result = call(lab, "talk", crt, codec="G729").wait()
    assert result.status == 488


def test_over_the_limit(lab: Lab, crt: str) -> None:
    first = call(lab, "small", crt)
    first.wait_answered()
    refused = call(lab, "small", f"{crt}-2").wait()
    assert (refused.status, refused.retry_after) == (503, 30)
    bot = lab.bot.wait_for_call(lambda c: c.headers.get("X-CRT-Object-ID") == crt)
    bot.wait(lambda c: bool(c.said))
    bot.end()
    assert first.wait().completed
    ended_by_pbx(lab, crt, "bot_ended")
    # The place is free again.
    second = call(lab, "small", f"{crt}-3")
    second.wait_answered()
    second.hang_up()
    assert second.wait().completed


@pytest.mark.parametrize(
    ("tenant", "outcome"),
    [
        ("refused", "bot_unreachable"),
        ("reject", "bot_unreachable"),
        ("error-close", "bot_failed"),
        ("abort", "bot_failed"),
        ("silent", "bot_silent"),
        ("close", "bot_closed"),
        ("impatient", "max_duration"),
        ("second-url", "bot_ended"),
        ("junk", "bot_ended"),
    ],
)
def test_whatever_the_bot_does_a_human_takes_over(lab: Lab, crt: str, tenant: str, outcome: str) -> None:
    handed_off(lab, tenant, crt)
    (post,) = accepted(lab, crt)
    assert post.properties["outcome"] == outcome
    ended_by_pbx(lab, crt, outcome)


def test_hostile_properties_stay_outside(lab: Lab, crt: str) -> None:
    handed_off(lab, "hostile", crt)
    (post,) = accepted(lab, crt)
    assert post.properties == {"DID": DID, "outcome": "bot_ended"}


def test_last_word_of_a_bot_that_ends_in_one_breath(lab: Lab, crt: str) -> None:
    result = handed_off(lab, "one-breath", crt)
    assert result.recording.heard(GOODBYE) >= 0.22, "0.3 s of last words were queued when the bot ended"
    (post,) = accepted(lab, crt)
    last_word = [a.at for a in result.recording.arrivals][-1]
    assert result.recording.first_heard(GOODBYE) is not None
    assert post.at > result.recording.first_heard(GOODBYE)  # type: ignore[operator]
    assert last_word >= result.recording.first_heard(GOODBYE)  # type: ignore[operator]


def test_ameyo_fails_once(lab: Lab, crt: str) -> None:
    lab.ameyo.script(crt, [500])
    handed_off(lab, "talk", crt)
    assert [request.status for request in lab.ameyo.requests_for(crt)] == [500, 200]


def test_ameyo_rejects_and_accepts_after_retry_after(lab: Lab, crt: str) -> None:
    from eslbot.sim.pbx import Answer

    lab.ameyo.script(crt, [Answer(429, {"Retry-After": "2"})])
    handed_off(lab, "talk", crt)
    first, second = lab.ameyo.requests_for(crt)
    assert second.at - first.at >= 2.0


@pytest.mark.parametrize("kind", ["103 first", "headers drip", "text never comes", "endless trailers"])
def test_ameyo_accepts_in_an_unkind_way(lab: Lab, crt: str, kind: str) -> None:

    lab.ameyo.script(crt, [unkind_answer(kind)])
    handed_off(lab, "talk", crt)
    assert [request.status for request in lab.ameyo.requests_for(crt)] == [200]
    assert logged(lab, crt, "call_ended")["handed_off"] is True


def test_ameyo_down_for_five_seconds(lab: Lab, crt: str) -> None:
    ringing = call(lab, "hold", crt, timeout=40)
    ringing.wait_answered()
    bot = lab.bot.wait_for_call(lambda c: c.headers.get("X-CRT-Object-ID") == crt)
    bot.wait(lambda c: bool(c.said))
    lab.ameyo.down()
    try:
        bot.end()
        time.sleep(5)  # the scenario itself: Ameyo is away for five seconds
    finally:
        lab.ameyo.up()
    result = ringing.wait(60)
    assert result.completed, result
    assert len(accepted(lab, crt)) == 1
    ended_by_pbx(lab, crt, "bot_ended")


def test_caller_hangs_up_while_the_bot_talks(lab: Lab, crt: str) -> None:
    talking = call(lab, "hold", crt)
    talking.wait_answered()
    bot = lab.bot.wait_for_call(lambda c: c.headers.get("X-CRT-Object-ID") == crt)
    talking.wait_heard(GREETING)
    talking.hang_up()
    assert talking.wait().completed
    bot.wait_closed()
    assert bot.close_code == 1000
    ended_by_pbx(lab, crt, "caller_hangup")
    assert lab.ameyo.requests_for(crt) == []


def test_caller_hangs_up_during_retries(lab: Lab, crt: str) -> None:
    lab.ameyo.script(crt, [503], repeat_last=True)
    waiting = call(lab, "talk", crt)
    lab.ameyo.wait_for(lambda request: request.crt_object_id == crt, 20, count=2)
    waiting.hang_up()
    result = waiting.wait()
    assert result.completed, result
    line = logged(lab, crt, "call_ended")
    assert (line["handed_off"], line["outcome"]) == (False, "bot_ended")
    assert line["sip_hangup_disposition"] == "recv_bye"
    assert accepted(lab, crt) == []


@pytest.mark.timed
def test_caller_hangs_up_while_ameyo_is_silent(lab: Lab, crt: str) -> None:
    from eslbot.sim.pbx import Stall

    lab.ameyo.script(crt, [Stall(8.0)])
    waiting = call(lab, "talk", crt)
    bot = lab.bot.wait_for_call(lambda c: c.headers.get("X-CRT-Object-ID") == crt)
    bot.wait_closed(20)
    deadline = time.monotonic() + 10
    while not lab.ameyo.requests_for(crt) and time.monotonic() < deadline:
        time.sleep(0.02)
    waiting.hang_up()
    assert waiting.wait().completed
    began = time.monotonic()
    assert logged(lab, crt, "call_ended")["handed_off"] is False
    assert time.monotonic() - began < 4, "the call is let go without waiting for Ameyo's time-out"


def test_nothing_secret_is_logged(lab: Lab, crt: str) -> None:
    handed_off(lab, "talk", crt)
    texts = [lab.log_file.read_text(), lab.http("/metrics")[1]]
    if lab.real_switch is not None:
        texts.append(lab.real_switch.log_file.read_text(errors="replace"))
    for text in texts:
        for tenant in lab.tenants.values():
            assert tenant.token not in text
            assert f"Bearer bot-{tenant.name}" not in text
