"""What became of a call, and of many."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from eslbot.sim.pbx.media import Recording
from eslbot.sim.pbx.sipp import SippRun
from eslbot.sim.pbx.trace import Dialog, dialogs, failures, retry_after


@dataclass(frozen=True)
class CallResult:
    """What became of a call. Times are epoch seconds as SIPp noted them, None for what did not happen.

    Attributes:
        status, reason: of the INVITE's final response; None where there was none.
        retry_after: seconds, of a refusal that says so.
        ended_by: ``"pbx"``, ``"switch"`` (send_bye: an alarm) or None for a call that was never up.
        cause: why the PBX hung up: ``"accepted"``, ``"hang_up"``, ``"hangup_after"``, ``"timeout"``,
            ``"stop"``; None where it did not, or where SIPp did by itself (then ``error`` says why).
        error: SIPp's complaint; None for a call that went by the book, a refusal included.
        sip_messages: the whole SIP, as text.
        recording: the RTP received, with ``media="python"``.
    """

    did: str
    crt_object_id: str
    status: int | None
    reason: str
    retry_after: int | None
    answered: bool
    ended_by: str | None
    cause: str | None
    error: str | None
    exit_status: int
    invited_at: float | None
    answered_at: float | None
    cancelled_at: float | None
    bye_at: float | None
    ended_at: float | None
    sip_messages: str = field(repr=False)
    recording: Recording = field(repr=False)

    @property
    def received(self) -> bytes:
        """The audio received, L16, packet after packet."""
        return self.recording.linear()

    @property
    def completed(self) -> bool:
        """Whether the call was answered and ended as it should: by the PBX's BYE, in time, no complaint."""
        return self.answered and self.ended_by == "pbx" and self.error is None and self.cause != "timeout"


@dataclass(frozen=True)
class LoadResult:
    """What became of many calls; every call is counted in exactly one of the first four.

    Attributes:
        completed: answered and ended by the PBX's BYE, which was answered.
        refused: by final status.
        unexpected_byes: the switch hung up.
        failed: anything else, such as no response, or no end within the time.
        answered: calls that got a 200, however they ended.
        causes: SIPp's own counts of failed calls by cause.
        set_up: percentile to seconds from INVITE to 200: 50, 95, 99, 100; empty without answered calls.
        exit_status: SIPp's; 0 where all calls were completed or refused.
        crt_object_ids: all of them, in order.
        dialogs: every call in detail, by CRT Object ID where SIPp got so far.
    """

    calls: int
    completed: int
    refused: Counter[int]
    unexpected_byes: int
    failed: int
    answered: int
    causes: dict[str, int]
    set_up: dict[int, float]
    exit_status: int
    seconds: float
    error: str | None
    crt_object_ids: list[str] = field(repr=False)
    dialogs: dict[str, Dialog] = field(repr=False)


def call_result(
    did: str, crt_object_id: str, cause: str | None, recording: Recording, run: SippRun
) -> CallResult:
    """What became of a call whose SIPp is over; ``cause`` is why the PBX hung up."""
    told = list(dialogs(run.lines("short.log")).values())
    dialog = told[0] if told else Dialog("")
    messages = run.text("messages.log")
    return CallResult(
        did=did,
        crt_object_id=crt_object_id,
        status=dialog.status,
        reason=dialog.reason,
        retry_after=retry_after(messages),
        answered=dialog.answered,
        ended_by=dialog.ended_by,
        cause=cause if dialog.ended_by != "switch" else None,
        error=run.error(),
        exit_status=run.wait(0),
        invited_at=dialog.invited_at,
        answered_at=dialog.answered_at,
        cancelled_at=dialog.cancelled_at,
        bye_at=dialog.bye_at,
        ended_at=dialog.ended_at,
        sip_messages=messages,
        recording=recording,
    )


def load_result(run: SippRun, ids: list[str], overdue: bool, duration: float) -> LoadResult:
    """What became of many; ``overdue``: the clock hung them up, ``duration`` seconds after their begin."""
    calls = by_crt(run.lines("short.log"), ids)
    told = list(calls.values())
    refused = Counter(d.status for d in told if d.status is not None and not d.answered)
    unexpected = sum(d.ended_by == "switch" for d in told)
    completed = sum(d.ended_by == "pbx" and d.bye_status == 200 for d in told)
    error = run.error()
    if overdue:
        # Who was hung up by the clock cannot be told from who was hung up by a notification in that moment;
        # the load as a whole did not end by itself, and that is what is said.
        error = f"not over in time; {error or 'the calls were hung up'}"
    return LoadResult(
        calls=len(ids),
        completed=completed,
        refused=refused,
        unexpected_byes=unexpected,
        failed=len(ids) - completed - refused.total() - unexpected,
        answered=sum(d.answered for d in told),
        causes=failures(run.text("statistics.csv")),
        set_up=_percentiles([d.answered_at - d.invited_at for d in told if d.answered_at and d.invited_at]),
        exit_status=run.wait(0),
        seconds=duration,
        error=error,
        crt_object_ids=ids,
        dialogs=calls,
    )


def by_crt(trace: Sequence[str], ids: Sequence[str]) -> dict[str, Dialog]:
    """What SIPp saw so far of a load's calls, by CRT Object ID."""
    # SIPp numbers its calls from 1 in the Call-ID, in the order of the injection file.
    return {ids[int(call_id.partition("-")[0]) - 1]: dialog for call_id, dialog in dialogs(trace).items()}


def _percentiles(values: list[float]) -> dict[int, float]:
    values = sorted(values)
    return {p: values[math.ceil(len(values) * p / 100) - 1] for p in (50, 95, 99, 100)} if values else {}
