"""Who is calling, on the upgrade request to the bot; the same whatever the bot speaks.

A caller's number comes from a SIP header and may be any text. In a header it is printable ASCII: every other
byte of its UTF-8 is percent-encoded, and so is a ``%`` that two hexadecimal digits follow. Whoever takes the
percent-encoding back has the text as it was; a telephone number or a CRT Object ID never has any.
"""

from __future__ import annotations

import re

from eslbot.caller.invite import Invite

_UNFIT = re.compile(rb"[^!-~]|%(?=[0-9A-Fa-f]{2})")


def identity(invite: Invite, rate: int) -> dict[str, str]:
    """Which call it is, and its audio's ``rate`` in Hz; what has no value is left out."""
    told = {
        "X-Call-ID": invite.call_id,
        "X-Workspace-ID": invite.workspace_id,
        "X-DID": invite.did,
        "X-CRT-Object-ID": invite.crt_object_id,
        "X-From": invite.caller,
        "X-Audio-Rate": str(rate),
    }
    return {name: fit(value) for name, value in told.items() if value}


def fit(value: str) -> str:
    """``value`` as printable ASCII without spaces."""
    plain = value.encode("utf-8", "replace")
    return _UNFIT.sub(lambda found: b"%%%02X" % found[0][0], plain).decode("ascii")
