"""Asks a running page process whether it answers, and how many calls of each workspace are up."""

from __future__ import annotations

import http.client
import re
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial

from eslbot.config.model import Address
from eslbot.runtime.parallel import together

#: Seconds to ask, and bytes of an answer.
PATIENCE, MOST = 5.0, 16 * 1024 * 1024
_ACTIVE = re.compile(r'^eslbot_calls_active\{[^}]*workspace="([^"]*)"[^}]*\} ([0-9.e+]+)$', re.M)


class CannotCount(Exception):
    """Nobody tells; the text says why."""


def living_calls(web: Address, patience: float = PATIENCE) -> Mapping[str, int]:
    """Calls that are up, by the workspaces' names; those that are not named have none.

    Raises CannotCount, after ``patience`` seconds at the latest.
    """
    address = web.from_own_host
    (result,) = together([partial(_asked, address, patience)], time.monotonic() + patience)
    if isinstance(result.error, OSError | http.client.HTTPException):
        raise CannotCount(f"http://{address}/metrics does not answer: {result.error}") from result.error
    if result.error is not None:
        raise result.error
    if result.value is None:
        raise CannotCount(f"http://{address}/metrics does not answer within {patience:g} s")
    status, text = result.value
    if status != 200:
        raise CannotCount(f"http://{address}/metrics answers {status}")
    found: Counter[str] = Counter()
    for name, value in _ACTIVE.findall(text):
        found[name] += round(float(value))
    return found


def is_silent(address: Address, patience: float = 1.0) -> str:
    """Why the page process does not answer; empty where it does."""
    try:
        status, _ = _asked(address, patience, "/healthz")
    except (OSError, http.client.HTTPException) as error:
        return str((isinstance(error, OSError) and error.strerror) or error)
    return "" if status == 200 else f"what is there answers {status}"


def _asked(address: Address, patience: float, path: str = "/metrics") -> tuple[int, str]:
    connection = http.client.HTTPConnection(*address.pair, timeout=patience)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(MOST).decode("utf-8", "replace")
    finally:
        connection.close()
