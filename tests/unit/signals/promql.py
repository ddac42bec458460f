"""Which metrics, and which of their labels, an expression of PromQL names."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

#: Words of the language that look like metrics.
KEYWORDS = frozenset(
    {
        *("by", "without", "on", "ignoring", "group_left", "group_right"),
        *("and", "or", "unless", "offset", "bool", "inf", "nan", "start", "end"),
    }
)
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
_RANGE = re.compile(r"\[[^\]]*\]")
_VARIABLE = re.compile(r"\$\{?\w+\}?")
_NUMBER = re.compile(r"\b\d[\w.]*(?:[eE][+-]?\d+)?")
_GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})")
_NAME = re.compile(r"([a-zA-Z_:][\w:]*)(\s*\()?")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")


@dataclass
class Used:
    """``selected``: each metric with the labels that choose among its series; ``grouped``: of the results."""

    selected: dict[str, set[str]] = field(default_factory=dict)
    grouped: set[str] = field(default_factory=set)


def used(expression: str) -> Used:
    """What ``expression`` names."""
    found = Used()
    text = _TEXT.sub('""', expression)
    for _, labels in _GROUPING.findall(text):
        found.grouped |= {label.strip() for label in labels.split(",") if label.strip()}
    text = _GROUPING.sub(" ", _VARIABLE.sub(" ", _RANGE.sub(" ", text)))
    for name, labels in _SELECTOR.findall(text):
        found.selected.setdefault(name, set()).update(_LABEL.findall(labels))
    text = _NUMBER.sub(" ", _SELECTOR.sub(" ", text))
    for name, call in _NAME.findall(text):
        if not call and name.lower() not in KEYWORDS:
            found.selected.setdefault(name, set())
    return found
