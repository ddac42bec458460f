"""Which user's process connects to the event-socket listener from this host.

The event socket's protocol has no password. ``server.switches`` says which hosts may connect, and where
FreeSWITCH runs beside eslbot that is everybody who has a process here. ``server.switch_user`` narrows it to
FreeSWITCH's own user: both ends of such a connection are this kernel's, and it knows whose each is.

It is asked by netlink, which it answers within the call that asks, so that no call waits: first whether the
peer's address is one of this host (a process may speak from any of them), then, by SOCK_DIAG and with the
addresses and ports as the peer has them, for the owner of the other end. That is the user who opened the
socket, whoever may hold it now. What was found to matter:

* A socket whose process has closed it is shown as root's, whosesoever it was. It has no inode, though, and
  whoever speaks and closes at once is known by that.
* Where no such connection is found, the kernel offers a listener on the peer's address instead.
* A peer may hide its end: bound to an interface, or with its packets rewritten on their way. Then nobody
  knows whose it is, and it is refused.
* Root is let in, because root can become any user: to refuse it would shut out nobody but a FreeSWITCH that
  was started as root by mistake, with its customers.
"""

from __future__ import annotations

import errno
import os
import pwd
import socket
import struct
from ipaddress import IPv6Address, ip_address

from eslbot.config.model import ANY_USER, IP, address_in

#: Python's own also in a worker, which has imported this before gevent patches: the kernel answers at once.
_Socket = socket.socket
ROOT = 0
#: Whom FreeSWITCH's packages run it as.
USUAL = "freeswitch"
#: As whom the kernel shows users of another namespace: nobody in particular (``user_namespaces(7)``).
OVERFLOW = 65534

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_NLMSG_ERROR, _NLM_F_REQUEST = 2, 1

_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_REQUEST = struct.Struct("=BBBxI")  # inet_diag_req_v2: family, protocol, extensions, states
_ID = struct.Struct("!HH16s16s")  # inet_diag_sockid: ports and addresses …
_ID_REST = struct.Struct("=III")  # … interface and cookie
_NO_COOKIE = 0xFFFFFFFF
_FOUND = struct.Struct("=BBBB")  # inet_diag_msg: family, state, timer, retransmissions; then the id …
_FOUND_REST = struct.Struct("=IIIII")  # … expires, receive queue, send queue, uid, inode
_LISTENING = 10

_NETLINK_ROUTE, _RTM_NEWROUTE, _RTM_GETROUTE = 0, 24, 26
_ROUTE = struct.Struct(
    "=BBBBBBBBI"
)  # rtmsg: family, lengths of addresses, tos, table, protocol, scope, type, flags
_ATTRIBUTE = struct.Struct("=HH")
_RTA_DST, _RTA_OIF, _RTN_LOCAL = 1, 4, 2

#: More than any answer to these questions.
_ANSWER = 65536
_SEQUENCE = 1
_ESTABLISHED = 1


class Stranger(Exception):
    """A peer that may not speak. ``uid``: whose it is; None where the kernel could not say."""

    def __init__(self, uid: int | None, why: str, remedy: str) -> None:
        super().__init__(why)
        self.uid = uid
        self.remedy = remedy


class Gone(Exception):
    """The peer has closed already, so there is nobody to let in."""


class _NotFound(Exception):
    """No such socket; or its handler is not in this kernel, which is told in the same way."""


class LocalPeers:
    """Who of this host may speak to the event-socket listener: ``user`` and root.

    Without one, root, who runs this process, and a user called ``freeswitch``; with :data:`ANY_USER` all.
    """

    def __init__(self, user: str | None) -> None:
        self._named = user is not None
        self._open = user == ANY_USER
        self._uids = {ROOT, uid_of(user)} if user else {ROOT, os.geteuid(), uid_of(USUAL)}
        #: Who is expected, for people.
        self.user = user or f"{USUAL}, or who runs eslbot"

    def let_in(self, client: socket.socket) -> None:
        """Return where the peer may speak; one of another host always may. Raises Stranger and Gone."""
        if self._open:
            return
        try:
            own, peer = _End(client.getsockname()), _End(client.getpeername())
        except OSError as error:
            raise Gone(f"the peer has closed: {error.strerror}") from error
        try:
            if not _here(own, peer):
                return
            uid = owner(own, peer)
        except _NotFound:
            if client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != _ESTABLISHED:
                raise Gone("the peer has closed") from None
            raise Stranger(
                None,
                "the kernel does not show the other end",
                "have FreeSWITCH connect to server.listen itself, without a redirection in between",
            ) from None
        except OSError as error:
            if not self._named:
                return  # no such kernel: doctor tells; where a user is named, `serve` does not even start
            raise Stranger(
                None,
                f"the kernel does not say whose the other end is: {error}",
                "let eslbot use AF_NETLINK (RestrictAddressFamilies= of its unit, seccomp)",
            ) from error
        if uid not in self._uids:
            raise Stranger(
                uid,
                "another user of this host",
                "if it is FreeSWITCH, set server.switch_user to its user; else find out what that user runs",
            )


