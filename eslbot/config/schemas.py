"""The marshmallow schemas of the TOML file: one a table, each making its object of the model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from marshmallow import Schema, ValidationError, fields, post_load, validate, validates, validates_schema

from eslbot import recovery
from eslbot.ameyo.properties import PLACEHOLDERS, unknown_placeholders
from eslbot.caller.keyfile import default_key_file
from eslbot.config.fields import (
    AddressField,
    BotUrl,
    Duration,
    HeaderName,
    HostName,
    HttpProxyUrl,
    IpField,
    LedgerUrl,
    NetworkField,
    PortRange,
    ProxyUrl,
    SealingKey,
    SecretField,
    Share,
    Size,
    Url,
)
from eslbot.config.model import (
    IP,
    Address,
    Ameyo,
    Bot,
    Config,
    Edge,
    Egress,
    FreeSwitch,
    Ledger,
    Logs,
    OwnRecordings,
    PageToken,
    Recordings,
    Relay,
    Secret,
    Server,
    Tracing,
    Web,
    Workspace,
    loopback,
)

#: Headers of the WebSocket upgrade that are not the workspace's to set.
RESERVED_HEADERS = frozenset(
    {
        "host",
        "connection",
        "upgrade",
        "sec-websocket-key",
        "sec-websocket-version",
        "sec-websocket-protocol",
        "sec-websocket-extensions",
        "x-call-id",
        "x-workspace-id",
        "x-did",
        "x-crt-object-id",
        "x-from",
        "x-audio-rate",
        "traceparent",
    }
)

#: What bots may speak, and at which rates (Hz) the caller's audio comes to them there.
RATES: Mapping[str, tuple[int, ...]] = {
    "eslbot": (8000, 16000, 24000),
    "twilio": (8000,),
    "exotel": (8000, 16000, 24000),
    "plivo": (8000, 16000),
}

_NAME = validate.Regexp(
    r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z",
    error="expected 1 to 64 of letters, digits, '_', '.', '-', got {input!r}",
)
_USER = validate.Regexp(
    r"([A-Za-z_][A-Za-z0-9_.@-]{0,63}|[0-9]{1,10})\Z",
    error="expected a user's name, or its number in quotes, got {input!r}",
)
_PROPERTY_NAME = validate.Regexp(
    re.compile(r"[^\x00-\x1f\x7f]{1,64}"), error="expected a name of 1 to 64 printable characters"
)


class _Table(Schema):
    """A TOML table: unknown keys are errors that list the known ones."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        known = ", ".join(sorted(field.data_key or name for name, field in self.fields.items()))
        self.error_messages = {
            "unknown": f"is not a known key; known here: {known}",
            "type": "expected a table",
        }


def _required(what: str) -> dict[str, Any]:
    # Marshmallow formats its messages: a brace that is meant stands there twice.
    return {"required": f"is missing; expected {what}".replace("{", "{{").replace("}", "}}")}


def _listed(inner: fields.Field[Any], **kwargs: Any) -> fields.List[Any]:
    return fields.List(
        inner,
        error_messages={"invalid": "expected a list in [ ]", **kwargs.pop("error_messages", {})},
        validate=[validate.Length(min=1, max=256, error="expected 1 to 256 entries")],
        **kwargs,
    )


def _count(default: int, most: int, least: int = 1) -> fields.Integer:
    message = f"expected a whole number from {least} to {most}"
    return fields.Integer(
        load_default=default,
        strict=True,
        validate=validate.Range(min=least, max=most, error=message + ", got {input}"),
        error_messages={"invalid": message},
    )


def _flag() -> fields.Boolean:
    return fields.Boolean(
        load_default=False,
        truthy={True},
        falsy={False},
        error_messages={"invalid": "expected true or false, without quotes"},
    )


