"""The ``properties`` of a notification: fixed texts with placeholders, and what the bot may add.

The source is the mission's document, section 2: "accepts any key-value pairs".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

#: What ``{…}`` in a configured property may name.
PLACEHOLDERS = (
    "did",
    "crt_object_id",
    "workspace_id",
    "workspace",
    "call_id",
    "from",
    "to",
    "outcome",
    "reason",
)

#: A property of the bot's that is longer, as JSON, is cut out: Ameyo gets facts, not documents.
MAX_VALUE_BYTES = 2048

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


def unknown_placeholders(template: str) -> list[str]:
    """The names in ``template`` that nothing will fill."""
    return [name for name in _PLACEHOLDER.findall(template) if name not in PLACEHOLDERS]


def fill(templates: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    """Every template with its placeholders replaced, once: a value is never expanded again."""
    return {
        key: _PLACEHOLDER.sub(lambda match: values.get(match[1], ""), template)
        for key, template in templates.items()
    }


def allowed(offered: Mapping[str, Any], names: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """What of the bot's ``offered`` properties goes to Ameyo, and the names of those that do not.

    A name must be listed in the workspace's ``bot_properties``; a value must be a text, a finite number, a
    truth value or null of at most :data:`MAX_VALUE_BYTES`. (Python writes NaN, which is no JSON.)
    """
    taken: dict[str, Any] = {}
    dropped: list[str] = []
    for name, value in offered.items():
        plain = value is None or isinstance(value, str | int | float | bool)
        if isinstance(value, float) and not math.isfinite(value):
            plain = False
        if name in names and plain and len(json.dumps(value)) <= MAX_VALUE_BYTES:
            taken[name] = value
        else:
            dropped.append(name)
    return taken, dropped
