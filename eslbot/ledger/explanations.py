"""A call explained in a sentence: why it ended, and how good its audio was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eslbot.calls import hangup
from eslbot.ledger.parsing import number
from eslbot.ledger.schema import REFUSED, Row

_OUTCOMES = {
    "bot_ended": "The bot said that it was done",
    "bot_closed": "The bot closed its connection, which means that it was done",
    "bot_unreachable": "No URL of the bot's took the connection",
    "bot_failed": "The bot's connection broke off",
    "bot_silent": "The bot said nothing within first_audio_timeout",
    "relay_lost": "No relay carried the line any more",
    "switch_lost": "FreeSWITCH died again and again under the call",
    "max_duration": "The workspace's max_duration was reached",
    "controller_lost": "A worker went away, and how the bot had ended with it",
    "internal_error": "A fault of eslbot, told in its log, ended the bot's part",
    "media_timeout": "The PBX sent no audio any more, and no BYE",
    "our_bye": "Our side ended it before the bot was done",
}
_FAULTS = {"bot": "the bot's", "ameyo": "Ameyo's", "pbx": "the PBX's", "eslbot": "eslbot's"}
_REFUSALS = {
    "unknown_workspace": "its X-Workspace-ID is not configured",
    "foreign_source": "it came from an address that is not this workspace's",
    "worker_full": "server.max_calls was reached",
    "workspace_full": "the workspace's max_calls was reached",
    "source_rate": "its source sent more calls a second than max_cps",
}
#: The least MOS of each word, and the share of lost packets that it stays below.
_MOS = ((4.0, "good"), (3.6, "fair"), (3.1, "poor"))
_LOSS = ((0.01, "good"), (0.03, "fair"), (0.1, "poor"))
_WORDS = ("good", "fair", "poor", "bad")


def why_it_ended(row: Row) -> str | None:
    """Why the call ended, in a sentence or two; None while it lives."""
    if row["stage"] == REFUSED:
        return _refused(row)
    if row["ended_at"] is None:
        return None
    parts = [_bot_part(row), _hand_off(row), _hang_up(row)]
    text = "; ".join(part for part in parts if part) + "."
    fault = _FAULTS.get(row["fault"] or "")
    return f"{text} The fault was {fault}." if fault else text


def _refused(row: Row) -> str:
    status = f" with {row['refusal_status']}" if row["refusal_status"] is not None else ""
    known, detail = _REFUSALS.get(row["refusal"] or ""), row["reason"]
    why = known or detail or (row["refusal"] or "").replace("_", " ") or "nobody knows why"
    return f"Refused{status}: {why} ({detail})." if known and detail else f"Refused{status}: {why}."


def _bot_part(row: Row) -> str:
    outcome = row["outcome"]
    if outcome == "caller_hangup":
        talking = "talking" if row["bot_connected_at"] is not None else "being connected"
        said = f"The caller hung up while the bot was {talking}: there was nobody to hand off"
    elif outcome is None:
        said = "The call ended before it was answered" if row["answered_at"] is None else "The call ended"
    else:
        said = _OUTCOMES.get(outcome, f"It came to {str(outcome).replace('_', ' ')}")
    return f"{said} ({row['reason']})" if row["reason"] else said


def _hand_off(row: Row) -> str:
    if row["handed_off_at"] is not None:
        return "Ameyo took the customer"
    if not row["attempts"]:
        return ""
    count = f"{row['attempts']} attempts" if row["attempts"] != 1 else "1 attempt"
    status = row["attempt_status"]
    last = f", and answered {status} last" if status is not None else ""
    return f"Ameyo did not take the customer in {count}{last}"


def _hang_up(row: Row) -> str:
    if row["end_unseen"]:
        return "nobody saw the end, which fell between two controllers"
    match row["sip_hangup_disposition"]:
        case None:
            return ""
        case "recv_bye":
            return "the PBX ended the call"
        case "recv_cancel":
            return "the PBX cancelled it before it was answered"
        case "send_bye":
            ours = hangup.why(row["hangup_cause"] or "")
            return f"our side sent the BYE: {ours.words}; {ours.remedy}"
        case other:
            return f"FreeSWITCH says {other} ({row['hangup_cause'] or 'no cause'})"


@dataclass(frozen=True, slots=True)
class AudioQuality:
    """The audio from the PBX: a word for it, and the figures behind it."""

    word: str
    figures: str


def audio_quality(media: Mapping[str, Any] | None) -> AudioQuality | None:
    """By what FreeSWITCH has counted (:mod:`eslbot.calls.media`): the worse of its MOS and the loss.

    None where it has counted nothing.
    """
    media = media or {}
    packets, mos, jitter = (number(media.get(name)) for name in ("packets_in", "mos", "jitter_max_variance"))
    skipped = number(media.get("skipped_in")) or 0.0
    codec = f", {media['codec']}" if isinstance(media.get("codec"), str) else ""
    if packets is None:
        return None
    if not packets:
        return AudioQuality("no audio came from the PBX", f"0 packets in{codec}")
    loss = skipped / (packets + skipped)
    words = [next((word for most, word in _LOSS if loss < most), "bad")]
    figures = f"{skipped:,.0f} of {packets + skipped:,.0f} packets missing ({100 * loss:.1f} %)"
    if mos is not None:
        words.append(next((word for least, word in _MOS if mos >= least), "bad"))
        figures = f"MOS {mos:.1f}, {figures}"
    if jitter is not None:
        figures += f", jitter variance up to {jitter:.1f}"
    return AudioQuality(max(words, key=_WORDS.index), figures + codec)
