"""The result, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from eslbot.doctor.examine import TITLES, Checked
from eslbot.doctor.findings import Severity

#: Of the JSON; a field may be added without a new one.
VERSION = 1

_WORDS = {
    Severity.OK: ("ok", 32),
    Severity.NOTE: ("note", 36),
    Severity.UNKNOWN: ("?", 35),
    Severity.WARNING: ("warning", 33),
    Severity.ERROR: ("ERROR", 31),
}


def exit_code(checked: Sequence[Checked], *, strict: bool = False) -> int:
    """1 where there is an error, with ``strict`` or a warning; else 0. (2: it could not begin.)"""
    bad = {Severity.ERROR, Severity.WARNING} if strict else {Severity.ERROR}
    return int(any(c.severity in bad for c in checked))


def counts(checked: Sequence[Checked]) -> dict[str, int]:
    """How many findings there are of each severity."""
    found = [finding.severity for c in checked for finding in c.findings]
    return {severity.value: found.count(severity) for severity in Severity}


def text(checked: Sequence[Checked], *, colour: bool = False) -> Iterator[str]:
    """Lines: one for what is fine; what, why and how to mend it for the rest; a verdict at last."""
    width = max((len(c.name) for c in checked), default=0)
    margin = " " * (11 + width)
    for check in checked:
        for finding in check.findings:
            word, number = _WORDS[finding.severity]
            mark = f"\x1b[{number}m{word:7}\x1b[0m" if colour else f"{word:7}"
            yield f"{mark}  {check.name:{width}}  {finding.looked_at}: {finding.found}"
            if finding.why:
                yield f"{margin}why:    {finding.why}"
            if finding.remedy:
                yield f"{margin}remedy: {finding.remedy}"
    found = counts(checked)
    wrong = [f"{found[s]} {s}{'' if found[s] == 1 else 's'}" for s in ("error", "warning") if found[s]]
    rest = f"{found['ok']} fine, {found['note']} to know, {found['unknown']} not checked"
    yield f"{' and '.join(wrong) or 'nothing to mend'} ({rest})"


def as_json(checked: Sequence[Checked], *, strict: bool = False) -> str:
    """One JSON object."""
    return json.dumps(
        {
            "version": VERSION,
            "exit_code": exit_code(checked, strict=strict),
            "counts": counts(checked),
            "checks": [
                {
                    "check": c.name,
                    "title": TITLES[c.name],
                    "severity": c.severity.value,
                    "seconds": round(c.seconds, 3),
                    "findings": [
                        {
                            "severity": finding.severity.value,
                            "looked_at": finding.looked_at,
                            "found": finding.found,
                            "why": finding.why,
                            "remedy": finding.remedy,
                        }
                        for finding in c.findings
                    ],
                }
                for c in checked
            ],
        },
        ensure_ascii=False,
    )
