"""One call with everything in it, as the ledger tells it."""

from __future__ import annotations

from typing import Any

from tests.support.fake_ledger import ACME, ZENITH, FakeLedger, row

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def rich_call(
    ledger: FakeLedger, began: float, reason: str = "The caller wants to buy.", **values: Any
) -> str:
    """Its id. It took 70 s; its hand-off was accepted at the third attempt, its worker went away once."""
    one = row(
        4711,
        invited_at=began,
        answered_at=began + 0.08,
        bot_connected_at=began + 0.35,
        first_audio_at=began + 0.9,
        bot_ended_at=began + 48.2,
        notified_at=began + 48.9,
        handed_off_at=began + 52.4,
        ended_at=began + 70.0,
        stage="held",
        outcome="bot_ended",
        fault="none",
        reason=reason,
        sip_hangup_disposition="recv_bye",
        hangup_cause="NORMAL_CLEARING",
        attempts=3,
        take_overs=1,
        answers=5,
        answer_p50=0.81,
        answer_p95=1.74,
        answer_worst=1.74,
        barge_ins=1,
        media={"packets_in": 3498, "lost": 2, "jitter_ms": 3.1, "mos": 4.4, "codec": "PCMU"},
        **values,
    )
    call_id = str(one["call_id"])
    facts: list[tuple[float, str, dict[str, Any]]] = [
        (0.0, "admitted", {"did": one["did"], "caller": one["caller"], "source": one["source"]}),
        (0.08, "answered", {}),
        (0.1, "bot_connecting", {}),
        (0.35, "bot_connected", {}),
    ]
    turns = [(0.9, 4.8), (7.6, 12.1), (15.0, 17.2), (20.8, 27.5), (31.2, 34.0), (37.5, 41.9), (44.6, 48.7)]
    for number, (said, silent) in enumerate(turns):
        cut = number == 2
        facts += [(said, "speech_began", {}), (silent, "speech_ended", {"cut": cut})]
        facts.append((silent - 0.1, "mark", {"name": f"turn-{number}", "cleared": cut}))
        if number < len(turns) - 1:
            facts.append((silent + (-0.4 if cut else 0.5), "caller_speaks", {"speaking": True}))
            facts.append((turns[number + 1][0] - 0.7, "caller_speaks", {"speaking": False}))
        if cut:
            facts.append((silent, "cleared", {}))
    facts += [(29.0, "key", {}), (29.6, "key", {}), (35.0, "left", {"why": "draining"})]
    facts += [(35.06, "taken_over", {"stage": "talking", "take_overs": 1})]
    facts += [(48.2, "bot_ended", {"outcome": "bot_ended", "reason": reason})]
    facts += [(70.0, "ended", {"disposition": "recv_bye", "cause": "NORMAL_CLEARING", "handed_off": True})]
    facts.sort(key=lambda fact: fact[0])
    ledger.timelines[call_id] = [{"at": began + at, "what": what, "facts": more} for at, what, more in facts]
    ledger.notifications[call_id] = [
        _attempt(1, began + 48.9, "failed", None, 1.0, "ConnectTimeout"),
        _attempt(2, began + 50.4, "failed", 502, 0.31, "Bad Gateway"),
        _attempt(3, began + 51.8, "accepted", 200, 0.6, "OK"),
    ]
    waited = [0.7, 0.66, 0.81, 1.74, 0.92]
    begins = [at for at, _ in turns]
    ledger.turns[call_id] = [
        _turn(number, began + at, "answer", seconds, seconds - 0.02)
        for number, (at, seconds) in enumerate(zip([begins[1], *begins[3:]], waited, strict=True), 1)
    ] + [_turn(6, began + turns[2][1], "barge_in", 0.42, 0.41)]
    ledger.put(one)
    return call_id


def _turn(number: int, at: float, kind: str, seconds: float, bot: float) -> Any:
    return {"number": number, "at": at, "kind": kind, "seconds": seconds, "bot": bot, "by": None}


def _attempt(number: int, at: float, verdict: str, status: int | None, seconds: float, detail: str) -> Any:
    return {
        "number": number,
        "began_at": at,
        "verdict": verdict,
        "status": status,
        "seconds": seconds,
        "detail": detail,
        "sent_by": None,
    }


def tenants(now: float) -> list[dict[str, Any]]:
    """Two tenants, one of which has trouble."""
    return [
        {
            "workspace_id": ACME,
            "workspace": "acme",
            "active": 312,
            "last_hour": {"bot_ended": 1840, "caller_hangup": 96, "max_duration": 3},
            "faults": {"none": 1939},
            "last_handed_off_at": now - 2,
            "not_handed_off": 0,
            "post_seconds_p50": 0.21,
            "post_seconds_p95": 0.64,
        },
        {
            "workspace_id": ZENITH,
            "workspace": "zenith",
            "active": 188,
            "last_hour": {"bot_ended": 702, "bot_unreachable": 12, "caller_hangup": 31},
            "faults": {"none": 731, "bot": 12, "ameyo": 2},
            "last_handed_off_at": now - 41,
            "not_handed_off": 2,
            "post_seconds_p50": 0.9,
            "post_seconds_p95": 4.2,
        },
    ]
