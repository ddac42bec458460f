"""The ledger for a terminal: lists of calls, one call in full, and statistics."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, TextIO

from eslbot.ledger.explanations import audio_quality, why_it_ended
from eslbot.ledger.formats import csv_lines
from eslbot.ledger.queries import CallDetails
from eslbot.ledger.schema import Row, calls
from eslbot.ledger.statistics import MEASURES

_AGO = re.compile(r"(\d{1,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
#: Characters that a terminal may take for a command.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def parse_time(text: str, now: float) -> float:
    """Epoch seconds of ``2h`` (ago), ``2026-11-23``, or ``2026-11-23T10:15[:30][Z|+05:30]``.

    A time without a zone is UTC. Raises ValueError.
    """
    if match := _AGO.fullmatch(text):
        return now - int(match[1]) * _SECONDS[match[2]]
    when = datetime.fromisoformat(text)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def format_time(at: float) -> str:
    """UTC, to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def printable(text: object) -> str:
    """``text`` with a question mark for whatever a terminal may take for a command."""
    return _CONTROL.sub("?", str(text))


# -- calls -------------------------------------------------------------------------------------------------

_COLUMNS = {
    "INVITED (UTC)": 19,
    "WORKSPACE": 12,
    "DID": 16,
    "CRT OBJECT ID": 24,
    "STAGE": 11,
    "OUTCOME": 16,
    "FAULT": 7,
    "HANDED OFF": 10,
    "SECONDS": 8,
    "NOTES": 5,
    "CALL ID": 36,
}


def format_calls(rows: Iterable[Row], now: float) -> Iterator[str]:
    """A heading, and a line a call."""
    yield "  ".join(f"{title:{width}}" for title, width in _COLUMNS.items()).rstrip()
    for row in rows:
        end = row["ended_at"]
        since = row["answered_at"] or row["invited_at"]
        refused = row["refusal"] and f"{row['refusal_status']} {row['refusal']}"
        unseen = end is not None and row["end_unseen"]
        cells = (
            format_time(row["invited_at"]),
            row["workspace"] or row["workspace_id"] or "-",
            row["did"] or "-",
            row["crt_object_id"] or "-",
            row["stage"] if end is None or row["refusal"] else "unseen" if unseen else "ended",
            refused or row["outcome"] or "-",
            row["fault"] or "-",
            "yes" if row["handed_off_at"] is not None else "no",
            f"{(now if end is None else end) - since:.1f}",
            format_restarts(row) or "",
            row["call_id"],
        )
        line = zip(cells, _COLUMNS.values(), strict=True)
        yield "  ".join(f"{printable(cell):{width}}" for cell, width in line).rstrip()


def format_restarts(row: Mapping[str, Any]) -> str | None:
    """That FreeSWITCH died during the call and came back; None where it did not."""
    if not row["restarts"]:
        return None
    often = f" {row['restarts']} times" if row["restarts"] > 1 else ""
    most = "up to " if row["restarts"] > 1 else ""
    gap = f", {most}{row['restart_gap']:.1f} s without it" if row["restart_gap"] is not None else ""
    return f"FreeSWITCH restarted{often}{gap}"


def write_csv(rows: Iterable[Row], out: TextIO) -> None:
    """Every column, a line a call."""
    names = calls.columns.keys()
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

