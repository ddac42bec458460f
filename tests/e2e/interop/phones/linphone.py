"""linphonec, at a terminal of ours: fed by a pipe it does nothing but wait for the next line."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import threading
from pathlib import Path

from tests.e2e.interop.pbx import PATIENCE
from tests.e2e.interop.phones.pbx import PhonePbx
from tests.e2e.interop.phones.phone import Phone

#: Of liblinphone's ``sip_port``: one that the kernel gives.
ANY_PORT = "-1"
ESTABLISHED = "Media streams established"
ENDED = re.compile(r"Call \d+ with .* ended \((.*)\)|Call \d+ .*(?:failed|error)[^(]*\(?(.*?)\)?$")


class Linphone(Phone):
    """``keys`` are more of its configuration, by section; ``first`` are commands before the first call."""

    program, package = "linphonec", "linphone-cli"

    def __init__(
        self,
        folder: Path,
        pbx: PhonePbx,
        *,
        sip: dict[str, str] | None = None,
        rtp: dict[str, str] | None = None,
        display: str = "",
        transport: str = "udp",
        first: tuple[str, ...] = (),
    ) -> None:
        super().__init__(folder, pbx)
        self.recording = self.folder / "heard.wav"
        self._transport, self._first = transport, first
        self._terminal: int | None = None
        self._reader: threading.Thread | None = None
        name = f'"{display}" ' if display else ""
        sections = {
            "sip": {
                "sip_port": ANY_PORT if transport == "udp" else "0",
                "sip_tcp_port": ANY_PORT if transport == "tcp" else "0",
                "sip_tls_port": "0",
                "bind_address": "127.0.0.1",
                "contact": f"{name}<sip:phone@127.0.0.1>",
                "guess_hostname": "0",
                **(sip or {}),
            },
            "rtp": {"bind_address": "127.0.0.1", "audio_rtp_port": "-1", **(rtp or {})},
        }
        lines = []
        for section, keys in sections.items():
            lines += [f"[{section}]", *[f"{key}={value}" for key, value in keys.items()]]
        (self.folder / "linphonerc").write_text("\n".join([*lines, ""]))

    # -- its process --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Run it at a terminal, and prepare its sound."""
        self._terminal, theirs = pty.openpty()
        command = ["linphonec", "-c", str(self.folder / "linphonerc"), "-d", "6", "-l", str(self.log_file)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                env=self.environment(),
                cwd=self.folder,
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        self._reader = threading.Thread(target=self._read, name="terminal of linphonec", daemon=True)
        self._reader.start()
        self._wait_said(lambda line: "linphonec>" in line, "its prompt")
        for line in ("ipv6 disable", "soundcard use files", *self._first):
            self.type(line)
        self._wait_said(lambda line: "Using wav files" in line, "that it uses files")

    def stop(self) -> None:
        """End it."""
        super().stop()
        if self._reader is not None:
            self._reader.join(PATIENCE)
        if self._terminal is not None:
            os.close(self._terminal)
            self._terminal = None

    def type(self, line: str) -> None:
        """A line at its prompt."""
        assert self._terminal is not None
        os.write(self._terminal, f"{line}\n".encode())

    def _read(self) -> None:
        assert self._terminal is not None
        buffer = ""
        while True:
            try:
                data = os.read(self._terminal, 65536)
            except OSError:  # EIO: its last process has closed the other end
                return
            if not data:
                return
            *lines, buffer = (buffer + data.decode(errors="replace")).replace("\r", "").split("\n")
            for line in lines:
                self._say(line)
            if "linphonec>" in buffer:  # a prompt has no end of line
                self._say(buffer)

    # -- what a phone does --------------------------------------------------------------------------------

    def dial(self, address: str) -> None:
        self.type(f"call {address};transport={self._transport}")

    def hang_up(self) -> None:
        self.type("terminate")

    def press(self, keys: str) -> None:
        for key in keys:
            self.type(key)

    def hold(self) -> None:
        self._change("pause", "is now paused")

    def resume(self) -> None:
        self._change("resume", ESTABLISHED)

    def transfer(self, address: str) -> None:
        self.type(f"transfer {address}")

    def wait_established(self) -> None:
        self._wait_said(lambda line: ESTABLISHED in line, "that it is answered")
        self.type(f"play {self.speech}")
        self.type(f"record {self.recording}")

    def _change(self, command: str, done: str) -> None:
        """A re-INVITE, until its answer."""
        since = len(self._said)
        self.type(command)
        self._wait_said(lambda line: done in line, done, since)

    def wait_ended(self) -> str:
        line = self._wait_said(lambda line: bool(ENDED.search(line)), "that it is over")
        found = ENDED.search(line)
        assert found
        return next(group for group in found.groups() if group is not None)

    def heard(self) -> bytes:
        return self.recording.read_bytes()[44:] if self.recording.exists() else b""
