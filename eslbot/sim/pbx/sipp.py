"""Running SIPp: its scenario, its injection file, its command line, its process.

Not by pysipp 0.1.0: it imports ``imp`` and ``distutils``, which Python 3.12 no longer has, its command line
knows neither ``-ci`` nor ``-nostdin`` nor ``-trace_shortmsg``, and its runner stops every process when one
of them exits 1, which here is an outcome to be reported and not the end of the test.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from eslbot.sim.pbx.control import DIRECTIONS

#: What the offer's codecs are by name: RTP payload type and rtpmap (RFC 3551, table 4).
CODECS = {
    "PCMU": (0, "PCMU/8000"),
    "PCMA": (8, "PCMA/8000"),
    "G729": (18, "G729/8000"),
    "G722": (9, "G722/8000"),
}

#: How a PBX may answer a re-INVITE: by a direction, by a refusal, or not at all.
REFUSALS = {
    "481": "Call/Transaction Does Not Exist",
    "488": "Not Acceptable Here",
    "491": "Request Pending",
    "500": "Internal Server Error",
}
OFFERED = (*DIRECTIONS, *REFUSALS, "nothing")

#: SIPp's exit statuses (its manual page) that say more than "a call failed".
EXIT = {
    97: "exit by its internal command",
    99: "no call was made",
    253: "RTP check failed",
    254: "could not bind its port",
    255: "fatal error",
}

_TRACE_LIMIT = 4 << 20
_HEADER_FIELDS = 4

#: Seconds SIPp gets to end in order after a call's time is up, before it is killed.
GRACE = 2.0


class SippMissing(RuntimeError):
    """There is no SIPp on this machine."""


@dataclass(frozen=True, slots=True)
class CallLine:
    """One call's line of the injection file; ``display`` is all that stands before the URI in From."""

    key: str
    display: str
    headers: Sequence[str]
    codecs: Sequence[str]
    rtp_port: int
    user: str

    def csv(self) -> str:
        """The line, fields as described in ``scenarios/uac.xml``.

        Raises:
            ValueError: a value that an injection file cannot hold, or too many headers or codecs.
        """
        if len(self.headers) > _HEADER_FIELDS:
            raise ValueError(f"{len(self.headers)} header lines; the scenario has room for {_HEADER_FIELDS}")
        if not 1 <= len(self.codecs) <= 2:
            raise ValueError(f"{len(self.codecs)} codecs; the scenario has room for one or two")
        rtpmaps = [f"a=rtpmap:{CODECS[name][0]} {CODECS[name][1]}" for name in self.codecs]
        fields = [
            self.key,
            self.display,
            *_padded(self.headers, _HEADER_FIELDS),
            *_padded(rtpmaps, 2),
            str(self.rtp_port),
            self.user,
            " ".join(str(CODECS[name][0]) for name in self.codecs),
        ]
        for text in fields:
            if set(text) & set(";\r\n\0"):
                raise ValueError(f"an injection file of SIPp cannot hold {text!r}")
        return ";".join(fields)


def _padded(values: Iterable[str], length: int) -> list[str]:
    values = list(values)
    return values + [""] * (length - len(values))


def find_sipp() -> str:
    """SIPp's path.

    Raises:
        SippMissing: with what to install.
    """
    path = shutil.which("sipp")
    if path is None:
        raise SippMissing(
            "SIPp is not installed: there is no 'sipp' on the PATH. "
            "Debian and Ubuntu have it in the package sip-tester: apt-get install sip-tester"
        )
    return path


def _answer_to_offer(offered: str) -> str:
    """A step of the scenario."""
    if offered not in OFFERED:
        raise ValueError(f"{offered!r} is none of {OFFERED}")
    if offered == "nothing":
        return '<nop next="up"/>'
    if offered in REFUSALS:
        echoed = "\n".join(f"[last_{name}:]" for name in ("Via", "From", "To", "Call-ID", "CSeq"))
        answer = f"SIP/2.0 {offered} {REFUSALS[offered]}\n{echoed}\nContent-Length: 0"
        return f'<send next="up"><![CDATA[\n\n{answer}\n\n]]></send>'
    text = (files("eslbot.sim") / "scenarios" / "offered.xml").read_text(encoding="utf-8")
    return text.replace("@DIRECTION@", offered)


