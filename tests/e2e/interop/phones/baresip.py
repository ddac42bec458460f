"""baresip, told what to do by its control socket (module ctrl_tcp)."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from eslbot.sim.addresses import colon, free_port
from eslbot.sim.audio import RATE, heard, tone
from eslbot.sim.bot import BotCall
from tests.e2e.interop.pbx import PATIENCE
from tests.e2e.interop.phones.pbx import PhonePbx
from tests.e2e.interop.phones.phone import Phone

MODULES = Path("/usr/lib/baresip/modules")
#: Codecs as Debian's sample configuration has them, and those it has in comments, too.
CODECS = ("opus", "g722", "g711", "gsm", "l16")
WAV_HEADER = 44
#: A player whose sound is a source's; that of nobody, as long as no source is switched to it.
LOOP = "aubridge,loop"


class Baresip(Phone):
    """``account`` are parameters of its account line (``;mediaenc=srtp``), ``display`` what its From says;
    ``modules`` are more of them, and ``settings`` more lines of its configuration."""

    program, package = "baresip", "baresip-core"

    def __init__(
        self,
        folder: Path,
        pbx: PhonePbx,
        *,
        account: str = "",
        display: str = "",
        transport: str = "udp",
        modules: tuple[str, ...] = (),
        settings: tuple[str, ...] = (),
    ) -> None:
        super().__init__(folder, pbx)
        self._was_held = False
        self._control: socket.socket | None = None
        self._reader: threading.Thread | None = None
        self._control_at = ("127.0.0.1", free_port())
        name = f'"{display}" ' if display else ""
        address = f"sip:phone@{colon(pbx.address)};transport={transport}"
        (self.folder / "accounts").write_text(f"{name}<{address}>;regint=0{account}\n")
        (self.folder / "contacts").write_text("")
        (self.folder / "config").write_text("\n".join([*self._settings(modules), *settings, ""]))

    def _settings(self, modules: tuple[str, ...]) -> list[str]:
        wanted = [*CODECS, "sndfile", "aufile", "aubridge", *modules]
        return [
            "sip_listen 127.0.0.1:0",  # it wants one more for TLS
            "net_interface 127.0.0.1",
            f"ctrl_tcp_listen {colon(self._control_at)}",
            f"audio_source aufile,{self.speech}",
            f"audio_player {LOOP}",
            f"audio_alert {LOOP}",
            "audio_path /nonexistent",
            "statmode_default off",
            "ausrc_srate 8000",
            "auplay_srate 8000",
            f"snd_path {self.folder}",
            f"module_path {MODULES}",
            *[f"module {name}.so" for name in wanted],
            *[f"module_tmp {name}.so" for name in ("uuid", "account")],
            *[f"module_app {name}.so" for name in ("menu", "ctrl_tcp")],
        ]

    # -- its process --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Run it, and connect to its control socket."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                ["baresip", "-4", "-v", "-s", "-f", str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                cwd=self.folder,
            )
        self._control = self._connect()
        self._reader = threading.Thread(target=self._read, name="control of baresip", daemon=True)
        self._reader.start()

    def stop(self) -> None:
        """End it: it sends BYE for what is up."""
        super().stop()
        if self._reader is not None:
            self._reader.join(PATIENCE)
        if self._control is not None:
            self._control.close()

    def _connect(self) -> socket.socket:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return socket.create_connection(self._control_at, PATIENCE)
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"baresip did not come up: {self.log()[-2000:]}") from None
                time.sleep(0.02)  # another process's start: there is no event to wait for

    def _read(self) -> None:
        """Netstrings of JSON: events, and responses to commands."""
        assert self._control is not None
        self._control.settimeout(None)
        buffer = b""
        while data := self._control.recv(65536):
            buffer += data
            while (head := buffer.partition(b":"))[1] and len(head[2]) > int(head[0]):
                length = int(head[0])
                self._say(head[2][:length].decode())
                buffer = head[2][length + 1 :]

    def command(self, name: str, parameters: str = "") -> str:
        """A command of baresip's menu; returns what it answers."""
        assert self._control is not None
        since = len(self._said)
        text = json.dumps({"command": name, "params": parameters, "token": "t"})
        self._control.sendall(f"{len(text)}:{text},".encode())
        told = self._wait_said(lambda line: bool(json.loads(line).get("response")), name, since)
        answer: dict[str, Any] = json.loads(told)
        assert answer["ok"], (name, answer)
        return str(answer["data"])

    # -- what a phone does --------------------------------------------------------------------------------

    def dial(self, address: str) -> None:
        self.command("dial", address)

    def hang_up(self) -> None:
        self.command("hangup")

    def press(self, keys: str) -> None:
        for key in keys:
            self.command("sndcode", key)

    def hold(self) -> None:
        self._change("hold")
        self._was_held = True

    def resume(self) -> None:
        self._change("resume")

    def transfer(self, address: str) -> None:
        """It is silent from then on, also where it is refused."""
        self.command("transfer", address)

    def hears(self, bot: BotCall, frequency: float) -> None:
        """Behind a hold 1.0.0 has lost what it records with (its issue 1496): it says back what it hears."""
        if not self._was_held:
            super().hears(bot, frequency)
            return
        self.command("ausrc", LOOP)
        bot.say(tone(frequency, 0.5), real_time=False)
        bot.wait(lambda it: heard(it.audio()[-2 * RATE :], frequency) >= 0.3)
        self.command("ausrc", f"aufile,{self.speech}")

    def wait_established(self) -> None:
        self._event("CALL_ESTABLISHED")

    def wait_ended(self) -> str:
        return str(self._event("CALL_CLOSED").get("param", ""))

    def heard(self) -> bytes:
        files = sorted(self.folder.glob("dump-*-dec.wav"))
        return b"".join(file.read_bytes()[WAV_HEADER:] for file in files)

    def _change(self, command: str) -> None:
        """A re-INVITE, until its answer."""
        since = len(self._said)
        self.command(command)
        self._event("CALL_REMOTE_SDP", since)

    def _event(self, kind: str, since: int = 0) -> dict[str, Any]:
        line = self._wait_said(lambda said: json.loads(said).get("type") == kind, kind, since)
        event: dict[str, Any] = json.loads(line)
        return event
