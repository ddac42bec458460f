"""The ledger for a terminal: calls, one call's story, and what many calls came to."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from eslbot.ledger.fold import Row
from eslbot.ledger.lines import csv_lines
from eslbot.ledger.masks import masked_facts, masked_row
from eslbot.ledger.queries import MEASURES, Story
from eslbot.ledger.schema import calls
from eslbot.ledger.sentences import ending, quality
from eslbot.telemetry.masking import masked_text

_AGO = re.compile(r"(\d{1,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
#: What cannot be shown on a terminal: it may be an order to it.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def moment(text: str, now: float) -> float:
    """Epoch seconds of ``2h`` (ago), ``2026-11-23``, or ``2026-11-23T10:15[:30][Z|+05:30]``; without a zone
    it is UTC. Raises ValueError."""
    if match := _AGO.fullmatch(text):
        return now - int(match[1]) * _SECONDS[match[2]]
    when = datetime.fromisoformat(text)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def shown_time(at: float | None, pattern: str = "%Y-%m-%d %H:%M:%S") -> str:
    """UTC, to the second; nothing where it is not known."""
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime(pattern)


def clean(text: object) -> str:
    """For a terminal: what is no text for people is a question mark."""
    return _CONTROL.sub("?", str(text))


# -- calls -------------------------------------------------------------------------------------------------

_COLUMNS = (
    ("INVITED (UTC)", 19),
    ("WORKSPACE", 12),
    ("DID", 16),
    ("CRT OBJECT ID", 24),
    ("STAGE", 11),
    ("OUTCOME", 16),
    ("FAULT", 7),
    ("HANDED OFF", 10),
    ("SECONDS", 8),
    ("NOTES", 5),
    ("CALL ID", 36),
)


def table(rows: Iterable[Row], now: float) -> Iterator[str]:
    """A line a call, under a heading."""
    yield "  ".join(f"{title:{width}}" for title, width in _COLUMNS).rstrip()
    for row in rows:
        end = row["ended_at"]
        since = row["answered_at"] or row["invited_at"]
        refused = row["refusal"] and f"{row['refusal_status']} {row['refusal']}"
        unseen = end is not None and row["end_unseen"]
        cells = (
            shown_time(row["invited_at"]),
            row["workspace"] or row["workspace_id"] or "-",
            row["did"] or "-",
            row["crt_object_id"] or "-",
            row["stage"] if end is None or row["refusal"] else "unseen" if unseen else "ended",
            refused or row["outcome"] or "-",
            row["fault"] or "-",
            "yes" if row["handed_off_at"] is not None else "no",
            f"{(now if end is None else end) - since:.1f}",
            restarted(row) or "",
            row["call_id"],
        )
        yield "  ".join(
            f"{clean(cell):{width}}" for cell, (_, width) in zip(cells, _COLUMNS, strict=True)
        ).rstrip()


def restarted(row: Mapping[str, Any]) -> str | None:
    """That FreeSWITCH died under the call and came back; None where it did not."""
    if not row["restarts"]:
        return None
    often = f" {row['restarts']} times" if row["restarts"] > 1 else ""
    most = "up to " if row["restarts"] > 1 else ""
    gap = f", {most}{row['restart_gap']:.1f} s without it" if row["restart_gap"] is not None else ""
    return f"FreeSWITCH restarted{often}{gap}"


def write_csv(rows: Iterable[Row], out: TextIO) -> None:
    """Every column, a line a call."""
    names = [column.name for column in calls.columns]
    out.write(csv_lines([], names, heading=True))
    for row in rows:
        out.write(csv_lines([row], names))


def write_json(rows: Iterable[Row], out: TextIO) -> None:
    """A list of objects, a line a call."""
    separator = "["
    for row in rows:
        out.write(separator + "\n" + json.dumps(row))
        separator = ","
    out.write("[]\n" if separator == "[" else "\n]\n")


# -- one call ----------------------------------------------------------------------------------------------

_WORDS = {
    "admitted": "INVITE taken",
    "refused": "INVITE refused",
    "answered": "answered (200)",
    "bot_connecting": "connecting to the bot",
    "bot_connected": "bot connected",
    "bot_reconnected": "bot connected again",
    "speech_began": "bot speaks",
    "speech_ended": "bot is silent",
    "caller_speaks": "caller",
    "cleared": "barge-in: the bot's speech is cut",
    "answer": "bot answers the caller",
    "barge_in": "the bot was silent for the caller",
    "overlap": "both spoke at one time",
    "mark": "mark",
    "hold": "the PBX's hold",
    "key": "caller pressed a key",
    "recording_begun": "is recorded",
    "recording_failed": "is not recorded any more",
    "bot_ended": "bot's part is over",
    "attempt_began": "notification to Ameyo goes out",
    "attempt": "Ameyo's answer",
    "bye_overdue": "BYE is overdue",
    "taken_over": "taken over by another controller",
    "switch_restarted": "FreeSWITCH restarted",
    "not_verified": "identity not verified: nobody's call",
    "left": "left by its controller",
    "ended": "channel ended",
    "timeline_full": "no more is told of bot and caller",
}


def told(story: Story) -> Iterator[str]:
    """One call from the INVITE to the BYE, each line with its seconds from the INVITE."""
    row = story.call
    for title, value in (
        ("call", row["call_id"]),
        ("workspace", f"{row['workspace'] or '-'} ({row['workspace_id'] or '-'})"),
        ("CRT object", row["crt_object_id"]),
        ("DID", row["did"]),
        ("from, to", f"{row['caller'] or '-'} → {row['called'] or '-'} by {row['source'] or '-'}"),
        ("SIP Call-ID", row["sip_call_id"]),
        ("invited", f"{shown_time(row['invited_at'])} UTC"),
        ("stage", row["stage"] if row["ended_at"] is None else f"{row['stage']}, then it ended"),
        ("why", ending(row) or "it lives"),
    ):
        yield f"{title:11} {clean(value or '-')}"
    if (recovered := restarted(row)) is not None:
        yield f"{'recovered':11} {recovered}"
    if (heard := quality(row["media"])) is not None:
        yield f"{'audio':11} {clean(f'{heard.word}: {heard.figures}')}"
    if (talk := turns_told(row)) is not None:
        yield f"{'turns':11} {talk}"
    if row["media"]:
        yield f"{'media':11} {_pairs(row['media'])}"
    yield ""
    taken = [{"at": turn["at"], "what": turn["kind"], "facts": _of_turn(turn)} for turn in story.turns]
    for entry in sorted([*story.timeline, *taken], key=lambda entry: float(entry["at"])):
        offset = entry["at"] - row["invited_at"]
        word = _WORDS.get(entry["what"], entry["what"])
        yield f"{offset:+10.3f}  {clean(word):34} {_pairs(entry['facts'] or {})}".rstrip()
    if story.notifications:
        yield ""
        yield "notifications:"
    for sent in story.notifications:
        answer = f"{sent['verdict'] or 'no answer known'}"
        answer += f", status {sent['status']}" if sent["status"] is not None else ""
        answer += f", {sent['seconds']:.3f} s" if sent["seconds"] is not None else ""
        by = f", sent by {sent['sent_by']}" if sent["sent_by"] else ""
        detail = f": {sent['detail']}" if sent["detail"] else ""
        yield clean(f"{sent['began_at'] - row['invited_at']:+10.3f}  {sent['number']}: {answer}{by}{detail}")


def turns_told(row: Mapping[str, Any]) -> str | None:
    """How long the caller waited for the bot's answers, and how often they broke in; None without turns."""
    parts = []
    if row["answers"]:
        times = ", ".join(f"{name} {row[f'answer_{name}']:.2f} s" for name in ("p50", "p95", "worst"))
        parts.append(f"{row['answers']} answers, {times}")
    if row["barge_ins"]:
        parts.append(f"{row['barge_ins']} barge-ins")
    return "; ".join(parts) or None


