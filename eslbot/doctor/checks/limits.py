"""What the kernel gives the two processes, and how long it waits."""

from __future__ import annotations

from collections.abc import Iterator

from eslbot.doctor.findings import Finding, note, ok, unknown, warning
from eslbot.doctor.host import is_own, sysctl
from eslbot.doctor.site import Site

#: Open files of one call (measured with a speaking bot: 14 and 3), rounded up: in FreeSWITCH RTP, the
#: controller's connection, the bot's with its event loop, a sound;
#: in a worker the event socket, the notification, a sound.
SWITCH_A_CALL, WORKER_A_CALL = 16, 4
#: Open files besides: libraries, logs, databases; a worker's connections beyond its calls.
SWITCH_SPARE, WORKER_SPARE = 200, 1100

#: Setting, the most it should be where controllers are on other machines, and what it bounds.
_PATIENCE = (
    ("net.ipv4.tcp_syn_retries", 2, "a call waits for a controller's host that swallows connections"),
    ("net.ipv4.tcp_retries2", 8, "a call waits for a controller's host that lost its power"),
    ("net.ipv4.tcp_keepalive_probes", 2, "the same, when FreeSWITCH has nothing to tell it"),
)


def descriptors(site: Site) -> Iterator[Finding]:
    """Open files against calls, of FreeSWITCH and of eslbot."""
    per_worker = min(site.config.server.max_calls, site.calls)
    for name, unit, process, needed in (
        ("FreeSWITCH", "freeswitch", site.freeswitch, SWITCH_A_CALL * site.calls + SWITCH_SPARE),
        ("eslbot", "eslbot", site.service, WORKER_A_CALL * per_worker + WORKER_SPARE),
    ):
        looked_at = f"the open files of {name}"
        limit = process.open_files if process is not None else None
        if limit is None:
            yield unknown(looked_at, "its process was not found here, or may not be looked at", "run as root")
        elif limit < needed:
            yield warning(
                looked_at,
                f"at most {limit}; the configuration's calls can need {needed}",
                "calls fail when there are no more",
                f"systemctl edit {unit}: [Service] LimitNOFILE=65536, then restart it",
            )
        else:
            yield ok(looked_at, f"at most {limit}; {needed} are needed")


def kernel(site: Site) -> Iterator[Finding]:
    """How long FreeSWITCH's host waits for controllers on other machines (docs/configuration.md)."""
    if all(is_own(address.ip) for address in site.config.freeswitch.controllers):
        yield ok("the kernel's patience with controllers", "all of them are on this host")
        return
    if not site.switch_is_here:
        yield unknown(
            "the kernel's patience with controllers",
            "FreeSWITCH's host is another one",
            f"there: sysctl {' '.join(name for name, _, _ in _PATIENCE)}",
        )
        return
    for name, most, why in _PATIENCE:
        value = sysctl(name)
        if value is None or not value.isdecimal():
            yield unknown(name, "cannot be read")
        elif int(value) > most:
            yield note(name, value, f"{why}: see docs/configuration.md", f"sysctl -w {name}={most}")
        else:
            yield ok(name, value)
