"""The story of a call, from the INVITE to the BYE: begin at :mod:`eslbot.calls.call`."""
