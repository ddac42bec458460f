"""``eslbot onboard``: the checklist of a workspace that is to go live, to be sent to Ameyo as it is."""
