"""Who has which TCP connection."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psutil


def connections(pid: int) -> list[psutil._ntuples.pconn]:
    """The IPv4 TCP sockets that a process has open; none where it is gone."""
    try:
        return psutil.Process(pid).net_connections("tcp4")
    except psutil.Error:
        return []


def open_sockets(pid: int) -> int:
    """How many sockets of all kinds a process has open, connected or not; none where it is gone."""
    # Of proc(5) itself: psutil leaves out what is neither of IP nor of a Unix domain, as netlink.
    try:
        links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return 0
    return sum(link.startswith("socket:[") for link in links)


def established(pid: int, port: int) -> int:
    """How many connections to a local port a process has."""
    return sum(c.status == psutil.CONN_ESTABLISHED and c.laddr.port == port for c in connections(pid))


def owner(pids: Sequence[int], local: tuple[str, int], remote: tuple[str, int]) -> int | None:
    """Which of ``pids`` has the connection with these two ends; None where none has accepted it."""
    ends = (local, remote)
    return next((pid for pid in pids if any((c.laddr, c.raddr) == ends for c in connections(pid))), None)
