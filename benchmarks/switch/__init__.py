"""Calls from a PBX (SIPp) through a real FreeSWITCH: what eslbot adds to their set-up, and what it uses."""
