"""A relay without line files and bots: what its stream server, worker and parent do can be seen by itself.

Run as a program it is ``eslbot relay --config FILE`` with such calls.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from eslbot.caller.invite import Invite
from eslbot.config.model import Workspace
from eslbot.recording.recorder import Recorder
from eslbot.relay.control import Part
from eslbot.relay.resources import Resources
from eslbot.relay.stream_server import Call, Stream
from eslbot.relay.worker import Parts

ACME = "2b37ba17-7b20-4b3e-b138-1161e351d5c5"


class EchoCall(Call):
    """Says who has it, says back what it hears, and is over when its stream has ended cleanly."""

    def __init__(self, invite: Invite, workspace: Workspace, shared: Resources) -> None:
        self.invite, self.workspace, self.shared = invite, workspace, shared
        self.told: list[str] = []
        self.stream: Stream | None = None

    def prepare(self) -> None:
        self.told.append("prepare")

    def open_line(self, ptime: int, switch: str) -> None:
        self.told.append(f"open_line {ptime}")

    def stream_up(self, stream: Stream, part: Part) -> None:
        self.told.append("stream_up")
        self.stream = stream
        stream.send_text(f"{os.getpid()} {self.workspace.name} {self.shared.url}")

    def receive_audio(self, frame: bytes) -> None:
        self.told.append("heard")

    def receive_order(self, text: str) -> None:
        assert self.stream is not None
        if text == "die":
            os._exit(3)
        self.stream.send_text(text)

    def stream_gone(self, clean: bool) -> None:
        self.told.append(f"stream_gone {clean}")
        if clean:
            self.shared.over(self.invite.call_id)

    def shutdown(self) -> None:
        self.told.append("shutdown")
        if self.stream is not None:
            self.stream.close(1001)
        self.shared.over(self.invite.call_id)


class NoReads:
    """No file is watched."""

    def __init__(self, directory: Path) -> None:
        self.fd, self._writing = os.pipe()

    def drain(self, within: float = 0.0) -> None:
        pass


def parts(call: Any = EchoCall) -> Parts:
    return Parts(call, NoReads, lambda: None, Recorder)  # type: ignore[arg-type, return-value]


def configuration(folder: Path, port: int, processes: int = 1, name: str = "acme") -> dict[str, Any]:
    return {
        "server": {"key_file": str(folder / "identity.key")},
        "relay": {
            "listen": f"127.0.0.1:{port}",
            "directory": str(folder / "lines"),
            "processes": processes,
        },
        "workspaces": {
            ACME: {
                "name": name,
                "sources": ["203.0.113.10"],
                "bot": {"url": "wss://bot.example.com/"},
                "ameyo": {
                    "url": "https://a.example.com",
                    "tenant_host": "a.example.com",
                    "token": "t0ken-t0ken",
                },
            }
        },
    }


if __name__ == "__main__":
    from eslbot.relay.parent import Parent
    from eslbot.telemetry import logs

    logs.configure(json_logs=True)
    drain = float(sys.argv[2]) if len(sys.argv) > 2 else None
    Parent(Path(sys.argv[1]), parts(), drain=drain).run()
