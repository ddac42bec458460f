"""What FreeSWITCH makes of SIP messages: the caller profile, and channel variables (``mod_sofia``)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .sip_message import MalformedMessage, NameAddr, Offer, SipMessage, uri_parts

if TYPE_CHECKING:
    from .sip_dialog import SipCall


def now() -> int:
    """Microseconds of the epoch, as FreeSWITCH writes times."""
    return time.time_ns() // 1000


def caller_of(call: SipCall) -> dict[str, str]:
    """The caller profile: From, overridden by Remote-Party-ID, overridden by P-Asserted-Identity
    (sofia.c)."""
    user = uri_parts(call.sender.uri)[0]
    number, name = user, call.sender.display or user or "unknown"
    for header in ("Remote-Party-ID", "P-Asserted-Identity", "P-Preferred-Identity"):
        value = call.invite.get(header)
        if not value:
            continue
        try:
            identity = NameAddr.parse(value, header)
        except MalformedMessage:
            continue  # sofia-sip leaves out an optional header it cannot read
        number = uri_parts(identity.uri)[0] or number
        name = identity.display or name
    return {
        "Username": user,
        "Dialplan": "XML",
        "Caller-ID-Name": name,
        "Caller-ID-Number": number,
        "Orig-Caller-ID-Name": name,
        "Orig-Caller-ID-Number": number,
        "Network-Addr": call.peer.host,
        "ANI": number,
        "Destination-Number": uri_parts(call.invite.uri)[0] or "service",
        "Source": "mod_sofia",
        "Context": "public",
    }


def variables_of(call: SipCall) -> list[tuple[str, str | None]]:
    """The variables mod_sofia makes of an INVITE, as far as somebody may want them."""
    invite, peer, offer = call.invite, call.peer, call.offer
    found: list[tuple[str, str | None]] = [
        ("direction", "inbound"),
        ("sip_local_network_addr", call.local_ip),
        ("sip_network_ip", peer.host),
        ("sip_network_port", str(peer.port)),
        ("sip_invite_stamp", str(now())),
        ("sip_received_ip", peer.host),
        ("sip_received_port", str(peer.port)),
        ("sip_via_protocol", peer.transport),
        *variables_of_ack(invite),
        ("sip_user_agent", invite.get("User-Agent")),
        ("max_forwards", "69"),
        ("sofia_profile_name", "stand-in"),
        ("recovery_profile_name", "stand-in"),
        ("endpoint_disposition", "RECEIVED_NOSDP" if call.late else "RECEIVED"),
        ("switch_r_sdp", invite.body.decode("utf-8", "surrogateescape")),
        *([] if call.late else variables_of_offer(offer)),
    ]
    addresses = {
        "from": call.sender.uri,
        "req": invite.uri,
        "to": call.recipient.uri,
        "contact": call.contact.uri,
    }
    for prefix, uri in addresses.items():
        user, host, port = uri_parts(uri)
        where = f"{host}:{port}" if port else host
        found += [(f"sip_{prefix}_user", user), (f"sip_{prefix}_uri", f"{user}@{where}" if user else where)]
        found += [(f"sip_{prefix}_host", host), (f"sip_{prefix}_port", str(port) if port else None)]
    # The variable keeps the sender's spelling; a second header of the name, however spelled, becomes name-1.
    taken: set[str] = set()
    for name, value in extra_headers(invite):
        unique, repeats = name, 0
        while unique.lower() in taken:
            repeats += 1
            unique = f"{name}-{repeats}"
        if "${" not in value:
            taken.add(unique.lower())
        found.append((f"sip_h_{unique}", value))
    return found


def variables_of_ack(request: SipMessage) -> list[tuple[str, str | None]]:
    """The variables mod_sofia makes of the INVITE, and again of each ACK to a 200 (``extract_header_vars``,
    ``nua_i_ack``): a display name that is missing there is missing from now on."""
    sender, recipient = (NameAddr.parse(request.need(name), name) for name in ("From", "To"))
    found = [
        ("sip_full_via", ",".join(request.all("Via"))),
        ("sip_from_display", sender.display),
        ("sip_full_from", request.get("From")),
        ("sip_to_display", recipient.display),
        ("sip_full_to", request.get("To")),
        ("sip_from_tag", sender.params.get("tag")),
        ("sip_cseq", str(request.cseq()[0])),
        ("sip_call_id", request.get("Call-ID")),
    ]
    return [*found, ("sip_to_tag", tag)] if (tag := recipient.params.get("tag")) else found


def variables_of_offer(offer: Offer) -> list[tuple[str, str | None]]:
    """The variables FreeSWITCH makes of each SDP that it agrees to."""
    return [
        ("ep_codec_string", f"mod_spandsp.{offer.codec}@8000h@20i@64000b"),
        ("read_codec", offer.codec),
        ("read_rate", "8000"),
        ("write_codec", offer.codec),
        ("write_rate", "8000"),
        ("rtp_use_codec_name", offer.codec),
        ("rtp_use_codec_rate", "8000"),
        ("remote_media_ip", offer.address),
        ("remote_media_port", str(offer.port)),
        ("remote_audio_media_flow", offer.direction),
        ("audio_media_flow", offer.flow),
    ]


def extra_headers(request: SipMessage) -> list[tuple[str, str]]:
    """Headers of the sender's own, in order (``sofia_test_extra_headers``)."""
    return [(name, value) for name, value in request.headers if value and name.lower().startswith("x-")]
