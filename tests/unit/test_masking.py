"""Numbers for eyes that may not see them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eslbot.telemetry.masking import LONGEST, masked, masked_text


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        ("00919990152080", "0091••••••••80"),
        ("+919990152080", "+919•••••••80"),
        ("9990152080", "9990••••80"),
        ("999015208", "•••••••••"),
        ("1001", "••••"),
        ("", ""),
    ],
)
def test_of_a_number_the_country_and_the_last_two_digits_are_shown(number: str, shown: str) -> None:
    assert masked(number) == shown


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("<script>alert(1)</script>", "•" * LONGEST),
        ("\x1b[2J\r\nadmin: yes", "••2" + "•" * 13),
        ("0091\x00990152080", "0091••••••••80"),
        ("٠٠٩١٩٩٩٠١٥٢٠٨٠", "•" * 14),  # Arabic digits are digits, too
        ("00++90152080", "00••••••••80"),
        ("7" * 1_000_000, "7777" + "•" * (LONGEST - 6) + "77"),
    ],
)
def test_a_text_that_is_no_number_is_not_shown(hostile: str, shown: str) -> None:
    assert masked(hostile) == shown


@given(st.text())
def test_never_more_than_six_characters_are_shown_and_all_of_them_are_harmless(text: str) -> None:
    shown = masked(text)
    assert len(shown) <= LONGEST
    assert len(shown.replace("•", "")) <= min(6, max(0, len(text) - 4))
    assert set(shown) <= set("0123456789+•")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("display name '+919990152080|crt-bad'", "display name '+919•••••••80|crt-bad'"),
        ("no such number 00919990152080.", "no such number 0091••••••••80."),
        ("x00919990152080x", "x0091••••••••80x"),
        ("9" * 40, "9999" + "•" * 18 + "99"),
        ("status 503 after 123456 ms", "status 503 after 123456 ms"),
    ],
)
def test_numbers_within_a_text(text: str, shown: str) -> None:
    assert masked_text(text) == shown
