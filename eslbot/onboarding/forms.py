"""The checklist for programs, for mails and for a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eslbot.onboarding.checklist import Checklist, Item


def as_document(found: Checklist) -> dict[str, Any]:
    """For programs."""
    return {
        "workspace": {"id": found.workspace_id, "name": found.name},
        "complete": found.complete,
        "items": [
            {"what": i.what, "value": i.value, "owed_by": i.owed_by, "ask": i.ask} for i in found.items
        ],
        "ours": {
            "sip": found.ours,
            "sip_port": found.sip_port,
            "sip_transports": ["udp", "tcp"],
            "rtp": found.media,
            "rtp_ports": list(found.rtp_ports),
            "rest_egress": list(found.egress),
        },
        "theirs": {"sip_gateways": list(found.theirs), "rest_url": found.rest_url},
        "invite": found.invite,
        "notification": {"body": found.body, "curl": found.curl},
        "tests": list(found.tests),
    }


@dataclass(frozen=True, slots=True)
class _Style:
    """How a text's parts are marked; ``title``, ``heading`` and ``block`` are formats."""

    title: str
    heading: str
    done: str
    owed: str
    point: str
    block: str

    def item(self, item: Item) -> str:
        if item.owed_by:
            return f"{self.owed}{item.what}: owed by {item.owed_by}: {item.ask}"
        return f"{self.done}{item.what}: {item.value}"


_MARKDOWN = _Style("# {}", "## {}", "- [x] ", "- [ ] ", "- ", "```\n{}\n```")
_TEXT = _Style("{}", "{}", "  done  ", "  OWED  ", "  * ", "{}")


def as_markdown(found: Checklist) -> str:
    """For mails and tickets."""
    return _document(found, _MARKDOWN)


def as_text(found: Checklist) -> str:
    """For a terminal, and for mails of plain text."""
    return _document(found, _TEXT)


def _document(found: Checklist, style: _Style) -> str:
    ours = found.ours or "(our address: still missing)"
    state = "Nothing is owed any more."
    if not found.complete:
        state = f"{len(found.owed)} of {len(found.items)} are owed."
    sections = (
        (f"1. State: {state}", [style.item(item) for item in found.items]),
        ("2. Firewalls", [f"{style.point}{line}" for line in _firewalls(found, ours)]),
        (
            "3. INVITE",
            [
                "The DID (00, then 7 to 15 digits; no +) and the CRT Object ID are examples; X-Workspace-ID "
                "is as here in every call. PCMU or PCMA; no digest authentication.",
                "",
                style.block.format(found.invite),
            ],
        ),
        (
            "4. Notification, when the bot is done",
            [
                "This is what we send, repeated until it is answered with 2xx or the call has ended:",
                "",
                style.block.format(found.curl),
                "",
                f"Then the PBX sends BYE to {ours}, port {found.sip_port}, and the customer to an agent. "
                "We send no BYE.",
            ],
        ),
        ("5. Tests, in this order", [f"{number}. {test}" for number, test in enumerate(found.tests, 1)]),
    )
    lines = [style.title.format(f"Going live: {found.name} ({found.workspace_id})")]
    for heading, text in sections:
        lines += ["", style.heading.format(heading), "", *text]
    return "\n".join(lines)


def _firewalls(found: Checklist, ours: str) -> list[str]:
    """Who lets whom in, at which address and ports."""
    sip = f"SIP {found.sip_port} (UDP, TCP)"
    rtp = "RTP {}-{} (UDP)".format(*found.rtp_ports)
    if found.media == found.ours:
        to_us = [f"{ours}: {sip}, {rtp}"]
    else:
        media = found.media or "(our address for RTP: still missing)"
        to_us = [f"{ours}: {sip}", f"{media}, and each further machine of ours: {rtp}"]
    egress = ", ".join(found.egress) or "(still missing)"
    theirs = ", ".join(found.theirs) or "(your gateways: still missing)"
    return [
        *(f"Ameyo, to and from {line}." for line in to_us),
        f"Ameyo, in to {found.rest_url}: from {egress}.",
        f"We, in from {theirs}: the same ports. Everybody else is refused with 403.",
    ]
