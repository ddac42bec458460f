"""The Ameyo PBX: places calls by SIPp, hangs them up when the REST server has accepted their hand-off."""

from __future__ import annotations

import contextlib
import itertools
import math
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from eslbot.audio import g711
from eslbot.sim.events import Emit, silent
from eslbot.sim.pbx.ameyo import AmeyoServer
from eslbot.sim.pbx.control import ACKNOWLEDGED, DIRECTIONS, OFFERED, Answered, CallControl
from eslbot.sim.pbx.media import CALLER_TONE, Caller, Recording, RtpEndpoint, RtpSession, caller_frames
from eslbot.sim.pbx.ports import Ports
from eslbot.sim.pbx.sipp import CODECS, CallLine, SippRun, find_sipp
from eslbot.sim.pbx.trace import Dialog, dialogs, failures, retry_after
from eslbot.sim.pbx.voices import Voices, VoicesReport

#: The example of the integration document.
WORKSPACE = "2b37ba17-7b20-4b3e-b138-1161e351d5c5"
DID = "00919990152080"

#: Seconds SIPp gets to end in order after a call's time is up, before it is killed.
_GRACE = 2.0


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


class PbxCall:
    """A call under way, placed by :meth:`Pbx.call`."""

    def __init__(self, pbx: Pbx, key: str, did: str, crt_object_id: str, session: RtpSession | None) -> None:
        self.did, self.crt_object_id = did, crt_object_id
        self.recording = session.recording if session is not None else Recording()
        self._pbx, self._key, self._session = pbx, key, session
        self._hangup_after: float | None = None
        self._changed = threading.Condition()
        self._answered = False
        self._events: list[str] = []
        self._accepts = True
        self._cause: str | None = None
        self._result: CallResult | None = None

    @property
    def answered(self) -> bool:
        """Whether it was answered and acknowledged."""
        return self._answered

    @property
    def result(self) -> CallResult | None:
        """What became of it, once it is over."""
        return self._result

    def wait_answered(self, timeout: float = 10.0) -> None:
        """Wait for the answer.

        Raises:
            TimeoutError: none in ``timeout`` seconds.
            RuntimeError: the call is over without one.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._answered or self._result is not None, timeout):
                raise TimeoutError(f"{self!r} was not answered within {timeout} s")
        if not self._answered:
            raise RuntimeError(f"{self!r} was not answered: {self._result}")

    def wait(self, timeout: float = 30.0) -> CallResult:
        """What became of the call, when it is over; raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._result is not None, timeout):
                raise TimeoutError(f"{self!r} is not over after {timeout} s")
            assert self._result is not None
            return self._result

    def wait_heard(self, frequency: float, seconds: float = 0.1, timeout: float = 10.0) -> None:
        """Wait until the caller has heard ``seconds`` of a tone; raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while (had := self.recording.heard(frequency)) < seconds:
            with self._changed:
                # Measured now and then: packets come every 20 ms, and nobody tells about each.
                over = self._changed.wait_for(lambda: self._result is not None, 0.1)
            if over or time.monotonic() > deadline:
                if self.recording.heard(frequency) >= seconds:
                    return
                raise TimeoutError(f"{self!r} heard {had:.2f} s of {frequency} Hz, not {seconds} s")

    def hang_up(self, delay: float = 0.0) -> None:
        """The caller hangs up: BYE after ``delay`` seconds, or as soon as the call is answered."""
        self._hang_up("hang_up", delay)

    @property
    def taken_up(self) -> int:
        """How often the switch has offered anew within the call, and acknowledged that we accepted.

        Nobody but a switch that was killed and takes up its calls does that here.
        """
        return self._events.count(ACKNOWLEDGED) if self._accepts else 0

    @property
    def offered(self) -> int:
        """How often the switch has offered anew within the call, whatever became of it."""
        return self._events.count(OFFERED)

    def wait_taken_up(self, times: int = 1, timeout: float = 10.0) -> None:
        """Wait until the switch has taken the call up so often; raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.taken_up >= times, timeout):
                raise TimeoutError(f"{self!r} was taken up {self.taken_up} times, not {times}")

    def offer(self, direction: str, timeout: float = 5.0) -> None:
        """A re-INVITE of the PBX's: ``sendonly`` or ``inactive`` is a hold, ``sendrecv`` ends it.

        Returns when it is acknowledged; raises TimeoutError. The caller's RTP goes on meanwhile.
        """
        with self._changed:
            had = self._events.count(direction)
            self._pbx._control.offer(self._key, direction)
            if not self._changed.wait_for(lambda: self._events.count(direction) > had, timeout):
                raise TimeoutError(f"{self!r}: no answer to a re-INVITE with {direction}")

    def send_dtmf(self, digits: str, duration_ms: int = 120) -> None:
        """The caller presses keys; RFC 4733, only with ``media="python"``."""
        if self._session is None:
            raise RuntimeError("telephone events need media='python'")
        self._session.send_dtmf(digits, duration_ms)

    def _hang_up(self, cause: str, delay: float = 0.0) -> None:
        with self._changed:
            self._cause = self._cause or cause
        self._pbx._emit("hang_up", {"crt_object_id": self.crt_object_id, "cause": cause, "delay": delay})
        self._pbx._control.hang_up(self._key, delay)

    def _note_answer(self) -> None:
        with self._changed:
            self._answered = True
            self._changed.notify_all()

    def _note_event(self, event: str) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def _finish(self, result: CallResult) -> None:
        with self._changed:
            self._result = result
            self._changed.notify_all()

    def __repr__(self) -> str:
        state = "over" if self._result else "answered" if self._answered else "calling"
        return f"<PbxCall {self.did}|{self.crt_object_id} {state}>"


