"""Network namespaces of a test's own: a host with a firewall, and the world before it."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


class Namespace:
    """One, for as long as it is open."""

    def __init__(self) -> None:
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("unshare", _CLONE_NEWNET)
            self.descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            _call("setns", before, _CLONE_NEWNET)
        finally:
            os.close(before)
        self.run("ip", "link", "set", "lo", "up")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.descriptor)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets that are made and programs that are started meanwhile, by this thread, belong to it."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("setns", self.descriptor, _CLONE_NEWNET)
            yield
        finally:
            _call("setns", before, _CLONE_NEWNET)
            os.close(before)

    def run(self, *command: str) -> str:
        """What the command says. Raises CalledProcessError."""
        with self.inside():
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout


def cable(one: Namespace, other: Namespace) -> None:
    """Ethernet between two: ``cable`` is its name on both ends."""
    pid = f"/proc/{os.getpid()}/fd/{other.descriptor}"
    one.run("ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", pid)
    for end in (one, other):
        end.run("ip", "link", "set", "cable", "up")


def _why_not() -> str | None:
    for program in ("nft", "ip"):
        if shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin") is None:
            return (
                f"there is no {program} (apt-get install nftables iproute2, or scripts/prepare test --sipp)"
            )
    tried: list[str] = []

    def attempt() -> None:
        try:
            _call("unshare", _CLONE_NEWNET)
        except OSError as error:
            tried.append(f"no network namespace can be made here ({error.strerror}); it needs root")

    thread = threading.Thread(target=attempt)  # the namespace of a thread ends with it
    thread.start()
    thread.join()
    return tried[0] if tried else None


WHY_NOT = _why_not()
