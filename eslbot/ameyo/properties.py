"""What the bot may add to a notification: those of its properties that the workspace allows.

The source is the mission's document, section 2: "accepts any key-value pairs". What the operator fixes is
filled in by :mod:`eslbot.config.placeholders`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

#: A property of the bot's that is longer, as JSON, is cut out: Ameyo gets facts, not documents.
MAX_VALUE_BYTES = 2048


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