class ServerSchema(_Table):
    """``[server]``."""

    listen = AddressField(load_default=loopback(8084))
    switches = _listed(NetworkField(), load_default=lambda: [NetworkField().read("127.0.0.1/32")])
    workers = _count(2, 64)
    max_calls = _count(1000, 20000)
    health = AddressField(load_default=loopback(8083))
    key_file = fields.String(
        load_default=default_key_file,
        validate=validate.Regexp(r"/[^\0]{1,1000}\Z", error="expected an absolute path, got {input!r}"),
        error_messages={"invalid": "expected a path in quotes"},
    )
    switch_user = fields.String(
        load_default=None,
        validate=_USER,
        error_messages={"invalid": "expected a user's name, or its number in quotes"},
    )

    @validates("health")
    def _for_this_host(self, value: Address, **_: Any) -> None:
        if not value.ip.is_loopback:
            raise ValidationError(
                f"expected an address of loopback like 127.0.0.1:8083, got {str(value)!r}: workers answer "
                "whoever reaches it; for others there is web.listen"
            )

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Server:
        data["switches"] = tuple(data["switches"])
        return Server(**data)


def _path(default: str, suffix: str = "") -> fields.String:
    """An absolute path that needs no quotes anywhere: not in a command of FreeSWITCH's, not in a unit."""
    end = re.escape(suffix) if suffix else "/?"
    wanted = f"an absolute path of letters, digits, '_', '.', '-'{suffix and f' that ends in {suffix}'}"
    return fields.String(
        load_default=default,
        validate=[
            validate.Regexp(
                rf"(/[A-Za-z0-9_.-]+)+{end}\Z",
                error=f"expected {wanted}, got {{input!r}}",
            ),
            validate.Length(max=200, error="expected at most 200 characters"),
        ],
        error_messages={"invalid": "expected a path in quotes"},
    )


class FreeSwitchSchema(_Table):
    """``[freeswitch]``."""

    sip_ip = IpField(load_default=None)
    sip_port = _count(5060, 65535)
    external_ip = IpField(load_default=None)
    rtp_ports = PortRange(load_default=(10000, 60000))
    event_socket = AddressField(load_default=loopback(8021))
    event_socket_password = SecretField(load_default=None)
    controllers = _listed(AddressField(), load_default=None)
    media_timeout = Duration(load_default=300.0, at_least=1)
    capture = AddressField(load_default=loopback(8087))
    db = _path(recovery.DATABASES)
    recovery_file = _path(recovery.FILE, suffix=recovery.SUFFIX)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> FreeSwitch:
        data["controllers"] = tuple(data["controllers"] or ())
        data["db"] = data["db"].rstrip("/")
        return FreeSwitch(**data)


def _for_audio_stream(listen: Address) -> None:
    """Its URLs have no brackets (measured): every stream would be refused."""
    if listen.ip.version != 4:
        raise ValidationError(
            f"expected an IPv4 address: mod_audio_stream connects to no other, got {listen}"
        )


class RelaySchema(_Table):
    """``[relay]``."""

    listen = AddressField(load_default=Relay().listen, validate=_for_audio_stream)
    processes = _count(1, 64, least=0)
    # FreeSWITCH reads it in a command, and takes blanks and commas for what separates arguments.
    directory = _path(Relay().directory)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Relay:
        data["directory"] = data["directory"].rstrip("/")
        return Relay(**data)


class RecordingsSchema(_Table):
    """``[recording]``."""

    directory = _path(Recordings().directory)
    keep = Duration(load_default=Recordings().keep, at_least=3600, at_most=3650 * 86400.0)
    max_bytes = Size(load_default=Recordings().max_bytes)
    min_free = Size(load_default=Recordings().min_free)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Recordings:
        data["directory"] = data["directory"].rstrip("/")
        data["max_bytes"] = data["max_bytes"] or None  # 0: no bound
        return Recordings(**data)


class OwnRecordingsSchema(_Table):
    """``[workspaces.ID.recording]``."""

    announcement = fields.String(
        load_default=None,
        validate=validate.Regexp(
            r"beep\Z|/[^\0]{1,1000}\Z",
            error='expected "beep" or the absolute path of a WAV file, got {input!r}',
        ),
        error_messages={"invalid": "expected a text in quotes"},
    )
    keep = Duration(load_default=None, at_least=3600, at_most=3650 * 86400.0)
    key = SealingKey(load_default=None)
    old_keys = _listed(SealingKey(), load_default=list)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> OwnRecordings:
        data["old_keys"] = tuple(data["old_keys"])
        return OwnRecordings(**data)


