"""The service's health: its components, each tenant's bot and Ameyo, and the calls that need somebody.

Computed in the page process by :mod:`eslbot.health.monitor`, from probes (:mod:`eslbot.health.probes`) and
from the calls that are up (:mod:`eslbot.health.calls`). Nothing in here imports gevent, and no fault of it
touches a call.
"""
