"""Warnings about a configuration that is valid and can hardly be meant (``eslbot check`` and ``doctor``)."""

from __future__ import annotations

import os
import pwd
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from eslbot.config.model import ANY_USER, Config, Ledger, Network, Workspace
from eslbot.config.placeholders import PLACEHOLDERS

#: Longest prefixes of networks that are wider than a site is: a /24 of IPv4, a /48 of IPv6.
SITE_PREFIX = {4: 24, 6: 48}
#: FreeSWITCH's user, as its packages call it.
USUAL_USER = "freeswitch"
#: Where systemd gives a service a directory of its own (PrivateTmp).
_PRIVATE = (Path("/tmp"), Path("/var/tmp"))
#: What its writer may have meant for a placeholder; not JSON, whose braces hold a quote first.
_BRACES = re.compile(r"\{\s*([A-Za-z][A-Za-z0-9_.-]{0,63})\s*\}")
_ESCAPED = re.compile(r"%7B([A-Za-z_]{1,64})%7D", re.IGNORECASE)
_FILLED = tuple(f"{{{name}}}" for name in PLACEHOLDERS)


@dataclass(frozen=True, slots=True)
class Advice:
    """``key`` of the configuration, what was ``found`` there, why that matters, and the remedy."""

    key: str
    found: str
    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.key}: {self.found}: {self.why}; {self.remedy}"


def advice(config: Config) -> Iterator[Advice]:
    """What the configuration alone shows."""
    for network in filter(is_wide, config.server.switches):
        yield Advice(
            "server.switches",
            _size(network),
            "each of them may speak to the event socket as FreeSWITCH does",
            "name FreeSWITCH's own hosts",
        )
    for workspace in config.workspaces.values():
        place = f"workspaces.{workspace.id}"
        for network in filter(is_wide, workspace.sources):
            yield Advice(
                f"{place}.sources",
                _size(network),
                f"each of them may call as {workspace.name}, and FreeSWITCH lets it in",
                "name the addresses of its SIP gateways",
            )
        yield from _placeholders(place, workspace)


def advice_here(config: Config) -> Iterator[Advice]:
    """What this host shows, where the service is to run. ``eslbot doctor`` looks closer."""
    if config.freeswitch.event_socket.ip.is_loopback:
        yield from _files(config)
    if config.ledger is not None and (missing := missing_driver(config.ledger)):
        yield Advice(
            "ledger.url",
            missing,
            "calls go on, but their records wait on disk until it is there",
            INSTALL_DRIVER,
        )


# -- who may call -----------------------------------------------------------------------------------------


def is_wide(network: Network) -> bool:
    """Whether it is larger than one site's network."""
    return network.prefixlen < SITE_PREFIX[network.version]


def _size(network: Network) -> str:
    if network.prefixlen == 0:
        return f"{network} is every address there is"
    if network.version == 6:
        return f"{network} is wider than a /{SITE_PREFIX[6]}"
    return f"{network} is {network.num_addresses:,} addresses"


# -- placeholders -----------------------------------------------------------------------------------------


def _placeholders(place: str, workspace: Workspace) -> Iterator[Advice]:
    as_it_stands = "it is not filled in, and goes out as it stands"
    for key, text in workspace.ameyo.properties.items():
        for found in _BRACES.finditer(text):
            name = found[1].lower()
            if found[0] not in _FILLED:
                meant = f"write {{{name}}}" if name in PLACEHOLDERS else f"known are {', '.join(_FILLED)}"
                yield Advice(f"{place}.ameyo.properties.{key}", found[0], as_it_stands, meant)
    urls = [("ameyo.url", workspace.ameyo.url), *(("bot.url", url) for url in workspace.bot.urls)]
    for key, url in urls:
        # What stands in a URL may be a secret: only names that everybody knows are told.
        for name in _ESCAPED.findall(url):
            if name.lower() in PLACEHOLDERS:
                yield Advice(f"{place}.{key}", f"%7B{name}%7D", as_it_stands, _NOT_THERE)
    for header, value in workspace.bot.headers.items():
        for name in _BRACES.findall(value.reveal()):
            if name.lower() in PLACEHOLDERS:
                yield Advice(f"{place}.bot.headers.{header}", f"{{{name}}}", as_it_stands, _NOT_THERE)


_NOT_THERE = "the bot is told of the call by X-DID, X-CRT-Object-ID, X-Call-ID and its `start`"


# -- files that FreeSWITCH reads --------------------------------------------------------------------------


def _files(config: Config) -> Iterator[Advice]:
    user = config.server.switch_user
    who = None if user == ANY_USER else _user(user or USUAL_USER)
    directory = Path(config.relay.directory)
    if any(directory.is_relative_to(private) for private in _PRIVATE):
        yield Advice(
            "relay.directory",
            f"{directory} is below {next(p for p in _PRIVATE if directory.is_relative_to(p))}",
            "systemd gives a service one of its own there, in which FreeSWITCH finds no line",
            "choose another, like /var/lib/eslbot/lines",
        )
    if who is None:
        return
    name = who.pw_name
    if (shut := _shut(directory, who)) is not None:
        yield Advice(
            "relay.directory",
            f"FreeSWITCH's user {name} may not enter {shut}",
            "callers do not hear the bot",
            f"give it a group that {name} is in (chmod 2750), or let others pass (chmod o+x {shut})",
        )
    for workspace in config.workspaces.values():
        sound = Path(workspace.hold_sound)
        if not sound.is_absolute():
            continue
        key = f"workspaces.{workspace.id}.hold_sound"
        if not _exists(sound):
            yield Advice(key, f"{sound} is not there", "who waits for an agent hears nothing", "put it there")
        elif (shut := _shut(sound, who)) is not None:
            found = f"FreeSWITCH's user {name} may not read {shut}"
            yield Advice(key, found, "who waits for an agent hears nothing", f"let it: chmod o+rx {shut}")


def _user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError:
        return None


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # we may not look: nothing is known
        return True


def _shut(path: Path, user: pwd.struct_passwd) -> Path | None:
    """The first step of ``path``, from the root on, whose mode keeps ``user`` out; None where unknown."""
    if user.pw_uid == 0:
        return None
    groups = set(os.getgrouplist(user.pw_name, user.pw_gid))
    try:
        steps = (*reversed(path.parents), path)
        return next((step for step in steps if _step_shuts(step, user.pw_uid, groups)), None)
    except OSError:
        return None


def _step_shuts(step: Path, uid: int, groups: set[int]) -> bool:
    """Whether this file may not be read, or this directory not be entered. Raises OSError."""
    found = step.stat()
    wanted = stat.S_IXOTH if stat.S_ISDIR(found.st_mode) else stat.S_IROTH
    if found.st_uid == uid:
        wanted <<= 6
    elif found.st_gid in groups:
        wanted <<= 3
    return not found.st_mode & wanted


# -- the database's driver --------------------------------------------------------------------------------

INSTALL_DRIVER = (
    "pip install 'eslbot[postgres]' into eslbot's environment (scripts/install --extras postgres)"
)


def missing_driver(ledger: Ledger) -> str:
    """What of ``ledger.url``'s driver is not installed here; empty where it is all there."""
    if not ledger.url.reveal().startswith("postgresql"):
        return ""
    try:
        import_module("psycopg")
    except ImportError as error:  # psycopg itself, or the libpq that it is a wrapper of
        words = str(error).partition("\n")[0]
        return f"the driver psycopg cannot be used: {words}"
    return ""
