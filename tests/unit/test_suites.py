"""The files that tests/conftest.py names are there, and a process's share has one laboratory."""

from __future__ import annotations

import pytest

from tests import conftest


@pytest.mark.parametrize(
    "place", sorted({*conftest.SLOW, *conftest.OWN, *conftest.LABORATORIES, *conftest.LONG, *conftest.ORDER})
)
def test_each_place_is_there(place: str) -> None:
    assert (conftest.HERE / place).exists()


@pytest.mark.parametrize(
    ("test", "share"),
    [
        ("tests/e2e/calls/test_call.py::test_happy_path[freeswitch-udp-PCMU]", "e2e/calls/[freeswitch]"),
        ("tests/e2e/calls/test_speech.py::test_keys_reach_the_bot[stand-in]", "e2e/calls/[stand-in]"),
        ("tests/e2e/calls/test_turns.py::test_of_no_switch", "e2e/calls/"),
        (
            "tests/e2e/calls/test_two_hosts.py::test_calls_move[freeswitch]",
            "tests/e2e/calls/test_two_hosts.py[freeswitch]",
        ),
        ("tests/unit/test_turn.py::test_a[True-False]", "tests/unit/test_turn.py"),
        ("integrations/eslbot-bot/tests/test_sdk.py::test_a", "integrations/eslbot-bot/tests/test_sdk.py"),
    ],
)
def test_a_share(test: str, share: str) -> None:
    assert conftest.share(test) == share