def uid_of(user: str) -> int | None:
    """The number of ``user``, a name or a number; None where this host has no such user."""
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def problem(user: str | None, listen: IP) -> str | None:
    """Why ``server.switch_user`` cannot be enforced by this process, on this host; None where it can.

    ``listen``: the address of the listener, whose family counts.
    """
    if user in (None, ANY_USER):
        return None
    uid = uid_of(user)
    if uid is None:
        return f"server.switch_user: expected the user FreeSWITCH runs as, and this host has no user {user!r}"
    if uid == OVERFLOW:
        return (
            f"server.switch_user: {user!r} is uid {OVERFLOW}, as which the kernel shows every user it has no "
            "number for; run FreeSWITCH as a user of its own"
        )
    try:
        found = _owner_of_our_own(listen)
    except (OSError, _NotFound, Gone) as error:
        found, why = None, str(error) or "no answer"
    else:
        why = f"it takes a socket of {os.geteuid()}'s for one of {found}'s"
    if found == os.geteuid():
        return None
    return (
        f"server.switch_user: the kernel cannot be asked whose a connection is (SOCK_DIAG: {why}); allow "
        "AF_NETLINK (RestrictAddressFamilies= of the unit, seccomp), load inet_diag and tcp_diag, or remove "
        "the key"
    )


def owner(own: _End, peer: _End) -> int:
    """The uid of the other end of the TCP connection from ``own`` to ``peer``, both of this host.

    Raises Gone where that end is closed, _NotFound, and OSError where the kernel cannot be asked.
    """
    family = socket.AF_INET if peer.ip.version == 4 else socket.AF_INET6
    wanted = _ID.pack(peer.port, own.port, peer.packed, own.packed)
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + wanted
    request += _ID_REST.pack(peer.interface, _NO_COOKIE, _NO_COOKIE)
    kind, answer = _ask(_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, request)
    if kind != _SOCK_DIAG_BY_FAMILY:
        raise OSError(errno.EBADMSG, "an answer to another question")
    _, state, _, _ = _FOUND.unpack_from(answer)
    ports = _ID.unpack_from(answer, _FOUND.size)[:2]
    *_, uid, inode = _FOUND_REST.unpack_from(answer, _FOUND.size + _ID.size + _ID_REST.size)
    if state == _LISTENING or ports != (peer.port, own.port):
        raise _NotFound
    if inode == 0:
        raise Gone("the peer has closed")
    return int(uid)


class _End:
    """An end of a TCP connection; an IPv4 address in IPv6's clothes is an IPv4 one."""

    __slots__ = ("interface", "ip", "port")

    def __init__(self, name: tuple[object, ...]) -> None:
        text = str(name[0]).partition("%")[0]
        self.ip: IP = address_in(text) or ip_address(text)
        self.port = int(str(name[1]))
        #: Which one a link-local address is of; 0 for all others.
        self.interface = int(str(name[3])) if len(name) > 3 and isinstance(self.ip, IPv6Address) else 0

    @property
    def packed(self) -> bytes:
        return self.ip.packed.ljust(16, b"\0")


def _here(own: _End, peer: _End) -> bool:
    """Whether the peer's address is one of this host. Raises OSError where the kernel does not say."""
    if peer.ip == own.ip or peer.ip.is_loopback:
        return True
    family = socket.AF_INET if peer.ip.version == 4 else socket.AF_INET6
    question = _ROUTE.pack(family, peer.ip.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    question += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(peer.ip.packed), _RTA_DST) + peer.ip.packed
    if peer.interface:
        question += _ATTRIBUTE.pack(_ATTRIBUTE.size + 4, _RTA_OIF) + struct.pack("=I", peer.interface)
    try:
        kind, answer = _ask(_NETLINK_ROUTE, _RTM_GETROUTE, question)
    except OSError as error:
        # Own addresses are looked up before all other routes: whatever has none is not ours.
        if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
            return False
        raise
    if kind != _RTM_NEWROUTE:
        raise OSError(errno.EBADMSG, "an answer to another question")
    return bool(_ROUTE.unpack_from(answer)[7] == _RTN_LOCAL)


def _ask(protocol: int, kind: int, question: bytes) -> tuple[int, bytes]:
    """The kind and the content of the kernel's answer. Raises _NotFound and OSError."""
    message = _HEADER.pack(_HEADER.size + len(question), kind, _NLM_F_REQUEST, _SEQUENCE, 0) + question
    with _Socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as kernel:
        kernel.settimeout(0)  # the answer is there when the question is sent, or none will come
        kernel.send(message)
        answer, (sender, _) = kernel.recvfrom(_ANSWER)
    length, answered, _, sequence, _ = _HEADER.unpack_from(answer)
    if sender != 0 or sequence != _SEQUENCE or not _HEADER.size <= length <= len(answer):
        raise OSError(errno.EBADMSG, "an answer that is not the kernel's")
    if answered != _NLMSG_ERROR:
        return answered, answer[_HEADER.size : length]
    number = -struct.unpack_from("=i", answer, _HEADER.size)[0]
    if number == errno.ENOENT and protocol == _NETLINK_SOCK_DIAG:
        raise _NotFound
    raise OSError(number, os.strerror(number))


def _owner_of_our_own(ip: IP) -> int:
    """Whose the kernel says a connection of this very process is, by ``ip``'s family."""
    family, loopback = (socket.AF_INET, "127.0.0.1") if ip.version == 4 else (socket.AF_INET6, "::1")
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.settimeout(1.0)
        listener.bind((loopback, 0))
        listener.listen(1)
        with socket.create_connection(listener.getsockname()[:2], 1.0):
            client, _ = listener.accept()
            with client:
                return owner(_End(client.getsockname()), _End(client.getpeername()))
