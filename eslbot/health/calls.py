"""Which live calls need somebody, and how each tenant's bot and Ameyo are, by its calls.

Rows of the ledger go in (:mod:`eslbot.ledger.schema`), sentences come out; no input but that. A tenant's
colours come from what happened in its calls in the last ten minutes, live calls included: with a wrong token
nothing has ended yet, and five customers wait.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from eslbot.config.model import Workspace
from eslbot.health.model import CallInNeed, Colour, Component, Finding, Need, Subject
from eslbot.outcome import Outcome, Stage
from eslbot.telemetry.redaction import beginning

Row = Mapping[str, Any]
#: Rows that have changed and rows that have ended since the last call, and whether the first are all live
#: calls.
ChangeFeed = Callable[[], tuple[Iterable[Row], Iterable[Row], bool]]

#: When the certificate of each tenant's Ameyo ends, in epoch seconds, by the tenant's name.
Certificates = Callable[[], Mapping[str, float]]

#: Seconds before a certificate's end at which there is a warning, and between two reads of these ends.
CERTIFICATE_WARNING, CERTIFICATE_INTERVAL = 14 * 86400.0, 60.0
#: Seconds of the past that a colour rests on.
WINDOW = 600.0
#: Results of one tenant's calls that are remembered.
MAX_RESULTS = 500
#: Live calls that are listed one by one.
MAX_NEEDS = 200
#: Seconds without the bot's first word, and those for a bot that may wait for the caller to speak.
SILENCE_LIMIT, LISTENER_SILENCE_LIMIT = 5.0, 30.0
#: Seconds for which a failing hand-off is amber: the second attempt comes after half a second.
HAND_OFF_GRACE = 5.0
#: So many failures in a row are no accident, nor is such a share of all calls.
FAILURES_IN_A_ROW, FAILURE_SHARE = 3, 0.5
#: Characters of an answer of Ameyo's, or of a bot's reason.
MAX_TEXT = 160

_NOT_ACCEPTED = frozenset({"failed", "rejected"})
_BOT_FAULTS = {
    str(Outcome.BOT_UNREACHABLE): "no URL of the bot's takes the connection",
    str(Outcome.BOT_FAILED): "the bot's connection breaks off",
    str(Outcome.BOT_SILENT): "the bot says nothing within first_audio_timeout",
}
_BEFORE_BOT = frozenset({str(Stage.ANSWERED), str(Stage.CONNECTING), str(Stage.TALKING)})
#: In the order in which somebody should look.
_PRIORITY = {need: place for place, need in enumerate(Need)}


@dataclass(frozen=True, slots=True)
class _Result:
    """What one call says of a bot or an Ameyo; ``failed`` is empty where it was well."""

    at: float
    failed: str = ""
    detail: str = ""


class CallHealth:
    """What the calls say. ``workspaces`` are the configured ones by id; ``changes`` has new rows of calls."""

    def __init__(
        self, workspaces: Mapping[str, Workspace], changes: ChangeFeed, certificates: Certificates = dict
    ) -> None:
        self._workspaces, self._changes, self._certificates = workspaces, changes, certificates
        self._certificate_ends: Mapping[str, float] = {}
        self._certificates_read_at = float("-inf")
        self._live: dict[str, Row] = {}
        self._bots: defaultdict[str, deque[_Result]] = defaultdict(lambda: deque(maxlen=MAX_RESULTS))
        self._ameyos: defaultdict[str, deque[_Result]] = defaultdict(lambda: deque(maxlen=MAX_RESULTS))

    def check(self, now: float) -> tuple[Mapping[Subject, Finding], tuple[CallInNeed, ...]]:
        """Each tenant's bot and Ameyo, and the calls that need somebody, the most urgent first."""
        changed, ended, anew = self._changes()
        if anew:
            self._live.clear()
        for row in changed:
            self._live[row["call_id"]] = row
        for row in ended:
            self._live.pop(row["call_id"], None)
            self._remember(row)
        if now - self._certificates_read_at >= CERTIFICATE_INTERVAL:
            self._certificate_ends, self._certificates_read_at = self._certificates(), now
        needs = [need for row in self._live.values() if (need := self.need_of(row, now)) is not None]
        needs.sort(key=lambda need: (_PRIORITY[need.need], need.since))
        return self._colours(now), tuple(needs[:MAX_NEEDS])

    def _remember(self, row: Row) -> None:
        workspace_id = row.get("workspace_id") or ""
        if workspace_id not in self._workspaces:
            return
        for results, result in ((self._bots, bot_result(row)), (self._ameyos, ameyo_result(row))):
            if result is not None:
                results[workspace_id].append(result)

    # -- calls that need somebody ---------------------------------------------------------------------------

    def need_of(self, row: Row, now: float) -> CallInNeed | None:
        """Why this live call needs somebody; None where it does not."""
        if row.get("unverified_at") is not None:
            return _call_in_need(
                row,
                Need.NOT_VERIFIED,
                row["unverified_at"],
                "it carries no identity that a key of this host has signed: nothing is done with it",
                "have the same server.key_file on every host (eslbot key) and reload; its customer may wait",
            )
        if hand_off_failing(row):
            why, remedy = _explain_hand_off(row)
            return _call_in_need(row, Need.HAND_OFF_FAILING, row.get("notified_at") or now, why, remedy)
        if _bye_overdue(row):
            return _call_in_need(
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
            return _call_in_need(row, Need.BOT_SILENT, waits_since, why, remedy)
        return None

    def _silent_since(self, row: Row, now: float) -> float | None:
        answered = row.get("answered_at")
        if row.get("stage") not in _BEFORE_BOT or answered is None or row.get("first_audio_at") is not None:
            return None
        since: float = row.get("bot_connected_at") or answered
        workspace = self._workspaces.get(row.get("workspace_id") or "")
        patient = workspace is not None and not workspace.bot.first_audio_timeout
        return since if now - since > (LISTENER_SILENCE_LIMIT if patient else SILENCE_LIMIT) else None

    # -- colours --------------------------------------------------------------------------------------------

    def _colours(self, now: float) -> dict[Subject, Finding]:
        bots: defaultdict[str, list[_Result]] = defaultdict(list)
        ameyos: defaultdict[str, list[_Result]] = defaultdict(list)
        failing: defaultdict[str, list[Row]] = defaultdict(list)
        overdue: Counter[str] = Counter()
        for row in self._live.values():
            workspace_id = row.get("workspace_id") or ""
            if (result := bot_result(row)) is not None:
                bots[workspace_id].append(result)
            if (result := ameyo_result(row)) is not None:
                ameyos[workspace_id].append(result)
            if hand_off_failing(row):
                failing[workspace_id].append(row)
            overdue[workspace_id] += _bye_overdue(row)
        found: dict[Subject, Finding] = {}
        for workspace_id, workspace in self._workspaces.items():
            of_bot = _recent(self._bots[workspace_id], bots[workspace_id], now)
            of_ameyo = _recent(self._ameyos[workspace_id], ameyos[workspace_id], now)
            found[Subject(Component.BOT, workspace_id)] = _bot(of_bot)
            ameyo = _ameyo(of_ameyo, failing[workspace_id], overdue[workspace_id], now)
            ends = self._certificate_ends.get(workspace.name)
            well = ameyo.colour in (Colour.GREEN, Colour.UNKNOWN)
            if well and ends is not None and ends - now < CERTIFICATE_WARNING:
                ameyo = _certificate(ends - now)
            found[Subject(Component.AMEYO, workspace_id)] = ameyo
        return found


def _bye_overdue(row: Row) -> bool:
    return bool(row.get("byes_overdue")) and row.get("handed_off_at") is not None


def hand_off_failing(row: Row) -> bool:
    """Whether a live call waits for an Ameyo that has not accepted its notification."""
    return (
        row.get("ended_at") is None
        and row.get("handed_off_at") is None
        and row.get("attempt_verdict") in _NOT_ACCEPTED
    )


def bot_result(row: Row) -> _Result | None:
    """How the bot did in this call; None where that is not known yet."""
    outcome = row.get("outcome")
    if outcome in _BOT_FAULTS:
        at = row.get("bot_ended_at") or row.get("ended_at") or row["invited_at"]
        return _Result(at, outcome, row.get("reason") or "")
    if row.get("first_audio_at") is not None:
        return _Result(row["first_audio_at"])
    return None


def ameyo_result(row: Row) -> _Result | None:
    """How Ameyo did in this call; None where that is not known yet, or the hand-off may still succeed."""
    if row.get("handed_off_at") is not None:
        return _Result(row["handed_off_at"])
    if row.get("ended_at") is not None and row.get("attempt_verdict") in _NOT_ACCEPTED:
        return _Result(row["ended_at"], "not accepted", _answer(row))
    return None


def _recent(ended: Iterable[_Result], live: Iterable[_Result], now: float) -> list[_Result]:
    found = [result for result in (*ended, *live) if now - result.at < WINDOW]
    return sorted(found, key=lambda result: result.at)


def _failures_in_a_row(results: list[_Result]) -> int:
    """How many of the last results, one after the other, are failures."""
    return sum(1 for _ in takewhile(lambda result: result.failed, reversed(results)))


def _bot(results: list[_Result]) -> Finding:
    if not results:
        return Finding(Colour.UNKNOWN, "it had no call in the last ten minutes")
    failed = [result for result in results if result.failed]
    if not failed:
        return Finding(Colour.GREEN)
    last, in_a_row = failed[-1], _failures_in_a_row(results)
    much = in_a_row >= FAILURES_IN_A_ROW or (in_a_row and len(failed) >= FAILURE_SHARE * len(results))
    few = not in_a_row and len(failed) < 0.1 * len(results)
    detail = f" ({beginning(last.detail, MAX_TEXT)})" if last.detail else ""
    why = f"{len(failed)} of {len(results)} calls failed: {_BOT_FAULTS[last.failed]}{detail}"
    remedy = "eslbot doctor calls it; see the bot's own log. The customers went to agents"
    if few:
        return Finding(Colour.GREEN, why)
    return Finding(Colour.RED if much else Colour.AMBER, why, remedy)


def _ameyo(results: list[_Result], failing: list[Row], overdue: int, now: float) -> Finding:
    if failing:
        oldest = min(failing, key=lambda row: row.get("notified_at") or now)
        waits = now - (oldest.get("notified_at") or now)
        said, remedy = _explain_hand_off(oldest)
        hopeless = any(row.get("attempt_verdict") == "rejected" for row in failing)
        why = f"{_customers(len(failing))} for it: {said}"
        return Finding(Colour.RED if hopeless or waits > HAND_OFF_GRACE else Colour.AMBER, why, remedy)
    if overdue:
        why = f"{_customers(overdue)} since it has accepted: no BYE comes"
        return Finding(Colour.RED, why, "ask Ameyo's operator why these calls are not fetched")
    if not results:
        return Finding(Colour.UNKNOWN, "it had no customer in the last ten minutes")
    lost = [result for result in results if result.failed]
    if not lost:
        return Finding(Colour.GREEN)
    why = f"{len(lost)} of {len(results)} customers left before it accepted: {lost[-1].detail}"
    colour = Colour.RED if _failures_in_a_row(results) >= FAILURES_IN_A_ROW else Colour.AMBER
    return Finding(colour, why, "see the notifications of these calls (eslbot calls --fault ameyo)")


def _certificate(left: float) -> Finding:
    days = int(left // 86400)
    when = f"ends in {days} {'day' if days == 1 else 'days'}" if left > 0 else "has ended"
    remedy = "tell Ameyo's operator to renew it: behind its end every notification fails"
    return Finding(Colour.AMBER, f"its certificate {when}", remedy)


def _customers(count: int) -> str:
    return "1 customer waits" if count == 1 else f"{count} customers wait"


def _answer(row: Row) -> str:
    status, detail = row.get("attempt_status"), beginning(row.get("attempt_detail") or "", MAX_TEXT)
    if status is None:
        return f"no answer from Ameyo: {detail}" if detail else "no answer from Ameyo"
    return f"Ameyo answers {status}: {detail}" if detail else f"Ameyo answers {status}"


def _explain_hand_off(row: Row) -> tuple[str, str]:
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


def _call_in_need(row: Row, need: Need, since: float, why: str, remedy: str) -> CallInNeed:
    about = {name: row.get(name) for name in ("workspace_id", "workspace", "crt_object_id", "stage")}
    return CallInNeed(row["call_id"], need, since, why, remedy, **about)
