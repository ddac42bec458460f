"""``{did}`` and the like in a workspace's ``ameyo.properties``: which there are, and filling them in."""

from __future__ import annotations

import re
from collections.abc import Mapping

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
