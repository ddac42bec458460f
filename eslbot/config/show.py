"""The configuration in force as TOML, with every secret masked: what ``eslbot check`` prints."""

from __future__ import annotations

from typing import Any

import tomli_w

from eslbot.config.fields import revealing_secrets
from eslbot.config.model import Config, Workspace
from eslbot.config.schemas.whole import ConfigSchema
from eslbot.config.schemas.workspace import WorkspaceSchema


def show(config: Config) -> str:
    """TOML text that :func:`eslbot.config.load` would accept, but for the masks."""
    return tomli_w.dumps(as_tree(config))


def as_tree(config: Config) -> dict[str, Any]:
    """The same as a tree of tables, lists, texts and numbers."""
    found: dict[str, Any] = ConfigSchema().dump(config)
    return found


def workspace_table(workspace: Workspace) -> dict[str, Any]:
    """A workspace as its table of TOML, its secrets in the clear: for nobody to see."""
    with revealing_secrets():
        found: dict[str, Any] = WorkspaceSchema().dump(workspace)
    return found