class EdgeSchema(_Table):
    """``[edge]``."""

    sip_ip = IpField(required=True, error_messages=_required("the edge's own address"))
    sip_port = _count(5060, 65535)
    inner_port = _count(5070, 65535)
    external_ip = IpField(load_default=None)
    switches = _listed(
        AddressField(),
        required=True,
        error_messages=_required('FreeSWITCH\'s SIP addresses, like ["10.0.0.5:5060"]'),
    )
    addresses = _listed(IpField(), load_default=None)

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
    def _make(self, data: dict[str, Any], **_: Any) -> Edge:
        data["switches"] = tuple(data["switches"])
        data["addresses"] = tuple(data["addresses"] or (data["sip_ip"],))
        return Edge(**data)


def _of_one_host(ip: IP) -> None:
    if ip.is_unspecified or ip.is_multicast:
        raise ValidationError(f"expected an address of one host, got {ip}")


class EgressSchema(_Table):
    """``[egress]``."""

    addresses = _listed(IpField(validate=_of_one_host), load_default=list)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Egress:
        return Egress(tuple(dict.fromkeys(data["addresses"])))


class PageTokenSchema(_Table):
    """``[web.tokens.NAME]``, without its name."""

    token = SecretField(
        required=True,
        validate=lambda token: _long_enough(token),
        error_messages=_required('a token of at least 16 characters, like "${ESLBOT_PAGE_TOKEN}"'),
    )
    numbers = _flag()
    recordings = _flag()
    workspaces = _listed(
        fields.String(error_messages={"invalid": "expected a workspace's name in quotes"}), load_default=list
    )

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {**data, "workspaces": tuple(data["workspaces"])}


def _long_enough(token: Secret) -> None:
    if len(token.reveal()) < 16:
        raise ValidationError("expected at least 16 characters; make one with: openssl rand -hex 24")


class WebSchema(_Table):
    """``[web]``."""

    listen = AddressField(load_default=loopback(8085))
    tokens = fields.Dict(
        keys=fields.String(validate=_NAME),
        values=fields.Nested(PageTokenSchema),
        load_default=dict,
        validate=validate.Length(max=64, error="expected at most 64 tokens"),
        error_messages={"invalid": "expected tables like [web.tokens.operator]"},
    )

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Web:
        return Web(data["listen"], tuple(PageToken(name, **entry) for name, entry in data["tokens"].items()))


class LogsSchema(_Table):
    """``[logs]``."""

    mask_numbers = _flag()

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Logs:
        return Logs(**data)


class LedgerSchema(_Table):
    """``[ledger]``."""

    url = LedgerUrl(load_default=Secret("sqlite:////var/lib/eslbot/calls.db"))
    journal = fields.String(
        load_default="/var/lib/eslbot/journal",
        validate=validate.Regexp(
            r"/.{1,1000}\Z", error="expected an absolute path of at most 1000 characters"
        ),
        error_messages={"invalid": "expected a path in quotes"},
    )
    retention = Duration(load_default=90 * 86400.0, at_least=3600, at_most=3650 * 86400.0)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Ledger:
        data["journal"] = data["journal"].rstrip("/")
        return Ledger(**data)


