"""The signed identity of a call: a channel variable, written at admission and believed ever after.

FreeSWITCH writes ``sip_from_display``, ``sip_h_*`` and the other ``sip_*`` variables of a channel anew with
every ACK, re-INVITE and UPDATE of the PBX (mod_sofia, ``sofia.c``), so what they say later is not what was
admitted. What was is kept here: ``eslbot_identity`` holds workspace, source, DID, CRT Object ID, caller and
called, and an HMAC over them and the channel's UUID. Who cannot make the HMAC cannot make a call of
anybody's, and a variable copied from another channel is worth nothing.
"""

from __future__ import annotations

import binascii
import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence

from eslbot.caller.invite import Invite

#: The channel variable.
VARIABLE = "eslbot_identity"
#: What an HMAC of ours is over, before the channel's UUID: one for another purpose is none of these.
_PURPOSE = b"eslbot identity 1"
#: A longer variable is none of ours: names and numbers of at most 128 characters each.
MAX_TOKEN = 8192
_FIELDS = ("workspace_id", "source_ip", "did", "crt_object_id", "caller", "to")
_to_json = json.JSONEncoder(separators=(",", ":")).encode


class Signer:
    """Signs identities with the first of its ``keys``, and believes those that any of them has signed."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise ValueError("no key")
        self._keys = tuple(keys)

    def __repr__(self) -> str:
        return f"Signer({', '.join(self.fingerprints)})"

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """A word for each key, the same on every host that has it; it tells nothing of the key."""
        return tuple(_mac(key, b"eslbot fingerprint", b"").hex()[:16] for key in self._keys)

    def sign(self, invite: Invite) -> str:
        """The variable's value: ASCII letters, digits, ``-``, ``_`` and one ``.``."""
        payload = _to_json([getattr(invite, name) for name in _FIELDS]).encode()
        return f"{_encode(payload)}.{_encode(self._over(self._keys[0], invite.call_id, payload))}"

    def identity(self, channel: Mapping[str, str]) -> Invite | None:
        """Whose call ``channel`` (the headers of FreeSWITCH's answer to `connect`) is; None: nobody's.

        Nothing of a channel is looked at but its UUID and the signed variable.
        """
        call_id = channel.get("Unique-ID") or channel.get("variable_uuid", "")
        return self.verify(call_id, channel.get(f"variable_{VARIABLE}", ""))

    def verify(self, call_id: str, token: str) -> Invite | None:
        """The invite that ``token`` holds, if a key of ours has signed it for this channel."""
        if not call_id or not token.isascii() or len(token) > MAX_TOKEN:
            return None
        text, dot, signature = token.partition(".")
        payload, mac = _decode(text), _decode(signature)
        if not dot or payload is None or mac is None:
            return None
        if not any(hmac.compare_digest(mac, self._over(key, call_id, payload)) for key in self._keys):
            return None
        # Ours, so it is as we have written it; perhaps by another version.
        values = json.loads(payload)
        if len(values) != len(_FIELDS):
            return None
        return Invite(call_id=call_id, **dict(zip(_FIELDS, values, strict=True)))

    def _over(self, key: bytes, call_id: str, payload: bytes) -> bytes:
        return _mac(key, _PURPOSE, call_id.encode("utf-8", "replace") + b"\0" + payload)


def _mac(key: bytes, purpose: bytes, data: bytes) -> bytes:
    return hmac.digest(key, purpose + b"\0" + data, "sha256")


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes | None:
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return None
    return data if _encode(data) == text else None  # one spelling only
