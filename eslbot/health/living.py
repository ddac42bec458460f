"""What the calls tell: which of those that live need somebody, and how each tenant's bot and Ameyo are.

Pure but for what it remembers: rows of the ledger in (:mod:`eslbot.ledger.fold`), sentences out. What is
said of a tenant rests on what happened to its calls in the last ten minutes, the living ones included: with a
wrong token nothing has ended yet, and five customers wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from eslbot.config.model import Workspace
from eslbot.health.model import CallInNeed, Colour, Component, Finding, Need, Place
from eslbot.outcome import Outcome, Stage
from eslbot.telemetry.redaction import beginning

Row = Mapping[str, Any]
#: What has changed and what has ended since the last look; whether what has changed is all that lives.
News = Callable[[], tuple[Iterable[Row], Iterable[Row], bool]]

#: Until when the certificate counts that each tenant's Ameyo has shown last, in epoch seconds, by its name.
Certificates = Callable[[], Mapping[str, float]]

#: Seconds before its end at which a certificate is told of, and between two looks at them.
ENDS_SOON, EVERY = 14 * 86400.0, 60.0
#: Seconds of what has happened that a colour rests on.
WINDOW = 600.0
#: Ends of one tenant's calls that are remembered.
MAX_ENDS = 500
#: Living calls that are told one by one.
MAX_NEEDS = 200
#: Seconds without the bot's first word, and where the bot may wait for the caller to speak.
SILENT, PATIENT = 5.0, 30.0
#: Seconds that a failing hand-off is amber: the second attempt comes behind half a second.
SOON = 5.0
#: So many failures one behind the other are no accident, nor is such a share of all.
IN_A_ROW, SHARE = 3, 0.5
#: Characters of an answer of Ameyo's, or of a bot's reason.
MAX_WORDS = 160

_NOT_TAKEN = frozenset({"failed", "rejected"})
_BOT_FAULTS = {
    str(Outcome.BOT_UNREACHABLE): "no URL of the bot's takes the connection",
    str(Outcome.BOT_FAILED): "the bot's connection breaks off",
    str(Outcome.BOT_SILENT): "the bot says nothing within first_audio_timeout",
}
_BEFORE_BOT = frozenset({str(Stage.ANSWERED), str(Stage.CONNECTING), str(Stage.TALKING)})
#: In the order in which somebody should look.
_URGENCY = {need: place for place, need in enumerate(Need)}


@dataclass(frozen=True, slots=True)
class _Part:
    """How one call came out for a bot or an Ameyo; ``failed`` is empty where it was well."""

    at: float
    failed: str = ""
    detail: str = ""


class Living:
    """``workspaces`` are the configured ones, by id; ``news`` tells what has changed since the last look."""

    def __init__(
        self, workspaces: Mapping[str, Workspace], news: News, certificates: Certificates = dict
    ) -> None:
        self._workspaces, self._news, self._certificates = workspaces, news, certificates
        self._ends: Mapping[str, float] = {}
        self._ends_at = float("-inf")
        self._live: dict[str, Row] = {}
        self._bots: dict[str, deque[_Part]] = {}
        self._ameyos: dict[str, deque[_Part]] = {}

    def look(self, now: float) -> tuple[Mapping[Place, Finding], tuple[CallInNeed, ...]]:
        """Each tenant's bot and Ameyo, and the calls that need somebody, the most urgent first."""
        changed, ended, anew = self._news()
        if anew:
            self._live.clear()
        for row in changed:
            self._live[row["call_id"]] = row
        for row in ended:
            self._live.pop(row["call_id"], None)
            self._remember(row)
        if now - self._ends_at >= EVERY:
            self._ends, self._ends_at = self._certificates(), now
        needs = [need for row in self._live.values() if (need := self.need_of(row, now)) is not None]
        needs.sort(key=lambda need: (_URGENCY[need.need], need.since))
        return self._colours(now), tuple(needs[:MAX_NEEDS])

    def _remember(self, row: Row) -> None:
        workspace_id = row.get("workspace_id") or ""
        if workspace_id not in self._workspaces:
            return
        for parts, part in ((self._bots, bot_part(row)), (self._ameyos, ameyo_part(row))):
            if part is not None:
                parts.setdefault(workspace_id, deque(maxlen=MAX_ENDS)).append(part)

    # -- calls that need somebody ---------------------------------------------------------------------------

    def need_of(self, row: Row, now: float) -> CallInNeed | None:
        """Why this living call needs somebody; None where it does not."""
        if row.get("unverified_at") is not None:
            return _in_need(
                row,
                Need.NOT_VERIFIED,
                row["unverified_at"],
                "it carries no identity that a key of this host has signed: nothing is done with it",
                "have the same server.key_file on every host (eslbot key) and reload; its customer may wait",
            )
        if failing(row):
            why, remedy = _hand_off_words(row)
            return _in_need(row, Need.HAND_OFF_FAILING, row.get("notified_at") or now, why, remedy)
        if row.get("byes_overdue") and row.get("handed_off_at") is not None:
            return _in_need(
                row,
                Need.BYE_OVERDUE,
                row["handed_off_at"],
                "Ameyo has accepted the notification, and the PBX sends no BYE: the customer hears silence",
                "ask Ameyo's operator why this call is not fetched, by its CRT Object ID",
            )
        waits_since = self._silent_since(row, now)
        if waits_since is not None:
            connected = row.get("bot_connected_at") is not None
            why = "the bot is connected and has said nothing" if connected else "the bot is not connected yet"
            remedy = "see the bot's own log; it is handed off by itself once first_audio_timeout is over"
            return _in_need(row, Need.BOT_SILENT, waits_since, why, remedy)
        return None

    def _silent_since(self, row: Row, now: float) -> float | None:
        answered = row.get("answered_at")
        if row.get("stage") not in _BEFORE_BOT or answered is None or row.get("first_audio_at") is not None:
            return None
        since: float = row.get("bot_connected_at") or answered
        workspace = self._workspaces.get(row.get("workspace_id") or "")
        patient = workspace is not None and not workspace.bot.first_audio_timeout
        return since if now - since > (PATIENT if patient else SILENT) else None

    # -- colours --------------------------------------------------------------------------------------------

    def _colours(self, now: float) -> dict[Place, Finding]:
        bots: dict[str, list[_Part]] = {}
        ameyos: dict[str, list[_Part]] = {}
        failing_now: dict[str, list[Row]] = {}
        overdue: dict[str, int] = {}
        for row in self._live.values():
            workspace_id = row.get("workspace_id") or ""
            if (part := bot_part(row)) is not None:
                bots.setdefault(workspace_id, []).append(part)
            if (part := ameyo_part(row)) is not None:
                ameyos.setdefault(workspace_id, []).append(part)
            if failing(row):
                failing_now.setdefault(workspace_id, []).append(row)
            if row.get("byes_overdue") and row.get("handed_off_at") is not None:
                overdue[workspace_id] = overdue.get(workspace_id, 0) + 1
        found: dict[Place, Finding] = {}
        for workspace_id, workspace in self._workspaces.items():
            of_bot = _recent(self._bots.get(workspace_id, ()), bots.get(workspace_id, ()), now)
            of_ameyo = _recent(self._ameyos.get(workspace_id, ()), ameyos.get(workspace_id, ()), now)
            found[Place(Component.BOT, workspace_id)] = _bot(of_bot)
            ameyo = _ameyo(of_ameyo, failing_now.get(workspace_id, []), overdue.get(workspace_id, 0), now)
            ends = self._ends.get(workspace.name)
            if ends is not None and ends - now < ENDS_SOON and ameyo.colour in (Colour.GREEN, Colour.UNKNOWN):
                ameyo = _certificate(ends - now)
            found[Place(Component.AMEYO, workspace_id)] = ameyo
        return found


