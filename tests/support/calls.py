"""One call with everything in it, as the ledger tells it."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np

from tests.support.fake_ledger import ACME, ZENITH, FakeLedger, row
from tests.support.voices import RATE, Samples, silence, speech

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


#: When the bot speaks and falls silent in :func:`rich_call`; in the third turn the caller breaks in.
TURNS = [(0.9, 4.8), (7.6, 12.1), (15.0, 17.2), (20.8, 27.5), (31.2, 34.0), (37.5, 41.9), (44.6, 48.7)]
BROKEN_IN = 2


def _caller(number: int) -> tuple[float, float]:
    """When the caller speaks behind a turn of the bot's."""
    silent = TURNS[number][1]
    return silent + (-0.4 if number == BROKEN_IN else 0.5), TURNS[number + 1][0] - 0.7


def rich_sound(begin: float, end: float) -> tuple[bytes, bytes]:
    """What is heard of :func:`rich_call` from ``begin`` to ``end``, in its seconds: caller and bot, L16."""
    callers = [_caller(number) for number in range(len(TURNS) - 1)]
    return _voice(callers, begin, end, 2500, 190), _voice(TURNS, begin, end, 4000, 110)


def _voice(turns: list[tuple[float, float]], begin: float, end: float, level: float, pitch: float) -> bytes:
    heard: Samples = silence(TURNS[-1][1] + 30)
    for number, (said, silent) in enumerate(turns):
        voice = speech(silent - said, number, level, pitch)
        at = round(said * RATE)
        heard[at : at + len(voice)] = voice
    part = heard[round(begin * RATE) : round(end * RATE)]
    return np.clip(part, -32768, 32767).astype("<i2").tobytes()


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
    facts.append((0.36, "recording_begun", {}))
    for number, (said, silent) in enumerate(TURNS):
        cut = number == BROKEN_IN
        facts += [(said, "speech_began", {}), (silent, "speech_ended", {"cut": cut})]
        facts.append((silent - 0.1, "mark", {"name": f"turn-{number}", "cleared": cut}))
        if number < len(TURNS) - 1:
            facts += [
                (at, "caller_speaks", {"speaking": speaking})
                for at, speaking in zip(_caller(number), (True, False), strict=True)
            ]
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
    begins = [at for at, _ in TURNS]
    ledger.turns[call_id] = [
        _turn(number, began + at, "answer", seconds, seconds - 0.02)
        for number, (at, seconds) in enumerate(zip([begins[1], *begins[3:]], waited, strict=True), 1)
    ] + [_turn(6, began + TURNS[BROKEN_IN][1], "barge_in", 0.42, 0.41)]
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


def a_day(now: float, seed: int = 7) -> list[Any]:
    """The ended calls of the last 24 hours: some refused, and two bad hours of one tenant's bot."""
    chance = random.Random(seed)
    rows = []
    for number in range(2400):
        ago = chance.uniform(70, 86_000)
        if chance.random() > 0.55 + 0.45 * math.cos(2 * math.pi * (ago - 6000) / 86_400):
            continue
        at = now - ago
        number += 100_000
        tenant = chance.choice((ACME, ACME, ZENITH))
        if chance.random() < 0.02:
            cause, status = chance.choice((("worker_full", 503), ("foreign_source", 403), ("no_name", 400)))
            refused = {"stage": "refused", "refusal": cause, "refusal_status": status, "answered_at": None}
            rows.append(row(number, tenant, invited_at=at, ended_at=at, bot_connected_at=None, **refused))
            continue
        answered = at + chance.lognormvariate(-2.8, 0.3)
        bot_ended = at + chance.uniform(25, 240)
        failed = chance.random() < (0.3 if tenant == ZENITH and 18_000 < ago < 25_000 else 0.006)
        answers = chance.randint(2, 14)
        median = chance.lognormvariate(-0.3, 0.25)
        handed_off = bot_ended + chance.lognormvariate(-0.9, 0.6)
        rows.append(
            row(
                number,
                tenant,
                invited_at=at,
                answered_at=answered,
                bot_connected_at=answered + 0.2,
                first_audio_at=answered + chance.lognormvariate(-0.4, 0.3),
                bot_ended_at=bot_ended,
                notified_at=bot_ended,
                handed_off_at=handed_off,
                ended_at=handed_off + chance.uniform(2, 60),
                stage="held",
                outcome="bot_failed" if failed else "bot_ended",
                fault="bot" if failed else "none",
                sip_hangup_disposition="recv_bye",
                attempts=chance.choice((1,) * 30 + (2, 3)),
                take_overs=int(chance.random() < 0.01),
                answers=answers,
                answer_p50=median,
                answer_p95=1.8 * median,
                answer_worst=2 * median,
            )
        )
    return rows


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
