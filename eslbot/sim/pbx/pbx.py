"""The Ameyo PBX: places calls by SIPp, hangs them up when the REST server has accepted their hand-off."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from eslbot.audio import g711
from eslbot.sim.events import Emit, silent
from eslbot.sim.pbx.ameyo import AmeyoServer
from eslbot.sim.pbx.call import PbxCall
from eslbot.sim.pbx.control import ACKNOWLEDGED, DIRECTIONS, OFFERED, Answered, CallControl
from eslbot.sim.pbx.load import Load
from eslbot.sim.pbx.media import CALLER_TONE, Caller, RtpEndpoint, RtpSession, caller_frames
from eslbot.sim.pbx.ports import Ports
from eslbot.sim.pbx.results import LoadResult, call_result
from eslbot.sim.pbx.sipp import CODECS, GRACE, CallLine, SippRun, find_sipp
from eslbot.sim.pbx.voices import Voices

#: The example of the integration document.
WORKSPACE = "2b37ba17-7b20-4b3e-b138-1161e351d5c5"
DID = "00919990152080"


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
            call.end("stop")
        for load in loads:
            load.hang_up()
        deadline = time.monotonic() + GRACE
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
        key = f"call-{(number := next(self._numbers))}"
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
        accepts = (self.offered if offered is None else offered) in DIRECTIONS
        call = self._remember(
            PbxCall(
                key, did, crt, session, self._control, self._emit, accepts=accepts, hangup_after=hangup_after
            )
        )
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
        self._begin_watching(call, run, timeout)
        return call

    def _remember(self, call: PbxCall) -> PbxCall:
        """Before SIPp runs: the call may be answered before Popen has returned."""
        with self._lock:
            self._calls[call.key] = call
            self._keys.setdefault(call.crt_object_id, []).append(call.key)
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
        accepts = self.offered in DIRECTIONS
        load = Load(keys, ids, voices, self._control, self._end_load, accepts=accepts)
        self._enter(load, hangup_after)
        try:
            run = self._run(
                lines,
                transport=transport,
                rate=rate,
                answer_timeout=answer_timeout,
                play=_speech(codec, caller_tone) if voices is None else None,
                rtp_port=rtp_port,
                full_trace=False,
            )
        except BaseException:
            self._leave(load)
            raise
        load.runs(run)
        return load

    def _enter(self, load: Load, hangup_after: float | None) -> None:
        with self._lock:
            for key, crt in zip(load.keys, load.crt_object_ids, strict=True):
                self._keys.setdefault(crt, []).append(key)
                self._loads[key] = load
                if hangup_after is not None:
                    self._hangups[key] = hangup_after

    def _leave(self, load: Load) -> None:
        for key, crt in zip(load.keys, load.crt_object_ids, strict=True):
            self._forget(key, crt, None)

    def _end_load(self, load: Load, run: SippRun) -> None:
        self._dispose(run)
        self._leave(load)

    def accepted(self, crt_object_id: str) -> None:
        """The REST server's notice to the PBX: end this call. Calls it does not know are not ours."""
        with self._lock:
            keys = list(self._keys.get(crt_object_id, ()))
            calls = [self._calls.get(key) for key in keys]
        for key, call in zip(keys, calls, strict=True):
            if call is not None:
                call.end("accepted", self.bye_delay)
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

    def _begin_watching(self, call: PbxCall, run: SippRun, timeout: float) -> None:
        watcher = threading.Thread(
            target=self._watch, args=(call, run, timeout), name=f"pbx {call.key}", daemon=True
        )
        with self._lock:
            self._watchers = [thread for thread in self._watchers if thread.is_alive()] + [watcher]
        watcher.start()

    def _watch(self, call: PbxCall, run: SippRun, timeout: float) -> None:
        try:
            try:
                run.wait(timeout)
            except subprocess.TimeoutExpired:
                call.end("timeout")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    run.wait(GRACE)
                run.kill()
            result = call_result(call.did, call.crt_object_id, call.cause, call.recording, run)
        finally:
            self._dispose(run)
            self._forget(call.key, call.crt_object_id, call.session)
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
        call.finish(result)

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
        if call.session is not None:
            self._media.begin(call.session, remote, answered.payload_type)
        call.note_answer()

    def _on_event(self, event: str, told: Answered) -> None:
        with self._lock:
            call, load = self._calls.get(told.key), self._loads.get(told.key)
        if load is not None:
            load.offered += event == OFFERED
            load.taken_up += event == ACKNOWLEDGED and load.accepts
        if call is not None:
            call.note_event(event)

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
