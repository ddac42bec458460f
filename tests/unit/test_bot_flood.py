"""What a bot asks for without a pause does not stand between its end and the hand-off."""

from __future__ import annotations

from typing import Any, cast

from eslbot.bot.stream import MAX_UNANSWERED, AudioStream
from eslbot.esl import Session


class FakeSession:
    uuid = "6e7cd1a1-0b1a-4ad5-8a2c-000000000001"

    def __init__(self) -> None:
        self.posted: list[str] = []

    @property
    def unanswered(self) -> int:
        return len(self.posted)

    def post(self, data: str) -> None:
        self.posted.append(data)


def test_a_bot_that_floods_is_not_answered_beyond_what_freeswitch_can_send() -> None:
    session: Any = FakeSession()
    stream = AudioStream(cast(Session, session))
    assert all(stream.answer("x") for _ in range(MAX_UNANSWERED))
    assert not stream.answer("x")
    stream.close()
    assert len(session.posted) == MAX_UNANSWERED + 1, "its end is told all the same"
    session.posted.clear()
    assert stream.answer("x"), "FreeSWITCH has caught up"
