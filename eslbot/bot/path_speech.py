"""Speech for a controller on another host than FreeSWITCH: the module's files, played by their path.

FreeSWITCH plays one after the other; every seam costs some 40 ms of silence and of uplink. It is the way that
works where the two share no directory.

When a controller goes away, FreeSWITCH cuts the file that it is playing, and drops those it was given behind
it. How far it has come is on the channel, so that a controller that can read the files goes on from there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import PurePath

import structlog

from eslbot import metrics
from eslbot.bot.audio import UnusableAudio
from eslbot.bot.speech import BY_PATH, DONE, VARIABLE, QueueFull, Utterance, number_of
from eslbot.esl import Event, Session

log = structlog.get_logger()

#: Executes in FreeSWITCH's own queue, which holds 256; the rest waits here.
MAX_AHEAD = 64
#: The file that plays and the next count as heard: it is some 40 ms until we know, and note, that one plays,
#: and rather is one not heard than heard twice.
HEARD = 2
#: Files that may wait.
MAX_QUEUED = 5000

#: What mod_sndfile plays; the module's lower-case ``.pcmu`` is nobody's.
_PLAYABLE = frozenset({".r8", ".r16", ".r24", ".wav"})


class PathSpeech:
    """The interface of :class:`eslbot.bot.speech.Speech`, for files that only FreeSWITCH can read.

    ``left`` and ``marks`` are what :meth:`eslbot.bot.speech.Speech.leave` has left to be heard first.
    """

    def __init__(
        self,
        session: Session,
        marked: Callable[[str, bool], None],
        left: Utterance | None = None,
        marks: Iterable[str] = (),
    ) -> None:
        self._session = session
        self._marked = marked
        #: What is to be heard, in order: a file's path, or a mark's name.
        self._queue: deque[tuple[str, bool]] = deque()
        #: The latest file.
        self._last: str | None = None
        #: The files that FreeSWITCH was given, by their playback.
        self._given: dict[str, str] = {}
        self._playing: deque[tuple[str, bool]] = deque()
        self._left = left
        if left is not None:
            self._playing.append((left.playback, False))
        self._queue.extend((name, True) for name in marks)
        self._failed = False

    def play(self, path: str, kind: str, rate: int, law: str, age: float = 0.0) -> None:
        """Let the caller hear ``path`` behind what is queued. Raises UnusableAudio, QueueFull."""
        if PurePath(path).suffix not in _PLAYABLE:
            raise UnusableAudio(
                f"audioDataType {kind[:20]!r} cannot be played from another host; send raw or wav"
            )
        if len(self._queue) >= MAX_QUEUED:
            raise QueueFull(f"more than {MAX_QUEUED} chunks are waiting to be heard")
        self._queue.append((path, False))
        self._last = path
        self._feed()

    def mark(self, name: str) -> None:
        """Call ``marked`` when everything before has been heard."""
        self._queue.append((name, True))
        self._feed()

    def clear(self) -> None:
        """Stop, and forget what is queued."""
        names = [name for name, is_mark in (*self._playing, *self._queue) if is_mark]
        self._queue.clear()
        self._given.clear()
        if self._playing:
            if self._last is not None:
                self._note(self._last)  # nobody says what is dropped
            self._playing.clear()
            self._session.uuid_break()
            self._close_left()
        for name in names:
            self._marked(name, True)

    @property
    def idle(self) -> bool:
        """Whether the caller has heard everything."""
        return not self._playing

    def started(self, event: Event) -> None:
        """A PLAYBACK_START: of no interest here."""

    def completed(self, event: Event) -> None:
        """A CHANNEL_EXECUTE_COMPLETE."""
        if self._playing and event.headers.get("Application-UUID") == self._playing[0][0]:
            playback, _ = self._playing.popleft()
            self._given.pop(playback, None)
            ahead = list(islice(self._given.values(), HEARD))
            if len(ahead) == HEARD:
                self._note(ahead[-1])
            self._close_left()
            response = event.headers.get("Application-Response", "")
            if response in ("FILE NOT FOUND", "PLAYBACK ERROR"):
                metrics.SPEECH_FAILURES.labels("not_played").inc()
                if not self._failed:  # one line a call; where one file is unknown, all will be
                    log.error("speech_not_played", response=response, remedy="see temp_dir")
                self._failed = True
            self._feed()

    def finish(self) -> None:
        """Nothing is held back here."""

    def due(self) -> float | None:
        """FreeSWITCH tells everything."""
        return None

    def tick(self) -> None:
        """Nothing is timed here."""

    def catch_up(self, law: str) -> None:
        """What was not told of cannot be found from here."""

    def forget_stream(self) -> None:
        """The module begins to count anew."""
        self._last = None
        self._session.set_plain_variables({DONE: ""})

    def release(self) -> None:
        """The next controller finds nothing of ours, as it is with :meth:`close`."""
        self.close()

    def close(self) -> None:
        """Nothing of ours is left behind; the module deletes its files."""
        self._queue.clear()
        self._given.clear()
        self._playing.clear()
        self._close_left()

    def _close_left(self) -> None:
        if self._left is not None:
            self._left.close()
            self._left = None

    def _feed(self) -> None:
        """Hand on what FreeSWITCH's queue takes, and return the marks whose turn has come."""
        while True:
            while self._playing and self._playing[0][1]:
                self._marked(self._playing.popleft()[0], False)
            if not self._queue or len(self._playing) >= MAX_AHEAD:
                return
            text, is_mark = self._queue.popleft()
            if not is_mark:
                path = text
                if len(self._given) < HEARD:
                    self._note(path)
                text = self._session.execute("playback", path, tell=True).uuid
                self._given[text] = path
            self._playing.append((text, is_mark))

    def _note(self, path: str) -> None:
        """Tell the next controller that everything up to ``path`` is not its to say."""
        self._session.set_plain_variables({VARIABLE: BY_PATH, DONE: str(number_of(path))})
