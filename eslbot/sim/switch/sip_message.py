"""SIP messages (RFC 3261, sections 7 and 25) and the session descriptions in them, as far as the stand-in
needs them.

Not ``sipmessage``: that library raises on bytes that are not UTF-8 and on folded lines, merges headers of
different spelling, and resolves the backslash escapes of display names. FreeSWITCH does none
of it, so the stand-in must not either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from .wire import ENCODING, ERRORS

#: The most bytes of one message the stand-in reads, head and body.
MAX_MESSAGE = 65_536

_COMPACT = {
    "i": "Call-ID",
    "m": "Contact",
    "l": "Content-Length",
    "c": "Content-Type",
    "f": "From",
    "k": "Supported",
    "s": "Subject",
    "t": "To",
    "v": "Via",
}

# RFC 3261, 25.1: display-name = *(token LWS) / quoted-string
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s*(?=<)')
_TOKENS = re.compile(r"[A-Za-z0-9\-.!%*_+`'~ \t]*$")
_URI = re.compile(
    r"(sips?|tel):(?:([^@;?]*)@)?([^;?:\[]+|\[[0-9A-Fa-f:.]+\])?(?::(\d{1,5}))?(?:[;?].*)?$", re.I
)


class MalformedMessage(ValueError):
    """Bytes that are no SIP message, or a header that breaks its grammar; the text says which."""


@dataclass
class SipMessage:
    """A request (``method`` and ``uri``) or a response (``status`` and ``reason``)."""

    method: str = ""
    uri: str = ""
    status: int = 0
    reason: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    @classmethod
    def parse(cls, data: bytes) -> SipMessage:
        """The message in ``data``. Raises :class:`MalformedMessage`."""
        head, separator, body = data.partition(b"\r\n\r\n")
        if not separator:
            raise MalformedMessage("no end of the header block")
        lines = re.sub(r"\r\n[ \t]+", " ", head.decode(ENCODING, ERRORS)).split("\r\n")
        message = cls._start(lines[0])
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            name = name.rstrip(" \t")
            if not colon or not name or " " in name:
                raise MalformedMessage(f"not a header: {line[:80]!r}")
            message.headers.append((_COMPACT.get(name.lower(), name), value.strip(" \t")))
        length = message.content_length()
        if length is not None and length > len(body):
            raise MalformedMessage("the body is shorter than its Content-Length")
        message.body = body if length is None else body[:length]
        return message

    @classmethod
    def _start(cls, line: str) -> SipMessage:
        words = line.split(" ", 2)
        if len(words) == 3 and words[2] == "SIP/2.0" and words[0].isascii() and words[0].isalpha():
            return cls(method=words[0].upper(), uri=words[1])
        if len(words) >= 2 and words[0] == "SIP/2.0" and re.fullmatch(r"[1-6]\d\d", words[1], re.A):
            return cls(status=int(words[1]), reason=words[2] if len(words) > 2 else "")
        raise MalformedMessage(f"neither request nor response: {line[:80]!r}")

    def get(self, name: str) -> str | None:
        """The first header called ``name``, whatever its spelling."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def all(self, name: str) -> list[str]:
        """Every header called ``name``, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def need(self, name: str) -> str:
        """The first header called ``name``. Raises :class:`MalformedMessage` where there is none."""
        value = self.get(name)
        if not value:
            raise MalformedMessage(f"no {name} header")
        return value

    def content_length(self) -> int | None:
        """The announced length of the body in bytes."""
        value = self.get("Content-Length")
        if value is None:
            return None
        if not re.fullmatch(r"\d{1,9}", value, re.A) or int(value) > MAX_MESSAGE:
            raise MalformedMessage(f"bad Content-Length {value[:20]!r}")
        return int(value)

    def cseq(self) -> tuple[int, str]:
        """The number and the method of ``CSeq``."""
        match = re.fullmatch(r"(\d{1,10})\s+([A-Za-z]+)", self.need("CSeq"), re.A)
        if match is None:
            raise MalformedMessage("bad CSeq")
        return int(match[1]), match[2].upper()

    def pack(self) -> bytes:
        """The message as it goes over the wire; ``Content-Length`` is added."""
        start = f"{self.method} {self.uri} SIP/2.0" if self.method else f"SIP/2.0 {self.status} {self.reason}"
        lines = [start, *(f"{name}: {value}" for name, value in self.headers if name != "Content-Length")]
        lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", ""]).encode(ENCODING, ERRORS) + self.body


@dataclass(frozen=True)
class NameAddr:
    """A From, To, Contact or identity header; ``display`` keeps backslash escapes, None where there is
    none."""

    display: str | None
    uri: str
    params: dict[str, str]

    @classmethod
    def parse(cls, value: str, what: str) -> NameAddr:
        """The address in ``value``, a header called ``what``. Raises :class:`MalformedMessage`."""
        value = value.strip()
        display: str | None = None
        quoted = _QUOTED.match(value)
        if quoted:
            display, value = quoted[1], value[quoted.end() :]
        elif "<" in value:
            name, _, rest = value.partition("<")
            if not _TOKENS.match(name):
                raise MalformedMessage(f"Bad {what} Header")
            display, value = name.strip(), "<" + rest
        if value.startswith("<"):
            uri, closing, rest = value[1:].partition(">")
            if not closing:
                raise MalformedMessage(f"Bad {what} Header")
        else:
            uri, semicolon, rest = value.partition(";")
            rest = semicolon + rest
        if not _URI.match(uri):
            raise MalformedMessage(f"Bad {what} Header")
        return cls(display or None, uri, parameters(rest))


def parameters(text: str) -> dict[str, str]:
    """``;name=value`` parameters, names in lower case; a bare name has an empty value."""
    pairs = (part.partition("=") for part in text.split(";")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in pairs if name.strip()}


def uri_parts(uri: str) -> tuple[str, str, int | None]:
    """User, host and port of a ``sip:`` URI; empty and None where absent."""
    match = _URI.match(uri)
    if match is None:
        return "", "", None
    return match[2] or "", (match[3] or "").strip("[]"), int(match[4]) if match[4] else None


@dataclass(frozen=True)
class Offer:
    """What the stand-in takes from an SDP offer (RFC 3264): where to send what.

    ``codec`` is the first of the offer that is PCMU or PCMA at 8,000 Hz, ``events`` the payload type of
    telephone-event at 8,000 Hz. ``before`` and ``behind`` are the other streams, as the answer refuses them.
    ``profile`` is that of the audio, in the offer as in the answer.
    ``deaf`` is an offer that FreeSWITCH accepts and does not speak with (``eslbot/calls/offer.py`` says why).
    """

    address: str
    port: int
    codec: str
    payload_type: int
    events: int | None
    direction: str
    before: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    deaf: bool = False
    profile: str = "RTP/AVP"

    @classmethod
    def parse(cls, text: str) -> Offer | None:
        """The offer in an SDP, or None where it holds no audio we speak."""
        session, *sections = re.split(r"^(?=m=)", text.replace("\r", ""), flags=re.MULTILINE)
        streams = [section.split("\n") for section in sections]
        kinds = [lines[0][2:].split() for lines in streams]
        place = next(
            (n for n, kind in enumerate(kinds) if kind[:1] == ["audio"] and kind[1:2] != ["0"]), None
        )
        if place is None or any(kind[:1] == ["image"] and kind[1:2] != ["0"] for kind in kinds[:place]):
            return None
        refused = [
            f"m={kind[0]} 0 {kind[2]} {'t38' if kind[0] == 'image' else '19'}"
            for kind in kinds
            if len(kind) > 3
        ]
        if len(refused) < len(kinds):
            return None
        found = cls._audio(session.split("\n"), streams[place], kinds[place])
        deaf = any(kind[0] == "image" and kind[1] != "0" for kind in kinds[place:]) or any(
            kind[0] == "audio" for kind in kinds[:place]
        )
        return found and replace(
            found,
            before=tuple(refused[:place]),
            behind=tuple(refused[place + 1 :]),
            deaf=found.deaf or deaf or _has_feedback(kinds) != found.profile.endswith("AVPF"),
        )

    @classmethod
    def _audio(cls, session: list[str], lines: list[str], media: list[str]) -> Offer | None:
        address, direction = "", "sendrecv"
        names: dict[str, tuple[str, int]] = {"0": ("PCMU", 8000), "8": ("PCMA", 8000)}
        for line in (*session, *lines):
            kind, _, value = line.partition("=")
            if kind == "c" and len(value.split()) == 3:
                address = value.split()[2]  # the stream's own counts
            elif kind == "a" and value.startswith("rtpmap:"):
                number, _, encoding = value[7:].partition(" ")
                name, _, rate = encoding.partition("/")
                rate = rate.partition("/")[0]
                names[number] = (
                    name.strip().upper(),
                    int(rate) if re.fullmatch(r"\d{1,6}", rate, re.A) else 0,
                )
            elif kind == "a" and value in ("sendrecv", "sendonly", "recvonly", "inactive"):
                direction = value
        if not re.fullmatch(r"\d{1,5}", media[1], re.A):
            return None
        port, formats = (
            int(media[1]),
            [number for number in media[3:] if re.fullmatch(r"\d{1,3}", number, re.A)],
        )
        chosen = next((n for n in formats if names.get(n) in (("PCMU", 8000), ("PCMA", 8000))), None)
        deaf = _is_deaf(media[2], session, lines)
        if chosen is None or not 0 < port < 65536 or deaf is None or not address:
            return None
        events = next((int(n) for n in formats if names.get(n) == ("TELEPHONE-EVENT", 8000)), None)
        codec = names[chosen][0]
        return cls(address, port, codec, int(chosen), events, direction, deaf=deaf, profile=media[2])

    @property
    def flow(self) -> str:
        """Our own direction in answer to the offer's."""
        return {"sendonly": "recvonly", "recvonly": "sendonly"}.get(self.direction, self.direction)

    def answer(self, ip: str, port: int, session: int) -> str:
        """Our SDP: the one codec, telephone-event where it was offered, ptime 20."""
        formats = [str(self.payload_type)] + ([str(self.events)] if self.events is not None else [])
        lines = [*_head(ip, session), *self.before, f"m=audio {port} {self.profile} {' '.join(formats)}"]
        lines.append(f"a=rtpmap:{self.payload_type} {self.codec}/8000")
        if self.events is not None:
            lines += [f"a=rtpmap:{self.events} telephone-event/8000", f"a=fmtp:{self.events} 0-15"]
        return "\r\n".join([*lines, f"a={self.flow}", "a=ptime:20", *self.behind, ""])


