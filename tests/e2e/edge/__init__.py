"""The SIP edge: Kamailio with what ``eslbot conf --edge`` renders, in front of several switches."""
