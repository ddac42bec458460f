"""Being dialled: the upgrade, who is calling, and what may come before ``start``."""

from __future__ import annotations

from time import monotonic

from eslbot.botcheck.call import FRAME
from eslbot.botcheck.examination import Examination, NotTaken
from eslbot.botcheck.findings import ESLBOT, Verdict, check, failed, harmless, passed, warned

#: Frames of the caller's that come before `start`: 100 ms.
EARLY = 5
#: A caller's number as SIP allows it: 128 characters, few of which are ASCII.
STRANGE = ('Zoë "quoted" <&\'> 客户 %41 \\ ' * 8)[:128]
#: The longest CRT Object ID there is.
LONG_ID = "check-" + "x" * 122


@check(
    proves="It takes every call of the run, each within connect_timeout.",
    remedy=(
        "accept the upgrade at once, and do slow things (models, accounts) behind it; let as many "
        "calls in as the workspace's max_calls"
    ),
    section="1. Connection",
    behind=True,
)
async def upgrade(exam: Examination) -> Verdict:
    """Of all calls."""
    limit = exam.target.bot.connect_timeout
    if exam.refused:
        (_, how), count = exam.refused[0], len(exam.refused)
        several = (
            f"{count} of {len(exam.calls)} calls were not taken" if count > 1 else "a call was not taken"
        )
        return failed(f"{several}: {how}")
    if exam.took > limit / 2:
        return warned(f"takes {exam.took:.1f} s; at {limit:g} s the customer goes to an agent")
    return passed(f"101 within {1000 * exam.took:.0f} ms")


@check(
    proves="It answers a ping of the WebSocket protocol, so eslbot does not take it for dead.",
    remedy=(
        "read from the socket all the time, also while the bot thinks or speaks: the WebSocket "
        "library answers pings by itself when it is let run"
    ),
    section="1. Connection",
    behind=True,
)
async def ping(exam: Examination) -> Verdict:
    """Of the plain call."""
    if exam.ponged is None:
        return failed("no pong; eslbot drops a bot that neither says anything nor answers for 20 s")
    return passed(f"pong within {1000 * (exam.ponged - exam.plain.connected):.0f} ms")


@check(
    proves="It takes frames of audio that come before `start`.",
    remedy=(
        "look at each message's type, and drop (or keep) binary messages until `start` has come; do "
        "not read the first message as JSON"
    ),
    section="1. Connection, Frames",
    protocols=ESLBOT,
)
async def early_audio(exam: Examination) -> Verdict:
    """100 ms of silence, and then `start`."""
    async with exam.call("early-audio") as call:
        await call.connect(start=False)
        began = monotonic()
        for number in range(EARLY):
            call.connection.send_audio(bytes(FRAME), number * 0.02)
        call.start()
        verdict = await exam.lives(call, began, "audio before `start`")
        await exam.hung_up(call)
        return harmless(verdict, "this eslbot says `start` first")


@check(
    proves="It takes callers whose number is any text, and ids of any length.",
    remedy=(
        "allow headers of 2 kB each and 8 kB in all, decode the percent-encoding of X-From before "
        "use, and never make a file name or a query of what a caller chose"
    ),
    section="1. Connection",
)
async def hostile_caller(exam: Examination) -> Verdict:
    """The longest and strangest that a PBX may pass on."""
    invite = exam.target.invite(crt_object_id=LONG_ID, caller=STRANGE, to=STRANGE)
    try:
        async with exam.call("hostile-caller", invite) as call:
            await call.connect()
            verdict = await exam.lives(call, call.connected, "a caller with a strange number")
            await exam.hung_up(call)
            return verdict
    except NotTaken as refused:
        exam.refused[:] = [one for one in exam.refused if one[0] != "hostile-caller"]
        return failed(str(refused))
