"""What a relay reads of a bot's: messages in each of the four protocols, and the audio in them."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Iterator

from eslbot.ameyo.notification import notification
from eslbot.ameyo.properties import allowed
from eslbot.audio.decoder import KINDS, RATES, Decoder
from eslbot.audio.levels import audible
from eslbot.config.placeholders import fill
from eslbot.relay.protocols import PROTOCOLS
from eslbot.relay.protocols.base import BadMessage, End, Mark, Speech
from tests.support.protocols import INVITE, speak

MESSAGES = (
    b'{"type":"end","properties":{"summary":"paid","score":4.5,"agent_group":null},"reason":"done"}',
    b'{"type":"clear"}',
    b'{"type":"mark","name":"m-1"}',
    b'{"type":"resumed"}',
    b'{"type":"caller_speech","speaking":true}',
    b'{"type":"streamAudio","data":{"audioDataType":"raw","sampleRate":8000,"audioData":"AAAA"}}',
    b'{"event":"media","streamSid":"MZ1","media":{"payload":"//8="}}',
    b'{"event":"mark","streamSid":"MZ1","mark":{"name":"m-1"}}',
    b'{"event":"playAudio","media":{"contentType":"audio/x-l16","sampleRate":8000,"payload":"AAAA"}}',
    b'{"event":"checkpoint","streamId":"1","name":"m-1"}',
    b'{"event":"clearAudio","streamId":"1"}',
)


def message(content: bytes) -> Iterator[None]:
    """A text of four bots, one by one, whatever protocol it is meant for; an end goes on to Ameyo."""
    text = content.decode("utf-8", "replace")
    refused: BadMessage | None = None
    for name in PROTOCOLS:
        protocol = speak(name)
        try:
            wishes = protocol.read(text)
        except BadMessage as error:
            word, why = error.args
            assert word.isidentifier() and 0 < len(why) <= 200
            refused, wishes = error, ()
        for wish in wishes:
            if isinstance(wish, Mark):
                assert all(json.loads(told) for told in protocol.mark(wish.name, cleared=False))
            elif isinstance(wish, End):
                taken, dropped = allowed(wish.properties, list(wish.properties)[::2])
                assert len(taken) + len(dropped) == len(wish.properties)
                reason = fill({"why": "{reason}"}, {"reason": wish.reason})
                json.loads(notification(INVITE.crt_object_id, {**taken, **reason}))
        yield
    if refused is not None:
        raise refused


def audio(content: bytes) -> None:
    """Bytes as speech of some kind and rate, whole and in two pieces."""
    rng = random.Random(zlib.crc32(content))
    decoder = Decoder()
    kind, rate = rng.choice((*KINDS, "wav", "mp3")), rng.choice((*RATES, 0, 11025, -8000, 10**30))
    middle = rng.randrange(len(content) + 1)
    for chunk in (content, content[:middle], content[middle:]):
        audible(decoder.decode(Speech(chunk, kind, rate)))
