"""What is told of an attempt to notify: in the log and in the figures, and the facts for the ledger."""

from __future__ import annotations

from typing import Any

import structlog

from eslbot.ameyo.client import Attempt, Verdict
from eslbot.telemetry import metrics

log = structlog.get_logger()


def tell(attempt: Attempt, workspace: str) -> dict[str, Any]:
    """Log and count an attempt of the workspace of that name; returns :data:`What.ATTEMPT`'s facts."""
    metrics.ATTEMPTS.labels(workspace, attempt.verdict).inc()
    metrics.NOTIFICATION_SECONDS.labels(workspace, attempt.verdict).observe(attempt.seconds)
    line = log.info if attempt.verdict is Verdict.ACCEPTED else log.warning
    line(
        "hand_off_" + attempt.verdict,
        attempt=attempt.number,
        status=attempt.status,
        answer=attempt.detail,
        seconds=round(attempt.seconds, 3),
    )
    return {
        "number": attempt.number,
        "verdict": attempt.verdict,
        "status": attempt.status,
        "seconds": round(attempt.seconds, 4),
        "detail": attempt.detail,
    }
