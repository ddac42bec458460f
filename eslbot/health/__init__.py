"""How the service is: what carries calls and what belongs to it, and which calls need somebody.

Computed in the page process, in rounds (:mod:`eslbot.health.rounds`), from probes
(:mod:`eslbot.health.probes`) and from the calls that live (:mod:`eslbot.health.living`). Nothing in here
imports gevent: nothing in it carries calls, and no fault of it touches one.
"""
