"""Keeps so many calls up, and tells what the PBX saw of each when it is over.

Most are placed by the handful, by one SIPp each, with their RTP in a process of its own. Calls in which
something is done (keys, a hold), and the long one by which the RTP clock is measured, have their RTP here.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.soak.plan import ANCHOR, KINDS, RATE, PlannedBatch
from eslbot.sim.pbx import Load, PbxCall, Voices
from eslbot.sim.pbx.media import Arrival
from eslbot.sim.pbx.trace import Dialog
from tests.support.audit import STRANDED_LIMIT, Placed
from tests.support.chaos.plan import AMEYO
from tests.support.lab import Lab

#: Seconds behind the bot's part after which the PBX gives a call up: it was lost. A bot that is killed, or
#: whose relay is, begins its part anew, and may do so more than once.
PATIENCE = 120.0
#: Seconds a caller may wait for a notification behind the last outage: attempts are as far apart by then as
#: outages of 6 s, one behind the other, have made them.
NOTIFIED = 25.0
#: Seconds behind the end of a batch in which Ameyo may still be told of its calls, again, or because one did
#: not come back with FreeSWITCH: then it is judged.
SETTLE = STRANDED_LIMIT + NOTIFIED
#: Seconds until something is done in a call that was placed for that.
DONE_AFTER = 2.5
#: Seconds without a packet that a caller hears.
GAPS = (0.1, 0.5, 1.0, 3.0)


@dataclass
class Batch:
    """Calls under way: a load, or a single call."""

    planned: PlannedBatch
    crts: list[str]
    placed_at: float
    limit: float
    load: Load | None = None
    single: PbxCall | None = None
    begun: bool = False
    held: bool = False
    over_at: float | None = None
    overdue: bool = False
    calls: list[Placed] = field(default_factory=list)

    def dialogs(self) -> dict[str, Dialog]:
        """Of a load, so far."""
        return self.load.dialogs() if self.load is not None else {}

    def up(self) -> int:
        """Calls that are up now."""
        if self.single is not None:
            return int(self.single.answered and self.single.result is None)
        return sum(d.answered and d.ended_at is None for d in self.dialogs().values())

    def to_come(self) -> int:
        """Calls that are up or will be."""
        if self.single is not None:
            return int(self.single.result is None)
        over = sum(d.ended_at is not None for d in self.dialogs().values())
        return len(self.crts) - over

    def over(self) -> bool:
        """Whether all its calls are."""
        if self.single is not None:
            return self.single.result is not None
        return self.load is None or self.load.over()


@dataclass
class Heard:
    """What the callers' RTP was like, over all calls: calls with a gap of more than so many seconds."""

    calls: int = 0
    packets: int = 0
    mute: int = 0
    gaps: Counter[float] = field(default_factory=Counter)


