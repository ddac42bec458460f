"""The tables of the service itself, each with its schema: ``[server]``, ``[freeswitch]``, ``[web]`` …"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from marshmallow import ValidationError, fields, post_load, validate, validates, validates_schema

from eslbot.config.fields import (
    AddressField,
    Duration,
    IpField,
    LedgerUrl,
    NetworkField,
    PortRange,
    SecretField,
    Size,
    Url,
)
from eslbot.config.model import (
    Address,
    Edge,
    Egress,
    FreeSwitch,
    Ledger,
    Logs,
    PageToken,
    Recordings,
    Relay,
    Secret,
    Server,
    Tracing,
    Web,
    loopback,
)
from eslbot.config.schemas.table import (
    NAME,
    Listed,
    PlainPath,
    Table,
    clear_text,
    count,
    flag,
    of_one_host,
    required,
    secret_headers,
    text,
)
from eslbot.recovery import paths

#: What `eslbot[tracing]` installs.
_OPENTELEMETRY = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def default_key_file() -> str:
    """Where the key is kept when the configuration does not say: with the service's other state.

    A user who may not write there has a place below the home directory (XDG Base Directory, state).
    """
    ours = Path("/var/lib/eslbot")
    if os.geteuid() == 0 or os.access(ours, os.W_OK):
        return str(ours / "identity.key")
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return str(Path(state) / "eslbot" / "identity.key")


class ServerSchema(Table):
    """``[server]``."""

    model = Server

    listen = AddressField(load_default=loopback(8084))
    switches = Listed(NetworkField(), load_default=lambda: [NetworkField().read("127.0.0.1/32")])
    workers = count(2, 64)
    max_calls = count(1000, 20000)
    health = AddressField(load_default=loopback(8083))
    key_file = text(
        default_key_file, r"/[^\0]{1,1000}\Z", "expected an absolute path, got {input!r}", kind="path"
    )
    switch_user = text(
        None,
        r"([A-Za-z_][A-Za-z0-9_.@-]{0,63}|[0-9]{1,10})\Z",
        "expected a user's name, or its number in quotes, got {input!r}",
        kind="user's name, or its number",
    )

    @validates("health")
    def _for_this_host(self, value: Address, **_: Any) -> None:
        if not value.ip.is_loopback:
            raise ValidationError(
                f"expected an address of loopback like 127.0.0.1:8083, got {str(value)!r}: workers answer "
                "whoever reaches it; for others there is web.listen"
            )


class FreeSwitchSchema(Table):
    """``[freeswitch]``."""

    model = FreeSwitch

    sip_ip = IpField(load_default=None)
    sip_port = count(5060, 65535)
    external_ip = IpField(load_default=None)
    rtp_ports = PortRange(load_default=(10000, 60000))
    event_socket = AddressField(load_default=loopback(8021))
    event_socket_password = SecretField(load_default=None)
    controllers = Listed(AddressField(), load_default=tuple)
    media_timeout = Duration(load_default=300.0, at_least=1)
    capture = AddressField(load_default=loopback(8087))
    db = PlainPath(paths.DATABASES)
    recovery_file = PlainPath(paths.FILE, suffix=paths.SUFFIX)


def _for_audio_stream(listen: Address) -> None:
    """Its URLs have no brackets (measured): every stream would be refused."""
    if listen.ip.version != 4:
        raise ValidationError(
            f"expected an IPv4 address: mod_audio_stream connects to no other, got {listen}"
        )


class RelaySchema(Table):
    """``[relay]``."""

    model = Relay

    listen = AddressField(load_default=Relay().listen, validate=_for_audio_stream)
    processes = count(1, 64, least=0)
    # FreeSWITCH reads it in a command, and takes blanks and commas for what separates arguments.
    directory = PlainPath(Relay().directory)


class RecordingsSchema(Table):
    """``[recording]``."""

    model = Recordings

    directory = PlainPath(Recordings().directory)
    keep = Duration(load_default=Recordings().keep, at_least=3600, at_most=3650 * 86400.0)
    max_bytes = Size(load_default=Recordings().max_bytes)
    min_free = Size(load_default=Recordings().min_free)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Any:
        return super()._make({**data, "max_bytes": data["max_bytes"] or None})  # 0: no bound


class EdgeSchema(Table):
    """``[edge]``."""

    model = Edge

    sip_ip = IpField(required=True, error_messages=required("the edge's own address"))
    sip_port = count(5060, 65535)
    inner_port = count(5070, 65535)
    external_ip = IpField(load_default=None)
    switches = Listed(
        AddressField(),
        required=True,
        error_messages=required('FreeSWITCH\'s SIP addresses, like ["10.0.0.5:5060"]'),
    )
    addresses = Listed(IpField(), load_default=None)

    @validates_schema(skip_on_field_errors=True)
    def _check(self, data: dict[str, Any], **_: Any) -> None:
        errors: dict[str, Any] = {}
        if data["inner_port"] == data["sip_port"]:
            errors["inner_port"] = [f"{data['sip_port']} is sip_port already; each needs its own"]
        for number, switch in enumerate(data["switches"]):
            if switch.ip.version != data["sip_ip"].version:
                problem = f"{switch} cannot be reached from {data['sip_ip']}: one is IPv4 and one IPv6"
                errors.setdefault("switches", {})[number] = [problem]
            elif switch in data["switches"][:number]:
                errors.setdefault("switches", {})[number] = [f"{switch} is there twice"]
        if data["addresses"] is not None and data["sip_ip"] not in data["addresses"]:
            errors["addresses"] = [f"expected sip_ip ({data['sip_ip']}) to be among all edges"]
        if errors:
            raise ValidationError(errors)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Any:
        return super()._make({**data, "addresses": data["addresses"] or [data["sip_ip"]]})


class EgressSchema(Table):
    """``[egress]``."""

    model = Egress

    addresses = Listed(IpField(validate=of_one_host), load_default=list)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Any:
        return super()._make({"addresses": list(dict.fromkeys(data["addresses"]))})


def _long_enough(token: Secret) -> None:
    if len(token.reveal()) < 16:
        raise ValidationError("expected at least 16 characters; make one with: openssl rand -hex 24")


class PageTokenSchema(Table):
    """``[web.tokens.NAME]``, without its name."""

    token = SecretField(
        required=True,
        validate=_long_enough,
        error_messages=required('a token of at least 16 characters, like "${ESLBOT_PAGE_TOKEN}"'),
    )
    numbers = flag()
    recordings = flag()
    workspaces = Listed(
        fields.String(error_messages={"invalid": "expected a workspace's name in quotes"}), load_default=list
    )


class _ByName(fields.Dict):
    """Tables by name; dumped from objects that have their names."""

    def _serialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        return super()._serialize({one.name: one for one in value}, *args, **kwargs)  # type: ignore[no-untyped-call]


class WebSchema(Table):
    """``[web]``."""

    listen = AddressField(load_default=loopback(8085))
    tokens = _ByName(
        keys=fields.String(validate=NAME),
        values=fields.Nested(PageTokenSchema),
        load_default=dict,
        validate=validate.Length(max=64, error="expected at most 64 tokens"),
        error_messages={"invalid": "expected tables like [web.tokens.operator]"},
    )

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Web:
        return Web(data["listen"], tuple(PageToken(name, **entry) for name, entry in data["tokens"].items()))


class LogsSchema(Table):
    """``[logs]``."""

    model = Logs

    mask_numbers = flag()


class LedgerSchema(Table):
    """``[ledger]``."""

    model = Ledger

    url = LedgerUrl(load_default=Secret("sqlite:////var/lib/eslbot/calls.db"))
    journal = text(
        "/var/lib/eslbot/journal",
        r"/.{1,1000}\Z",
        "expected an absolute path of at most 1000 characters",
        kind="path",
    )
    retention = Duration(load_default=90 * 86400.0, at_least=3600, at_most=3650 * 86400.0)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Any:
        return super()._make({**data, "journal": data["journal"].rstrip("/")})


class TracingSchema(Table):
    """``[tracing]``."""

    model = Tracing

    endpoint = Url(
        required=True,
        error_messages=required("the collector's URL, like https://otel.example.com/v1/traces"),
    )
    headers = secret_headers(validate=validate.Length(max=32, error="expected at most 32 headers"))
    service_name = fields.String(
        load_default="eslbot", validate=NAME, error_messages={"invalid": "expected a name in quotes"}
    )
    share = fields.Float(
        load_default=1.0,
        validate=validate.Range(min=0, max=1, error="expected a number from 0 to 1, got {input}"),
        error_messages={"invalid": "expected a number from 0 to 1, without quotes"},
    )
    insecure = flag()

    @validates_schema(skip_on_field_errors=False)
    def _check(self, data: dict[str, Any], **_: Any) -> None:
        if "endpoint" in data and (clear := clear_text((data["endpoint"],), data.get("insecure", False))):
            raise ValidationError({"endpoint": clear})
        if not all(_is_installed(name) for name in _OPENTELEMETRY):
            missing = "needs OpenTelemetry's SDK, which is not installed: pip install 'eslbot[tracing]'"
            raise ValidationError({"endpoint": [missing]})


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package above it
        return False