def failing(row: Row) -> bool:
    """Whether a call waits for an Ameyo that has not taken it so far."""
    return (
        row.get("ended_at") is None
        and row.get("handed_off_at") is None
        and row.get("attempt_verdict") in _NOT_TAKEN
    )


def bot_part(row: Row) -> _Part | None:
    """How the bot has done in this call; None where it has not come to that yet."""
    outcome = row.get("outcome")
    if outcome in _BOT_FAULTS:
        at = row.get("bot_ended_at") or row.get("ended_at") or row["invited_at"]
        return _Part(at, outcome, row.get("reason") or "")
    if row.get("first_audio_at") is not None:
        return _Part(row["first_audio_at"])
    return None


def ameyo_part(row: Row) -> _Part | None:
    """How Ameyo has done; of a hand-off that still fails its living call tells."""
    if row.get("handed_off_at") is not None:
        return _Part(row["handed_off_at"])
    if row.get("ended_at") is not None and row.get("attempt_verdict") in _NOT_TAKEN:
        return _Part(row["ended_at"], "not accepted", _answer(row))
    return None


def _recent(ended: Iterable[_Part], live: Iterable[_Part], now: float) -> list[_Part]:
    found = [part for part in (*ended, *live) if now - part.at < WINDOW]
    return sorted(found, key=lambda part: part.at)


