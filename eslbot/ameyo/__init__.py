"""Ameyo's side: telling it that the bot is done, so that it sends BYE and gives the customer to an agent.

Nothing is imported here: the configuration needs :mod:`eslbot.ameyo.properties` in the arbiter, where the
client's requests and ssl must not be loaded yet (see :mod:`eslbot.server.worker`).
"""
