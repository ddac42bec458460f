"""Renders FreeSWITCH's own configuration (``eslbot conf``).

It is ``freeswitch-conf/`` of the repository, copied as it is; only ``vars.xml`` and
``autoload_configs/acl.conf.xml`` are generated. Nothing is ever deleted, and a second run changes nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from eslbot.config.model import Address, Config
from eslbot.freeswitch.files import KAMAILIO, Change, RenderError, packaged, write
from eslbot.freeswitch.password import VARS, kept_password, read_text

#: In ``freeswitch.xml`` of every tree that we wrote; a directory without it is somebody else's.
MARKER = "eslbot:freeswitch-conf"
ACL = Path("autoload_configs/acl.conf.xml")
_FOREIGN = ("freeswitch.xml", "vars.xml", "autoload_configs")
_LOOPBACK = ("127.0.0.0/8", "::1/128")


def render(config: Config, out: Path, *, force: bool = False) -> list[Change]:
    """Write the tree for ``config`` to ``out``; the changes are sorted by path.

    A password that the configuration does not give is generated once and kept from then on. ``force`` writes
    into a directory that holds another FreeSWITCH configuration; files of that one that have no counterpart
    in ours stay, unread, because our ``freeswitch.xml`` names what it includes.
    """
    _refuse_foreign(out, force)
    return write(out, tree(config, _password(config, out, force)), private=VARS)


def tree(config: Config, password: str) -> dict[Path, str]:
    """The text of every file of the tree for ``config``, by its path in it."""
    texts = {path: text for path, text in packaged(".xml", ".md") if path.parts[0] != KAMAILIO}
    texts[VARS] = _vars(config, password)
    texts[ACL] = _acl(config)
    return texts


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
        raise RenderError(f"{out} is not a directory; give --out another path")
    try:
        is_ours = MARKER in read_text(out / "freeswitch.xml")
        foreign = [name for name in _FOREIGN if (out / name).exists()]
    except (OSError, UnicodeDecodeError) as error:
        raise RenderError(f"cannot read {out}: {error}") from error
    if foreign and not is_ours and not force:
        raise RenderError(
            f"{out} holds a FreeSWITCH configuration that is not eslbot's ({', '.join(foreign)}); "
            "give --out another directory, or --force to overwrite the files that have the same name"
        )


def _password(config: Config, out: Path, force: bool) -> str:
    if config.freeswitch.event_socket_password is not None:
        return config.freeswitch.event_socket_password.reveal()
    if (out / VARS).exists() and MARKER in read_text(out / "freeswitch.xml"):
        try:
            kept = kept_password(out)
        except OSError as error:
            raise RenderError(f"cannot read {error.filename}: {error.strerror}") from error
        except ElementTree.ParseError as error:
            if not force:
                raise RenderError(
                    f"{out / VARS} is not XML any more ({error}), so the password in it cannot be kept; "
                    "--force writes it anew, with a new password"
                ) from error
        else:
            if kept is not None:
                return kept
    return secrets.token_urlsafe(32)


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
    peers = {str(network): "edge" for network in config.sip_peers} if config.edge else source_owners(config)
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


def source_owners(config: Config) -> dict[str, str]:
    """Every source, with the names of the workspaces that have it."""
    workspaces = sorted(config.workspaces.values(), key=lambda workspace: workspace.name)
    return {
        str(network): ", ".join(w.name for w in workspaces if network in w.sources)
        for network in config.sources
    }


def _list(name: str, networks: Mapping[str, str]) -> str:
    nodes = (
        f'      <node type="allow" cidr="{_attribute(network)}" description="{_attribute(owners)}"/>\n'
        for network, owners in networks.items()
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
