"""Processes of other users, of other networks, and of fewer rights than this one; only root can make them."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import socket
import struct
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

#: A user whom no host of ours has.
STRANGER = 51236

_CLONE_NEWNET = 0x40000000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_SOCKET_CALL = {"x86_64": 41, "aarch64": 198}


def become(uid: int) -> None:
    """For good."""
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)


def own_network() -> None:
    """This process gets a network of its own, with nothing in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def no_netlink() -> None:
    """As systemd's RestrictAddressFamilies without AF_NETLINK: such a socket is EAFNOSUPPORT from now on."""
    libc = ctypes.CDLL(None, use_errno=True)
    load, equal, answer = 0x20, 0x15, 0x06
    program = b"".join(
        struct.pack("=HBBI", *line)
        for line in (
            (load, 0, 0, 0),  # the number of the system call
            (equal, 0, 3, _SOCKET_CALL[platform.machine()]),
            (load, 0, 0, 16),  # its first argument
            (equal, 0, 1, socket.AF_NETLINK),
            (answer, 0, 0, 0x00050000 | 97),
            (answer, 0, 0, 0x7FFF0000),
        )
    )
    code = ctypes.create_string_buffer(program, len(program))
    filter_ = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, filter_, 0, 0
    ):
        raise OSError(ctypes.get_errno(), "prctl")


def apart(function: Callable[[], Any]) -> str:
    """What ``function`` returns in a process of its own, as a text."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(lambda: os.write(writing, str(function()).encode()))
    os.close(writing)
    with os.fdopen(reading) as pipe:
        found = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0, "see above what it said"
    return found


@contextmanager
def connected_as(
    uid: int,
    address: tuple[str, int],
    *,
    family: int = socket.AF_INET,
    source: str | None = None,
    interface: str | None = None,
    says: bytes = b"",
    stays: bool = True,
) -> Iterator[tuple[str, int]]:
    """A process of ``uid`` is connected to ``address`` (it was, where it does not stay); its own address."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:

        def speak() -> None:
            become(uid)
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                if interface is not None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
                if source is not None:
                    sock.bind((source, 0))
                sock.settimeout(5)
                sock.connect(address)
                sock.sendall(says)
                name = f"{sock.getsockname()[0]} {sock.getsockname()[1]}\n".encode()
                if stays:
                    os.write(writing, name)
                    signal.pause()
            os.write(writing, name)

        _child(speak)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        line = pipe.readline().split()
        try:
            assert line, "it could not connect; see above what it said"
            yield line[0], int(line[1])
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _child(do: Callable[[], object]) -> NoReturn:
    code = 1
    try:
        do()
        code = 0
    except BaseException:  # noqa: BLE001  # this is all there is of this process
        traceback.print_exc()
    finally:
        os._exit(code)
