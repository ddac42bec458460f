"""The effective configuration as TOML, with every secret masked: what ``eslbot check`` prints."""

from __future__ import annotations

from typing import Any

import tomli_w

from eslbot.config.model import (
    Ameyo,
    Bot,
    Config,
    Edge,
    Egress,
    FreeSwitch,
    Ledger,
    Network,
    OwnRecordings,
    PageToken,
    Recordings,
    Relay,
    Secret,
    Tracing,
    Workspace,
)
from eslbot.config.urls import shown


def show(config: Config) -> str:
    """TOML text that :func:`eslbot.config.load` would accept, but for the masks."""
    return tomli_w.dumps(as_tree(config))


def as_tree(config: Config) -> dict[str, Any]:
    """The same as a tree of tables, lists, texts and numbers."""
    tree = {
        "server": {
            "listen": str(config.server.listen),
            "switches": _networks(config.server.switches),
            "workers": config.server.workers,
            "max_calls": config.server.max_calls,
            "health": str(config.server.health),
            "key_file": config.server.key_file,
            "switch_user": config.server.switch_user,
        },
        "freeswitch": _freeswitch(config.freeswitch),
        "edge": _edge(config.edge) if config.edge else None,
        "relay": _relay(config.relay),
        "egress": _egress(config.egress) if config.egress.addresses else None,
        "recording": _recordings(config.recording),
        "web": {"listen": str(config.web.listen), "tokens": {t.name: _token(t) for t in config.web.tokens}},
        "logs": {"mask_numbers": config.logs.mask_numbers},
        "ledger": _ledger(config.ledger) if config.ledger else None,
        "tracing": _tracing(config.tracing) if config.tracing else None,
        "workspaces": {workspace.id: workspace_table(workspace) for workspace in config.workspaces.values()},
    }
    found: dict[str, Any] = _without_none(tree)
    return found


def _freeswitch(freeswitch: FreeSwitch) -> dict[str, Any]:
    return {
        "sip_ip": _text(freeswitch.sip_ip),
        "sip_port": freeswitch.sip_port,
        "external_ip": _text(freeswitch.external_ip),
        "rtp_ports": "-".join(str(port) for port in freeswitch.rtp_ports),
        "event_socket": str(freeswitch.event_socket),
        "event_socket_password": _text(freeswitch.event_socket_password),
        "controllers": [str(controller) for controller in freeswitch.controllers],
        "media_timeout": _duration(freeswitch.media_timeout),
        "capture": str(freeswitch.capture),
        "db": freeswitch.db,
        "recovery_file": freeswitch.recovery_file,
    }


def _edge(edge: Edge) -> dict[str, Any]:
    return {
        "sip_ip": str(edge.sip_ip),
        "sip_port": edge.sip_port,
        "inner_port": edge.inner_port,
        "external_ip": _text(edge.external_ip),
        "switches": [str(switch) for switch in edge.switches],
        "addresses": [str(address) for address in edge.addresses],
    }


def _relay(relay: Relay) -> dict[str, Any]:
    return {"listen": str(relay.listen), "processes": relay.processes, "directory": relay.directory}


def _egress(egress: Egress) -> dict[str, Any]:
    return {"addresses": [str(address) for address in egress.addresses]}


def _recordings(recordings: Recordings) -> dict[str, Any]:
    return {
        "directory": recordings.directory,
        "keep": _duration(recordings.keep),
        "max_bytes": recordings.max_bytes or 0,
        "min_free": recordings.min_free,
    }


def _own_recordings(own: OwnRecordings, revealed: bool) -> dict[str, Any] | None:
    shown = {
        "announcement": own.announcement,
        "keep": None if own.keep is None else _duration(own.keep),
        "key": _secret(own.key, revealed),
        "old_keys": [_secret(key, revealed) for key in own.old_keys] or None,
    }
    return shown if any(value is not None for value in shown.values()) else None


def _token(token: PageToken) -> dict[str, Any]:
    workspaces = {"workspaces": list(token.workspaces)} if token.workspaces else {}
    may = {"numbers": token.numbers, "recordings": token.recordings}
    return {"token": _text(token.token), **may, **workspaces}


def _ledger(ledger: Ledger) -> dict[str, Any]:
    return {
        "url": ledger.shown,
        "journal": ledger.journal,
        "retention": _duration(ledger.retention),
    }


def _tracing(tracing: Tracing) -> dict[str, Any]:
    return {
        "endpoint": tracing.endpoint,
        "headers": {name: _text(value) for name, value in tracing.headers.items()},
        "service_name": tracing.service_name,
        "share": tracing.share,
        "insecure": tracing.insecure,
    }


def workspace_table(workspace: Workspace, *, revealed: bool = False) -> dict[str, Any]:
    """A workspace as its table of TOML, its secrets masked or, for nobody to see, ``revealed``."""
    table = {
        "name": workspace.name,
        "sources": _networks(workspace.sources),
        "max_calls": workspace.max_calls,
        "max_cps": workspace.max_cps,
        "max_duration": _duration(workspace.max_duration),
        "nat": workspace.nat,
        "hold_sound": workspace.hold_sound,
        "record": workspace.record if 0 < workspace.record < 1 else bool(workspace.record),
        "recording": _own_recordings(workspace.recording, revealed),
        "bot": _bot(workspace.bot, revealed),
        "ameyo": _ameyo(workspace.ameyo, revealed),
    }
    found: dict[str, Any] = _without_none(table)
    return found


def _secret(secret: Secret | None, revealed: bool) -> str | None:
    return secret.reveal() if secret is not None and revealed else _text(secret)


def _bot(bot: Bot, revealed: bool) -> dict[str, Any]:
    urls = list(bot.urls) if revealed else [shown(url) for url in bot.urls]
    return {
        "url": urls if len(urls) > 1 else urls[0],
        "protocol": bot.protocol,
        "sample_rate": bot.sample_rate,
        "proxy": _secret(bot.proxy, revealed),
        "connect_timeout": _duration(bot.connect_timeout),
        "first_audio_timeout": _duration(bot.first_audio_timeout),
        "headers": {name: _secret(value, revealed) for name, value in bot.headers.items()},
        "reconnect": bot.reconnect,
        "insecure": bot.insecure,
    }


def _ameyo(ameyo: Ameyo, revealed: bool) -> dict[str, Any]:
    return {
        "url": ameyo.url,
        "tenant_host": ameyo.tenant_host,
        "token": _secret(ameyo.token, revealed),
        "ca_file": ameyo.ca_file,
        "bot_properties": list(ameyo.bot_properties),
        "properties": dict(ameyo.properties),
        "connect_timeout": _duration(ameyo.connect_timeout),
        "timeout": _duration(ameyo.timeout),
        "bye_timeout": _duration(ameyo.bye_timeout),
        "renotify": ameyo.renotify,
        "source_address": _text(ameyo.source_address),
        "proxy": _secret(ameyo.proxy, revealed),
        "insecure": ameyo.insecure,
    }


def _networks(networks: tuple[Network, ...]) -> list[str]:
    return [
        str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)
        for network in networks
    ]


def _duration(seconds: float) -> str:
    return f"{seconds:.10g}s" if seconds == 0 or seconds >= 1 else f"{round(seconds * 1000)}ms"


def _text(value: object | None) -> str | None:
    return None if value is None else str(value)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return value