def _has_feedback(kinds: list[list[str]]) -> bool:
    """Whether any stream that is on has a profile of RFC 4585 or 5124."""
    return any(kind[1] != "0" and kind[2].endswith("AVPF") for kind in kinds)


def _is_deaf(profile: str, session: list[str], stream: list[str]) -> bool | None:
    """Whether FreeSWITCH answers audio of this profile and does not speak; None is 488, also for what it does
    encrypt, which the stand-in does not."""
    dtls = any(line.startswith("a=fingerprint:") for line in (*session, *stream))
    keys = any(line.startswith("a=crypto:") for line in stream)
    match profile:
        case "RTP/AVP" if keys:
            return None  # "a=crypto in RTP/AVP, refer to rfc3711"
        case "RTP/AVP" | "RTP/AVPF":
            return dtls
        case "RTP/SAVP":
            return None if keys and not dtls else True
        case "RTP/SAVPF" | "UDP/TLS/RTP/SAVPF":
            return None if dtls else True
        case "UDP/TLS/RTP/SAVP":
            return True
    return None


#: Of an INVITE without an offer, until the ACK brings the answer to ours.
NO_OFFER = Offer("0.0.0.0", 9, "PCMU", 0, 101, "sendrecv")


def own_offer(ip: str, port: int, session: int, direction: str) -> str:
    """An offer of ours, for an INVITE that has none; ``sendrecv`` goes without saying."""
    lines = [*_head(ip, session), f"m=audio {port} RTP/AVP 0 8 101"]
    lines += ["a=rtpmap:0 PCMU/8000", "a=rtpmap:8 PCMA/8000", "a=rtpmap:101 telephone-event/8000"]
    lines += ["a=fmtp:101 0-15", *([] if direction == "sendrecv" else [f"a={direction}"]), "a=ptime:20"]
    return "\r\n".join([*lines, ""])


def offer_again(ip: str, port: int, session: int, agreed: Offer) -> str:
    """The offer of a switch that takes a call up: what was agreed on, but ``sendrecv`` also for a held call,
    and telephone-event with a rate of 0 (measured)."""
    formats = [str(agreed.payload_type)] + ([str(agreed.events)] if agreed.events is not None else [])
    lines = [*_head(ip, session), f"m=audio {port} RTP/AVP {' '.join(formats)}"]
    lines.append(f"a=rtpmap:{agreed.payload_type} {agreed.codec}/8000")
    if agreed.events is not None:
        lines += [f"a=rtpmap:{agreed.events} telephone-event/0", f"a=fmtp:{agreed.events} 0-15"]
    return "\r\n".join([*lines, "a=ptime:20", ""])


def _head(ip: str, session: int) -> list[str]:
    origin = f"o=FreeSWITCH {session} {session + 1} IN IP4 {ip}"
    return ["v=0", origin, "s=FreeSWITCH", f"c=IN IP4 {ip}", "t=0 0"]
