"""How many calls of each tenant are up, as the service's ``/metrics`` tells; asked from outside."""

from __future__ import annotations

import http.client
import re
from collections import Counter
from collections.abc import Mapping

from eslbot.config.model import Address

#: Seconds to ask, and bytes of an answer.
PATIENCE, MOST = 5.0, 16 * 1024 * 1024
_ACTIVE = re.compile(r'^eslbot_calls_active\{[^}]*workspace="([^"]*)"[^}]*\} ([0-9.e+]+)$', re.M)


class CannotCount(Exception):
    """Nobody tells; the text says why."""


def living_calls(web: Address, patience: float = PATIENCE) -> Mapping[str, int]:
    """Calls that are up, by the workspaces' names; 0 for those that are not named. Raises CannotCount."""
    address = web.from_own_host
    connection = http.client.HTTPConnection(*address.pair, timeout=patience)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        text = answer.read(MOST).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise CannotCount(f"http://{address}/metrics does not answer: {error}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise CannotCount(f"http://{address}/metrics answers {answer.status}")
    found: Counter[str] = Counter()
    for name, value in _ACTIVE.findall(text):
        found[name] += round(float(value))
    return found
