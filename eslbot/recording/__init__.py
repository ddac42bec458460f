"""Recordings of calls: the caller left, what they heard of the bot right, on one time line.

::

    relay's loop                                  a thread of the relay's            disk
    ------------                                  -------------------                ----
    caller's frames ─▶ sides ─▶ recorder ─ queue ─▶ writer ─▶ FLAC ─▶ (sealed) ─▶ <call id>.<part>.flac[.enc]
    ticks of the line ┘                             └▶ sidecar ───────────────▶ <call id>.json

What the caller *heard* is what FreeSWITCH has read of the line, not what the bot sent: a ``clear`` takes back
what was not read, and what goes by on hold is silence. Nothing here may cost a call anything: the loop hands
on bytes once a second and never waits; encoding, encrypting and every call to the file system are the
thread's. Where that falls behind, or the disk is full or hangs, the *recording* ends, and that is counted and
told.

``store`` reads what was written (for ``eslbot recording`` and whoever plays it), by workspace; ``sweep``
deletes what is too old or too much.
"""
