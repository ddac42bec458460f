"""What became of every call, from what the PBX, Ameyo, the bot and eslbot saw of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eslbot.sim.pbx.trace import Dialog
from eslbot.sim.pbx.voices import Voice

#: Refusals that only say that nobody answered: 487 follows our CANCEL.
_CANCELLED = 487


@dataclass(frozen=True)
class Post:
    """A notification that Ameyo accepted, epoch seconds."""

    at: float
    answered_at: float


@dataclass(frozen=True)
class Call:
    """One call. Times are epoch seconds, None for what has not happened or was not seen.

    Attributes:
        step: its place in the plan.
        dialog: what SIPp saw; None where it never began the call.
        posts: notifications that were accepted.
        bot_ended_at: when the bot said ``end``; only with our own bot.
        heard: seconds of the caller that the bot had; only with our own bot.
        voice: its RTP at the PBX.
        ended: eslbot's own last word of it, a line of its log.
        refused: eslbot's own word of why not.
        hand_off: whether it had to be handed off.
    """

    crt: str
    step: int
    dialog: Dialog | None
    posts: Sequence[Post] = ()
    bot_ended_at: float | None = None
    heard: float | None = None
    voice: Voice | None = None
    ended: Mapping[str, Any] = field(default_factory=dict)
    refused: Mapping[str, Any] = field(default_factory=dict)
    hand_off: bool = True

    @property
    def answered(self) -> bool:
        """Whether it got a 200."""
        return self.dialog is not None and self.dialog.answered

    @property
    def setup(self) -> float | None:
        """Seconds from INVITE to 200."""
        dialog = self.dialog
        if dialog is None or dialog.answered_at is None or dialog.invited_at is None:
            return None
        return dialog.answered_at - dialog.invited_at

    @property
    def packets_in(self) -> int | None:
        """RTP packets with audio that FreeSWITCH counted, by eslbot's log."""
        count = self.ended.get("packets_in")
        return int(count) if isinstance(count, (int, float)) else None

    def failure(self) -> str | None:
        """What went wrong with it, in the words of a table; None where nothing."""
        dialog = self.dialog
        if dialog is None or dialog.invited_at is None:
            return "never begun by SIPp"
        if not dialog.answered:
            return _unanswered(dialog, self.refused)
        if dialog.ended_by == "switch":
            return "unexpected BYE from the switch"
        if self.hand_off and not self.posts:
            return "no hand-off"
        if len(self.posts) > 1:
            return "handed off more than once"
        if dialog.ended_by is None:
            return "still up when the time was over"
        if dialog.bye_status != 200:
            return f"BYE answered with {dialog.bye_status}" if dialog.bye_status else "BYE not answered"
        if self.voice is not None and not self.voice.received:
            return "no RTP came back"
        return None


def _unanswered(dialog: Dialog, refused: Mapping[str, Any]) -> str:
    if dialog.cancelled_at is not None and dialog.status in (None, _CANCELLED):
        return "no answer in time (CANCEL)"
    if dialog.status is None:
        return "no response to the INVITE"
    why = refused.get("why")
    return f"{dialog.status} {dialog.reason}".strip() + (f" ({why})" if why else "")


def early_failure(dialog: Dialog) -> str | None:
    """What is known to be wrong with a call that may still be up."""
    if dialog.ended_by == "switch":
        return "unexpected BYE from the switch"
    over = dialog.cancelled_at is not None or dialog.status is not None
    return _unanswered(dialog, {}) if over and not dialog.answered else None


def most_at_once(dialogs: Iterable[Dialog]) -> int:
    """How many calls were up at the same time, at most."""
    changes: list[tuple[float, int]] = []
    for dialog in dialogs:
        if dialog.answered_at is not None:
            changes.append((dialog.answered_at, 1))
            if dialog.ended_at is not None:
                changes.append((dialog.ended_at, -1))
    most = up = 0
    for _, change in sorted(changes):
        up += change
        most = max(most, up)
    return most


def mean_up(dialogs: Iterable[Dialog], begin: float, end: float) -> float:
    """How many calls were up on average from ``begin`` to ``end``, epoch seconds."""
    if end <= begin:
        return 0.0
    seconds = 0.0
    for dialog in dialogs:
        if dialog.answered_at is not None:
            until = end if dialog.ended_at is None else min(end, dialog.ended_at)
            seconds += max(0.0, until - max(begin, dialog.answered_at))
    return seconds / (end - begin)
