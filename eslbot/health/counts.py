"""How many processes of the service are there and take calls, by what they show in their metrics."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict

from eslbot import rows


def total(directory: Path, gauge: str) -> int:
    """The sum of a ``livesum`` gauge without labels over the living processes. Raises OSError."""
    key = f'["{gauge}"'
    found = 0.0
    for path in rows.of_the_living(directory):
        if not path.name.startswith("gauge_livesum_"):
            continue
        try:
            for name, value, *_ in MmapedDict.read_all_values_from_file(str(path)):  # type: ignore[no-untyped-call]
                if name.startswith(key):
                    found += value
        except rows.UNREADABLE:  # made this moment, or of a process that ends: it does not count
            continue
    return round(found)
