"""How a call ends: by the bot, and by the caller."""

from __future__ import annotations

import json

from eslbot.ameyo.properties import MAX_VALUE_BYTES, allowed
from eslbot.botcheck.examination import Examination
from eslbot.botcheck.findings import ESLBOT, Verdict, check, failed, passed, unseen, warned
from eslbot.relay.protocols.eslbot import MAX_PROPERTIES


@check(
    proves="Its `end` can be used: every property reaches Ameyo.",
    remedy=(
        "send at most 64 properties: texts, finite numbers, truth values or null, each up to 2,048 "
        "bytes as JSON, and only those that the workspace lists in bot_properties"
    ),
    section="3. end",
    protocols=ESLBOT,
    behind=True,
)
async def end(exam: Examination) -> Verdict:
    """Of all calls."""
    ends = [call.ends[0] for call in exam.calls if call.ends]
    if not ends:
        return unseen("it has not sent it in any call")
    told = f"sent in {len(ends)} calls"
    for document in ends:
        properties = document.get("properties")
        if properties is None:
            continue
        if not isinstance(properties, dict):
            return failed("`properties` is no object: none of them is used")
        if len(properties) > MAX_PROPERTIES:
            return failed(f"{len(properties)} properties: with more than {MAX_PROPERTIES} none is used")
        names = list(properties) if exam.target.properties is None else exam.target.properties
        taken, dropped = allowed(properties, names)
        if dropped:
            name, value = dropped[0], properties[dropped[0]]
            if name not in names:
                return failed(f"the property {name!r} is not in the workspace's bot_properties")
            size = len(json.dumps(value)) if isinstance(value, str) else 0  # others may be nested without end
            why = f"{size} bytes" if size > MAX_VALUE_BYTES else f"a {type(value).__name__}, no plain value"
            return failed(f"the property {name!r} does not reach Ameyo: {why}")
        told = f"sent in {len(ends)} calls, with {', '.join(taken) or 'no properties'}"
    return passed(told)


@check(
    proves="It neither breaks connections off nor closes them with a code that means failure.",
    remedy=(
        "say `end`, or close with 1000, when the bot is finished; close with another code only when "
        "it has failed. Look into the bot's log for what it raised"
    ),
    section="5. How it ends",
    behind=True,
)
async def close_code(exam: Examination) -> Verdict:
    """Of the plain call: what others break, their checks tell."""
    plain = exam.plain
    if plain.over_budget:
        return unseen("eslbot ended its part first; see bounds")
    if plain.broken:
        seconds = plain.lost[0].at - plain.connected
        return failed(
            f"{plain.broken}, {seconds:.1f} s behind `start`: the call is handed off as `bot_failed`"
        )
    if plain.lost:
        code = plain.lost[0].code
        return passed(f"closed with {code}" + (" (no code)" if code == 1005 else ""))
    return passed("sent `end`, and let eslbot close" if plain.finished_at else "never closed by itself")


@check(
    proves="When the caller hangs up it answers the close, and lets its connection go.",
    remedy=(
        "end the bot's work on `stop`, and when the socket closes, whatever it is doing: cancel what "
        "speaks, and do not wait for models"
    ),
    section="5. How it ends",
)
async def hang_up(exam: Examination) -> Verdict:
    """While it speaks."""
    async with exam.call("hang-up") as call:
        await call.connect()
        await exam.greeted(call)
        if call.lost:
            return unseen("it had closed by itself before")
        watched = call.connection.watched
        ended = await call.part("ended" if call.over else "caller_hangup")
        took = (watched.ended_at or 0.0) - (watched.closed_at or 0.0)
        late = (
            f"; {watched.messages_late} messages more came behind the close" if watched.messages_late else ""
        )
        if watched.answered_at is None and not ended:
            return failed(f"did not answer the close within {exam.times.close:g} s{late}")
        if watched.answered_at is None:
            return warned(f"ended TCP without a close frame, {1000 * took:.0f} ms behind ours{late}")
        return passed(f"closed {1000 * ((watched.answered_at or 0) - (watched.closed_at or 0)):.0f} ms later")


@check(
    proves="It ends TCP when a connection was closed by either side, so none piles up.",
    remedy=(
        "let the WebSocket library finish its closing handshake (await close()), and do not keep the "
        "socket elsewhere; eslbot resets it after a second"
    ),
    section="5. eslbot answers close frames and ends TCP itself",
    behind=True,
)
async def tcp_end(exam: Examination) -> Verdict:
    """Of all connections whose close both sides have said."""
    closed = [
        connection.watched
        for call in exam.calls
        for connection in call.connections
        if connection.watched.answered_at is not None
    ]
    if not closed:
        return unseen("no connection was closed by both sides")
    left = sum(watched.left_open for watched in closed)
    if left:
        return warned(
            f"{left} of {len(closed)} connections were open {exam.times.close:g} s behind their close"
        )
    return passed(f"{len(closed)} connections closed by both sides have ended")