class _OneOrMoreUrls(fields.Field[Any]):
    """One URL, or a list of them, tried in order."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[str, ...]:
        url = BotUrl()
        if isinstance(value, list):
            if not 1 <= len(value) <= 8:
                raise ValidationError("expected one URL or a list of 1 to 8")
            urls: list[str] = []
            errors: dict[int, Any] = {}
            for number, entry in enumerate(value):
                try:
                    urls.append(url.deserialize(entry))
                except ValidationError as error:
                    errors[number] = error.messages
            if errors:
                raise ValidationError(errors, valid_data=urls)
            return tuple(urls)
        return (str(url.deserialize(value)),)


#: What lets clear text pass.
INSECURE = "say insecure = true in the same table"


class _Insecure(_Table):
    """A table whose clear-text URLs need ``insecure = true``."""

    insecure = _flag()

    def _clear_text(self, urls: tuple[str, ...], insecure: bool) -> list[str]:
        return [
            f"{url!r} sends everything in clear text; use {'wss' if url[0] in 'wW' else 'https'}://, "
            f"or {INSECURE}"
            for url in urls
            if url.lower().startswith(("ws:", "http:")) and not insecure
        ]


class TracingSchema(_Insecure):
    """``[tracing]``."""

    endpoint = Url(
        required=True,
        error_messages=_required("the collector's URL, like https://otel.example.com/v1/traces"),
    )
    headers = fields.Dict(
        keys=HeaderName(),
        values=SecretField(),
        load_default=dict,
        validate=validate.Length(max=32, error="expected at most 32 headers"),
        error_messages={"invalid": 'expected a table like {{ Authorization = "${{NAME}}" }}'},
    )
    service_name = fields.String(
        load_default="eslbot",
        validate=_NAME,
        error_messages={"invalid": "expected a name in quotes"},
    )
    share = fields.Float(
        load_default=1.0,
        validate=validate.Range(min=0, max=1, error="expected a number from 0 to 1, got {input}"),
        error_messages={"invalid": "expected a number from 0 to 1, without quotes"},
    )

    @validates_schema(skip_on_field_errors=False)
    def _check(self, data: dict[str, Any], **_: Any) -> None:
        if "endpoint" in data and (
            clear := self._clear_text((data["endpoint"],), data.get("insecure", False))
        ):
            raise ValidationError({"endpoint": clear})
        if not all(_is_installed(name) for name in _OPENTELEMETRY):
            raise ValidationError(
                {
                    "endpoint": [
                        "needs OpenTelemetry's SDK, which is not installed: pip install 'eslbot[tracing]'"
                    ]
                }
            )

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Tracing:
        return Tracing(**data)


#: What `eslbot[tracing]` installs.
_OPENTELEMETRY = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package above it
        return False


class BotSchema(_Insecure):
    """``[workspaces.ID.bot]``."""

    urls = _OneOrMoreUrls(required=True, data_key="url", error_messages=_required("the bot's wss:// URL"))
    protocol = fields.String(
        load_default="eslbot",
        validate=validate.OneOf(list(RATES), error=f"expected one of {', '.join(RATES)}, got {{input!r}}"),
        error_messages={"invalid": f"expected one of {', '.join(RATES)} in quotes"},
    )
    sample_rate = fields.Integer(
        load_default=8000,
        strict=True,
        validate=validate.OneOf([8000, 16000, 24000], error="expected 8000, 16000 or 24000, got {input}"),
        error_messages={"invalid": "expected 8000, 16000 or 24000, without quotes"},
    )
    proxy = ProxyUrl(load_default=None)
    connect_timeout = Duration(load_default=3.0, at_least=0.1, at_most=60)
    first_audio_timeout = Duration(load_default=10.0, at_least=0.1, at_most=600, never=True)
    reconnect = _flag()
    headers = fields.Dict(
        keys=HeaderName(),
        values=SecretField(),
        load_default=dict,
        error_messages={"invalid": 'expected a table like {{ Authorization = "${{NAME}}" }}'},
    )

    @validates_schema(skip_on_field_errors=False)
    def _check(self, data: dict[str, Any], **_: Any) -> None:
        errors: dict[str, Any] = {}
        if clear := self._clear_text(data.get("urls", ()), data.get("insecure", False)):
            errors["url"] = clear
        if reserved := [name for name in data.get("headers", {}) if name.lower() in RESERVED_HEADERS]:
            errors["headers"] = {
                name: ["is set by eslbot or the WebSocket protocol itself"] for name in reserved
            }
        protocol, rate = data.get("protocol"), data.get("sample_rate")
        if protocol is not None and rate is not None and rate not in RATES[protocol]:
            rates = " or ".join(map(str, RATES[protocol]))
            errors["sample_rate"] = [f"expected {rates} with protocol = {protocol!r}, got {rate}"]
        if errors:
            raise ValidationError(errors)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Bot:
        return Bot(**data)


class AmeyoSchema(_Insecure):
    """``[workspaces.ID.ameyo]``."""

    url = Url(required=True, error_messages=_required("Ameyo's https:// URL"))
    tenant_host = HostName(required=True, error_messages=_required("the tenant's host name at Ameyo"))
    token = SecretField(required=True, error_messages=_required('Ameyo\'s token, like "${ACME_AMEYO_TOKEN}"'))
    ca_file = fields.String(load_default=None, error_messages={"invalid": "expected a path in quotes"})
    bot_properties = fields.List(
        fields.String(validate=_PROPERTY_NAME, error_messages={"invalid": "expected a name in quotes"}),
        load_default=list,
        validate=validate.Length(max=64, error="expected at most 64 names"),
        error_messages={"invalid": "expected a list in [ ]"},
    )
    properties = fields.Dict(
        keys=fields.String(validate=_PROPERTY_NAME),
        values=fields.String(
            validate=validate.Length(max=1024, error="expected at most 1,024 characters"),
            error_messages={"invalid": "expected a text in quotes"},
        ),
        load_default=dict,
        validate=validate.Length(max=64, error="expected at most 64 properties"),
        error_messages={"invalid": 'expected a table like {{ DID = "{{did}}" }}'},
    )
    connect_timeout = Duration(load_default=3.0, at_least=0.1, at_most=60)
    timeout = Duration(load_default=10.0, at_least=0.1, at_most=120)
    bye_timeout = Duration(load_default=60.0, at_least=1, at_most=3600)
    renotify = _flag()
    source_address = IpField(load_default=None, validate=_of_one_host)
    proxy = HttpProxyUrl(load_default=None)

    @validates_schema(skip_on_field_errors=False)
    def _check(self, data: dict[str, Any], **_: Any) -> None:
        errors: dict[str, Any] = {}
        urls = (data["url"],) if "url" in data else ()
        if clear := self._clear_text(urls, data.get("insecure", False)):
            errors["url"] = clear
        known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        for key, template in data.get("properties", {}).items():
            if unknown := unknown_placeholders(template):
                errors.setdefault("properties", {})[key] = [
                    f"{{{unknown[0]}}} is not known; known are {known}"
                ]
        errors |= {key: [problem] for key, problem in self._egress(data)}
        if errors:
            raise ValidationError(errors)

    def _egress(self, data: dict[str, Any]) -> Iterator[tuple[str, str]]:
        url, proxy, source = data.get("url"), data.get("proxy"), data.get("source_address")
        if url is None:
            return
        if proxy is not None and not url.lower().startswith("https:"):
            yield "proxy", "goes with an https:// url only: it is asked for a tunnel (CONNECT) for TLS"
        first = urlsplit(url if proxy is None else proxy.reveal()).hostname or ""
        try:
            other = source is not None and ip_address(first).version != source.version
        except ValueError:  # a name, which may have both
            return
        if other:
            to = "url" if proxy is None else "proxy"
            yield "source_address", f"{source} cannot reach the {to}: one is IPv4 and one IPv6"

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Ameyo:
        data["url"] = data["url"].rstrip("/")
        data["bot_properties"] = tuple(data["bot_properties"])
        return Ameyo(**data)


class WorkspaceSchema(_Table):
    """``[workspaces.ID]``, without its id."""

    name = fields.String(
        required=True,
        validate=_NAME,
        error_messages={**_required('a short name like "acme"'), "invalid": "expected a text in quotes"},
    )
    sources = _listed(
        NetworkField(), required=True, error_messages=_required("the addresses of the tenant's SIP gateways")
    )
    max_calls = _count(200, 100000)
    max_cps = _count(30, 10000)
    max_duration = Duration(load_default=1800.0, at_least=1)
    nat = _flag()
    hold_sound = fields.String(
        load_default="silence",
        validate=validate.Regexp(
            r"silence\Z|tone\Z|(/[A-Za-z0-9_.-]+)+\Z",
            error='expected "silence", "tone" or an absolute path of a sound file, got {input!r}',
        ),
        error_messages={"invalid": "expected a text in quotes"},
    )
    record = Share(load_default=0.0)
    recording = fields.Nested(OwnRecordingsSchema, load_default=OwnRecordings)
    bot = fields.Nested(BotSchema, required=True, error_messages=_required("a table with the bot's url"))
    ameyo = fields.Nested(
        AmeyoSchema, required=True, error_messages=_required("a table with url, tenant_host and token")
    )

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        data["sources"] = tuple(data["sources"])
        return data


def _workspace_id(text: str) -> None:
    try:
        well_formed = str(UUID(text)) == text.lower()
    except ValueError:
        well_formed = False
    if not well_formed:
        raise ValidationError(
            "expected a workspace id (a UUID like 2b37ba17-7b20-4b3e-b138-1161e351d5c5) as the table's name"
        )


class ConfigSchema(_Table):
    """The whole file."""

    server = fields.Nested(ServerSchema, load_default=lambda: ServerSchema().load({}))
    freeswitch = fields.Nested(FreeSwitchSchema, load_default=lambda: FreeSwitchSchema().load({}))
    web = fields.Nested(WebSchema, load_default=lambda: WebSchema().load({}))
    logs = fields.Nested(LogsSchema, load_default=lambda: LogsSchema().load({}))
    edge = fields.Nested(EdgeSchema, load_default=None)
    relay = fields.Nested(RelaySchema, load_default=Relay)
    egress = fields.Nested(EgressSchema, load_default=Egress)
    recording = fields.Nested(RecordingsSchema, load_default=Recordings)
    ledger = fields.Nested(LedgerSchema, load_default=None)
    tracing = fields.Nested(TracingSchema, load_default=None)
    workspaces = fields.Dict(
        keys=fields.String(validate=_workspace_id),
        values=fields.Nested(WorkspaceSchema),
        required=True,
        validate=validate.Length(min=1, error="expected at least one workspace"),
        error_messages={
            **_required("at least one [workspaces.<UUID>] table"),
            "invalid": "expected tables named by workspace id",
        },
    )

    @validates_schema(skip_on_field_errors=False)
    def _each_once(self, data: dict[str, Any], **_: Any) -> None:
        errors: dict[str, Any] = {}
        # A table with errors of its own is here as far as it was read: a dictionary, not its object.
        server, web, relay = data.get("server"), data.get("web"), data.get("relay")
        listeners: list[tuple[str, str, Address]] = []
        if isinstance(server, Server):
            listeners += [("server", "listen", server.listen), ("server", "health", server.health)]
        listeners += [
            (name, "listen", table.listen)
            for name, table in (("web", web), ("relay", relay))
            if isinstance(table, Web | Relay)
        ]
        taken: dict[Address, str] = {}
        for name, key, address in listeners:
            first = taken.setdefault(address, f"{name}.{key}")
            if first != f"{name}.{key}":
                errors[name] = {key: [f"{address} is {first} already; each needs its own"]}
        if isinstance(data.get("tracing"), Tracing) and "ledger" in data and data["ledger"] is None:
            errors["tracing"] = ["spans are made of the call ledger: add a [ledger] table"]
        names: dict[str, str] = {}
        ids: set[str] = set()
        for key, workspace in data.get("workspaces", {}).items():
            name = workspace.get("name")
            if key.lower() in ids:
                problem = "this workspace id is there twice (upper and lower case are the same)"
                errors.setdefault("workspaces", {})[key] = [problem]
            elif name is not None and name in names:
                problem = f"{name!r} is also the name of {names[name]}"
                errors.setdefault("workspaces", {})[key] = {"name": [problem]}
            ids.add(key.lower())
            if name is not None:
                names[name] = key
        for token in web.tokens if isinstance(web, Web) else ():
            if unknown := [name for name in token.workspaces if name not in names]:
                problem = f"there is no workspace of the name {unknown[0]!r}"
                tokens = errors.setdefault("web", {}).setdefault("tokens", {})
                tokens[token.name] = {"workspaces": [problem]}
        if errors:
            raise ValidationError(errors)

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Config:
        workspaces = {
            key.lower(): Workspace(id=key.lower(), **workspace)
            for key, workspace in data["workspaces"].items()
        }
        return Config(
            server=data["server"],
            freeswitch=data["freeswitch"],
            web=data["web"],
            workspaces=workspaces,
            ledger=data["ledger"],
            tracing=data["tracing"],
            logs=data["logs"],
            edge=data["edge"],
            relay=data["relay"],
            egress=data["egress"],
            recording=data["recording"],
        )
