"""The differences between the configuration that a service has in force and the one in its file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eslbot.config.model import Config
from eslbot.config.show import as_tree
from eslbot.server.status_file import Notice, fingerprints

#: A value that is a secret is told by this word only.
SECRETS = "secrets"
#: What a running FreeSWITCH takes at a restart of it only, which ends its calls.
_RESTART_SWITCH = tuple(
    f"freeswitch.{key}"
    for key in (
        *("sip_ip", "sip_port", "external_ip", "rtp_ports"),
        *("event_socket", "event_socket_password", "capture", "db", "recovery_file"),
    )
)


@dataclass(frozen=True, slots=True)
class Tenant:
    """One that was added, removed, or changed; ``keys`` are those that are other than they were."""

    id: str
    name: str
    keys: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Key:
    """A key outside the tenants; ``needs``: what a reload does not do for it, empty where it does all."""

    key: str
    before: Any
    after: Any
    needs: str = ""


@dataclass(frozen=True, slots=True)
class Changes:
    """All of it."""

    added: Sequence[Tenant]
    removed: Sequence[Tenant]
    changed: Sequence[Tenant]
    keys: Sequence[Key]

    @property
    def any(self) -> bool:
        """Whether anything is different."""
        return bool(self.added or self.removed or self.changed or self.keys)


def between(notice: Notice, config: Config) -> Changes:
    """From what is in force to what ``config`` says."""
    before, after = dict(notice.tree), as_tree(config)
    old, new = before.pop("workspaces", {}), after.pop("workspaces", {})
    prints = fingerprints(config, notice.salt)

    def secrets_differ(key: str) -> bool:
        return notice.fingerprints.get(key) != prints.get(key)

    changed = []
    for key in [key for key in new if key in old]:
        keys = [place for place, _, _ in _different(old[key], new[key])]
        if keys or secrets_differ(key):
            keys += [SECRETS] if secrets_differ(key) else []
            changed.append(Tenant(key, new[key]["name"], keys))
    keys_ = [Key(place, was, now, _needs(place, config)) for place, was, now in _different(before, after)]
    if secrets_differ(""):
        # Which of them it is cannot be told; the event socket's password is the one that needs something.
        keys_.append(
            Key(
                SECRETS,
                "",
                "",
                "if it is event_socket_password, a restart of FreeSWITCH, which ends its calls",
            )
        )
    return Changes(
        [Tenant(key, new[key]["name"]) for key in new if key not in old],
        [Tenant(key, str(old[key].get("name", key))) for key in old if key not in new],
        changed,
        keys_,
    )


def _needs(place: str, config: Config) -> str:
    if place.startswith(_RESTART_SWITCH):
        return "a restart of FreeSWITCH, which ends its calls"
    if place.startswith("edge"):
        return "`eslbot conf --edge` for the edges"
    if place.startswith("relay.") and config.relay.processes == 0:
        return "a reload of the relay that runs by itself (systemctl reload eslbot-relay)"
    return ""


def _different(before: Any, after: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The places that are not the same, and what stands there; None where nothing does."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            yield from _different(before.get(key), after.get(key), f"{place}.{key}" if place else key)
    elif before != after:
        yield place, before, after