class SippRun:
    """One SIPp process with its files in a temporary directory, from start to :meth:`close`.

    Args:
        lines: the calls; SIPp exits when all of them are over.
        switch, local_ip, local_port: where to, and SIP's and RTP's own address.
        control_port: of :class:`eslbot.sim.pbx.control.CallControl`.
        transport: ``"udp"`` or ``"tcp"``, one socket.
        rate: new calls a second; there is no limit to how many are up.
        answer_timeout: seconds without any response before CANCEL.
        play: raw samples that SIPp sends by itself, over and over, and their payload type.
        rtp_port: SIPp's own; it binds one even when it plays nothing.
        full_trace: keep whole messages, not just first lines.
        refresh: send a re-INVITE behind the ACK.
        offered: how a re-INVITE of the switch's is answered, one of :data:`OFFERED`.
    """

    def __init__(
        self,
        lines: Sequence[CallLine],
        *,
        switch: tuple[str, int],
        local_ip: str,
        local_port: int,
        control_port: int,
        transport: str,
        rate: float,
        answer_timeout: float,
        play: tuple[bytes, int] | None,
        rtp_port: int,
        full_trace: bool,
        refresh: bool,
        offered: str = "sendrecv",
    ) -> None:
        self.local_port, self.rtp_port = local_port, rtp_port
        self.killed = False
        csv = "\n".join(["SEQUENTIAL", *(line.csv() for line in lines), ""])
        self._directory = tempfile.TemporaryDirectory(prefix="eslbot-sipp-")
        self.directory = Path(self._directory.name)
        (self.directory / "calls.csv").write_text(csv, encoding="utf-8")
        (self.directory / "uac.xml").write_bytes(self._scenario(answer_timeout, play, refresh, offered))
        command = [
            find_sipp(),
            f"{switch[0]}:{switch[1]}",
            *("-sf", "uac.xml", "-inf", "calls.csv"),
            *("-i", local_ip, "-p", str(local_port), "-bind_local"),
            *("-mi", local_ip, "-mp", str(rtp_port), "-ci", "127.0.0.1"),
            *("-t", {"udp": "u1", "tcp": "t1"}[transport]),
            *("-3pcc", f"127.0.0.1:{control_port}"),
            *("-m", str(len(lines)), "-l", str(len(lines))),
            # SIPp takes whole calls in a period; a period of ten seconds makes tenths of calls a second.
            *("-r", str(max(1, round(rate * 10))), "-rp", "10s"),
            *("-nostdin", "-trace_err", "-error_file", "errors.log"),
            *("-trace_shortmsg", "-shortmessage_file", "short.log"),
            *("-trace_stat", "-stf", "statistics.csv"),
        ]
        if full_trace:
            command += ["-trace_msg", "-message_file", "messages.log"]
        with (self.directory / "stderr.log").open("wb") as stderr:
            self.process = subprocess.Popen(
                command,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # its screen
                stderr=stderr,
                env={**os.environ, "TZ": "UTC", "LC_ALL": "C"},
            )

    def _scenario(
        self, answer_timeout: float, play: tuple[bytes, int] | None, refresh: bool, offered: str
    ) -> bytes:
        scenarios = files("eslbot.sim") / "scenarios"
        text = (scenarios / "uac.xml").read_text(encoding="utf-8")
        again = (scenarios / "refresh.xml").read_text(encoding="utf-8") if refresh else ""
        action = ""
        if play is not None:
            raw, payload_type = play
            path = self.directory / "speech.raw"
            path.write_bytes(raw)
            action = f'<nop><action><exec rtp_stream="{path},-1,{payload_type}"/></action></nop>'
        text = text.replace("@ANSWER_MS@", str(round(answer_timeout * 1000)))
        text = text.replace("@PLAY@", action).replace("@REFRESH@", again)
        return text.replace("@OFFERED@", _answer_to_offer(offered)).encode()

    def wait(self, timeout: float | None) -> int:
        """Its exit status: 0, 1 where a call failed, others in :data:`EXIT`, negative for a signal.

        Raises:
            subprocess.TimeoutExpired: it is still running.
        """
        return self.process.wait(timeout)

    def kill(self) -> None:
        """End it, whatever it is doing, and reap it."""
        if self.process.poll() is None:
            self.killed = True
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(1)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait(5)

    def text(self, name: str) -> str:
        """One of its files, the first 4 MB; empty where SIPp had nothing to write."""
        path = self.directory / name
        if not path.exists():
            return ""
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_TRACE_LIMIT)

    def lines(self, name: str) -> list[str]:
        """All lines of one of its files."""
        path = self.directory / name
        if not path.exists():
            return []
        return path.read_text(encoding="utf-8", errors="replace").splitlines()

    def error(self) -> str | None:
        """What went wrong, in SIPp's words; None where it ended by itself with exit status 0."""
        if self.killed:  # it may make that an exit status of 0
            return "SIPp did not end by itself and was killed"
        status = self.process.poll()
        if status in (0, None):
            return None
        words = self.text("errors.log").strip() or self.text("stderr.log").strip()
        return f"SIPp exit {status} ({EXIT.get(status or 0, 'a call failed')}): {words[:2000]}"

    def close(self) -> None:
        """Kill it where it runs, and remove its files."""
        self.kill()
        self._directory.cleanup()