_FACTS = {
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


def format_call(details: CallDetails) -> Iterator[str]:
    """One call from the INVITE to the BYE, each line with its seconds from the INVITE."""
    yield from _header(details.call)
    yield ""
    invited_at = details.call["invited_at"]
    taken = [{"at": turn["at"], "what": turn["kind"], "facts": _turn_fields(turn)} for turn in details.turns]
    for entry in sorted([*details.timeline, *taken], key=lambda entry: float(entry["at"])):
        what = _FACTS.get(entry["what"], entry["what"])
        offset, fields = entry["at"] - invited_at, _pairs(entry["facts"] or {})
        yield f"{offset:+10.3f}  {printable(what):34} {fields}".rstrip()
    if details.notifications:
        yield ""
        yield "notifications:"
    for sent in details.notifications:
        answer = f"{sent['verdict'] or 'no answer known'}"
        answer += f", status {sent['status']}" if sent["status"] is not None else ""
        answer += f", {sent['seconds']:.3f} s" if sent["seconds"] is not None else ""
        by = f", sent by {sent['sent_by']}" if sent["sent_by"] else ""
        detail = f": {sent['detail']}" if sent["detail"] else ""
        yield printable(f"{sent['began_at'] - invited_at:+10.3f}  {sent['number']}: {answer}{by}{detail}")


def _header(row: Row) -> Iterator[str]:
    quality = audio_quality(row["media"])
    for title, value in (
        ("call", row["call_id"]),
        ("workspace", f"{row['workspace'] or '-'} ({row['workspace_id'] or '-'})"),
        ("CRT object", row["crt_object_id"] or "-"),
        ("DID", row["did"] or "-"),
        ("from, to", f"{row['caller'] or '-'} → {row['called'] or '-'} by {row['source'] or '-'}"),
        ("SIP Call-ID", row["sip_call_id"] or "-"),
        ("invited", f"{format_time(row['invited_at'])} UTC"),
        ("stage", row["stage"] if row["ended_at"] is None else f"{row['stage']}, then it ended"),
        ("why", why_it_ended(row) or "it lives"),
        ("recovered", format_restarts(row)),
        ("audio", quality and f"{quality.word}: {quality.figures}"),
        ("turns", format_turns(row)),
        ("media", row["media"] and _pairs(row["media"])),
    ):
        if value:
            yield f"{title:11} {printable(value)}"


def format_turns(row: Mapping[str, Any]) -> str | None:
    """How long the caller waited for the bot's answers, and how often they broke in; None without turns."""
    parts = []
    if row["answers"]:
        times = ", ".join(f"{name} {row[f'answer_{name}']:.2f} s" for name in ("p50", "p95", "worst"))
        parts.append(f"{row['answers']} answers, {times}")
    if row["barge_ins"]:
        parts.append(f"{row['barge_ins']} barge-ins")
    return "; ".join(parts) or None


def _turn_fields(turn: Row) -> dict[str, Any]:
    bot = None if turn["bot"] is None else f"{turn['bot']:.3f}"
    return {"seconds": f"{turn['seconds']:.3f}", "by": turn["by"], "bot": bot}


def call_json(details: CallDetails) -> str:
    """All of a call, as the call page gets it."""
    return json.dumps(asdict(details), indent=1)


def _pairs(values: Mapping[str, Any]) -> str:
    return printable("  ".join(f"{name}={value}" for name, value in values.items() if value is not None))


# -- statistics --------------------------------------------------------------------------------------------


def format_statistics(found: Mapping[str, Any]) -> Iterator[str]:
    """What :func:`eslbot.ledger.statistics.statistics` has found."""
    workspaces = found["workspaces"]
    for name, group in [*workspaces.items(), *([("all", found["all"])] if len(workspaces) != 1 else [])]:
        rate = group["hand_off_rate"]
        yield f"{printable(name)}: {group['calls']} calls, {group['answered']} answered, {group['live']} live"
        share = f" ({100 * rate:.2f} % of {group['hand_off_due']})" if rate is not None else ""
        yield f"  handed off  {group['handed_off']}{share}"
        for title, kind in (("outcome", "outcomes"), ("fault", "faults"), ("refused", "refusals")):
            if group[kind]:
                yield f"  {title:11} " + printable(", ".join(f"{k} {n}" for k, n in group[kind].items()))
        if group["recovered"]:
            gap = group["restart_gap"]
            most = f", up to {gap:.1f} s without it" if gap is not None else ""
            yield f"  recovered   {group['recovered']} (FreeSWITCH restarted{most})"
        unusual = [
            f"{title} {group[key]}"
            for title, key in (
                ("take-overs", "take_overs"),
                ("BYEs overdue", "byes_overdue"),
                ("ends unseen", "ends_unseen"),
            )
            if group[key]
        ]
        if unusual:
            yield "  also        " + ", ".join(unusual)
        yield f"  {'seconds':16} {'count':>8} {'p50':>9} {'p95':>9} {'p99':>9} {'max':>9}"
        for measure in MEASURES:
            measured = group["seconds"][measure]
            values = (measured[key] for key in ("p50", "p95", "p99", "max"))
            cells = "".join(f" {'-':>9}" if value is None else f" {value:9.3f}" for value in values)
            yield f"  {measure:16} {measured['count']:8}{cells}"


def write_statistics_csv(found: Mapping[str, Any], out: TextIO) -> None:
    """The same, a line a figure, named by its path: ``outcomes.bot_ended``, ``seconds.set_up.p50``."""
    lines = [
        {"workspace": name, "figure": figure, "value": value}
        for name, group in [*found["workspaces"].items(), ("", found["all"])]
        for figure, value in _flatten(group)
    ]
    out.write(csv_lines(lines, ("workspace", "figure", "value"), heading=True))


def _flatten(group: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in group.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