class Load:
    """Calls under way, placed by :meth:`Pbx.begin_load`; ``crt_object_ids`` are theirs, in order."""

    def __init__(self, pbx: Pbx, keys: list[str], ids: list[str], voices: Voices | None) -> None:
        self.crt_object_ids, self.voices = ids, voices
        #: How often the switch has offered anew within a call, and acknowledged that we accepted.
        self.offered = self.taken_up = 0
        self.accepts = pbx.offered in DIRECTIONS
        self._pbx, self._keys = pbx, keys
        self._run: SippRun | None = None
        self._begun = time.monotonic()

    @property
    def pid(self) -> int | None:
        """SIPp's process id, until the load is finished."""
        return self._run.process.pid if self._run is not None else None

    def dialogs(self) -> dict[str, Dialog]:
        """The calls so far, by CRT Object ID; those that SIPp has not begun are left out."""
        return _by_crt(self._run.lines("short.log"), self.crt_object_ids) if self._run is not None else {}

    def voices_report(self) -> VoicesReport:
        """The RTP so far, by CRT Object ID. Raises RuntimeError for a load without ``voices``."""
        if self.voices is None:
            raise RuntimeError("this load's callers speak by SIPp, which counts nothing")
        told = self.voices.report(self._keys)
        crts = dict(zip(self._keys, self.crt_object_ids, strict=True))
        by_crt = {crts[key]: voice for key, voice in told.voices.items()}
        return VoicesReport(by_crt, told.strays, told.dropped)

    def forget_voices(self) -> None:
        """Nobody will ask for its RTP again; a run of hours would keep that of all its calls."""
        if self.voices is not None:
            self.voices.forget(self._keys)

    def over(self) -> bool:
        """Whether all its calls are over."""
        return self._run is None or self._run.process.poll() is not None

    def hang_up(self) -> None:
        """All callers hang up; those who are not answered yet, once they are."""
        for key in self._keys:
            self._pbx._control.hang_up(key)

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
                    run.wait(_GRACE)
                run.kill()
            return _load_result(run, self.crt_object_ids, overdue, time.monotonic() - self._begun)
        finally:
            self._pbx._dispose(run)
            self._run = None
            self._forget()

    def _forget(self) -> None:
        for key, crt in zip(self._keys, self.crt_object_ids, strict=True):
            self._pbx._forget(key, crt, None)


