"""What ``eslbot conf`` does: write the FreeSWITCH configuration tree that belongs to a configuration.

The tree is ``freeswitch-conf/`` of the repository, copied as it is; only ``vars.xml`` and
``autoload_configs/acl.conf.xml`` are generated. Nothing is ever deleted, and a second run changes nothing.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from ipaddress import ip_network
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from eslbot.config.model import Address, Config, FreeSwitch, Secret

#: In ``freeswitch.xml`` of every tree that we wrote; a directory without it is somebody else's.
MARKER = "eslbot:freeswitch-conf"
#: Where FreeSWITCH's packages have its configuration.
CONF_DIR = "/etc/freeswitch"
#: What ``vars.xml`` in the repository holds; never kept.
NO_PASSWORD = "no-password-yet"

VARS = Path("vars.xml")
ACL = Path("autoload_configs/acl.conf.xml")
#: Kamailio's part of it is no business of FreeSWITCH's (``eslbot.freeswitch.edgeconf``).
EDGE = "kamailio"

_FOREIGN = ("freeswitch.xml", "vars.xml", "autoload_configs")
_SECRET_MODE, _MODE = 0o640, 0o644
_LOOPBACK = ("127.0.0.0/8", "::1/128")


class SwitchConfError(Exception):
    """The tree cannot be written; the text says what is in the way and what to do about it."""


@dataclass(frozen=True, slots=True)
class Change:
    """One file of the tree, and whether this run wrote it."""

    path: Path
    what: Literal["written", "unchanged"]


def render(config: Config, out: Path, *, force: bool = False) -> list[Change]:
    """Write the tree for ``config`` to ``out``; the changes are sorted by path.

    A password that the configuration does not give is generated once and kept from then on. ``force`` writes
    into a directory that holds another FreeSWITCH configuration; files of that one that have no counterpart
    in ours stay, unread, because our ``freeswitch.xml`` names what it includes.
    """
    _refuse_foreign(out, force)
    return write(out, tree(config, _password(config, out, force)))


def write(out: Path, files: Mapping[Path, str]) -> list[Change]:
    """Have ``files``, by their paths in ``out``, written; sorted by path. Raises :class:`SwitchConfError`."""
    try:
        return [
            Change(out / path, _put(out, path, text, _SECRET_MODE if path == VARS else _MODE))
            for path, text in sorted(files.items())
        ]
    except OSError as error:
        raise cannot_write(out, error) from error


def cannot_write(out: Path, error: OSError) -> SwitchConfError:
    """What to tell of ``error`` with a file in ``out``."""
    return SwitchConfError(
        f"cannot write {error.filename or out}: {error.strerror}; "
        "give --out a directory that this user may write"
    )


def tree(config: Config, password: str) -> dict[Path, str]:
    """The text of every file of the tree for ``config``, by its path in it."""
    packaged = {path: text for path, text in packaged_files(".xml", ".md") if path.parts[0] != EDGE}
    packaged[VARS] = _vars(config, password)
    packaged[ACL] = _acl(config)
    return packaged


def notes(config: Config, out: Path) -> list[str]:
    """What the tree cannot say by itself, for whoever starts the switch: lines of text."""
    relay, databases = config.relay, config.freeswitch.db
    return [
        f"start it as: freeswitch -nonat -nonatmap -conf {out} -log DIR -db {databases}; again at once when "
        "it died, and `eslbot recovery --before-start` before each start",
        f"{databases} (freeswitch.db) holds every variable of each call: mode 0700, best on a tmpfs",
        f"it has to reach {relay.listen} (relay.listen) and to read the files in {relay.directory} "
        "(relay.directory): have it in the group that owns them",
        f"{out / VARS}, and freeswitch.xml.fsxml in the log directory, hold the event socket's password: "
        "keep both to FreeSWITCH's own user and group",
        "a running switch takes new sources with `reloadacl` and new controllers with `reloadxml`; "
        "addresses, ports and the password need a restart",
    ]


def _refuse_foreign(out: Path, force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise SwitchConfError(f"{out} is not a directory; give --out another path")
    try:
        is_ours = MARKER in _text(out / "freeswitch.xml")
        foreign = [name for name in _FOREIGN if (out / name).exists()]
    except (OSError, UnicodeDecodeError) as error:
        raise SwitchConfError(f"cannot read {out}: {error}") from error
    if foreign and not is_ours and not force:
        raise SwitchConfError(
            f"{out} holds a FreeSWITCH configuration that is not eslbot's ({', '.join(foreign)}); "
            "give --out another directory, or --force to overwrite the files that have the same name"
        )


def _text(path: Path) -> str:
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a symbolic link, and none is followed", str(path))
    return path.read_text("utf-8") if path.is_file() else ""


def packaged_files(*suffixes: str) -> Iterator[tuple[Path, str]]:
    """What ``freeswitch-conf/`` holds: paths in it, and texts."""

    def walk(node: Traversable, path: Path) -> Iterator[tuple[Path, str]]:
        for child in node.iterdir():
            if child.is_dir():
                yield from walk(child, path / child.name)
            elif child.name.endswith(suffixes):
                yield path / child.name, child.read_text("utf-8")

    yield from walk(files("eslbot.freeswitch_conf"), Path())


def _password(config: Config, out: Path, force: bool) -> str:
    if config.freeswitch.event_socket_password is not None:
        return config.freeswitch.event_socket_password.reveal()
    if (out / VARS).exists() and MARKER in _text(out / "freeswitch.xml"):
        try:
            kept = kept_password(out)
        except OSError as error:
            raise SwitchConfError(f"cannot read {error.filename}: {error.strerror}") from error
        except ElementTree.ParseError as error:
            if not force:
                raise SwitchConfError(
                    f"{out / VARS} is not XML any more ({error}), so the password in it cannot be kept; "
                    "--force writes it anew, with a new password"
                ) from error
        else:
            if kept is not None:
                return kept
    return secrets.token_urlsafe(32)


def kept_password(out: Path) -> str | None:
    """The event socket's password that ``vars.xml`` in ``out`` holds, generated or not; None without one.

    Raises OSError, UnicodeDecodeError, ElementTree.ParseError (also where there is no such file).
    """
    settings = ElementTree.fromstring(_text(out / VARS)).iter("X-PRE-PROCESS")
    values = dict(setting.get("data", "").partition("=")[::2] for setting in settings)
    kept = values.get("event_socket_password", NO_PASSWORD)
    return None if kept in ("", NO_PASSWORD) else kept


class NoPassword(Exception):
    """Nobody here knows the event socket's password; the text says where it was looked for."""


