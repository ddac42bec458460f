"""Whether the PBX has put the caller on hold (RFC 3264, section 8.4), by what FreeSWITCH notes of its SDP.

Holds are FreeSWITCH's business no more (the dialplan's ``rtp_disable_hold``), because a resume without SDP
left the line dead for good; so there is no CHANNEL_HOLD. ``sofia::reinvite`` comes behind each re-INVITE with
an offer. The answer to an offer of ours is told by no event: while the caller is on hold we ask, and for a
while behind the re-INVITE of a FreeSWITCH that has restarted.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from eslbot.esl.session import Session

#: Behind each re-INVITE with an offer.
REINVITE = "sofia::reinvite"
#: Seconds between two questions while the caller is on hold.
ASK_EVERY = 0.5
#: Seconds that the PBX may take to answer a re-INVITE.
ANSWER_DUE = 5.0
#: What the PBX said last of its own direction, and where it wants the audio.
_FLOW, _ADDRESS = "remote_audio_media_flow", "remote_media_ip"


class Hold:
    """One call's. ``on`` is what was seen last."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.on = False
        self._due = float("inf")
        self._ask_until = float("-inf")

    @property
    def due(self) -> float:
        """When to ask again, on the monotonic clock."""
        return self._due

    def found(self, channel: Mapping[str, str], *, restarted: bool = False) -> bool:
        """Take what a channel's headers say, in the middle of a call; whether it is on hold.

        Where FreeSWITCH has ``restarted`` they may be older than the hold.
        """
        if restarted:
            self._ask_until = time.monotonic() + ANSWER_DUE
        return self._set(
            is_held(channel.get(f"variable_{_FLOW}", ""), channel.get(f"variable_{_ADDRESS}", ""))
        )

    def look(self) -> bool:
        """Ask FreeSWITCH; whether it has changed. Raises what :meth:`Session.api` raises."""
        flow, address = (
            self._session.ask_api(f"uuid_getvar {self._session.uuid} {name}") for name in (_FLOW, _ADDRESS)
        )
        before = self.on
        return self._set(is_held(flow(), address())) != before

    def _set(self, on: bool) -> bool:
        self.on = on
        now = time.monotonic()
        self._due = now + ASK_EVERY if on or now < self._ask_until else float("inf")
        return on


def is_held(flow: str, address: str) -> bool:
    """Whether a PBX that says ``flow`` of its direction, and wants audio at ``address``, takes none of ours.

    ``0.0.0.0`` is how RFC 2543 did it.
    """
    return flow.strip() in ("sendonly", "inactive") or address.strip() == "0.0.0.0"
