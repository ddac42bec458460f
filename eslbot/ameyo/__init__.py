"""Ameyo's side: telling it that the bot is done, so that it sends BYE and gives the customer to an agent.

* ``client``: POSTs a notification and retries it; ``retry``: which answers are retried, and when.
* ``notification``, ``properties``: what is in it.
* ``connections``, ``proxy``, ``answer``, ``sockets``: the way there, and what comes back, all of it bounded.
* ``semaphore``, ``deadline``: how many at one time, and for how long.

Nothing is imported here: ``proxy`` and ``notification`` are also for processes without gevent.
"""
