"""The kernel's limits on open files, and how long it waits for a peer."""

from __future__ import annotations

from collections.abc import Iterator

from eslbot.doctor.findings import Finding, note, ok, unknown, warning
from eslbot.doctor.host import is_own, sysctl
from eslbot.doctor.site import Site

#: Open files of one call, rounded up: in FreeSWITCH RTP, the controller's connection, the relay's with its
#: event loop, two line files (14 were measured with a sound instead); in a worker the event socket and the
#: notification (3); in a relay the module, the bot, two line files and what is noted of them.
SWITCH_A_CALL, WORKER_A_CALL, RELAY_A_CALL = 16, 4, 8
#: Open files besides: libraries, logs, databases; a worker's connections beyond its calls.
SWITCH_SPARE, WORKER_SPARE, RELAY_SPARE = 200, 1100, 100

#: Setting, the most it should be where controllers are on other machines, and what it bounds.
_PATIENCE = (
    ("net.ipv4.tcp_syn_retries", 2, "a call waits for a controller's host that swallows connections"),
    ("net.ipv4.tcp_retries2", 8, "a call waits for a controller's host that lost its power"),
    ("net.ipv4.tcp_keepalive_probes", 2, "the same, when FreeSWITCH has nothing to tell it"),
)


def descriptors(site: Site) -> Iterator[Finding]:
    """Open files against calls, of FreeSWITCH, of eslbot and of the relay."""
    per_worker = min(site.config.server.max_calls, site.calls)
    processes = site.config.relay.processes
    per_relay = -(-site.calls // max(1, processes))
    for name, unit, process, needed in (
        ("FreeSWITCH", "freeswitch", site.freeswitch, SWITCH_A_CALL * site.calls + SWITCH_SPARE),
        ("eslbot", "eslbot", site.service, WORKER_A_CALL * per_worker + WORKER_SPARE),
        (
            "the relay",
            "eslbot" if processes else "eslbot-relay",
            site.relay,
            RELAY_A_CALL * per_relay + RELAY_SPARE,
        ),
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
