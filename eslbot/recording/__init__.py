"""Recordings of calls: the caller left, what they heard of the bot right, on one time line.

::

    relay's loop                                    a thread of the relay's            disk ------------
    -----------------------            ---- caller's frames ─▶ alignment ─▶ recorder ─ queue ─▶ writer ─▶ FLAC
    ─▶ (sealed) ─▶ <call id>.<part>.flac[.enc] ticks of the line ┘                                └▶ sidecar
    ───────────────▶ <call id>.json

What the caller *heard* is what FreeSWITCH has read of the line, not what the bot sent: a ``clear`` takes back
what was not read, and what is played during a hold is silence. Nothing here may cost a call anything: the
loop hands bytes over once a second and never waits; encoding, encrypting and every file operation are the
thread's. Where the thread falls behind, or the disk is full or hangs, the *recording* ends, which is counted
and logged.

``store`` reads recordings (for ``eslbot recording`` and the page), by workspace; ``retention`` deletes what
is too old or too much.
"""
