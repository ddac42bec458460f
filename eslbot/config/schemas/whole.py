"""The schema of the whole file, and what only several tables together can get wrong."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from marshmallow import ValidationError, fields, post_load, validate, validates_schema

from eslbot.config.model import Address, Config, Egress, Recordings, Relay, Server, Tracing, Web, Workspace
from eslbot.config.schemas.service import (
    EdgeSchema,
    EgressSchema,
    FreeSwitchSchema,
    LedgerSchema,
    LogsSchema,
    RecordingsSchema,
    RelaySchema,
    ServerSchema,
    TracingSchema,
    WebSchema,
)
from eslbot.config.schemas.table import Subtable, Table, required
from eslbot.config.schemas.workspace import WorkspaceSchema


def _workspace_id(text: str) -> None:
    try:
        well_formed = str(UUID(text)) == text.lower()
    except ValueError:
        well_formed = False
    if not well_formed:
        raise ValidationError(
            "expected a workspace id (a UUID like 2b37ba17-7b20-4b3e-b138-1161e351d5c5) as the table's name"
        )


class ConfigSchema(Table):
    """The whole file."""

    server = fields.Nested(ServerSchema, load_default=lambda: ServerSchema().load({}))
    freeswitch = fields.Nested(FreeSwitchSchema, load_default=lambda: FreeSwitchSchema().load({}))
    edge = fields.Nested(EdgeSchema, load_default=None)
    relay = fields.Nested(RelaySchema, load_default=Relay)
    egress = Subtable(EgressSchema, load_default=Egress)
    recording = fields.Nested(RecordingsSchema, load_default=Recordings)
    web = fields.Nested(WebSchema, load_default=lambda: WebSchema().load({}))
    logs = fields.Nested(LogsSchema, load_default=lambda: LogsSchema().load({}))
    ledger = fields.Nested(LedgerSchema, load_default=None)
    tracing = fields.Nested(TracingSchema, load_default=None)
    workspaces = fields.Dict(
        keys=fields.String(validate=_workspace_id),
        values=fields.Nested(WorkspaceSchema),
        required=True,
        validate=validate.Length(min=1, error="expected at least one workspace"),
        error_messages={
            **required("at least one [workspaces.<UUID>] table"),
            "invalid": "expected tables named by workspace id",
        },
    )

    @validates_schema(skip_on_field_errors=False)
    def _check(self, data: dict[str, Any], **_: Any) -> None:
        errors: dict[str, Any] = _listeners(data)
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
        web = data.get("web")
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
        return Config(**{**data, "workspaces": workspaces})


def _listeners(data: dict[str, Any]) -> dict[str, Any]:
    """An error for each listener whose address another one has."""
    # A table with errors of its own is here as far as it was read: a dictionary, not its object.
    server = data.get("server")
    listeners: list[tuple[str, str, Address]] = []
    if isinstance(server, Server):
        listeners += [("server", "listen", server.listen), ("server", "health", server.health)]
    for name in ("web", "relay"):
        if isinstance(table := data.get(name), Web | Relay):
            listeners.append((name, "listen", table.listen))
    errors: dict[str, Any] = {}
    taken: dict[Address, str] = {}
    for name, key, address in listeners:
        first = taken.setdefault(address, f"{name}.{key}")
        if first != f"{name}.{key}":
            errors[name] = {key: [f"{address} is {first} already; each needs its own"]}
    return errors
