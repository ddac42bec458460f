"""The relay: it carries a call's audio between FreeSWITCH and a bot, and knows what the caller has heard.

It runs beside FreeSWITCH. mod_audio_stream talks to nobody else, so no bot's byte ever reaches it::

             ┌────────── FreeSWITCH ──────────┐
     PBX ═RTP══▶ parked channel ─ mod_audio_stream ═ WebSocket, 8 kHz L16 ═▶ ┐
         ◀═RTP══      ▲ uuid_displace (mux)     │                            relay ◀═ any protocol ═▶ bot
             └────────┼──────────────────────────┘                            │
                      └── line file: a ring of L16, offset = time ◀── pwrite ─┘

The controller tells the call's story and touches no audio. It and the relay talk in texts through the
module (:mod:`eslbot.relay.control`). Begin with :mod:`~eslbot.relay.call`.

Processes: :mod:`~eslbot.relay.parent` binds the listening socket and forks relays;
:mod:`~eslbot.relay.worker` is one of them, an asyncio loop with calls, and :mod:`~eslbot.relay.resources`
what it gives each of them.

One call, :mod:`~eslbot.relay.call`:

* from the caller: :mod:`~eslbot.relay.stream_server` (FreeSWITCH's streams),
  :mod:`~eslbot.relay.caller_audio` (frames, and what packets lack);
* to and from the bot: :mod:`~eslbot.relay.bot_part` (its state), :mod:`~eslbot.relay.bot_connection` on a
  socket of :mod:`~eslbot.relay.dialler`, within :mod:`~eslbot.relay.budgets`, in the words of
  :mod:`~eslbot.relay.protocols`;
* to the caller: :mod:`~eslbot.relay.playout` (what is said when), which waits
  :mod:`~eslbot.relay.playout_delay`, into :mod:`~eslbot.relay.line`;
* beside it: :mod:`~eslbot.relay.turn_taking` with :mod:`~eslbot.relay.played_level`,
  :mod:`~eslbot.relay.call_recording`, and :mod:`~eslbot.relay.outbox` (news for the controller).
"""
