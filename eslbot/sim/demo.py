"""``eslbot demo``: one whole call on loopback, told as it happens."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eslbot.sim.bot import GOODBYE, GREETING
from eslbot.sim.freeswitch import FreeSwitchError
from eslbot.sim.lab import Lab, Tenant
from eslbot.sim.pbx import CallResult, Notification, SippMissing
from eslbot.sim.service import LabError

#: Seconds the demo's call may take; it takes about three.
LIMIT = 30.0

DID = "00919990152080"
CRT_OBJECT_ID = "d444-69139d35-vce-daf-3883"
TENANT = Tenant(
    "acme",
    "talk?listen_ms=700",
    ameyo_keys={"properties": {"DID": "{did}", "campaign": "support"}},
    id="2b37ba17-7b20-4b3e-b138-1161e351d5c5",  # the document's example
)


class Narration:
    """Prints what happened, in milliseconds from the INVITE, each thing once and as soon as it is known."""

    def __init__(self, echo: Callable[[str], None]) -> None:
        self._echo = echo
        self._lock = threading.Lock()
        self._begin: float | None = None
        self._printed: set[str] = set()

    def tell(self, what: str, at: float, text: str, *details: str) -> None:
        """``at`` is epoch seconds; ``what`` names the thing, so that it is told once."""
        with self._lock:
            if what in self._printed:
                return
            self._printed.add(what)
            if self._begin is None:
                self._begin = at
            self._echo(f"{(at - self._begin) * 1000:8.0f} ms  {text}")
            for detail in details:
                self._echo(f"{'':13}{detail}")


def demo(switch: str, keep: Path | None, echo: Callable[[str], None]) -> bool:
    """Run one call; whether Ameyo accepted the hand-off and the PBX sent the BYE."""
    folder = keep or Path(tempfile.mkdtemp(prefix="eslbot-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return _demo(switch, folder, echo)
    except (LabError, FreeSwitchError, SippMissing, OSError) as error:
        echo(f"the demo cannot run: {error}")
        return False
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            echo(f"logs and configurations are in {keep}")


def _demo(switch: str, folder: Path, echo: Callable[[str], None]) -> bool:
    narration = Narration(echo)

    def emit(event: str, fields: dict[str, Any]) -> None:
        now = time.time()
        match event:
            case "call":
                narration.tell("bot", now, "bot           WebSocket open, path /talk")
            case "audio":
                narration.tell("uplink", now, "caller → bot  first audio")
            case "end":
                narration.tell("end", now, 'bot           {"type":"end"}: the bot is finished')

    lab = Lab(folder, [TENANT], switch=switch, emit=emit)
    echo(f"Starting a PBX (SIPp) with Ameyo's REST server, a bot, eslbot, and {lab.switch_name} …")
    with lab:
        invited_at = time.time()
        call = lab.pbx.call(DID, CRT_OBJECT_ID, TENANT.id, timeout=LIMIT)
        narration.tell(
            "invite",
            invited_at,
            "PBX → switch  INVITE",
            f'From: "{DID}|{CRT_OBJECT_ID}"',
            f"X-Workspace-ID: {TENANT.id}",
        )
        try:
            call.wait_answered(LIMIT)
            narration.tell("200", time.time(), "switch → PBX  200 OK: answered by eslbot")
            call.wait_heard(GREETING, 0.02, LIMIT)
            heard = call.recording.first_heard(GREETING)
            narration.tell("downlink", heard or time.time(), "bot → caller  first audio")
            accepted = lab.ameyo.wait_accepted(CRT_OBJECT_ID, LIMIT)
            _tell_post(narration, accepted)
        except (TimeoutError, RuntimeError) as error:
            echo(f"{'':13}{error}")
        result = call.wait(2 * LIMIT)
        if result.bye_at is not None:
            narration.tell("bye", result.bye_at, "PBX → switch  BYE: the customer goes to a human agent")
    return _verdict(result, lab, echo)


def _tell_post(narration: Narration, accepted: Notification) -> None:
    narration.tell(
        "post",
        accepted.at,
        f"eslbot → Ameyo POST {accepted.path}",
        json.dumps(accepted.json),
    )
    narration.tell("2xx", accepted.answered_at or accepted.at, f"Ameyo → eslbot {accepted.status}: accepted")


def _verdict(result: CallResult, lab: Lab, echo: Callable[[str], None]) -> bool:
    accepted = [request for request in lab.ameyo.requests if request.accepted]
    last_word = result.recording.heard(GOODBYE)
    good = result.completed and len(accepted) == 1 and last_word > 0
    if good:
        echo(f"The call went as it should, on {lab.switch_name}.")
    else:
        echo(
            f"The call did NOT go as it should, on {lab.switch_name}: final status {result.status}, "
            f"hand-offs accepted {len(accepted)}, ended by {result.ended_by}, last word {last_word:.2f} s"
            f"{', ' + result.error if result.error else ''}. See more with: eslbot demo --keep DIR"
        )
    return good
