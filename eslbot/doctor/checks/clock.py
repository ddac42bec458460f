"""Clocks: certificates, the ledger's times and the age of events are read from them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

from eslbot.doctor.findings import Finding, ok, unknown, warning
from eslbot.doctor.site import Site

#: Seconds between two hosts' clocks from which times of one call cannot be compared any more.
MOST = 1.0
_SET = "timedatectl set-ntp true (or install chrony)"


def skew(site: Site) -> Iterator[Finding]:
    """FreeSWITCH's clock against ours, and whether ours is kept by NTP."""
    if site.switch_state is None:
        yield unknown("FreeSWITCH's clock", "FreeSWITCH could not be asked", "mend `event-socket` first")
    elif site.switch_state.clock_ahead is None:
        yield unknown("FreeSWITCH's clock", "FreeSWITCH did not tell its time")
    else:
        ahead = site.switch_state.clock_ahead
        if abs(ahead) > MOST + site.switch_state.asking_took:
            yield warning(
                "FreeSWITCH's clock",
                f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this host's",
                "events look too old or too new, and times in the ledger are wrong",
                f"on both hosts: {_SET}; where FreeSWITCH is this host, it kept the time from before the "
                "clock was set: fs_cli -x 'fsctl sync_clock'",
            )
        else:
            yield ok("FreeSWITCH's clock", "agrees with this host's")
    yield from _kept()


def _kept() -> Iterator[Finding]:
    command = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=3, check=True)
    except (OSError, subprocess.SubprocessError) as failed:
        yield unknown(
            "NTP", f"timedatectl does not say ({type(failed).__name__})", "look by hand: chronyc tracking"
        )
        return
    if done.stdout.strip() == "yes":
        yield ok("NTP", "the clock is synchronised")
    else:
        yield warning(
            "NTP",
            "the clock is not synchronised",
            "a clock that drifts makes certificates look expired and the ledger's times wrong",
            _SET,
        )
