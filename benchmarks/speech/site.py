"""One eslbot with all around it, in a process of its own: that of this checkout, or of the one before.

Run as a script by the Python of this checkout, with the directory of the checkout that is measured as the
working directory and on PYTHONPATH: ``eslbot`` then is that one's. It takes the laboratory's parts from
there, too, so that each is configured as it wants to be. Talks in lines of JSON on its standard streams.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from eslbot import __file__ as package
from eslbot.sim.lab import LabError, Tenant

try:
    from tests.support.lab import Lab
except ModuleNotFoundError:  # the checkout of a commit that had it among the stand-ins
    from eslbot.sim.lab import Lab  # type: ignore[assignment]


def main() -> None:
    """Bring it up, say where everything is, and answer until the input ends."""
    wanted = json.loads(sys.stdin.readline())
    tenants = [
        Tenant(name, bot, workspace={"max_calls": 500}, bot_keys={"first_audio_timeout": "300s"})
        for name, bot in wanted["tenants"].items()
    ]
    lab = _lab(wanted, tenants)
    with lab:
        assert lab.real_switch is not None and lab.service is not None
        say(
            ready=True,
            package=str(Path(package).parent.parent),
            sip=lab.sip,
            listen=lab.listen,
            service=lab.service.pid,
            freeswitch=lab.real_switch.pid,
            rtp=lab.rtp_ports,
            switch=lab.switch_name,
            workspaces={name: tenant.id for name, tenant in lab.tenants.items()},
        )
        for line in sys.stdin:
            say(answer=answer(lab, lab.services[0], *json.loads(line)))


def _lab(wanted: dict[str, object], tenants: list[Tenant]) -> Lab:
    folder, workers = Path(str(wanted["folder"])), int(str(wanted["workers"]))
    while True:
        lab = Lab(folder, tenants, switch="freeswitch", workers=workers)
        if list(lab.rtp_ports) != wanted["not_rtp"]:
            return lab


def answer(lab: Lab, service: Any, what: str, *args: object) -> object:
    """One question."""
    match what:
        case "accepted":
            try:
                lab.ameyo.wait_accepted(str(args[0]), float(str(args[1])))
            except TimeoutError:
                return False
            return True
        case "hup":
            service.hup()
            return None
        case "serving":
            return service.serving()
        case "metrics":
            return service.http("/metrics")[1]
        case "channels":
            return lab.live_channels()
        case _:
            raise ValueError(what)


def say(**what: object) -> None:
    """One line."""
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    try:
        main()
    except (LabError, OSError) as error:
        say(failed=str(error))
        sys.exit(1)
