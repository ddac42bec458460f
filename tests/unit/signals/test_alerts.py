"""The alert rules name what exists, and each alert is explained."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.signals.figures import TARGET, samples
from tests.unit.signals.promql import used

ROOT = Path(__file__).parents[3]
RULES = ROOT / "deploy" / "alerts.yml"
HERE = Path(__file__).parent
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()

promtool = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(promtool is None, reason="promtool is not installed (Debian: prometheus)")


@dataclass
class Alert:
    """One rule; its keys as in the file, those of labels and annotations beside the others."""

    name: str
    keys: dict[str, str]


def alerts() -> list[Alert]:
    """The rules. The file is YAML, of which this reads what the file uses; promtool reads all of it."""
    found: list[Alert] = []
    key = ""
    for line in RULES.read_text().splitlines():
        if began := re.fullmatch(r"      - alert: (\w+)", line):
            found.append(Alert(began[1], {}))
        elif found and (pair := re.fullmatch(r" {8}(?: {2})?([a-z_]+): ?(.*)", line)):
            key = pair[1]
            found[-1].keys[key] = "" if pair[2] == ">-" else pair[2].strip('"')
        elif found and line.strip():
            found[-1].keys[key] += " " + line.strip()
    return found


ALERTS = alerts()
each_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)


def test_all_of_them_were_read() -> None:
    assert len(ALERTS) == RULES.read_text().count("alert:") >= 20
    assert len({alert.name for alert in ALERTS}) == len(ALERTS)


@each_alert
def test_an_alert_names_what_exists(alert: Alert) -> None:
    known, named = samples(), used(alert.keys["expr"])
    assert named.selected
    for metric, labels in named.selected.items():
        assert metric in known
        assert labels <= known[metric]
        # An aggregation by a label that a metric does not have would be of one series only.
        assert named.grouped <= known[metric] | {"le"}


@each_alert
def test_an_alert_tells_what_an_operator_needs(alert: Alert) -> None:
    assert alert.name.startswith("Eslbot")
    assert alert.keys["severity"] in ("critical", "warning")
    assert alert.keys["summary"]
    assert alert.keys["description"].endswith((".", "}"))
    assert alert.keys["runbook_url"] == f"docs/operations.md#{alert.name.lower()}"


@each_alert
def test_texts_name_labels_that_the_alert_has(alert: Alert) -> None:
    named = used(alert.keys["expr"])
    has = set.intersection(*(set(samples()[metric]) for metric in named.selected))
    if named.grouped:
        has = named.grouped
    texts = alert.keys["summary"] + alert.keys["description"]
    assert set(re.findall(r"\$labels\.(\w+)", texts)) <= has | TARGET


def test_each_alert_has_its_section_and_the_other_way_round() -> None:
    sections = re.findall(r"^### (Eslbot\w+)$", OPERATIONS, re.M)
    assert sorted(sections) == sorted(alert.name for alert in ALERTS)


@each_alert
def test_its_section_says_what_it_is_and_what_to_do(alert: Alert) -> None:
    section = OPERATIONS.split(f"### {alert.name}\n")[1].split("\n#")[0]
    for part in ("**Means:**", "**Customers:**", "**Look:**", "**Do:**"):
        assert section.count(part) == 1


@needs_promtool
def test_prometheus_takes_the_rules() -> None:
    assert promtool is not None
    subprocess.run([promtool, "check", "rules", str(RULES)], check=True, timeout=60)


@needs_promtool
@pytest.mark.parametrize("tests", ["alerts_test.yml", "alerts_of_weeks_test.yml", "outages_test.yml"])
def test_alerts_fire_when_they_should_and_not_else(tests: str, tmp_path: Path) -> None:
    assert promtool is not None
    with_rules = tmp_path / tests
    with_rules.write_text((HERE / tests).read_text().replace("  - RULES\n", f"  - {RULES}\n"))
    done = subprocess.run([promtool, "test", "rules", str(with_rules)], capture_output=True, timeout=60)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
