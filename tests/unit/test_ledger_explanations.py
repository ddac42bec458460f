"""Why a call ended, and how its audio was, as people say it."""

from __future__ import annotations

from typing import Any

import pytest

from eslbot.ledger.explanations import AudioQuality, audio_quality, why_it_ended
from eslbot.ledger.schema import calls
from eslbot.outcome import Outcome

NOON = 1_790_000_000.0


def row(**values: Any) -> dict[str, Any]:
    return {
        **dict.fromkeys(column.name for column in calls.columns),
        "stage": "held",
        "invited_at": NOON,
        "answered_at": NOON + 1,
        "ended_at": NOON + 60,
        "attempts": 0,
        "end_unseen": False,
        **values,
    }


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"ended_at": None}, None),
        (
            {
                "outcome": "bot_ended",
                "attempts": 1,
                "handed_off_at": NOON + 50,
                "sip_hangup_disposition": "recv_bye",
                "fault": "none",
            },
            "The bot said that it was done; Ameyo took the customer; the PBX ended the call.",
        ),
        (
            {
                "outcome": "bot_ended",
                "attempts": 4,
                "attempt_status": 401,
                "sip_hangup_disposition": "recv_bye",
                "fault": "ameyo",
            },
            "The bot said that it was done; Ameyo did not take the customer in 4 attempts, and answered 401 "
            "last; the PBX ended the call. The fault was Ameyo's.",
        ),
        (
            {"outcome": "bot_failed", "reason": "closed with 1011", "attempts": 1, "fault": "bot"},
            "The bot's connection broke off (closed with 1011); Ameyo did not take the customer in 1 attempt."
            " The fault was the bot's.",
        ),
        (
            {
                "outcome": "caller_hangup",
                "bot_connected_at": NOON + 2,
                "sip_hangup_disposition": "recv_bye",
            },
            "The caller hung up while the bot was talking: there was nobody to hand off; the PBX ended the "
            "call.",
        ),
        (
            {"outcome": None, "answered_at": None, "sip_hangup_disposition": "recv_cancel"},
            "The call ended before it was answered; the PBX cancelled it before it was answered.",
        ),
        (
            {"outcome": "controller_lost", "end_unseen": True, "fault": "eslbot"},
            "A worker went away, and how the bot had ended with it; nobody saw the end, which fell between "
            "two controllers. The fault was eslbot's.",
        ),
        (
            {"stage": "refused", "refusal_status": 403, "refusal": "unknown_workspace", "reason": "no x"},
            "Refused with 403: its X-Workspace-ID is not configured (no x).",
        ),
        (
            {"stage": "refused", "refusal_status": 400, "refusal": "malformed_x", "reason": "no '|' in it"},
            "Refused with 400: no '|' in it.",
        ),
        ({"stage": "refused"}, "Refused: nobody knows why."),
    ],
)
def test_why_a_call_ended(values: dict[str, Any], said: str | None) -> None:
    assert why_it_ended(row(**values)) == said


def test_a_bye_of_ours_says_what_to_do() -> None:
    said = why_it_ended(
        row(
            outcome="our_bye",
            sip_hangup_disposition="send_bye",
            hangup_cause="SYSTEM_SHUTDOWN",
            fault="eslbot",
        )
    )
    assert said is not None
    assert "FreeSWITCH was stopped with the call up; pause it first" in said


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_has_its_words(outcome: str) -> None:
    said = why_it_ended(row(outcome=str(outcome)))
    assert said is not None
    assert not said.startswith("It came to")
    assert "None" not in said


WELL = {"packets_in": 2400, "skipped_in": 0, "mos": 4.5, "codec": "PCMU"}


@pytest.mark.parametrize(
    ("media", "heard"),
    [
        (None, None),
        ({}, None),
        ({"codec": "PCMU"}, None),
        ({"packets_in": "many"}, None),
        (WELL, AudioQuality("good", "MOS 4.5, 0 of 2,400 packets missing (0.0 %), PCMU")),
        ({**WELL, "mos": 3.7}, AudioQuality("fair", "MOS 3.7, 0 of 2,400 packets missing (0.0 %), PCMU")),
        ({**WELL, "mos": 1.0}, AudioQuality("bad", "MOS 1.0, 0 of 2,400 packets missing (0.0 %), PCMU")),
        (
            {**WELL, "skipped_in": 100},
            AudioQuality("poor", "MOS 4.5, 100 of 2,500 packets missing (4.0 %), PCMU"),
        ),
        (
            {"packets_in": 90, "skipped_in": 10, "jitter_max_variance": 7.25},
            AudioQuality("bad", "10 of 100 packets missing (10.0 %), jitter variance up to 7.2"),
        ),
        ({**WELL, "packets_in": 0}, AudioQuality("no audio came from the PBX", "0 packets in, PCMU")),
    ],
)
def test_how_the_audio_was(media: dict[str, Any] | None, heard: AudioQuality | None) -> None:
    assert audio_quality(media) == heard
