"""Percentiles, as all of the ledger's figures have them."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(ordered: Sequence[float], share: int) -> float | None:
    """The smallest value that ``share`` percent are not above."""
    if not ordered:
        return None
    return round(ordered[max(0, math.ceil(len(ordered) * share / 100) - 1)], 6)