def _run_of_failures(parts: list[_Part]) -> int:
    count = 0
    for part in reversed(parts):
        if not part.failed:
            break
        count += 1
    return count


def _bot(parts: list[_Part]) -> Finding:
    if not parts:
        return Finding(Colour.UNKNOWN, "it had no call in the last ten minutes")
    failed = [part for part in parts if part.failed]
    if not failed:
        return Finding(Colour.GREEN)
    last, in_a_row = failed[-1], _run_of_failures(parts)
    much = in_a_row >= IN_A_ROW or (in_a_row and len(failed) >= SHARE * len(parts))
    few = not in_a_row and len(failed) < 0.1 * len(parts)
    detail = f" ({beginning(last.detail, MAX_WORDS)})" if last.detail else ""
    why = f"{len(failed)} of {len(parts)} calls failed: {_BOT_FAULTS[last.failed]}{detail}"
    remedy = "eslbot doctor calls it; see the bot's own log. The customers went to agents"
    if few:
        return Finding(Colour.GREEN, why)
    return Finding(Colour.RED if much else Colour.AMBER, why, remedy)


def _ameyo(parts: list[_Part], failing_now: list[Row], overdue: int, now: float) -> Finding:
    if failing_now:
        oldest = min(failing_now, key=lambda row: row.get("notified_at") or now)
        waits = now - (oldest.get("notified_at") or now)
        said, remedy = _hand_off_words(oldest)
        hopeless = any(row.get("attempt_verdict") == "rejected" for row in failing_now)
        why = f"{_customers(len(failing_now))} for it: {said}"
        return Finding(Colour.RED if hopeless or waits > SOON else Colour.AMBER, why, remedy)
    if overdue:
        why = f"{_customers(overdue)} since it has accepted: no BYE comes"
        return Finding(Colour.RED, why, "ask Ameyo's operator why these calls are not fetched")
    if not parts:
        return Finding(Colour.UNKNOWN, "it had no customer in the last ten minutes")
    lost = [part for part in parts if part.failed]
    if not lost:
        return Finding(Colour.GREEN)
    why = f"{len(lost)} of {len(parts)} customers left before it accepted: {lost[-1].detail}"
    colour = Colour.RED if _run_of_failures(parts) >= IN_A_ROW else Colour.AMBER
    return Finding(colour, why, "see the notifications of these calls (eslbot calls --fault ameyo)")


def _certificate(left: float) -> Finding:
    days = int(left // 86400)
    when = f"ends in {days} {'day' if days == 1 else 'days'}" if left > 0 else "has ended"
    remedy = "tell Ameyo's operator to renew it: behind its end every notification fails"
    return Finding(Colour.AMBER, f"its certificate {when}", remedy)


def _customers(count: int) -> str:
    return "1 customer waits" if count == 1 else f"{count} customers wait"


def _answer(row: Row) -> str:
    status, detail = row.get("attempt_status"), beginning(row.get("attempt_detail") or "", MAX_WORDS)
    if status is None:
        return f"no answer from Ameyo: {detail}" if detail else "no answer from Ameyo"
    return f"Ameyo answers {status}: {detail}" if detail else f"Ameyo answers {status}"


def _hand_off_words(row: Row) -> tuple[str, str]:
    """Why a hand-off fails, and what to do."""
    attempts = row.get("attempts") or 1
    why = f"{_answer(row)} ({attempts} {'attempt' if attempts == 1 else 'attempts'})"
    status = row.get("attempt_status")
    if status in (401, 403):
        remedy = (
            "Ameyo does not take the token: put the right one into the workspace's ameyo.token, and reload"
        )
    elif status in (404, 405, 410):
        remedy = "ameyo.url or ameyo.tenant_host is wrong: mend it, and reload"
    elif status is None:
        remedy = "Ameyo cannot be reached: eslbot doctor says from where; call its operator"
    elif status >= 500 or status == 429:
        remedy = "Ameyo itself fails: call its operator; it is tried again meanwhile"
    else:
        remedy = "Ameyo refuses what it is sent: see its answer, mend the workspace's [ameyo], and reload"
    return why, remedy


def _in_need(row: Row, need: Need, since: float, why: str, remedy: str) -> CallInNeed:
    return CallInNeed(
        call_id=row["call_id"],
        need=need,
        since=since,
        why=why,
        remedy=remedy,
        workspace_id=row.get("workspace_id"),
        workspace=row.get("workspace"),
        crt_object_id=row.get("crt_object_id"),
        stage=row.get("stage"),
    )
