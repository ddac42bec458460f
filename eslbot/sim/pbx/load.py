"""Many calls of the PBX's, placed by one SIPp, while they are under way."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable

from eslbot.sim.pbx.control import CallControl
from eslbot.sim.pbx.results import LoadResult, by_crt, load_result
from eslbot.sim.pbx.sipp import GRACE, SippRun
from eslbot.sim.pbx.trace import Dialog
from eslbot.sim.pbx.voices import Voices, VoicesReport


class Load:
    """Calls under way, placed by :meth:`Pbx.begin_load`; ``crt_object_ids`` are theirs, in order.

    Args:
        keys: what SIPp calls them.
        voices: speak for the callers; without, SIPp does.
        control: tells SIPp what to do with them.
        accepts: whether a re-INVITE of the switch's is answered with 200.
        over: is told when they are, with their SIPp.
    """

    def __init__(
        self,
        keys: list[str],
        ids: list[str],
        voices: Voices | None,
        control: CallControl,
        over: Callable[[Load, SippRun], None],
        *,
        accepts: bool,
    ) -> None:
        self.keys, self.crt_object_ids, self.voices = keys, ids, voices
        #: How often the switch has offered anew within a call, and acknowledged that we accepted.
        self.offered = self.taken_up = 0
        self.accepts = accepts
        self._control, self._over = control, over
        self._run: SippRun | None = None
        self._begun = time.monotonic()

    def runs(self, run: SippRun) -> None:
        """This SIPp has begun to place them."""
        self._run = run

    @property
    def pid(self) -> int | None:
        """SIPp's process id, until the load is finished."""
        return self._run.process.pid if self._run is not None else None

    def dialogs(self) -> dict[str, Dialog]:
        """The calls so far, by CRT Object ID; those that SIPp has not begun are left out."""
        return by_crt(self._run.lines("short.log"), self.crt_object_ids) if self._run is not None else {}

    def voices_report(self) -> VoicesReport:
        """The RTP so far, by CRT Object ID. Raises RuntimeError for a load without ``voices``."""
        if self.voices is None:
            raise RuntimeError("this load's callers speak by SIPp, which counts nothing")
        told = self.voices.report(self.keys)
        crts = dict(zip(self.keys, self.crt_object_ids, strict=True))
        of_calls = {crts[key]: voice for key, voice in told.voices.items()}
        return VoicesReport(of_calls, told.strays, told.dropped)

    def forget_voices(self) -> None:
        """Nobody will ask for its RTP again; a run of hours would keep that of all its calls."""
        if self.voices is not None:
            self.voices.forget(self.keys)

    def over(self) -> bool:
        """Whether all its calls are over."""
        return self._run is None or self._run.process.poll() is not None

    def hang_up(self) -> None:
        """All callers hang up; those who are not answered yet, once they are."""
        for key in self.keys:
            self._control.hang_up(key)

    def finish(self, timeout: float = 120.0) -> LoadResult:
        """What became of the calls, when they are over; SIPp and its files are gone then.

        A call that is still up after ``timeout`` seconds is hung up, and ``error`` says that the load was not
        over in time.
        """
        run = self._run
        if run is None:
            raise RuntimeError("this load is finished")
        overdue = False
        try:
            try:
                run.wait(timeout)
            except subprocess.TimeoutExpired:
                overdue = True
                self.hang_up()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.wait(GRACE)
                run.kill()
            return load_result(run, self.crt_object_ids, overdue, time.monotonic() - self._begun)
        finally:
            self._run = None
            self._over(self, run)
