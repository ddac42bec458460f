"""Who ended a call, and why: read from FreeSWITCH's last events of a channel.

Only two ways of ending are the PBX's: its BYE, and before the answer its CANCEL. FreeSWITCH names them in
``sip_hangup_disposition`` (``sofia.c``, ``mod_sofia.c``). A FreeSWITCH that had died drops a call without a
BYE where the PBX does not accept the re-INVITE by which it takes the call up (``recv_refuse``, measured). All
else is our side's, also where that variable is missing: the SIP stack sends a BYE of its own accord when no
ACK comes within 64 * T1 (RFC 3261, 13.3.1.4), and mod_sofia then sets none, nor a cause that says so
(measured: NORMAL_UNSPECIFIED).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class By(StrEnum):
    """Whose doing the end of a channel was."""

    PBX = "pbx"
    US = "us"  # FreeSWITCH, whoever told it to
    LOST = "lost"  # nobody's BYE: the PBX has refused a re-INVITE of FreeSWITCH's, or did not answer it
    UNKNOWN = "unknown"  # no event of the end came


@dataclass(frozen=True, slots=True)
class Why:
    """A cause of our BYE: in words, and what an operator can do."""

    words: str
    remedy: str


_NO_ACK = Why(
    "the SIP stack gave the call up: no ACK came to our 200",
    "the PBX's ACK does not get here: compare freeswitch.external_ip and the Contact of our 200 with the "
    "address that the PBX can reach; look for NAT and for a firewall that lets only the INVITE pass",
)
#: By FreeSWITCH's ``Hangup-Cause``.
WHYS = {
    "NORMAL_UNSPECIFIED": _NO_ACK,  # as FreeSWITCH 1.11 has it
    "RECOVERY_ON_TIMER_EXPIRE": _NO_ACK,  # where it is told the stack's 408
    "MEDIA_TIMEOUT": Why(
        "no RTP packet came for freeswitch.media_timeout, and no BYE",
        "the PBX vanished, or its RTP does not get here: look for a firewall on freeswitch.rtp_ports",
    ),
    "INCOMPATIBLE_DESTINATION": Why(
        "the PBX's ACK or re-INVITE brought no SDP that can be used",
        "have the PBX offer PCMU or PCMA and answer our offer in its ACK",
    ),
    "MANDATORY_IE_MISSING": Why(
        "the PBX's ACK did not bring the SDP it owes, or a re-INVITE was answered 488",
        "have the PBX send its offer in the INVITE, or an answer in the ACK to our offer",
    ),
    "MANAGER_REQUEST": Why(
        "somebody ended it at FreeSWITCH (uuid_kill, hupall)", "find out who; nothing of eslbot's does"
    ),
    "SYSTEM_SHUTDOWN": Why(
        "FreeSWITCH was stopped with the call up",
        "pause it first and wait until no call is up: fsctl shutdown elegant",
    ),
    "ALLOTTED_TIMEOUT": Why(
        "a sched_hangup ended it", "take the time-out out of the dialplan or the channel"
    ),
    "EXCHANGE_ROUTING_ERROR": Why("its hops were used up", "render the dialplan again: eslbot conf"),
    "ATTENDED_TRANSFER": Why(
        "an INVITE with Replaces named the call's Call-ID: FreeSWITCH answered that one without asking "
        "eslbot, and will end it soon",
        "switch attended transfers (Replaces) off on the trunk; with an edge it is refused there",
    ),
    "NORMAL_CLEARING": Why(
        "the dialplan came to its end", "render the dialplan again: eslbot conf, and reloadxml"
    ),
}
_OTHERWISE = "FreeSWITCH's log of that second tells more"


@dataclass(frozen=True, slots=True)
class HangUp:
    """The end of a channel: FreeSWITCH's own ``disposition`` and ``cause``, and what they come to."""

    by: By
    disposition: str
    cause: str

    @property
    def vanished(self) -> bool:
        """Whether it is the one BYE of ours that is meant: to a PBX that is not there any more."""
        return self.by is By.US and self.cause == "MEDIA_TIMEOUT"

    @property
    def alarm(self) -> bool:
        """Whether our side ended a call that, as far as we know, was alive."""
        return self.by is By.US and not self.vanished

    @property
    def why(self) -> Why:
        """For an end of ours: the reason in words, and the remedy."""
        return why(self.cause)


def why(cause: str) -> Why:
    """What a ``Hangup-Cause`` means where our side ended a call."""
    return WHYS.get(cause) or Why(f"FreeSWITCH ended it ({cause or 'no cause'})", _OTHERWISE)


def read(event: Mapping[str, str], *, restarted: bool = False) -> HangUp:
    """The end, by the headers of CHANNEL_HANGUP_COMPLETE; of CHANNEL_HANGUP where that is all that came.

    ``restarted``: whether FreeSWITCH had died under the call.

    CHANNEL_HANGUP is made before mod_sofia has set the disposition; a BYE of the PBX's can be told by its
    ``sip_term_status``, which the end of a transaction by our own stack sets otherwise.
    """
    cause = event.get("Hangup-Cause") or ""
    disposition = event.get("variable_sip_hangup_disposition") or ""
    if not event:
        return HangUp(By.UNKNOWN, "unknown", "")
    if not disposition and event.get("Event-Name") == "CHANNEL_HANGUP":
        disposition = _BEFORE.get(event.get("variable_sip_term_status", ""), "")
    if disposition in ("recv_bye", "recv_cancel"):
        return HangUp(By.PBX, disposition, cause)
    if restarted and disposition == "recv_refuse":
        return HangUp(By.LOST, disposition, cause)
    return HangUp(By.US, disposition or "send_bye", cause)


#: What ``sip_term_status`` says of the disposition that is to come.
_BEFORE = {"200": "recv_bye", "487": "recv_cancel"}
