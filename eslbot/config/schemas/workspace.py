"""The tables of a tenant, each with its schema: ``[workspaces.ID]`` and those below it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from marshmallow import ValidationError, fields, post_load, validate, validates_schema

from eslbot.config.fields import (
    BotUrls,
    Duration,
    HostName,
    HttpProxyUrl,
    IpField,
    NetworkField,
    ProxyUrl,
    SealingKey,
    SecretField,
    Share,
    Url,
)
from eslbot.config.model import SAMPLE_RATES, Ameyo, Bot, OwnRecordings
from eslbot.config.placeholders import PLACEHOLDERS, unknown_placeholders
from eslbot.config.schemas.table import (
    NAME,
    Listed,
    Subtable,
    Table,
    clear_text,
    count,
    flag,
    of_one_host,
    required,
    secret_headers,
    text,
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

_PROPERTY_NAME = validate.Regexp(
    re.compile(r"[^\x00-\x1f\x7f]{1,64}"), error="expected a name of 1 to 64 printable characters"
)


class OwnRecordingsSchema(Table):
    """``[workspaces.ID.recording]``."""

    model = OwnRecordings

    announcement = text(
        None,
        r"beep\Z|/[^\0]{1,1000}\Z",
        'expected "beep" or the absolute path of a WAV file, got {input!r}',
    )
    keep = Duration(load_default=None, at_least=3600, at_most=3650 * 86400.0)
    key = SealingKey(load_default=None)
    old_keys = Listed(SealingKey(), load_default=list)


class BotSchema(Table):
    """``[workspaces.ID.bot]``."""

    model = Bot

    urls = BotUrls(required=True, data_key="url", error_messages=required("the bot's wss:// URL"))
    protocol = fields.String(
        load_default="eslbot",
        validate=validate.OneOf(
            list(SAMPLE_RATES), error=f"expected one of {', '.join(SAMPLE_RATES)}, got {{input!r}}"
        ),
        error_messages={"invalid": f"expected one of {', '.join(SAMPLE_RATES)} in quotes"},
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
    headers = secret_headers()
    reconnect = flag()
    insecure = flag()

    @validates_schema(skip_on_field_errors=False)
    def _check(self, data: dict[str, Any], **_: Any) -> None:
        errors: dict[str, Any] = {}
        if clear := clear_text(data.get("urls", ()), data.get("insecure", False)):
            errors["url"] = clear
        if reserved := [name for name in data.get("headers", {}) if name.lower() in RESERVED_HEADERS]:
            errors["headers"] = {
                name: ["is set by eslbot or the WebSocket protocol itself"] for name in reserved
            }
        protocol, rate = data.get("protocol"), data.get("sample_rate")
        if protocol is not None and rate is not None and rate not in SAMPLE_RATES[protocol]:
            rates = " or ".join(map(str, SAMPLE_RATES[protocol]))
            errors["sample_rate"] = [f"expected {rates} with protocol = {protocol!r}, got {rate}"]
        if errors:
            raise ValidationError(errors)


class AmeyoSchema(Table):
    """``[workspaces.ID.ameyo]``."""

    model = Ameyo

    url = Url(required=True, error_messages=required("Ameyo's https:// URL"))
    tenant_host = HostName(required=True, error_messages=required("the tenant's host name at Ameyo"))
    token = SecretField(required=True, error_messages=required('Ameyo\'s token, like "${ACME_AMEYO_TOKEN}"'))
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
    renotify = flag()
    source_address = IpField(load_default=None, validate=of_one_host)
    proxy = HttpProxyUrl(load_default=None)
    insecure = flag()

    @validates_schema(skip_on_field_errors=False)
    def _check(self, data: dict[str, Any], **_: Any) -> None:
        errors: dict[str, Any] = {}
        urls = (data["url"],) if "url" in data else ()
        if clear := clear_text(urls, data.get("insecure", False)):
            errors["url"] = clear
        known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        for key, template in data.get("properties", {}).items():
            if unknown := unknown_placeholders(template):
                errors.setdefault("properties", {})[key] = [
                    f"{{{unknown[0]}}} is not known; known are {known}"
                ]
        errors |= {key: [problem] for key, problem in self._unreachable(data)}
        if errors:
            raise ValidationError(errors)

    def _unreachable(self, data: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Which of ``proxy`` and ``source_address`` no POST can take, and why."""
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
    def _make(self, data: dict[str, Any], **_: Any) -> Any:
        return super()._make({**data, "url": data["url"].rstrip("/")})


class WorkspaceSchema(Table):
    """``[workspaces.ID]``, without its id: what it becomes are a Workspace's other arguments."""

    name = fields.String(
        required=True,
        validate=NAME,
        error_messages={**required('a short name like "acme"'), "invalid": "expected a text in quotes"},
    )
    sources = Listed(
        NetworkField(), required=True, error_messages=required("the addresses of the tenant's SIP gateways")
    )
    max_calls = count(200, 100000)
    max_cps = count(30, 10000)
    max_duration = Duration(load_default=1800.0, at_least=1)
    nat = flag()
    hold_sound = text(
        "silence",
        r"silence\Z|tone\Z|(/[A-Za-z0-9_.-]+)+\Z",
        'expected "silence", "tone" or an absolute path of a sound file, got {input!r}',
    )
    record = Share(load_default=0.0)
    recording = Subtable(OwnRecordingsSchema, load_default=OwnRecordings)
    bot = fields.Nested(BotSchema, required=True, error_messages=required("a table with the bot's url"))
    ameyo = fields.Nested(
        AmeyoSchema, required=True, error_messages=required("a table with url, tenant_host and token")
    )
