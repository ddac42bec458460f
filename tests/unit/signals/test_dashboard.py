"""The dashboard can be imported, and names what exists."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.signals.figures import TARGET, names, samples
from tests.unit.signals.promql import used

DASHBOARD = json.loads((Path(__file__).parents[3] / "deploy" / "grafana-dashboard.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
#: Grafana's own.
BUILT_IN = {"__rate_interval", "__range"}

each_panel = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])


def test_it_can_be_imported() -> None:
    assert DASHBOARD["id"] is None  # else Grafana looks for the one it already has
    assert DASHBOARD["uid"] == "eslbot"
    assert VARIABLES["datasource"]["type"] == "datasource"
    assert VARIABLES["datasource"]["query"] == "prometheus"
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_it_has_its_rows_in_order() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == [
        "Health",
        "Now",
        "Hand-off",
        "Bot",
        "Ameyo",
        "FreeSWITCH and the BYE",
        "Ledger",
        "Service",
        "Relay",
        "Recordings",
        "Turns and traces",
    ]


def test_no_two_panels_lie_on_one_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert taken.isdisjoint(cells)
        taken |= cells


@each_panel
def test_a_panel_names_what_exists(panel: dict[str, Any]) -> None:
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["targets"]
    for target in panel["targets"]:
        named = used(target["expr"])
        assert named.selected
        for metric, labels in named.selected.items():
            assert metric in samples()
            assert labels <= samples()[metric]
            assert named.grouped <= samples()[metric]
        variables = set(re.findall(r"\$\{?(\w+)", target["expr"]))
        assert variables <= VARIABLES.keys() | BUILT_IN
        # A panel of a metric that has workspaces shows those that were chosen.
        if all("workspace" in samples()[metric] for metric in named.selected):
            assert "workspace" in variables
        legend = set(re.findall(r"{{\s*(\w+)\s*}}", target["legendFormat"]))
        assert legend <= (named.grouped or TARGET)


@each_panel
def test_a_panel_says_what_it_shows_and_in_which_unit(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    unit = panel["fieldConfig"]["defaults"]["unit"]
    in_seconds = re.compile(
        r"_seconds_bucket|increase\(\w+_seconds_total|_lag_seconds|_ends_timestamp_seconds"
    )
    seconds = any(in_seconds.search(target["expr"]) for target in panel["targets"])
    assert (unit == "s") is seconds


def test_variables_are_of_what_exists() -> None:
    metric, label = re.fullmatch(
        r"label_values\((\w+), (\w+)\)", VARIABLES["workspace"]["query"]["query"]
    ).groups()  # type: ignore[union-attr]
    assert label in samples()[metric]
    assert VARIABLES["workspace"]["includeAll"]
    assert VARIABLES["workspace"]["multi"]


def test_every_figure_is_shown() -> None:
    shown = {
        metric for panel in PANELS for target in panel["targets"] for metric in used(target["expr"]).selected
    }
    of_histograms = {
        name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in shown
    }
    assert names() - shown - of_histograms == set()
