"""The line between a caller and a bot: who carries the audio, and knows what was heard.

A relay runs beside FreeSWITCH. mod_audio_stream talks to nobody else, so no bot's byte ever reaches it::

             ┌────────── FreeSWITCH ──────────┐
     PBX ═RTP══▶ parked channel ─ mod_audio_stream ═ WebSocket, 8 kHz L16 ═▶ ┐
         ◀═RTP══      ▲ uuid_displace (mux)     │                            relay ◀═ any protocol ═▶ bot
             └────────┼──────────────────────────┘                            │
                      └── line file: a ring of L16, offset = time ◀── pwrite ─┘

The controller tells the call's story and touches no audio. It and the relay talk in texts through the
module (:mod:`eslbot.relay.control`).

* :mod:`~eslbot.relay.process`: the parent that holds the listening socket and forks relays.
* :mod:`~eslbot.relay.worker`: one relay: an asyncio loop, the module's streams, the calls.
* :mod:`~eslbot.relay.call`: one call in the relay, from its stream to its bot's end.
* :mod:`~eslbot.relay.caller`: the caller's frames on their way to the bot.
* :mod:`~eslbot.relay.line`, :mod:`~eslbot.relay.reads`: the line file, and how far FreeSWITCH has read it.
* :mod:`~eslbot.relay.left`: what a relay before has left in its own.
* :mod:`~eslbot.relay.playout`, :mod:`~eslbot.relay.margin`: what is said when.
* :mod:`~eslbot.relay.dialler`: sockets to bots; :mod:`~eslbot.relay.connection`: what is said on one.
* :mod:`~eslbot.relay.protocols`: what bots speak, without sockets.
* :mod:`~eslbot.relay.audio`: from what a bot sends to L16 at 8,000 Hz, and back up.
"""