class Pbx:
    """The PBX; a context manager, or :meth:`start` and :meth:`stop`.

    Args:
        switch: SIP address of the switch.
        local_ip: where calls come from, in SIP and RTP; any of 127.0.0.0/8 works.
        ameyo: whose accepted notifications end calls; it is started and stopped by its owner.
        bye_delay: seconds between an accepted notification and BYE.
        refreshes: sends a re-INVITE behind each ACK, with neither display name nor X-Workspace-ID.
        offered: how a re-INVITE of the switch's is answered, of the calls placed from now on: by a direction,
            a refusal (``"481"``, ``"488"``, ``"491"``, ``"500"``) or ``"nothing"``. May be changed.
        emit: told ``invite``, ``answered``, ``hang_up`` (BYE is about to be sent), ``over`` with the times.

    Raises:
        SippMissing: there is no SIPp.
    """

    def __init__(
        self,
        switch: tuple[str, int] = ("127.0.0.1", 5060),
        local_ip: str = "127.0.0.1",
        ameyo: AmeyoServer | None = None,
        *,
        bye_delay: float = 0.0,
        refreshes: bool = False,
        offered: str = "sendrecv",
        emit: Emit = silent,
    ) -> None:
        find_sipp()
        self.switch, self.local_ip, self.bye_delay = switch, local_ip, bye_delay
        self.refreshes, self.offered = refreshes, offered
        self._ameyo = ameyo
        self._emit = emit
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._keys: dict[str, list[str]] = {}  # by CRT Object ID
        self._calls: dict[str, PbxCall] = {}  # under way, by key
        self._hangups: dict[str, float] = {}  # hangup_after of a load's calls, by key
        self._loads: dict[str, Load] = {}  # under way, by the key of each of their calls
        self._watchers: list[threading.Thread] = []
        self._runs: set[SippRun] = set()
        self._ports = Ports(local_ip)
        self._running = False
        self._control = CallControl(self._on_answer, self._on_end, self._on_event)
        self._media = RtpEndpoint()

    def start(self) -> Self:
        """Get ready to call; a PBX is started once."""
        self._control.start()
        self._media.start()
        if self._ameyo is not None:
            self._ameyo.subscribe(self.accepted)
        self._running = True
        return self

    def stop(self) -> None:
        """Hang up all calls, end every SIPp, close every port; takes at most a few seconds."""
        if not self._running:
            return
        if self._ameyo is not None:
            self._ameyo.unsubscribe(self.accepted)
        with self._lock:
            self._running = False
            calls, runs, loads = list(self._calls.values()), list(self._runs), set(self._loads.values())
        for call in calls:
            call._hang_up("stop")
        for load in loads:
            load.hang_up()
        deadline = time.monotonic() + _GRACE
        for run in runs:
            try:
                run.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                run.kill()
        for watcher in list(self._watchers):
            watcher.join(5)
        self._control.stop()
        self._media.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def call(
        self,
        did: str = DID,
        crt_object_id: str | None = None,
        workspace_id: str | None = WORKSPACE,
        *,
        display: str | None = None,
        workspace_header: str = "X-Workspace-ID",
        extra_headers: Sequence[str] = (),
        transport: str = "udp",
        codec: str | Sequence[str] = "PCMU",
        user: str = "bot",
        hangup_after: float | None = None,
        answer_timeout: float = 10.0,
        media: str = "python",
        caller_tone: Caller = CALLER_TONE,
        timeout: float = 30.0,
        offered: str | None = None,
    ) -> PbxCall:
        """Place a call and return at once.

        Args:
            did, crt_object_id: the two halves of the display name; the latter is made up where None.
            workspace_id: None leaves the header out.
            display: instead of ``"<DID>|<CRT Object ID>"``: all that stands before the URI in From,
                quotes included; empty for no display name.
            workspace_header: the header's spelling.
            extra_headers: whole header lines; up to four with the workspace's.
            transport: ``"udp"`` or ``"tcp"``.
            codec: ``PCMU``, ``PCMA``, ``G729``, ``G722``; two of them in order of preference.
            user: of the request URI.
            hangup_after: seconds from the answer until the caller hangs up.
            answer_timeout: seconds after the INVITE, or the last provisional response, until CANCEL.
            media: ``"python"`` sends the tone and records; ``"sipp"`` only sends, in the first codec.
            caller_tone: whole hertz; L16 at 8,000 Hz, whole frames of 20 ms, over and over; None for silence.
            timeout: seconds after which the PBX gives up: BYE, and the end of SIPp if that does not help.
            offered: how a re-INVITE of the switch's is answered; None as the PBX does.
        """
        number = next(self._numbers)
        key = f"call-{number}"
        crt = crt_object_id if crt_object_id is not None else f"crt-{self._control.port}-{number}"
        workspace = [f"{workspace_header}: {workspace_id}"] if workspace_id is not None else []
        codecs, by_python = _offer(codec), _by_python(media)
        rtp_port = self._ports.reserve_rtp()
        session = self._media.open(self._ports, caller_tone) if by_python else None
        line = CallLine(
            key=key,
            display=f'"{did}|{crt}"' if display is None else display,
            headers=[*workspace, *extra_headers],
            codecs=codecs,
            rtp_port=rtp_port if session is None else session.port,
            user=user,
        )
        call = PbxCall(self, key, did, crt, session)
        call._hangup_after = hangup_after
        call._accepts = (self.offered if offered is None else offered) in DIRECTIONS
        with self._lock:  # before SIPp runs: it may be answered before Popen has returned
            self._calls[key] = call
            self._keys.setdefault(crt, []).append(key)
        try:
            run = self._run(
                [line],
                transport=transport,
                rate=1000,  # SIPp waits one call's share of a second before the first
                answer_timeout=answer_timeout,
                play=_speech(codecs[0], caller_tone) if session is None else None,
                rtp_port=rtp_port,
                full_trace=True,
                offered=offered,
            )
        except BaseException:
            self._forget(key, crt, session)
            raise
        self._emit("invite", {"crt_object_id": crt, "did": did, "transport": transport})
        watcher = threading.Thread(
            target=self._watch, args=(call, run, timeout), name=f"pbx {key}", daemon=True
        )
        with self._lock:
            self._watchers = [thread for thread in self._watchers if thread.is_alive()] + [watcher]
        watcher.start()
        return call

    def load(
        self,
        calls: int = 100,
        rate: float = 10.0,
        *,
        did: str = DID,
        crt_prefix: str | None = None,
        workspace_id: str = WORKSPACE,
        transport: str = "udp",
        codec: str = "PCMU",
        user: str = "bot",
        hangup_after: float | None = None,
        answer_timeout: float = 10.0,
        caller_tone: float | None = CALLER_TONE,
        timeout: float = 120.0,
    ) -> LoadResult:
        """:meth:`begin_load`, and wait until its calls are over, ``timeout`` seconds at most."""
        load = self.begin_load(
            calls,
            rate,
            did=did,
            crt_prefix=crt_prefix,
            workspace_id=workspace_id,
            transport=transport,
            codec=codec,
            user=user,
            hangup_after=hangup_after,
            answer_timeout=answer_timeout,
            caller_tone=caller_tone,
        )
        return load.finish(timeout)

    def begin_load(
        self,
        calls: int = 100,
        rate: float = 10.0,
        *,
        did: str = DID,
        crt_prefix: str | None = None,
        workspace_id: str = WORKSPACE,
        transport: str = "udp",
        codec: str = "PCMU",
        user: str = "bot",
        hangup_after: float | None = None,
        answer_timeout: float = 10.0,
        caller_tone: float | None = CALLER_TONE,
        voices: Voices | None = None,
    ) -> Load:
        """Place ``calls`` calls, ``rate`` new ones a second, by one SIPp, and return at once.

        All of them name one RTP port. With ``voices`` it is theirs: they speak, and count what comes; by
        default SIPp sends ``caller_tone`` from it, and nobody looks at what it receives.
        CRT Object IDs are ``<crt_prefix>-000001`` and so on. Whoever begins a load finishes it, too.
        """
        number = next(self._numbers)
        prefix = crt_prefix or f"load-{self._control.port}-{number}"
        ids = [f"{prefix}-{index:06d}" for index in range(1, calls + 1)]
        keys = [f"load-{number}-{index}" for index in range(1, calls + 1)]
        rtp_port = self._ports.reserve_rtp()
        told = voices.port if voices is not None else rtp_port
        lines = [
            CallLine(key, f'"{did}|{crt}"', [f"X-Workspace-ID: {workspace_id}"], [codec], told, user)
            for key, crt in zip(keys, ids, strict=True)
        ]
        load = Load(self, keys, ids, voices)
        with self._lock:
            for key, crt in zip(keys, ids, strict=True):
                self._keys.setdefault(crt, []).append(key)
                self._loads[key] = load
                if hangup_after is not None:
                    self._hangups[key] = hangup_after
        try:
            load._run = self._run(
                lines,
                transport=transport,
                rate=rate,
                answer_timeout=answer_timeout,
                play=_speech(codec, caller_tone) if voices is None else None,
                rtp_port=rtp_port,
                full_trace=False,
            )
        except BaseException:
            load._forget()
            raise
        return load

    def accepted(self, crt_object_id: str) -> None:
        """The REST server's notice to the PBX: end this call. Calls it does not know are not ours."""
        with self._lock:
            keys = list(self._keys.get(crt_object_id, ()))
            calls = [self._calls.get(key) for key in keys]
        for key, call in zip(keys, calls, strict=True):
            if call is not None:
                call._hang_up("accepted", self.bye_delay)
            else:
                self._control.hang_up(key, self.bye_delay)

    def _run(
        self,
        lines: Sequence[CallLine],
        *,
        transport: str,
        rate: float,
        answer_timeout: float,
        play: tuple[bytes, int] | None,
        rtp_port: int,
        full_trace: bool,
        offered: str | None = None,
    ) -> SippRun:
        """Start SIPp; ``rtp_port`` is released with it, and also where it cannot be started."""
        local_port = self._ports.reserve_sip()
        try:
            with self._lock:
                if not self._running:
                    raise RuntimeError("the PBX is not started, or stopped")
                run = SippRun(
                    lines,
                    switch=self.switch,
                    local_ip=self.local_ip,
                    local_port=local_port,
                    control_port=self._control.port,
                    transport=transport,
                    rate=rate,
                    answer_timeout=answer_timeout,
                    play=play,
                    rtp_port=rtp_port,
                    full_trace=full_trace,
                    refresh=self.refreshes,
                    offered=self.offered if offered is None else offered,
                )
                self._runs.add(run)
                return run
        except BaseException:
            self._ports.release(local_port, rtp_port)
            raise

    def _watch(self, call: PbxCall, run: SippRun, timeout: float) -> None:
        try:
            try:
                run.wait(timeout)
            except subprocess.TimeoutExpired:
                call._hang_up("timeout")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.wait(_GRACE)
                run.kill()
            result = _call_result(call, run)
        finally:
            self._dispose(run)
            self._forget(call._key, call.crt_object_id, call._session)
        self._emit(
            "over",
            {
                "crt_object_id": call.crt_object_id,
                "status": result.status,
                "ended_by": result.ended_by,
                "cause": result.cause,
                "invited_at": result.invited_at,
                "answered_at": result.answered_at,
                "bye_at": result.bye_at,
                "error": result.error,
            },
        )
        call._finish(result)

    def _dispose(self, run: SippRun) -> None:
        run.close()
        self._ports.release(run.local_port, run.rtp_port)
        with self._lock:
            self._runs.discard(run)

    def _forget(self, key: str, crt: str, session: RtpSession | None) -> None:
        with self._lock:
            self._calls.pop(key, None)
            self._hangups.pop(key, None)
            self._loads.pop(key, None)
            keys = self._keys.get(crt, [])
            if key in keys:
                keys.remove(key)
            if not keys:
                self._keys.pop(crt, None)
        self._control.forget(key)
        if session is not None:
            self._media.close(session)

    def _on_answer(self, answered: Answered) -> None:
        remote = (answered.media_ip, answered.media_port)
        with self._lock:
            call = self._calls.get(answered.key)
            load = self._loads.get(answered.key)
            hangup_after = self._hangups.get(answered.key)
        if load is not None and load.voices is not None:
            load.voices.begin(answered.key, remote, answered.payload_type)
        if call is None:
            if hangup_after is not None:
                self._control.hang_up(answered.key, hangup_after)
            return
        if call._session is not None:
            self._media.begin(call._session, remote, answered.payload_type)
        call._note_answer()
        self._emit("answered", {"crt_object_id": call.crt_object_id, "did": call.did})
        if call._hangup_after is not None:
            call._hang_up("hangup_after", call._hangup_after)

    def _on_event(self, event: str, told: Answered) -> None:
        with self._lock:
            call, load = self._calls.get(told.key), self._loads.get(told.key)
        if load is not None:
            load.offered += event == OFFERED
            load.taken_up += event == ACKNOWLEDGED and load.accepts
        if call is not None:
            call._note_event(event)

    def _on_end(self, key: str) -> None:
        load = self._loads.get(key)
        if load is not None and load.voices is not None:
            load.voices.end(key)


