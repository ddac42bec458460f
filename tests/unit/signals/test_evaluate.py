"""The small evaluation says what promtool would of one scrape."""

from __future__ import annotations

import pytest

from tests.unit.signals.evaluate import firing, rules, samples

WELL = """
# HELP eslbot_health Of each component.
eslbot_health{component="freeswitch",workspace=""} 2.0
eslbot_health{component="event_socket",workspace=""} 2.0
eslbot_health{component="relays",workspace=""} 2.0
eslbot_health{component="ledger",workspace=""} -1.0
eslbot_workers_ready 2.0
eslbot_workers_wanted 2.0
eslbot_relay_ready 1.0
eslbot_relay_wanted 1.0
eslbot_calls_hand_off_failing{workspace="acme"} 0.0
eslbot_calls_bye_overdue{workspace="acme"} 0.0
eslbot_calls_not_verified 0.0
"""


def test_a_scrape_is_read() -> None:
    found = samples('a 1.0\nb{x="y",z="a\\"}b"} 2e3\n# c 4\n')
    assert [(one.name, one.labels, one.value) for one in found] == [
        ("a", (), 1.0),
        ("b", (("x", "y"), ("z", 'a\\"}b')), 2000.0),
    ]


def test_every_rule_is_read() -> None:
    assert len(rules()) > 35
    assert all(rules().values())


def test_a_service_that_is_well_fires_nothing() -> None:
    assert firing(WELL) == set()


@pytest.mark.parametrize(
    ("was", "now", "alert"),
    [
        ('"freeswitch",workspace=""} 2.0', '"freeswitch",workspace=""} 0.0', "EslbotFreeSwitchGone"),
        ('"event_socket",workspace=""} 2.0', '"event_socket",workspace=""} 0.0', "EslbotEventSocketLost"),
        ('"relays",workspace=""} 2.0', '"relays",workspace=""} 0.0', "EslbotRelaysGone"),
        ('"ledger",workspace=""} -1.0', '"ledger",workspace=""} 0.0', "EslbotLedgerDown"),
        ("eslbot_workers_ready 2.0", "eslbot_workers_ready 1.0", "EslbotWorkersMissing"),
        ("eslbot_relay_ready 1.0", "eslbot_relay_ready 0.0", "EslbotRelayDown"),
        ('failing{workspace="acme"} 0.0', 'failing{workspace="acme"} 5.0', "EslbotHandOffFailingNow"),
        ('overdue{workspace="acme"} 0.0', 'overdue{workspace="acme"} 1.0', "EslbotByeOverdue"),
        ("eslbot_calls_not_verified 0.0", "eslbot_calls_not_verified 1.0", "EslbotIdentityNotVerified"),
    ],
)
def test_each_outage_fires_its_alert_and_no_other(was: str, now: str, alert: str) -> None:
    assert was in WELL
    assert firing(WELL.replace(was, now)) == {alert}


def test_an_event_socket_that_went_with_freeswitch_is_no_alert_of_its_own() -> None:
    assert firing(WELL.replace('workspace=""} 2.0', 'workspace=""} 0.0')) == {
        "EslbotFreeSwitchGone",
        "EslbotRelaysGone",
    }