class Callers:
    """Of one lab.

    Args:
        wanted: calls to be up at a time.
        planned: which come next.
        anchor: seconds of a long call.
        anchored: told the packets of a long call that is over.
    """

    def __init__(
        self,
        lab: Lab,
        seed: int,
        wanted: int,
        planned: Iterator[PlannedBatch],
        anchor: float,
        voices: Voices,
        anchored: Callable[[int, Sequence[Arrival]], None],
    ) -> None:
        self._lab, self._seed, self._wanted, self._planned = lab, seed, wanted, planned
        self._anchor, self._voices, self._anchored = anchor, voices, anchored
        self.under_way: list[Batch] = []
        self.over: list[Batch] = []
        self.heard = Heard()
        self.up = self.taken_up = self.unanswered_holds = 0
        self._anchors = 0

    # -- placing ------------------------------------------------------------------------------------------

    def place(self) -> None:
        """One more handful where calls are missing, and the long call where there is none."""
        if not any(batch.planned.kind == ANCHOR for batch in self.under_way):
            self._place_anchor()
        if sum(batch.to_come() for batch in self.under_way) < self._wanted:
            self._place(next(self._planned))

    def _place(self, planned: PlannedBatch) -> None:
        kind, lab = KINDS[planned.kind], self._lab
        workspace = lab.tenants[planned.kind].id
        prefix = f"soak-{self._seed}-{planned.number}"
        crts = [f"{prefix}-{index:06d}" for index in range(1, planned.calls + 1)]
        for crt, ameyo in zip(crts, planned.ameyo, strict=True):
            lab.ameyo.script(crt, AMEYO[ameyo][0])
        limit = planned.calls / RATE + kind.seconds + PATIENCE
        batch = Batch(planned, crts, time.monotonic(), limit)
        if kind.alone:
            batch.single = lab.pbx.call(crt_object_id=crts[0], workspace_id=workspace, timeout=limit)
        else:
            batch.load = lab.pbx.begin_load(
                planned.calls,
                RATE,
                crt_prefix=prefix,
                workspace_id=workspace,
                hangup_after=planned.hangs_up,
                voices=self._voices,
            )
        self.under_way.append(batch)

    def _place_anchor(self) -> None:
        self._anchors += 1
        crt = f"soak-{self._seed}-stays-{self._anchors}"
        planned = PlannedBatch(self._anchors, ANCHOR, 1, self._anchor, ["accepts"], "")
        batch = Batch(planned, [crt], time.monotonic(), self._anchor + PATIENCE)
        batch.single = self._lab.pbx.call(
            crt_object_id=crt,
            workspace_id=self._lab.tenants[ANCHOR].id,
            hangup_after=self._anchor,
            timeout=batch.limit,
        )
        self.under_way.append(batch)

    # -- while they are up --------------------------------------------------------------------------------

    def look(self, *, busy: bool = False) -> None:
        """Press keys and hold calls where that may be done now, end what is overdue, gather what is over."""
        now = time.monotonic()
        self.up = sum(batch.up() for batch in self.under_way)
        for batch in list(self.under_way):
            if busy and batch.single is not None and now - batch.placed_at > DONE_AFTER and not batch.begun:
                self._do(batch, batch.single)
            if batch.load is not None and now - batch.placed_at > batch.limit:
                batch.overdue = True
            if batch.over() or (batch.overdue and batch.load is not None):
                self._gather(batch)
                batch.over_at = now
                self.under_way.remove(batch)
                self.over.append(batch)

    def _do(self, batch: Batch, call: PbxCall) -> None:
        if not call.answered or call.result is not None:
            return
        batch.begun = True
        if batch.planned.keys:
            call.send_dtmf(batch.planned.keys)
        elif batch.planned.kind != ANCHOR:
            threading.Thread(target=self._hold, args=(batch, call), name="hold", daemon=True).start()

    def _hold(self, batch: Batch, call: PbxCall) -> None:
        """The PBX puts the switch on hold for a while: two re-INVITEs."""
        try:
            call.offer("sendonly")
            batch.held = True
            time.sleep(KINDS[batch.planned.kind].hold)
            call.offer("sendrecv")
        except (RuntimeError, TimeoutError):  # it is over; the account tells how
            self.unanswered_holds += 1

    def end_anchor(self) -> None:
        """The long call's caller hangs up."""
        for batch in self.under_way:
            if batch.planned.kind == ANCHOR and batch.single is not None:
                batch.single.hang_up()

    def settled(self, *, all_of_them: bool = False) -> list[Batch]:
        """Batches that can be judged; each once."""
        now = time.monotonic()
        ripe = [b for b in self.over if all_of_them or now - (b.over_at or now) > SETTLE]
        self.over = [batch for batch in self.over if batch not in ripe]
        return ripe

    def hang_up(self) -> None:
        """All callers hang up."""
        for batch in self.under_way:
            if batch.load is not None:
                batch.load.hang_up()
            elif batch.single is not None:
                batch.single.hang_up()

    # -- behind them --------------------------------------------------------------------------------------

    def _gather(self, batch: Batch) -> None:
        tenant = batch.planned.kind
        if batch.single is not None:
            result = batch.single.wait(0)
            batch.calls = [
                Placed(
                    crt_object_id=batch.crts[0],
                    tenant=tenant,
                    answered=result.answered,
                    status=result.status,
                    ended_by=result.ended_by,
                    cause=result.cause,
                    error=result.error,
                    invited_at=result.invited_at,
                    answered_at=result.answered_at,
                    ended_at=result.ended_at,
                    bye_at=result.bye_at,
                )
            ]
            self.taken_up += batch.single.taken_up
            if tenant == ANCHOR:
                self._anchored(batch.planned.number, batch.single.recording.arrivals)
            batch.single = None
            return
        assert batch.load is not None
        told = batch.load.voices_report()
        ended = batch.load.finish(0.5)
        self.taken_up += batch.load.taken_up
        batch.load.forget_voices()
        for crt in batch.crts:
            dialog = ended.dialogs.get(crt, Dialog(""))
            batch.calls.append(self._placed(batch, crt, dialog, ended.error))
            voice = told.voices.get(crt)
            if dialog.answered:
                self.heard.calls += 1
                self.heard.mute += voice is None or not voice.received
            if voice is not None:
                self.heard.packets += voice.received
                self.heard.gaps.update(gap for gap in GAPS if voice.longest > gap)
        batch.load = None

    def _placed(self, batch: Batch, crt: str, dialog: Dialog, error: str | None) -> Placed:
        return Placed(
            crt_object_id=crt,
            tenant=batch.planned.kind,
            answered=dialog.answered,
            status=dialog.status,
            ended_by=dialog.ended_by,
            cause=cause(batch, dialog) if dialog.ended_by == "pbx" else None,
            error=error if dialog.ended_by != "pbx" else None,
            invited_at=dialog.invited_at,
            answered_at=dialog.answered_at,
            ended_at=dialog.ended_at,
            bye_at=dialog.bye_at,
        )


def cause(batch: Batch, dialog: Dialog) -> str | None:
    """Why the PBX ended a call of a load: its caller's time was up, ours was, or Ameyo had accepted."""
    hangs_up = batch.planned.hangs_up
    if dialog.bye_at is None or dialog.answered_at is None:
        return None
    if hangs_up is not None and dialog.bye_at - dialog.answered_at > hangs_up - 0.2:
        return "hangup_after"
    return "timeout" if batch.overdue else "accepted"