def _by_python(media: str) -> bool:
    if media not in ("python", "sipp"):
        raise ValueError(f"media is {media!r}, neither 'python' nor 'sipp'")
    return media == "python"


def _offer(codec: str | Sequence[str]) -> list[str]:
    codecs = [codec] if isinstance(codec, str) else list(codec)
    unknown = [name for name in codecs if name not in CODECS]
    if unknown:
        raise ValueError(f"codecs {unknown} are none of {list(CODECS)}")
    return codecs


def _speech(codec: str, caller_tone: Caller) -> tuple[bytes, int] | None:
    """A second of the caller's speech for SIPp to repeat, and its payload type; G.711 only."""
    if codec not in g711.PAYLOAD_TYPES:
        return None
    return b"".join(caller_frames(codec, caller_tone)), g711.PAYLOAD_TYPES[codec]


def _call_result(call: PbxCall, run: SippRun) -> CallResult:
    told = list(dialogs(run.lines("short.log")).values())
    dialog = told[0] if told else Dialog("")
    messages = run.text("messages.log")
    return CallResult(
        did=call.did,
        crt_object_id=call.crt_object_id,
        status=dialog.status,
        reason=dialog.reason,
        retry_after=retry_after(messages),
        answered=dialog.answered,
        ended_by=dialog.ended_by,
        cause=call._cause if dialog.ended_by != "switch" else None,
        error=run.error(),
        exit_status=run.wait(0),
        invited_at=dialog.invited_at,
        answered_at=dialog.answered_at,
        cancelled_at=dialog.cancelled_at,
        bye_at=dialog.bye_at,
        ended_at=dialog.ended_at,
        sip_messages=messages,
        recording=call.recording,
    )


def _load_result(run: SippRun, ids: list[str], overdue: bool, duration: float) -> LoadResult:
    by_crt = _by_crt(run.lines("short.log"), ids)
    told = list(by_crt.values())
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
        dialogs=by_crt,
    )


def _by_crt(trace: Sequence[str], ids: Sequence[str]) -> dict[str, Dialog]:
    # SIPp numbers its calls from 1 in the Call-ID, in the order of the injection file.
    return {ids[int(call_id.partition("-")[0]) - 1]: dialog for call_id, dialog in dialogs(trace).items()}


def _percentiles(values: list[float]) -> dict[int, float]:
    values = sorted(values)
    return {p: values[math.ceil(len(values) * p / 100) - 1] for p in (50, 95, 99, 100)} if values else {}
