"""What the caller hears of the bot: the module's files, played in order.

The community edition of mod_audio_stream writes each ``streamAudio`` to a file and tells us its name; playing
it is ours. One ``playback`` a file, queued on the channel, so that FreeSWITCH goes from one to the next by
itself; the module deletes the files on ``stop``.
"""

from __future__ import annotations

import re
import time
from collections import deque

from eslbot.esl import Execution, Session

_FILE_NAME = re.compile(r"_\d{1,10}\.tmp\.(r8|r16|r24|wav)")


class Speech:
    """The queue of one call. ``temp_dir`` is FreeSWITCH's, where the module writes."""

    def __init__(self, session: Session, temp_dir: str) -> None:
        self._session = session
        self._prefix = f"{temp_dir}/{session.uuid}"
        self._playing: deque[Execution] = deque()

    def owns(self, path: str) -> bool:
        """Whether ``path`` is one of this call's speech files, which the module names after the call."""
        return path.startswith(self._prefix) and _FILE_NAME.fullmatch(path[len(self._prefix) :]) is not None

    def play(self, path: str) -> None:
        """Queue one file behind those that are queued already."""
        while self._playing and self._playing[0].done:
            self._playing.popleft()
        self._playing.append(self._session.execute("playback", path))

    def drain(self, timeout: float) -> bool:
        """Wait until the caller has heard everything, ``timeout`` seconds at most; whether that was so."""
        deadline = time.monotonic() + timeout
        while self._playing:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if not self._playing[0].done:
                self._playing[0].wait(left)
            self._playing.popleft()
        return True

    def cut(self) -> None:
        """Stop at once and forget what is queued."""
        if self._playing:
            self._playing.clear()
            self._session.uuid_break()