def event_socket_password(switch: FreeSwitch, conf_dir: str = CONF_DIR) -> Secret:
    """The configured one, or that which ``eslbot conf`` has made. Raises :class:`NoPassword`."""
    if switch.event_socket_password is not None:
        return switch.event_socket_password
    missing = f"freeswitch.event_socket_password is not set, and {conf_dir} has none"
    try:
        kept = kept_password(Path(conf_dir))
    except (OSError, UnicodeDecodeError, ElementTree.ParseError) as error:
        raise NoPassword(f"{missing}: {error}") from error
    if kept is None:
        raise NoPassword(missing)
    return Secret(kept)


def _vars(config: Config, password: str) -> str:
    switch = config.freeswitch
    controllers = list(switch.controllers or (config.server.listen,))
    settings = {
        "sip_ip": _attribute(str(switch.sip_ip)) if switch.sip_ip else "$${local_ip_v4}",
        "sip_port": str(switch.sip_port),
        "external_ip": _attribute(str(switch.external_ip)) if switch.external_ip else "$${sip_ip}",
        # SIP goes to the edge, which is near; RTP goes to the PBX, past it. FreeSWITCH announces external_ip
        # to who is not in its own network, and takes the sender of the INVITE for that.
        "sip_contact_ip": "$${sip_ip}" if config.edge else "$${external_ip}",
        "own_network": "nobody" if config.edge else "localnet.auto",
        "rtp_first_port": str(switch.rtp_ports[0]),
        "rtp_last_port": str(switch.rtp_ports[1]),
        "event_socket_ip": _attribute(str(switch.event_socket.ip)),
        "event_socket_port": str(switch.event_socket.port),
        "event_socket_password": _attribute(password),
        "media_timeout": str(round(switch.media_timeout * 1000)),
        "capture_server": _attribute(f"udp:{switch.capture};hep=1"),
        "controllers": _attribute("|".join(map(_socket_host, controllers))),
        "controllers_rotated": _attribute("|".join(map(_socket_host, controllers[1:] + controllers[:1]))),
    }
    lines = (f'  <X-PRE-PROCESS cmd="set" data="{name}={value}"/>\n' for name, value in settings.items())
    return (
        "<!-- Generated by `eslbot conf` from [freeswitch]; the next run overwrites it. -->\n"
        f"<include>\n{''.join(lines)}</include>\n"
    )


