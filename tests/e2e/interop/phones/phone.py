"""A softphone that somebody else wrote, headless, in a process and a home directory of its own."""

from __future__ import annotations

import os
import subprocess
import threading
import time
import wave
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from eslbot.sim.addresses import colon
from eslbot.sim.audio import RATE, heard, tone
from eslbot.sim.bot import BotCall
from eslbot.sim.processes import end_process
from tests.e2e.interop.pbx import CALLER, PATIENCE
from tests.e2e.interop.phones.pbx import PhoneCall, PhonePbx

#: Seconds of the caller's tone; longer than any call here.
SPEECH = 60.0
_LOOK = 0.02


class Phone(ABC):
    """One phone of a PBX; a context manager that ends its process, and its call before that.

    It says :data:`CALLER` hertz for as long as it is in a call, and keeps what it hears in a file.
    """

    #: It, and Debian's package that has them.
    program: str
    package: str

    def __init__(self, folder: Path, pbx: PhonePbx) -> None:
        self.folder, self.pbx = folder.absolute(), pbx
        self.folder.mkdir(parents=True)
        self.log_file = self.folder / "phone.log"
        self.speech = self.folder / "speech.wav"
        self._process: subprocess.Popen[bytes] | None = None
        self._said: list[str] = []
        self._changed = threading.Condition()
        with wave.open(str(self.speech), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes(tone(CALLER, SPEECH))

    # -- what a phone does --------------------------------------------------------------------------------

    @abstractmethod
    def dial(self, address: str) -> None:
        """Call a SIP address."""

    @abstractmethod
    def hang_up(self) -> None:
        """BYE, or before the answer CANCEL."""

    @abstractmethod
    def press(self, keys: str) -> None:
        """Keys, one after the other."""

    @abstractmethod
    def hold(self) -> None:
        """Put the other side on hold, and wait for the answer."""

    @abstractmethod
    def resume(self) -> None:
        """Back from hold, and wait for the answer."""

    @abstractmethod
    def transfer(self, address: str) -> None:
        """REFER to another address (RFC 3515)."""

    @abstractmethod
    def wait_established(self) -> None:
        """Until the call is answered. Raises TimeoutError."""

    @abstractmethod
    def wait_ended(self) -> str:
        """Until the call is over, or was refused: why, in the phone's words. Raises TimeoutError."""

    @abstractmethod
    def heard(self) -> bytes:
        """What it has heard so far, L16 at 8,000 Hz."""

    # -- what it is told to do, in one go ------------------------------------------------------------------

    def call(self) -> PhoneCall:
        """Dial a new CRT Object ID and wait for the answer."""
        crt = self.dial_new()
        call = self.pbx.call(crt)
        self.wait_established()
        return call

    def dial_new(self) -> str:
        """Dial a new CRT Object ID, and return that."""
        crt = f"d444-{uuid4().hex[:12]}"
        self.dial(f"sip:{crt}@{colon(self.pbx.address)}")
        return crt

    def hears(self, bot: BotCall, frequency: float) -> None:
        """The bot says half a second of a tone, and the phone hears most of it. Raises AssertionError."""
        before = len(self.heard())
        bot.say(tone(frequency, 0.5), real_time=False)
        self.wait_hears(frequency, 0.3, before)

    def wait_hears(self, frequency: float, seconds: float, since: int = 0) -> None:
        """Until it has heard a tone for so long, behind ``since`` bytes of it. Raises AssertionError."""
        deadline = time.monotonic() + PATIENCE
        while (length := heard(self.heard()[since:], frequency)) < seconds:
            assert time.monotonic() < deadline, f"{length:g} s of {frequency:g} Hz; {self.log()[-2000:]}"
            time.sleep(_LOOK)  # another process's file: there is no event to wait for

    # -- its process --------------------------------------------------------------------------------------

    @abstractmethod
    def start(self) -> None:
        """Run it, and wait until it takes commands."""

    def stop(self) -> None:
        """End its process."""
        if self._process is not None:
            end_process(self._process)
            self._process = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def log(self) -> str:
        """What it has written to its log."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def environment(self) -> dict[str, str]:
        """Ours, with a home of its own and without a sound server."""
        own = {"HOME": str(self.folder), "XDG_RUNTIME_DIR": str(self.folder), "TERM": "dumb"}
        return {**os.environ, **own, "PULSE_SERVER": "unix:/nonexistent"}

    def _say(self, line: str) -> None:
        with self._changed:
            self._said.append(line)
            self._changed.notify_all()

    def _wait_said(self, matches: Callable[[str], bool], what: str, since: int = 0) -> str:
        """The first line behind ``since`` that matches. Raises TimeoutError."""

        def found() -> list[str]:
            return [line for line in self._said[since:] if matches(line)]

        with self._changed:
            if not self._changed.wait_for(lambda: bool(found()), PATIENCE):
                raise TimeoutError(f"the phone does not say {what}: {self._said[-8:]}")
            return found()[0]
