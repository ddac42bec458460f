"""The voice bot's stand-in: a WebSocket server that eslbot's relay connects to.

It speaks the protocol of ``docs/bot-protocol.md``, or that of a telephony provider, and knows nothing of
eslbot. What it does in a call is chosen by the URL's path, so that one server serves every scenario; the
query tunes the numbers: ``ws://127.0.0.1:PORT/talk?listen_ms=300``. Each connection has a thread for what
comes and one for what the bot does, so that a behaviour is a function that is read from top to bottom, and
a test may speak in between.

======================  ================================================================================
``/talk``               440 Hz for 600 ms, listens until it has had ``listen_ms`` of caller audio,
                        880 Hz for 400 ms, ``end``, waits for the peer to close
``/hold``               greets, then does what the test says (:meth:`BotCall.say`, ``end``, ``close``, …)
``/converse``           440 Hz for ``speak_ms``, listens until it has had ``listen_ms`` of caller audio,
                        again and again; ``end`` after ``turns`` of them (0, the default: never)
``/drone``              440 Hz without a break, in real time, for ``seconds`` and then ``end`` (0, the
                        default: until the test ends it)
``/patient``            never speaks first: waits until the caller has spoken and paused, then ``/talk``
``/reflex``             answers each beginning of the caller's speech at once with ``speak_ms`` (200) of
                        440 Hz in messages of ``chunk_ms`` (20); ``end`` after ``turns`` (0: never)
``/one-breath``         700 ms of 440 Hz, 300 ms of 880 Hz and ``end``, all at once
``/close``              greets and closes 1000
``/silent``             accepts and never speaks
``/zeros``              speaks without a break, but nothing that can be heard; ``seconds`` as ``/drone``
``/echo``               says back what it hears
``/wav``                speaks the file the server was given, listens for ``listen_ms``, ``end``; 404
                        without a file
``/twilio``, …          also ``/exotel``, ``/plivo``: a bot made for that provider. The greeting in one
                        message and a mark without a name, waits for that mark; 5 s of speech that are cut
                        by ``clear`` once it has had ``listen_ms``; good-bye, waits for its mark, closes 1000
``/error-close``        greets, listens for ``listen_ms`` (0) of caller audio, and closes 1011
``/abort``              greets and drops the TCP connection without a close frame
``/reject``             answers the upgrade with 403
``/junk``               bad JSON, unknown types, 70 kB, unusable audio; then talks
``/unusable-audio``     ``streamAudio`` of nothing, half samples, broken WAV, foreign rates; then talks
``/odd-bytes``          a greeting in messages of 321 bytes, listens, good-bye, ``end``
``/wav-placeholder``    a greeting in WAV with sizes of 0 and FFFFFFFF, listens, good-bye, ``end``
``/properties-hostile``  greets, then ends with nested, huge and unlisted properties
``/half-closed``        greets, ends its own side of TCP without a close frame, and reads on
``/frozen``             greets; from then on it neither reads nor writes nor closes
``/flood``              greets, then ``count`` (3,000) texts of ``size`` bytes (2,000) as fast as it can that
                        mean nothing, and ``end``
``/speech-flood``       ``seconds`` (700) of speech at once, and ``end``
``/mark-flood``         a greeting at once, ``count`` (20,000) marks, and ``end``
``/oversized``          greets, then one text of ``size`` bytes (5 MiB), then goes on like ``/talk``
``/huge-header``        greets, then announces a frame of ``size`` bytes (2^64-1), of which ``follow`` come
``/bad-frames``         greets, then sends what is no WebSocket frame
======================  ================================================================================

Parameters of the query:

* of what is said: ``greeting_ms``, ``listen_ms``, ``goodbye_ms``, ``speak_ms``, ``turns``, ``seconds``;
* ``format`` of the speech: ``binary``, ``raw`` (the default), ``wav``, ``pcmu``, ``pcma``; ``rate`` in Hz,
  8000 by default, where it is binary that of the caller's audio; ``dialect``: any path in the protocol of
  ``twilio``, ``exotel`` or ``plivo``, where ``end`` is a close with 1000;
* of its pace: ``chunk_ms`` (100) of speech in a message, against the clock; ``jitter_ms``, by which each goes
  early or late (``seed`` makes it another one); ``ahead_ms``, by which all go early, so that their own
  lateness is not heard; ``burst=1``: all at once. ``heeds_hold=1`` does not speak to a caller on hold;
* ``status`` of ``/reject``. ``once=1`` lets ``/abort`` and ``/error-close`` fail only the first connection of
  a call; the next one talks. ``resumes=1`` does not greet again there. ``hears=1`` reports the caller's
  speech, by loudness;
* ``keep_tcp=1`` leaves the TCP connection open whatever was said on it (a close frame, an answer to the
  peer's, a refusal), until :meth:`Bot.let_go`; ``unread=1`` reads nothing behind the upgrade, and speaks all
  the same.

``resumed`` is answered at once, and ``end`` repeated. A call that was finished on an earlier connection
(``end``, or a close with 1000) is finished again on a new one whose ``start`` has ``"resumed": true``,
whatever its path.
"""

from eslbot.sim.bot.behaviours import GOODBYE, GREETING
from eslbot.sim.bot.call import PROPERTIES, BotCall, Received, Said
from eslbot.sim.bot.server import BEHAVIOURS, Bot, Upgrade, run
from eslbot.sim.bot.wavfiles import Recorder, UnusableFile, WavFile

__all__ = [
    "BEHAVIOURS",
    "GOODBYE",
    "GREETING",
    "PROPERTIES",
    "Bot",
    "BotCall",
    "Received",
    "Recorder",
    "Said",
    "UnusableFile",
    "Upgrade",
    "WavFile",
    "run",
]
