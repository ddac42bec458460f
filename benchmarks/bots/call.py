"""One call to a bot, and what became of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.bots.subjects import GOODBYE, GREETING, GROUPS, SAID, YES, Subject
from eslbot.sim.audio import RATE, gaps, heard, silence, speech
from eslbot.sim.pbx import CallResult, PbxCall
from tests.support import voices
from tests.support.lab import Lab
from tests.support.proxy import TcpProxy

#: A caller who speaks a second after the answer, and then listens.
SPEAKS = silence(1.0) + b"".join(voices.frames(voices.speech(1.0, level=6000.0))) + silence(60.0)
#: Seconds of the greeting; up to which of them a caller who speaks may have heard; of the answer to it.
GREETED, CUT, YES_SECONDS = 3.0, 2.6, 0.3
#: Seconds until a pressed key is answered, then it is pressed again; how often.
KEY_LIMIT, PRESSES = 4.0, 3
#: Seconds for anything else.
LIMIT = 20.0


@dataclass
class Called:
    """What became of a call. ``faults`` say in words what was not as it should be.

    Attributes:
        handed_off: by the book: the PBX's BYE, one notification accepted, the bot's own end as its outcome.
        key: the bot has told the key that was pressed. ``presses``: how often that was.
        barge_in: where the caller spoke: the greeting was cut, and the bot has answered. None where not.
        told: properties arrived, and say how the greeting went. None where the protocol has none.
        gaps: seconds of each silence of 10 ms or more within the greeting, as a telephone plays it.
        connections: to the bot.
    """

    handed_off: bool = False
    key: bool = False
    presses: int = 0
    barge_in: bool | None = None
    told: bool | None = None
    gaps: list[float] = field(default_factory=list)
    connections: int = 0
    faults: list[str] = field(default_factory=list)


def place(lab: Lab, subject: Subject, proxy: TcpProxy, number: int) -> Called:
    """One call: every third caller speaks into the greeting, the others hear it out; then a key, 1 or 2."""
    speaks, digit = number % 3 == 0, "12"[number % 2]
    crt = f"{subject.name}-{number:05d}"
    call = lab.pbx.call(
        crt_object_id=crt,
        workspace_id=lab.tenants[subject.name].id,
        caller_tone=SPEAKS if speaks else None,
        timeout=4 * LIMIT,
    )
    called = Called()
    try:
        if speaks:
            call.wait_heard(YES, YES_SECONDS - 0.05, LIMIT)
        else:
            call.wait_heard(GREETING, GREETED - 0.02, LIMIT)
            time.sleep(0.3)  # the bot learns a moment later that it was heard
        _press(call, subject, digit, called)
        result = call.wait(LIMIT)
    except TimeoutError as error:
        called.faults.append(str(error))
        call.hang_up()
        result = call.wait(LIMIT)
    called.connections = sum(passage.says(crt) for passage in list(proxy.passages))
    accepted = [request.json for request in lab.ameyo.requests_for(crt) if request.accepted]
    judge(called, subject, result, accepted, digit, speaks=speaks)
    return called


def _press(call: PbxCall, subject: Subject, digit: str, called: Called) -> None:
    """Press a key until the bot answers: one that falls between two controllers is lost."""
    answer = GOODBYE if subject.properties else SAID[digit]
    for press in range(PRESSES):
        called.presses = press + 1
        call.send_dtmf(digit)
        try:
            call.wait_heard(answer, 0.1, KEY_LIMIT)
            return
        except TimeoutError:
            if call.result is not None or press + 1 == PRESSES:
                raise


def judge(
    called: Called,
    subject: Subject,
    result: CallResult,
    accepted: list[dict[str, Any]],
    digit: str,
    *,
    speaks: bool,
) -> None:
    """Note what the PBX has heard and Ameyo was told, and what of it is not as it should be."""
    line = result.recording.as_heard()
    told = accepted[0].get("properties", {}) if len(accepted) == 1 else {}
    called.handed_off = (
        result.completed and result.cause == "accepted" and told.get("outcome") == subject.outcome
    )
    greeting = "interrupted" if speaks else "heard"
    if subject.properties:
        called.key = str(told.get("summary", "")).startswith(f"pressed {digit},")
        expected = {"agent_group": GROUPS[digit], "summary": f"pressed {digit}, greeting {greeting}"}
        called.told = expected.items() <= told.items()
    else:
        called.key = heard(line, SAID[digit]) >= 0.3
    if speaks:
        called.barge_in = heard(line, GREETING) <= CUT and heard(line, YES) >= YES_SECONDS - 0.05
    else:
        first, _ = speech(line) or (0.0, 0.0)
        begin = 2 * round(first * RATE)
        greeted = line[begin : begin + 2 * round((GREETED - 0.02) * RATE)]
        called.gaps = [gap.length for gap in gaps(greeted)]
    _note_faults(called, subject, result, accepted)


def _note_faults(
    called: Called, subject: Subject, result: CallResult, accepted: list[dict[str, Any]]
) -> None:
    if not called.handed_off:
        called.faults.append(f"not handed off: {result.ended_by}, {result.cause}, {result.error}, {accepted}")
    if not called.key:
        called.faults.append(f"another key, or none, arrived: {accepted}")
    if called.told is False:
        called.faults.append(f"other properties arrived: {accepted}")
    if called.barge_in is False:
        spoke = result.recording.heard(GREETING), result.recording.heard(YES)
        called.faults.append(f"the greeting was heard for {spoke[0]:.2f} s, the answer for {spoke[1]:.2f} s")
    if called.connections != 1:
        called.faults.append(f"{called.connections} connections to the bot")
