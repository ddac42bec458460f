"""A call as FreeSWITCH's core sees it: variables, state, the queue of commands, events, hang-up.

One task, the dialplan's, is the session's thread: it alone executes applications. Everything else (SIP, API
commands, the event socket) only changes flags, queues commands and wakes it.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from .causes import CAUSES, PHRASES, of_status, q850, sip_reason
from .displace import is_a_sound
from .from_sip import caller_of, extra_headers, now, variables_of, variables_of_ack, variables_of_offer
from .info import key_of_info
from .media import MediaSession
from .recovery import Row
from .session import Session
from .sip_message import Offer, SipMessage, offer_again, own_offer, uri_parts
from .wire import ENCODING, ERRORS, is_true, words

if TYPE_CHECKING:
    from .audio_stream import AudioStream
    from .core import Core
    from .sip_dialog import SipCall

# The events that carry channel variables (switch_channel_event_set_extended_data); DTMF is not one of them.
_WITH_VARIABLES = words("""
    CHANNEL_CREATE CHANNEL_ANSWER CHANNEL_PARK CHANNEL_UNPARK CHANNEL_PROGRESS CHANNEL_PROGRESS_MEDIA
    CHANNEL_HANGUP CHANNEL_HANGUP_COMPLETE CHANNEL_DATA CHANNEL_EXECUTE CHANNEL_EXECUTE_COMPLETE
    PLAYBACK_START PLAYBACK_STOP CHANNEL_HOLD CHANNEL_UNHOLD CUSTOM
    """)


class Controller(Protocol):
    """An event-socket connection that controls this channel."""

    def channel_down(self) -> None:
        """The channel has hung up."""


Application = Callable[["Channel", str], Awaitable[None]]


class Channel(Session):
    """One inbound call."""

    def __init__(
        self, core: Core, call: SipCall, applications: dict[str, Application], row: Row | None = None
    ) -> None:
        """``row`` is that of a call which another process has answered. Raises OSError: no RTP port."""
        super().__init__(core, {name: partial(run, self) for name, run in applications.items()})
        self.call = call
        self.uuid = row.uuid if row is not None else str(uuid.uuid4())
        self.controllers: set[Controller] = set()
        self.stream: AudioStream | None = None
        #: What uses the session after its hang-up: it is not gone before that ends.
        self.users: set[asyncio.Task[None]] = set()
        #: Whether the PBX has yet to answer the re-INVITE by which the call is taken up.
        self.recovering = row is not None
        #: Whether the dialplan is still in its first extension.
        self.arrived = True
        self.cause = ""
        self.times = {"created": now(), "answered": 0, "hungup": 0}
        # Whether the last SDP was an offer of ours, so that the ACK answers it; and who waits for that.
        self._offered = False
        #: Whether the PBX has said what it speaks.
        self.has_codec = not call.late
        self._waits_for_ack: asyncio.Future[None] | None = None
        if row is None:
            sock, ssrc, port = core.ports.open(call.local_ip), None, None
        else:
            port, ssrc = (_number(row.variable(name)) for name in ("local_media_port", "rtp_use_ssrc"))
            sock = core.ports.open(call.local_ip, port)
        #: Without its port in the row FreeSWITCH takes a call up, and sends nothing (measured).
        self._mute = row is not None and port is None
        self.media = MediaSession(core.clock, sock, call.offer, self._heard, self.key, ssrc)
        self._sdp = call.offer.answer(call.local_ip, self.media.port, int(time.time()))
        self.caller = caller_of(call) if row is None else dict(row.caller)
        user = uri_parts(call.sender.uri)
        self.name = f"sofia/stand-in/{user[0]}@{user[1]}"
        if row is not None:
            self._restore(row)
        else:
            for name, value in variables_of(call):
                self.variables.set_from_network(name, value)
        for name, value in {
            "uuid": self.uuid,
            "call_uuid": self.uuid,
            "channel_name": self.name,
            "local_media_ip": call.local_ip,
            "local_media_port": str(self.media.port),
            "rtp_use_ssrc": str(self.media.ssrc),
        }.items():
            self.variables.set(name, value)
        core.channels[self.uuid] = self
        self.fire("CHANNEL_CREATE")

    # -- what outlives the switch --------------------------------------------------------------------------

    def track(self) -> None:
        """Write the call's row, as FreeSWITCH does where it is answered and not being taken up."""
        if not self.answered or self.down or self.recovering:
            return
        self.core.tracking.write(
            Row(
                self.uuid,
                self.times["answered"],
                self.arrived,
                tuple(self.variables.items()),
                tuple(self.caller.items()),
                self.call.invite.pack().decode(ENCODING, ERRORS),
                self.call.peer.transport,
                self.call.peer.host,
                self.call.peer.port,
                self.call.local_tag,
                self.call.remote_cseq,
                self.call.offer,
            )
        )

    def _restore(self, row: Row) -> None:
        for name, value in row.variables:
            self.variables.set(name, value)
        self.variables.set("recovered", "true")
        self.answered, self.arrived = True, row.arrived
        self.times["answered"] = row.answered  # that of its creation is the present (measured)

    def take_up(self) -> None:
        """Offer anew, and speak at once: the answer is not waited for (measured)."""
        if not self._mute:
            self._media_ready()
        offer = offer_again(self.call.local_ip, self.media.port, int(time.time()), self.call.offer)
        self.call.take_up(offer)

    def taken_up(self, answer: Offer | None) -> None:
        """The PBX has accepted."""
        self.recovering = False
        if answer is None:
            self.hangup("INCOMPATIBLE_DESTINATION", None)
            return
        self._agreed(replace(answer, direction="sendrecv"))  # it sends whatever the PBX says (measured)
        self.core.emit("taken_up", self.identity())
        self.track()

    def not_taken_up(self, status: int) -> None:
        """The PBX has refused, or not answered: the call is over, without BYE (measured)."""
        self.core.emit("not_taken_up", {"status": status, **self.identity()})
        self.hangup(of_status(status), "recv_refuse")

    # -- events --------------------------------------------------------------------------------------------

    def fire(
        self, name: str, extra: Iterable[tuple[str, str | None]] = (), body: str = "", subclass: str = ""
    ) -> None:
        """Fire an event about this channel; an extra header without a value is left out."""
        headers = self.headers(name) + [(key, value) for key, value in extra if value is not None]
        self.core.fire(self.core.event(name, headers, body, subclass))

    def headers(self, event_name: str = "CHANNEL_DATA") -> list[tuple[str, str]]:
        """The channel's part of an event: state, caller and, where this event has them, variables."""
        state, number = ("CS_HANGUP", "10") if self.down else ("CS_EXECUTE", "4")
        answer = (
            "hangup" if self.down else "answered" if self.answered else "early" if self.early else "ringing"
        )
        headers = [
            ("Channel-State", state),
            ("Channel-Call-State", {"answered": "ACTIVE", "hangup": "HANGUP"}.get(answer, answer.upper())),
            ("Channel-State-Number", number),
            ("Channel-Name", self.name),
            ("Unique-ID", self.uuid),
            ("Call-Direction", "inbound"),
            ("Presence-Call-Direction", "inbound"),
            ("Channel-HIT-Dialplan", "true"),
            ("Channel-Call-UUID", self.uuid),
            ("Answer-State", answer),
        ]
        if self.cause:
            headers.append(("Hangup-Cause", self.cause))
        if self.answered or self.early:
            for way in ("Read", "Write"):
                headers.append((f"Channel-{way}-Codec-Name", self.call.offer.codec))
                headers.append((f"Channel-{way}-Codec-Rate", "8000"))
                headers.append((f"Channel-{way}-Codec-Bit-Rate", "64000"))
        headers += self.profile("Caller")
        if event_name in _WITH_VARIABLES:
            headers += [(f"variable_{name}", value) for name, value in self.variables.items()]
        return headers

    def profile(self, prefix: str) -> list[tuple[str, str]]:
        """The caller profile (``switch_caller_profile_event_set_data``)."""
        times = [
            ("Profile-Created", "created"),
            ("Channel-Created", "created"),
            ("Channel-Answered", "answered"),
        ]
        stamps = [*times, ("Channel-Hangup", "hungup")]
        fields = [
            ("Direction", "inbound"),
            ("Logical-Direction", "inbound"),
            *self.caller.items(),
            ("Unique-ID", self.uuid),
            ("Channel-Name", self.name),
            *((f"{label}-Time", str(self.times[key])) for label, key in stamps),
        ]
        return [(f"{prefix}-{name}", value) for name, value in fields if value]

    # -- what the PBX does ---------------------------------------------------------------------------------

    def cancelled(self) -> None:
        """CANCEL before the answer."""
        self.hangup("ORIGINATOR_CANCEL", "recv_cancel")

    def bye_received(self) -> None:
        """BYE."""
        self.core.emit("bye", {"by": "pbx", **self.identity()})
        self.hangup("NORMAL_CLEARING", "recv_bye")

    def never_acknowledged(self) -> None:
        """No ACK to our 200: RFC 3261, 13.3.1.4 says BYE."""
        self.core.emit("no_ack", self.identity())
        self.core.emit("bye", {"by": "switch", "cause": "ACK Timeout", **self.identity()})
        self.call.send_bye('SIP;cause=408;text="ACK Timeout"')
        # The stack's own doing: mod_sofia hears only that the call is over, and sets no disposition.
        self.hangup("NORMAL_UNSPECIFIED", None)

    def dtmf_by_info(self, digit: str, milliseconds: int) -> None:
        """A key by SIP INFO."""
        self.key(digit, milliseconds * 8, "INFO")

    def acknowledged(self, ack: SipMessage) -> None:
        """An ACK: who speaks to whom by it is the channel's from now on, and its SDP answers ours."""
        for name, value in variables_of_ack(ack):
            self.variables.set_from_network(name, value)
        self.track()
        if not self._offered:
            return
        self._offered = False
        answer = Offer.parse(ack.body.decode("utf-8", "replace"))
        if answer is None:
            self.hangup("INCOMPATIBLE_DESTINATION")
            return
        self._agreed(answer)
        if self._waits_for_ack is not None and not self._waits_for_ack.done():
            if self.answered:
                self._media_ready()
            else:
                self._answered()
            self._waits_for_ack.set_result(None)

    def informed(self, info: SipMessage) -> None:
        """INFO: the headers of the PBX's own are kept apart from the INVITE's, and it may be a key."""
        for name, value in extra_headers(info):
            self.variables.set_from_network(f"sip_info_h_{name}", value)
        kind, body = info.get("Content-Type") or "", info.body.decode("utf-8", "replace")
        fields = [("SIP-Content-Type", kind), ("SIP-From-User", uri_parts(self.call.sender.uri)[0])]
        self.fire("RECV_INFO", [(name, value or None) for name, value in fields], body)
        if (key := key_of_info(kind, body)) is not None:
            self.key(*key, "ENDPOINT")

    def renegotiated(self, request: SipMessage, offer: Offer | None) -> str:
        """A re-INVITE: headers of the PBX's own replace those of the INVITE, and the media may change."""
        for name, value in extra_headers(request):
            self.variables.set_from_network(f"sip_h_{name}", value)
        if offer is None:
            self._offered = True
            unhold = is_true(self.variables.get("sip_unhold_nosdp"))
            return self._own_offer("sendrecv" if unhold else self.call.offer.flow)
        sdp = request.body.decode("utf-8", "surrogateescape")
        if sdp != self.variables.get("switch_r_sdp"):
            self.variables.set_from_network("sip_reinvite_sdp", sdp)
        self._agreed(replace(offer, deaf=False))
        if not is_true(self.variables.get("rtp_disable_hold")):
            self._hold(offer.direction in ("sendonly", "inactive") or offer.address == "0.0.0.0")
        self.fire("CUSTOM", subclass="sofia::reinvite")
        self.track()
        return offer.answer(self.call.local_ip, self.media.port, int(time.time()))

    def updated(self, offer: Offer) -> str:
        """UPDATE with an offer: FreeSWITCH notes what it says, and goes on sending (measured)."""
        self.variables.set("remote_audio_media_flow", offer.direction)
        return offer.answer(self.call.local_ip, self.media.port, int(time.time()))

    def _agreed(self, offer: Offer) -> None:
        """What both sides have settled on."""
        self.call.offer = offer
        self.has_codec = True
        self.media.update(offer)
        for name, value in variables_of_offer(offer):
            self.variables.set(name, value)

    def _hold(self, on: bool) -> None:
        """FreeSWITCH's own hold; one that ends without SDP is never undone (``sofia.c``)."""
        if on != self.media.paused:
            self.media.paused = on
            self.fire("CHANNEL_HOLD" if on else "CHANNEL_UNHOLD")

    def _own_offer(self, direction: str) -> str:
        return own_offer(self.call.local_ip, self.media.port, int(time.time()), direction)

    def key(self, digit: str, samples: int, source: str = "RTP") -> None:
        """The caller pressed ``digit`` for ``samples`` (8,000 a second)."""
        if self.down:
            return
        self.core.emit("dtmf", {"digit": digit, "samples": samples, **self.identity()})
        self.fire("DTMF", [("DTMF-Digit", digit), ("DTMF-Duration", str(samples)), ("DTMF-Source", source)])
        terminators = self.variables.get("playback_terminators") or "*"
        stops = terminators == "any" or (terminators != "none" and digit in terminators)
        if stops and self.media.playing:
            self.variables.set("playback_terminator_used", digit)
            self.stop_application()

    def _heard(self, linear: bytes) -> None:
        if self.stream is not None:
            self.stream.hear(linear)

    def displace(self, path: str, flags: str, limit: int) -> bool:
        """Displace a file onto the channel (``switch_ivr_displace_session``); whether that went well."""
        self.pre_answer()
        return (
            self.has_codec and not self.down and is_a_sound(path) and self.media.displace(path, flags, limit)
        )

    # -- answering and ending ------------------------------------------------------------------------------

    def pre_answer(self) -> None:
        """Early media: 183 with our SDP."""
        if self.down or self.answered or self.early or self.call.ended:
            return
        self.early = True
        self.call.progress(self._sdp)
        self._media_ready()
        self.fire("CHANNEL_PROGRESS_MEDIA")

    def answer(self) -> None:
        """Send the 200. Without an offer of the PBX's the ACK answers the call: :meth:`answer_late`."""
        if self.down or self.answered or self.call.ended:
            return
        if self.call.late:
            self._offered = True
            self.call.answer(self._own_offer("sendrecv"))
            return
        self.call.answer(self._sdp)
        self._answered()

    async def answer_late(self) -> None:
        """The same as the channel's own thread does it: without an offer of the PBX's it waits for the ACK.

        Nobody else can: after ``uuid_answer`` the ACK does not answer the call (measured).
        """
        if not self.call.late or self.answered:
            self.answer()
            return
        if self.call.answered:
            await self.dwell()
            return
        self._waits_for_ack = asyncio.get_running_loop().create_future()
        self.answer()
        if await self.dwell(until=self._waits_for_ack) == "reset":
            # Its controller has gone: FreeSWITCH takes the call for answered, without a codec before the ACK.
            self._answered(media=False)

    def _answered(self, *, media: bool = True) -> None:
        self.answered = True
        self.times["answered"] = now()
        self.variables.set("endpoint_disposition", "ANSWER")
        if media:
            self._media_ready()
        self.core.emit("answered", self.identity())
        self.fire("CHANNEL_ANSWER")
        self.track()

    def refuse(self, status: int, reason: str, cause: str) -> None:
        """Refuse the INVITE with ``status``, with the headers of the ``sip_rh_`` variables; the call is
        over."""
        if self.down or self.answered or self.call.ended:
            return
        headers = [
            (name[7:], value) for name, value in self.variables.items() if name.lower().startswith("sip_rh_")
        ]
        self.call.refuse(status, reason, headers)
        self.core.emit("refused", {"status": status, "reason": reason, **self.identity()})
        # Not at once: the application that refuses still completes before the channel is seen to hang up.
        asyncio.get_running_loop().call_soon(self.hangup, cause, "send_refuse")

    def hangup(self, cause: str, disposition: str | None = "") -> None:
        """Hang up; ``disposition`` is ``sip_hangup_disposition`` where SIP has already seen to its part, None
        where it has and sets none."""
        if self.down:
            return
        self.down, self.cause = True, cause
        self.times["hungup"] = now()
        self.core.channels.pop(self.uuid, None)
        self.core.tracking.drop(self.uuid)
        if (
            disposition == "recv_bye"
        ):  # sofia_handle_sip_i_bye; the disposition itself only behind the hang-up
            for name, value in (("term_status", "200"), ("term_cause", "16")):
                self.variables.set(f"sip_{name}", value)
            self.variables.set("proto_specific_hangup_cause", "sip:200")
        self.fire("CHANNEL_HANGUP")
        if disposition == "":
            disposition = self._hangup_sip(cause)
        self.variables.set("sip_hangup_disposition", disposition)
        self.wake.set()
        for controller in list(self.controllers):
            controller.channel_down()

    async def finish(self) -> None:
        """The session's thread ends: say so, and give everything back; a stream's end is waited for."""
        if not self.down:
            self.hangup("NORMAL_CLEARING")
        try:
            if self.stream is not None:
                await asyncio.wait([self.stream.stop()])
        finally:
            self._complete()
        if self.users:
            await asyncio.wait(self.users)
        fields = {"cause": self.cause, "disposition": self.variables.get("sip_hangup_disposition")}
        rtp = {"rtp_received": self.media.received, "rtp_sent": self.media.sent}
        self.core.emit("hangup", {**fields, **rtp, **self.identity()})

    def _complete(self) -> None:
        self.media.close()
        for name, value in (("hangup_cause", self.cause), ("hangup_cause_q850", str(q850(self.cause)))):
            self.variables.set(name, value)
        for name, key in (("start", "created"), ("answer", "answered"), ("end", "hungup")):
            self.variables.set(f"{name}_uepoch", str(self.times[key]))
            self.variables.set(f"{name}_epoch", str(self.times[key] // 1_000_000))
        talked = (self.times["hungup"] - self.times["answered"]) // 1_000_000 if self.answered else 0
        self.variables.set("billsec", str(talked))
        self.variables.set("duration", str((self.times["hungup"] - self.times["created"]) // 1_000_000))
        self.fire("CHANNEL_HANGUP_COMPLETE")

    def _hangup_sip(self, cause: str) -> str:
        if self.answered:
            self.core.emit("bye", {"by": "switch", "cause": cause, **self.identity()})
            self.call.send_bye(sip_reason(cause))
            return "send_bye"
        status = CAUSES.get(cause, (0, 480))[1]
        self.call.refuse(status, PHRASES[status])
        self.core.emit("refused", {"status": status, "reason": PHRASES[status], **self.identity()})
        return "send_refuse"

    def identity(self) -> dict[str, str]:
        """Whose report this is."""
        return {"call_id": self.call.call_id, "uuid": self.uuid}

    def _media_ready(self) -> None:
        self.media.auto_adjust = not is_true(self.variables.get("disable_rtp_auto_adjust"))
        self.media.start_sending()
        if (timeout := self.variables.get("media_timeout", "")).isdecimal():
            self.media.watch(int(timeout) / 1000, lambda: self.hangup("MEDIA_TIMEOUT"))
        if self.parked:
            self.begin_park()

    def begin_park(self) -> None:
        """Media is up, and the session parks."""
        # switch_ivr_park looks once: when it begins, or when media comes up in it. A later `set` is not seen.
        value = self.variables.get("send_silence_when_idle", "")
        self.media.idle_silence = value.lstrip("+-").isdigit() and int(value) != 0


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None
