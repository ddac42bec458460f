"""The configuration: one TOML file in, validated objects out.

:func:`load` is the only way in; the objects it returns are described in :mod:`eslbot.config.model`.
"""

from eslbot.config.loader import load
from eslbot.config.model import (
    Address,
    Ameyo,
    Bot,
    Config,
    ConfigError,
    Edge,
    Egress,
    FreeSwitch,
    Ledger,
    Logs,
    PageToken,
    Relay,
    Secret,
    Server,
    Web,
    Workspace,
)

__all__ = [
    "Address",
    "Ameyo",
    "Bot",
    "Config",
    "ConfigError",
    "Edge",
    "Egress",
    "FreeSwitch",
    "Ledger",
    "Logs",
    "PageToken",
    "Relay",
    "Secret",
    "Server",
    "Web",
    "Workspace",
    "load",
]