def _acl(config: Config) -> str:
    own = config.freeswitch.event_socket.ip
    # A listener on another address of this host is reached from that address; 0.0.0.0 names nobody.
    asking = list(_LOOPBACK)
    if not (own.is_loopback or own.is_unspecified):
        asking.append(str(ip_network(own)))
    peers = {str(network): "edge" for network in config.sip_peers} if config.edge else whose(config)
    origin = "[edge]: the PBXs call that" if config.edge else "the workspaces' sources"
    return (
        f"<!-- Generated by `eslbot conf` from {origin}; the next run overwrites it. -->\n"
        '<configuration name="acl.conf" description="Who may call, and who may open the event socket">\n'
        "  <network-lists>\n"
        f"{_list('ameyo', peers)}"
        f"{_list('event-socket', dict.fromkeys(asking, 'this host'))}"
        f"{_list('nobody', {})}"
        "  </network-lists>\n"
        "</configuration>\n"
    )


def whose(config: Config) -> dict[str, str]:
    """Every source, with the names of the workspaces that have it."""
    workspaces = sorted(config.workspaces.values(), key=lambda workspace: workspace.name)
    return {
        str(network): ", ".join(w.name for w in workspaces if network in w.sources)
        for network in config.sources
    }


def _list(name: str, networks: Mapping[str, str]) -> str:
    nodes = (
        f'      <node type="allow" cidr="{_attribute(network)}" description="{_attribute(whose)}"/>\n'
        for network, whose in networks.items()
    )
    return f'    <list name="{name}" default="deny">\n{"".join(nodes)}    </list>\n'


def _attribute(text: str) -> str:
    """``text`` as it stands in ``"…"``, both in XML and for FreeSWITCH's preprocessor.

    The preprocessor works on raw lines (``switch_xml.c``: ``expand_vars``, ``preprocess``): it would expand
    ``$${…}`` and end the value at a quote or at ``/>``. What it copies is then read as XML, once.
    """
    return escape(text, {'"': "&quot;", "'": "&#39;", "$": "&#36;"})


def _socket_host(address: Address) -> str:
    """As the ``socket`` application wants it: the port behind the last colon, and no brackets."""
    return f"{address.ip}:{address.port}"


def _put(out: Path, path: Path, text: str, mode: int) -> Literal["written", "unchanged"]:
    """Write a file as a whole, unless it is there already. Raises OSError.

    Root writes here, and the directory may be FreeSWITCH's: no symbolic link in it is followed. What root
    makes in such a directory belongs to whom the directory does.
    """
    content = text.encode()
    with _directory(out, path.parent) as folder:
        around, found = os.fstat(folder), _found(folder, path.name)
        mine = around if found is None or around.st_uid != 0 else found.about
        if found is not None and found.content == content and stat.S_IMODE(found.about.st_mode) == mode:
            read_by_owner_only = mode == _SECRET_MODE and os.geteuid() == 0
            if not read_by_owner_only or found.about.st_uid == mine.st_uid:
                return "unchanged"
        temporary = f".{path.name}.{secrets.token_hex(8)}"
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder
        )
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), mode)
                if os.geteuid() == 0:  # FreeSWITCH reads it as a user of its own: keep whose it was
                    os.fchown(file.fileno(), mine.st_uid, mine.st_gid)
                os.fsync(file.fileno())
            os.replace(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            raise
    return "written"


@contextmanager
def _directory(out: Path, below: Path) -> Iterator[int]:
    """The directory ``below`` in ``out``, made where there is none. Raises OSError, so at a symbolic link."""
    out.mkdir(parents=True, exist_ok=True)
    folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in below.parts:
            made = True
            try:
                os.mkdir(name, dir_fd=folder)
            except FileExistsError:
                made = False
            try:
                inner = os.open(
                    name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder
                )
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    why = "it is a symbolic link or no directory, and none is followed"
                    raise NotADirectoryError(errno.ENOTDIR, why, str(out / below)) from error
                raise
            if made and os.geteuid() == 0:
                around = os.fstat(folder)
                os.fchown(inner, around.st_uid, around.st_gid)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


@dataclass(frozen=True, slots=True)
class _Found:
    """A file that is there."""

    content: bytes
    about: os.stat_result


def _found(folder: int, name: str) -> _Found | None:
    """The file ``name``; None where there is none, or something that is no file."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            return None
        raise
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return _Found(file.read(), about)
    finally:
        os.close(descriptor)
