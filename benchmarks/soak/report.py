"""What is told when a run is over."""

from __future__ import annotations

import statistics
from collections import Counter

from benchmarks.soak.run import DRIFT_FROM, DRIFT_PPM, Result
from tests.support.audit import counts, table


def text(result: Result) -> str:
    """For people: the account, what the calls were like, what grew, and the verdict."""
    left, heard = result.left, result.heard
    up = result.up[len(result.up) // 10 :] or [0]  # not those of the first minutes
    content = result.content
    rows = [
        ("seed, length", f"{result.seed}, {result.seconds / 60:.1f} min" + _stopped(result)),
        ("calls up at a time", f"median {statistics.median(up):.0f}, {min(up)} to {max(up)}"),
        *result.tally.rows(),
        ("faults", counts(Counter(fault.kind for fault in result.faults))),
        (
            "channels, calls, event sockets left",
            f"{left.channels}, {left.calls_active:g}, {left.event_sockets}",
        ),
        ("files left", f"{len(left.files)}"),
        ("callers' RTP", f"{heard.packets} packets in {heard.calls} calls; {heard.mute} calls without any"),
        (
            "calls with a gap of more than",
            ", ".join(f"{gap:g} s: {heard.gaps[gap]}" for gap in sorted(heard.gaps)) or "none",
        ),
        ("keys", f"{content['keys told']} told of {content['keys pressed']} pressed"),
        (
            "holds",
            f"{content['holds told']} told of {content['holds']} (again where the bot was dialled again)",
        ),
        ("barge-in", f"{content['cleared']} answers to {content['clear']} clears"),
        *((name, str(content[name])) for name in content if "re-INVITE" in name or "without" in name),
        ("errors in eslbot's log", counts(result.complaints)),
    ]
    lines = [table(rows), "", "growth over the last half" + ("" if result.judged else _too_short()) + ":"]
    lines += [f"  {one}" for one in result.grown] or ["  nothing was seen for long enough"]
    if result.drift is not None:
        drift = result.drift
        short = "" if drift.seconds >= DRIFT_FROM else "; too short to be judged"
        lines.append(
            f"  RTP clock: {drift.ppm:+.1f} ppm over {drift.seconds:.0f} s in {drift.pieces} pieces "
            f"(limit {DRIFT_PPM:g}){short}"
        )
    lines += [f"  GUILTY {text}" for text in result.broken]
    more = result.tally.broken - len(result.tally.guilty)
    if more:
        lines.append(f"  and {more} more")
    lines += [f"traceback {told}" for told in result.tracebacks]
    lines.append(
        "every promise was kept" if not result.broken else f"{len(result.broken) + more} broken promises"
    )
    return "\n".join(lines)


def _stopped(result: Result) -> str:
    return f", {result.stopped}" if result.stopped else ""


def _too_short() -> str:
    return " (told, not judged: that takes 20 minutes)"
