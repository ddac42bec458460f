"""Who is calling: from the variables of a channel to an :class:`Invite`, or to a refusal that says why.

The format is the mission's document, section 1; where FreeSWITCH keeps its parts was measured
(``docs/architecture.md``). What is checked here came from a SIP header: it is hostile until it has passed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from eslbot.config.model import IP, address_in

#: The channel variable that holds the From display name.
DISPLAY = "sip_from_display"

_DID = re.compile(r"00[0-9]{7,15}")
_CRT_OBJECT_ID = re.compile(r"[!#-&(-{}~]{1,128}")  # printable ASCII without space, quotes and |
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}")
#: What an edge writes the source of an INVITE to (``freeswitch-conf/kamailio``), and nobody else can.
SOURCE_HEADER = "X-Source-IP"
_SOURCE = re.compile(rf"variable_sip_h_{SOURCE_HEADER}(-[0-9]+)?", re.IGNORECASE)  # a second one is name-1
#: The edge asks no other host then: it goes by these phrases.
OF_THE_TENANT = {"workspace_full": "Workspace Full", "source_rate": "Too Many Calls A Second"}
_PHRASES = {
    400: "Bad Request",
    403: "Forbidden",
    488: "Not Acceptable Here",
    500: "Server Internal Error",
    503: "Service Unavailable",
}


class Refused(Exception):
    """A call that is not taken. ``why`` is a fixed word for the metric, ``detail`` names the value."""

    def __init__(self, status: int, why: str, detail: str, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.why, self.detail, self.retry_after = status, why, detail, retry_after

    @property
    def phrase(self) -> str:
        """The reason phrase of the final response (RFC 3261, 21)."""
        return OF_THE_TENANT.get(self.why) or _PHRASES[self.status]


@dataclass(frozen=True, slots=True)
class Invite:
    """What the INVITE says. ``call_id`` is FreeSWITCH's channel UUID, ``caller`` and ``to`` are SIP users."""

    call_id: str
    did: str
    crt_object_id: str
    workspace_id: str
    source_ip: str
    caller: str
    to: str


def parse(channel: Mapping[str, str], raw_display: str | None = None, edges: Collection[IP] = ()) -> Invite:
    """The invite of a channel, given the headers of the ``connect`` reply, and who may speak for others.

    ``raw_display`` is the display name as FreeSWITCH has it, where it is known: events cannot tell a ``%7C``
    that the caller wrote from a ``|``. Raises :class:`Refused` with status 400.
    """
    display = channel.get(f"variable_{DISPLAY}", "")
    did, crt_object_id = parse_display(display)
    if raw_display is not None and raw_display != display:
        raise _malformed("display_name", raw_display, "it must not hold percent sequences like %0A or %7C")
    return Invite(
        call_id=channel.get("Unique-ID") or channel.get("variable_uuid", ""),
        did=did,
        crt_object_id=crt_object_id,
        workspace_id=parse_workspace_id(header(channel, "X-Workspace-ID")),
        source_ip=source_ip(channel, edges),
        caller=channel.get("variable_sip_from_user", "")[:128],
        to=channel.get("variable_sip_to_user", "")[:128],
    )


def parse_display(display: str) -> tuple[str, str]:
    """DID and CRT Object ID of a From display name ``<DID>|<CRT Object ID>``. Raises :class:`Refused`."""
    what = "display_name"
    if not display:
        raise _malformed(
            what, display, 'the From header has no display name; expected "<DID>|<CRT Object ID>"'
        )
    did, _, crt_object_id = display.partition("|")
    if display.count("|") != 1:
        raise _malformed(what, display, f"expected exactly one '|', found {display.count('|')}")
    if not did or not crt_object_id:
        raise _malformed(what, display, f"nothing {'before' if not did else 'behind'} the '|'")
    if did.startswith("+"):
        raise _malformed(what, display, "the DID begins with '+'; it must begin with 00 instead")
    if not _DID.fullmatch(did):
        raise _malformed(what, display, "the DID must be 00 and 7 to 15 digits")
    if not _CRT_OBJECT_ID.fullmatch(crt_object_id) or _PERCENT.search(crt_object_id):
        raise _malformed(
            what,
            display,
            "the CRT Object ID must be 1 to 128 printable ASCII characters without spaces, quotes, '|' "
            "and percent sequences",
        )
    return did, crt_object_id


def parse_workspace_id(text: str | None) -> str:
    """The workspace id in lower case. Raises :class:`Refused`."""
    if not text:
        raise _malformed("workspace_header", "", "the header X-Workspace-ID is missing")
    workspace_id = text.lower()
    if not _UUID.fullmatch(workspace_id):
        raise _malformed("workspace_header", text, "X-Workspace-ID must be a UUID")
    return workspace_id


def source_ip(channel: Mapping[str, str], edges: Collection[IP] = ()) -> str:
    """Where the INVITE came from: who sent it to FreeSWITCH; or, if that was an edge, who sent it to that.

    An edge says so in :data:`SOURCE_HEADER`, and anybody else who does is not listened to. Empty where the
    edge does not say it exactly once, and as an address: nobody's source.
    """
    sender = channel.get("variable_sip_network_ip", "")
    if sender not in map(str, edges):
        return sender
    told = [value for key, value in channel.items() if _SOURCE.fullmatch(key)]
    address = address_in(told[0].strip()) if len(told) == 1 else None
    return "" if address is None else str(address)


def header(channel: Mapping[str, str], name: str) -> str | None:
    """A SIP header that FreeSWITCH kept as ``sip_h_<name>``, in whatever case the sender spelt it."""
    usual = channel.get(f"variable_sip_h_{name}")
    if usual is not None:  # and the other hundred need not be read
        return usual.strip()
    wanted = f"variable_sip_h_{name}".lower()
    return next((value.strip() for key, value in channel.items() if key.lower() == wanted), None)


def _malformed(what: str, value: str, remedy: str) -> Refused:
    return Refused(400, f"malformed_{what}", f"{what.replace('_', ' ')} {value[:200]!r}: {remedy}")
