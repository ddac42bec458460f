"""The tests' own reader of PromQL."""

from __future__ import annotations

import pytest

from tests.unit.signals.promql import Used, used


@pytest.mark.parametrize(
    ("expression", "selected", "grouped"),
    [
        ('up{job="eslbot"} == 0 or absent(up{job="x"})', {"up": {"job"}}, set()),
        ("sum by (a, b) (rate(m_total[5m])) > 64e6", {"m_total": set()}, {"a", "b"}),
        ("sum(m) without(c) - n offset 1w", {"m": set(), "n": set()}, {"c"}),
        ('m{l=~"a|b{c}", k!="by"} / on (i) group_left (j) n', {"m": {"l", "k"}, "n": set()}, {"i", "j"}),
        ('histogram_quantile(0.95, rate(m_bucket{w=~"$w"}[$__rate_interval]))', {"m_bucket": {"w"}}, set()),
        ("clamp_min(m, 1) unless n", {"m": set(), "n": set()}, set()),
    ],
)
def test_what_an_expression_names(expression: str, selected: dict[str, set[str]], grouped: set[str]) -> None:
    assert used(expression) == Used(selected, grouped)
