"""Percentiles, as everything in the ledger computes them."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(ordered: Sequence[float], share: int) -> float | None:
    """The smallest of the sorted values that ``share`` percent do not exceed; None without values."""
    if not ordered:
        return None
    return round(ordered[max(0, math.ceil(len(ordered) * share / 100) - 1)], 6)