def _of_turn(turn: Row) -> dict[str, Any]:
    """Its figures: of a barge-in the bot's share ends with its `clear`."""
    told = {"seconds": f"{turn['seconds']:.3f}", "by": turn["by"]}
    return told if turn["bot"] is None else {**told, "bot": f"{turn['bot']:.3f}"}


def as_json(story: Story) -> str:
    """All of a call, as the call page gets it."""
    return json.dumps(
        {
            "call": story.call,
            "timeline": story.timeline,
            "notifications": story.notifications,
            "turns": story.turns,
        },
        indent=1,
    )


def hidden(story: Story) -> Story:
    """``story``, its numbers masked."""
    lines = [{**entry, "facts": masked_facts(entry["facts"])} for entry in story.timeline]
    sent = [
        {**row, "detail": masked_text(row["detail"]) if row["detail"] else row["detail"]}
        for row in story.notifications
    ]
    return Story(masked_row(story.call), lines, sent, story.turns)


def _pairs(values: Mapping[str, Any]) -> str:
    return clean("  ".join(f"{name}={value}" for name, value in values.items() if value is not None))


# -- many calls --------------------------------------------------------------------------------------------


def figures(found: Mapping[str, Any]) -> Iterator[str]:
    """What :func:`eslbot.ledger.queries.stats` has found."""
    workspaces = found["workspaces"]
    for name, group in [*workspaces.items(), *([("all", found["all"])] if len(workspaces) != 1 else [])]:
        rate = group["hand_off_rate"]
        yield f"{clean(name)}: {group['calls']} calls, {group['answered']} answered, {group['live']} live"
        share = f" ({100 * rate:.2f} % of {group['hand_off_due']})" if rate is not None else ""
        yield f"  handed off  {group['handed_off']}{share}"
        for title, kind in (("outcome", "outcomes"), ("fault", "faults"), ("refused", "refusals")):
            if group[kind]:
                yield f"  {title:11} " + clean(", ".join(f"{k} {n}" for k, n in group[kind].items()))
        odd = {
            "take-overs": group["take_overs"],
            "BYEs overdue": group["byes_overdue"],
            "ends unseen": group["ends_unseen"],
        }
        if group["recovered"]:
            gap = group["restart_gap"]
            most = f", up to {gap:.1f} s without it" if gap is not None else ""
            yield f"  recovered   {group['recovered']} (FreeSWITCH restarted{most})"
        if any(odd.values()):
            yield "  also        " + ", ".join(f"{title} {count}" for title, count in odd.items() if count)
        yield f"  {'seconds':16} {'count':>8} {'p50':>9} {'p95':>9} {'p99':>9} {'max':>9}"
        for name_ in MEASURES:
            measured = group["seconds"][name_]
            values = "".join(
                f" {measured[key]:9.3f}" if measured[key] is not None else f" {'-':>9}"
                for key in ("p50", "p95", "p99", "max")
            )
            yield f"  {name_:16} {measured['count']:8}{values}"


def write_figures_csv(found: Mapping[str, Any], out: TextIO) -> None:
    """The same, a line a figure, its name as the way to it: ``outcomes.bot_ended``, ``seconds.setup.p50``."""
    lines = [
        {"workspace": name, "figure": figure, "value": value}
        for name, group in [*found["workspaces"].items(), ("", found["all"])]
        for figure, value in _figures_of(group)
    ]
    out.write(csv_lines(lines, ("workspace", "figure", "value"), heading=True))


def _figures_of(group: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in group.items():
        if isinstance(value, Mapping):
            yield from _figures_of(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def now() -> float:
    """Epoch seconds."""
    return time.time()
