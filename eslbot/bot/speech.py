"""What the caller hears of the bot: its chunks as one continuous sound.

The community edition of mod_audio_stream writes each ``streamAudio`` to a file of its own. Playing those one
by one leaves a hole at every seam, so the chunks of an utterance are appended to one file that FreeSWITCH is
already playing: mod_native_file reads on as long as there is more, and FreeSWITCH does the pacing. (Measured:
no gap, whatever the chunks' size; the alternatives and their figures are in ``docs/architecture.md``.)

An utterance begins a little after its first chunk has come: that is the time by which later chunks may come
late. Shortly before FreeSWITCH would find the file's end we look whether the module has written the next
chunk already (its event takes up to 40 ms), and if not, keep the utterance open with a little silence. It
ends when FreeSWITCH finds the end, and says how much it has read: what came too late for it is the beginning
of the next utterance. So a bot that is slower than real time is heard with pauses, and nothing is lost or
repeated.

When a controller goes away in mid-utterance, FreeSWITCH ends the playback, but the file stays, and so do the
chunks that nobody has taken yet: the next controller begins a new utterance with what of them was not heard
(:meth:`Speech.resume`). A chunk is renamed before it is said, so that nobody says it twice.

A controller on another host than FreeSWITCH cannot do that: see :mod:`eslbot.bot.path_speech`.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

import structlog

from eslbot import g711, metrics
from eslbot.bot.audio import Decoder, UnusableAudio
from eslbot.esl import Event, Session, whole_number

log = structlog.get_logger()

RATE = 8000
#: Bytes of a frame of 20 ms.
FRAME = 160
FRAME_MICROSECONDS = 20_000
#: FreeSWITCH looks for more as soon as no more than one frame is left. A file that ends a little behind a
#: frame makes it look one frame later, when it has to: each utterance begins with so many bytes of silence.
ODD = 8
#: Seconds from a chunk's arrival at FreeSWITCH until its playback is asked for: the time by which later
#: chunks may come late. (With FreeSWITCH's own 10 to 30 ms, that is the latency of speech.)
START_DELAY = 0.080
#: Seconds an event may have waited for FreeSWITCH's poll of our socket; they count as part of the delay.
MAX_AGE = 0.060
#: Seconds before FreeSWITCH looks for more at which we do, and how many frames of silence then keep an
#: utterance open whose next chunk is late. (An end and a new beginning would take longer.)
EARLIER = 0.006
BRIDGE = 10
#: Seconds between what FreeSWITCH has read of a file and what the caller has heard of it.
LINE_DELAY = 0.060
#: Seconds after a ``clear`` by which a playback has told its end; one that had not begun yet never will.
CUT_LIMIT = 0.25
#: Seconds a playback may be overdue before it counts as over; only a lost event can make it so.
OVERDUE = 5.0
#: One chunk of the bot's. mod_audio_stream itself was measured to drop the socket far below that.
MAX_CHUNK_BYTES = 4 * 1024 * 1024
#: Seconds of speech that may wait to be heard; what comes beyond is refused.
MAX_QUEUED = 600.0
#: What follows the name of a module's file whose speech is in one of ours.
TAKEN = ".taken"
#: Mode of our files: FreeSWITCH plays them.
SHARED = 0o640
#: Channel variables: the utterance of now, its number and law, or ``cut`` where a `clear` has ended it; when
#: FreeSWITCH began with it; and, set by the dialplan, when its controller was gone (both in epoch
#: microseconds by FreeSWITCH's clock).
VARIABLE, BEGAN, LEFT = "eslbot_speech", "eslbot_speech_began", "eslbot_left"
#: What :data:`VARIABLE` says where FreeSWITCH plays by path (:mod:`eslbot.bot.path_speech`); and the number
#: of the last of the module's files that was heard so, or dropped by a `clear`.
BY_PATH, DONE = "path", "eslbot_speech_done"
#: What ``switch_ivr_play_file`` sets when a playback ends: samples read, and what it calls its position.
READ, POSITION = "playback_samples", "playback_last_offset_pos"

_FILE_NAME = re.compile(r"_(\d{1,10})\.tmp\.(r8|r16|r24|r32|r48|r64|wav|mp3|ogg|pcmu|pcma)")
_OWN_NAME = re.compile(r"_(\d{1,10})\.eslbot\.(PCMU|PCMA)")
_KIND_OF_RAW = re.compile(r"r(\d+)")


class QueueFull(Exception):
    """The bot has sent more speech than the caller will ever listen to."""


class Utterance:
    """One growing file, and the playback that reads it. Positions are samples from the file's beginning."""

    def __init__(self, path: Path, law: str) -> None:
        self.path = path
        self.law = law
        self.size = 0
        self.said = 0  # what lies behind is silence that keeps the utterance open
        self.bridged = 0
        self.begins_at = 0.0
        self.cut_at: float | None = None
        self.playback = ""
        self.requested_at = time.monotonic()
        self.started_at: float | None = None
        self.marks: deque[tuple[int, str]] = deque()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, SHARED)
        os.fchmod(self._file, SHARED)  # whatever the umask: FreeSWITCH reads it by the directory's group

    def append(self, audio: bytes) -> None:
        """Add G.711 bytes; raises OSError where the disk is full, and then has added nothing."""
        before = self.size
        try:
            while audio:
                written = os.write(self._file, audio)
                self.size += written
                audio = audio[written:]
        except OSError:
            os.ftruncate(self._file, before)
            self.size = before
            raise

    def say(self, audio: bytes) -> None:
        """Add speech; raises OSError."""
        self.append(audio)
        self.said = self.size
        self.bridged = 0

    def pad(self, more: int) -> None:
        """Add silence up to the next frame's end, and ``more`` bytes; raises OSError."""
        self.append(g711.SILENCE[self.law] * (-self.size % FRAME + more))

    @property
    def cut(self) -> bool:
        """Whether a ``clear`` has ended it."""
        return self.cut_at is not None

    def rest(self, played: int) -> bytes:
        """The speech behind sample ``played``."""
        return os.pread(self._file, max(0, self.said - played), played)

    def heard_at(self, position: int) -> float:
        """When the caller will have heard everything before ``position``, on the monotonic clock."""
        started = self.started_at if self.started_at is not None else self.requested_at
        return started + position / RATE + LINE_DELAY

    @property
    def dry_at(self) -> float:
        """Just before FreeSWITCH looks for more and finds nothing; known once it has started.

        It reads frame after frame, each when the one before is on its way (``switch_ivr_play_file``).
        """
        assert self.started_at is not None
        return self.started_at + (self.size - 1) // FRAME * FRAME / RATE - EARLIER

    def release(self) -> None:
        """Let go of the file, which stays for the next controller."""
        os.close(self._file)

    def close(self) -> None:
        """Remove the file."""
        self.release()
        self.path.unlink(missing_ok=True)


class Speech:
    """The speech of one call, driven by the greenlet that tells the call: it never waits.

    ``temp_dir`` is FreeSWITCH's, where the module writes and we do. ``marked`` is called with a mark's name,
    and whether it was cleared, when its turn has come. A ``law`` is the line's codec, PCMU or PCMA.
    """

    def __init__(self, session: Session, temp_dir: str, marked: Callable[[str, bool], None]) -> None:
        self._session = session
        self._prefix = f"{temp_dir}/{session.uuid}"
        self._marked = marked
        self._decoder = Decoder()
        self._current: Utterance | None = None
        self._waiting = bytearray()  # what came while a cut playback had not ended yet
        self._waiting_marks: deque[tuple[int, str]] = deque()
        self._waiting_law = g711.PCMU
        self._number = 0
        self._done = -1  # the number of the module's last file that was played by path
        self._finished = False
        #: The module's last file, its kind and rate; where in the utterance a file taken before its event is.
        self._last: tuple[str, str, int] | None = None
        self._early: dict[str, int] = {}
        #: Files whose event has not come: where they are now, and how much was said of them. (The module may
        #: have been writing.)
        self._taken: dict[str, tuple[str, int]] = {}

    # -- what the bot asks --------------------------------------------------------------------------------

    def play(self, path: str, kind: str, rate: int, law: str, age: float = 0.0) -> None:
        """Let the caller hear the module's file ``path``, there since ``age`` seconds, behind what is queued.

        Raises UnusableAudio, :class:`QueueFull`, or OSError where the file is not there for us, or ours
        cannot be written.
        """
        self._early.pop(path, None)
        source, said = self._taken.get(path, (path, 0))
        if said and _size(source) <= said:
            del self._taken[path]
            _remove(source)
            return
        self._last = path, kind, rate  # whatever becomes of it, the next one is behind it
        self._make_room()
        content = _read(source)[said:]
        audio = self._decoder.decode(content, kind, rate, self._law_for(law))
        claimed = _claim(source)
        try:
            self._add(audio, law, age)
        except OSError:
            _give_back(claimed, path)
            raise
        self._taken.pop(path, None)
        _remove(claimed)

    def _make_room(self) -> None:
        current, waiting = self._current, len(self._waiting)
        if current is not None and current.heard_at(current.size + waiting) > time.monotonic() + MAX_QUEUED:
            raise QueueFull(f"more than {MAX_QUEUED:g} s of speech are waiting to be heard")

    def _law_for(self, law: str) -> str:
        """What a chunk has to be, the line's law being ``law`` now."""
        return self._waiting_law if self._waiting else law

    def _add(self, audio: bytes, law: str, age: float) -> None:
        """Say ``audio`` behind what there is; raises OSError."""
        current = self._current
        if current is None:
            self._begin(audio, law, age=age)
        elif current.cut or current.law != law or self._waiting:
            # A file is of one law, and a re-INVITE may change the line's: that waits for the file's end.
            self._waiting_law = self._law_for(law)
            self._waiting += audio
        else:
            current.say(audio)

    def _take_early(self, current: Utterance) -> bool:
        """Append the chunk behind the last one, if the module has written it; its event is under way."""
        if self._last is None or self._waiting:
            return False
        path, kind, rate = self._last
        if kind == "wav":  # half of one cannot be told from a whole one
            return False
        following = _following(path)
        try:
            content = _read(following)
            audio = self._decoder.decode(content, kind, rate, current.law)
            if not audio:  # created, and not written yet
                return False
            position = current.size
            claimed = _claim(following)
            try:
                current.say(audio)
            except OSError:
                _give_back(claimed, following)
                raise
        except FileNotFoundError:  # the usual end of an utterance: ten looks, and nothing to tell
            return False
        except (OSError, UnusableAudio) as error:
            log.debug("no_early_chunk", error=str(error))
            return False
        # The file stays until its event: after a `clear` that lies between, it has to be read again.
        self._early[following] = position
        self._taken[following] = claimed, len(content)
        self._last = following, kind, rate
        return True

    # -- after a take-over --------------------------------------------------------------------------------

    def resume(self, utterance: str, played: int, law: str, done: int = -1) -> bool:
        """Go on where the controller before us was cut; whether it had left anything.

        ``utterance`` is the channel variable :data:`VARIABLE`, ``played`` how many samples of it the caller
        has heard (:func:`cut_of`), ``done`` is :data:`DONE` (:func:`done_of`). Chunks that nobody has
        taken follow; :meth:`catch_up` takes those that come until we hear of events. Raises OSError where
        the directory is not there for us, or is full.
        """
        self._done = done
        names = self._names()
        left = self._left_before(names)
        for rest, own_law in self._unheard(left, utterance, played):
            self._add(rest, own_law, 0.0)
        self._take_left(names, law)
        if self._current is not None:
            self._current.begins_at = 0.0  # there was a beginning: it waits for nothing
            self.tick()
        self._remove_own(left)  # now that what they held is on its way
        return bool(names)

    def _unheard(self, left: Mapping[int, str], utterance: str, played: int) -> Iterator[tuple[bytes, str]]:
        """What is left of the utterance that was cut, and of one that had not begun yet; and their laws."""
        if utterance == BY_PATH:  # what there is was cut before that, and is not said behind it
            return
        text, _, law = utterance.partition(".")
        current = whole_number(text, -1)
        for number, own_law in sorted(left.items()):
            if number > current or (number == current and own_law == law):
                rest = _rest(self._own(number, own_law), played if number == current else ODD)
                if rest:
                    yield rest, own_law

    def start_over(self) -> None:
        """Drop what another controller has left: the bot begins anew. Raises OSError like :meth:`resume`."""
        self._remove_own(self._left_before(self._names()))
        self.forget_stream()

    def _left_before(self, names: Iterable[str]) -> dict[int, str]:
        """Number and law of the utterances of controllers before us; theirs are no numbers of ours."""
        left = {int(match[1]): match[2] for name in names if (match := _OWN_NAME.fullmatch(name))}
        self._number = max(left, default=-1) + 1
        for name in names:  # their speech is in one of those files; their event may still come
            if name.endswith(TAKEN):
                path = f"{self._prefix}{name.removesuffix(TAKEN)}"
                self._taken[path] = path + TAKEN, _size(path + TAKEN)
        return left

    def _remove_own(self, utterances: Mapping[int, str]) -> None:
        for number, law in utterances.items():
            _remove(self._own(number, law))

    def catch_up(self, law: str) -> None:
        """Take the chunks whose events came before we were told of events; raises OSError."""
        self._take_left(self._names(), law)

    def _names(self) -> list[str]:
        """What there is of this call, each name without the call's UUID."""
        folder, _, uuid = self._prefix.rpartition("/")
        with os.scandir(folder) as entries:
            return [entry.name.removeprefix(uuid) for entry in entries if entry.name.startswith(uuid)]

    def _own(self, number: int, law: str) -> str:
        return f"{self._prefix}_{number}.eslbot.{law}"  # mod_native_file: upper case is the codec

    def _take_left(self, names: Iterable[str], law: str) -> None:
        """Say the module's files that are there, in order; their events may have come, or may not."""
        found = sorted((int(match[1]), name) for name in names if (match := _FILE_NAME.fullmatch(name)))
        for position, (_, name) in enumerate(found):
            path, kind = self._prefix + name, name.rpartition(".")[2]
            if path in self._taken or number_of(path) <= self._done:
                continue
            raw = _KIND_OF_RAW.fullmatch(kind)
            rate = int(raw[1]) * 1000 if raw else 0
            try:
                self._make_room()
                content = _read(path)
                if kind == "wav" and position == len(found) - 1 and not _whole(content):
                    break  # the module is writing it: its event will come
                audio = self._decoder.decode(content, "raw" if raw else kind, rate, self._law_for(law))
            except (UnusableAudio, FileNotFoundError) as error:
                log.warning("speech_left_behind_not_said", file=path, error=str(error))
                continue
            except QueueFull as error:
                log.warning("speech_left_behind_not_said", files=len(found) - position, error=str(error))
                break
            claimed = _claim(path)
            self._taken[path] = claimed, len(content)
            self._last = path, "raw" if raw else kind, rate
            self._add(audio, law, 0.0)

    def forget_stream(self) -> None:
        """The module begins to count anew: none of the files that it has promised will come."""
        if self._done >= 0:
            self._done = -1
            self._session.set_plain_variables({DONE: ""})
        self._last = None
        self._early.clear()
        self._drop_taken()

    def _drop_taken(self) -> None:
        for source, _ in self._taken.values():
            _remove(source)
        self._taken.clear()

    # -- marks and barge-in -------------------------------------------------------------------------------

    def mark(self, name: str) -> None:
        """Call ``marked`` when everything before has been heard: at once when nothing is queued."""
        if self._current is None:
            self._marked(name, False)
        elif self._current.cut or self._waiting:
            self._waiting_marks.append((len(self._waiting), name))
        else:
            # A chunk that was taken early came behind this mark.
            self._current.marks.append((next(iter(self._early.values()), self._current.said), name))

    def clear(self) -> None:
        """Barge-in: stop what the caller hears, forget what is queued; marks come back as cleared."""
        self._waiting.clear()
        self._early.clear()
        # An event that comes behind this is of speech behind it, whenever that was taken.
        self._taken = {path: (source, 0) for path, (source, _) in self._taken.items()}
        self._decoder.reset()
        names = [name for _, name in self._waiting_marks]
        self._waiting_marks.clear()
        if self._current is not None:
            names = [name for _, name in self._current.marks] + names
            self._current.marks.clear()
            if not self._current.playback:  # FreeSWITCH does not know of it yet
                self._current.close()
                self._current = None
            elif not self._current.cut:
                self._current.cut_at = time.monotonic()
                self._session.set_plain_variables({VARIABLE: f"{self._number - 1}.cut"})  # nobody takes it up
                self._session.uuid_break()
        for name in names:
            self._marked(name, True)

    # -- what happens -------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether the caller has heard everything."""
        return self._current is None

    def started(self, event: Event) -> None:
        """A PLAYBACK_START."""
        current = self._current
        if current is not None and event.headers.get("Playback-File-Path") == str(current.path):
            current.started_at = time.monotonic() - event.age
            self._session.set_plain_variables({BEGAN: event.headers.get("Event-Date-Timestamp", "")})

    def completed(self, event: Event) -> None:
        """A CHANNEL_EXECUTE_COMPLETE of ours or another's."""
        current = self._current
        if current is None or event.headers.get("Application-UUID") != current.playback:
            return
        response = event.headers.get("Application-Response", "")
        if response in ("FILE NOT FOUND", "PLAYBACK ERROR"):
            log.error("speech_not_played", response=response, file=str(current.path), remedy="see temp_dir")
            metrics.SPEECH_FAILURES.labels("not_played").inc()
            self._over(current.size)
            return
        played = event.headers.get("variable_playback_samples", "")
        self._over(whole_number(played, current.size))

    def due(self) -> float | None:
        """When :meth:`tick` wants to be called at the latest, on the monotonic clock."""
        current = self._current
        if current is None:
            return None
        if not current.playback:
            return current.begins_at
        if current.cut_at is not None:
            return current.cut_at + CUT_LIMIT
        times = [current.heard_at(current.size) + OVERDUE]
        if current.started_at is not None:
            times += [current.heard_at(position) for position, _ in current.marks]
            times += [current.dry_at] if self._bridges(current) else []
        return min(times)

    def _bridge(self, current: Utterance) -> None:
        """FreeSWITCH is about to look for more: the next chunk, or else silence; the last of it in full."""
        if not self._take_early(current):
            current.bridged += 1
            self._pad(current, ODD if current.bridged < BRIDGE else 0)

    def _bridges(self, current: Utterance) -> bool:
        """Whether silence may still keep ``current`` open."""
        return not self._finished and current.bridged < BRIDGE

    def tick(self) -> None:
        """Do what is due: begin, bridge, return the marks that have been heard."""
        current, now = self._current, time.monotonic()
        if current is None:
            return
        if not current.playback:
            if now >= current.begins_at:
                self._request(current)
            return
        if current.started_at is not None:
            if not current.cut and self._bridges(current) and now >= current.dry_at:
                self._bridge(current)
            while current.marks and current.heard_at(current.marks[0][0]) <= now:
                self._marked(current.marks.popleft()[1], False)
        if current.cut_at is not None:
            if now >= current.cut_at + CUT_LIMIT:
                self._over(0)
        elif now > current.heard_at(current.size) + OVERDUE:
            log.error("speech_end_missed", file=str(current.path))
            metrics.SPEECH_FAILURES.labels("end_missed").inc()
            self._over(current.size)

    def _begin(self, audio: bytes, law: str, marks: Iterable[tuple[int, str]] = (), age: float = 0.0) -> None:
        """A new utterance; ``marks`` lie at positions in ``audio``."""
        path = Path(self._own(self._number, law))
        self._number += 1
        utterance = Utterance(path, law)
        try:
            utterance.append(g711.SILENCE[law] * ODD)
            utterance.say(audio)
        except BaseException:
            utterance.close()
            raise
        utterance.marks.extend((ODD + position, name) for position, name in marks)
        utterance.begins_at = time.monotonic() + START_DELAY - min(max(age, 0.0), MAX_AGE)
        self._current = utterance

    def _request(self, utterance: Utterance) -> None:
        """Ask FreeSWITCH to play what is there and what will be."""
        utterance.requested_at = time.monotonic()
        # For the next controller: what plays from now on, and that nothing of it has been played yet.
        name = str(utterance.path).removeprefix(f"{self._prefix}_").replace(".eslbot.", ".")
        self._session.set_plain_variables({VARIABLE: name, READ: "", POSITION: "", BEGAN: "", LEFT: ""})
        utterance.playback = self._session.execute("playback", str(utterance.path), tell=True).uuid

    def finish(self) -> None:
        """Nothing more will come: wait for nothing more."""
        self._finished = True
        if self._current is not None and not self._current.cut:
            if not self._current.playback:
                self._current.begins_at = time.monotonic()
            self._pad(self._current, 0)

    def _pad(self, utterance: Utterance, more: int) -> None:
        try:
            utterance.pad(more)
        except OSError as error:  # the disk is full: the utterance ends here
            utterance.bridged = BRIDGE
            log.warning("speech_not_padded", error=str(error))

    def _over(self, played: int) -> None:
        """The playback has ended after ``played`` samples: begin with what it has not read, if anything."""
        current, self._current = self._current, None
        assert current is not None
        law = self._waiting_law if self._waiting else current.law
        with closing(current):
            late = b"" if current.cut else current.rest(played)
        if law != current.law:
            late = g711.encode(law, g711.decode(current.law, late))
        marks = [(position - played, name) for position, name in current.marks]
        marks += [(len(late) + position, name) for position, name in self._waiting_marks]
        self._early = {path: max(0, position - played) + ODD for path, position in self._early.items()}
        audio = late + bytes(self._waiting)
        self._waiting.clear()
        self._waiting_marks.clear()
        for _, name in (heard := [mark for mark in marks if mark[0] <= 0 or not audio]):
            self._marked(name, False)
        if not audio:
            self._decoder.reset()
            return
        try:
            self._begin(audio, law, marks[len(heard) :])
        except OSError as error:
            log.error("speech_lost", seconds=round(len(audio) / RATE, 2), error=str(error))
            metrics.SPEECH_FAILURES.labels("lost").inc()
            for _, name in marks[len(heard) :]:
                self._marked(name, False)

    def leave(self) -> tuple[Utterance | None, list[str]]:
        """Give up: the utterance that goes on without us, to be closed by who takes it, and its marks."""
        left, names = self._current, [name for _, name in self._waiting_marks]
        if left is not None and not left.cut:
            names = [name for _, name in left.marks] + names
            if not left.playback:
                self._request(left)
            self._current = None
        else:
            left = None
        self.close()
        return left, names

    def close(self) -> None:
        """Stop at once and leave no file behind."""
        self._waiting.clear()
        self._waiting_marks.clear()
        self._drop_taken()
        if self._current is not None:
            current, self._current = self._current, None
            current.close()

    def release(self) -> None:
        """Stop at once, and leave the files to the controller that goes on."""
        if self._current is not None:
            current, self._current = self._current, None
            current.release()


def cut_of(channel: Mapping[str, str]) -> tuple[str, int]:
    """The utterance that was cut when the controller before us went, and how many samples were sent of it.

    FreeSWITCH reads ahead as far as there is anything, and its position counts a frame as half of one
    whenever it had to look for more (``switch_ivr_play_file``): that makes two bounds, and between them we go
    by the clock, a frame every 20 ms. Rather a frame is not heard than heard twice.
    """
    numbers = {
        name: whole_number(channel.get(f"variable_{name}", "")) for name in (READ, POSITION, BEGAN, LEFT)
    }
    most = numbers[READ]
    if all(numbers.values()):
        least = (numbers[POSITION] // (FRAME // 2) + 2) // 2
        by_clock = (numbers[LEFT] - numbers[BEGAN]) // FRAME_MICROSECONDS + 1
        most = min(most, FRAME * max(least, by_clock))
    return channel.get(f"variable_{VARIABLE}", ""), most


def done_of(channel: Mapping[str, str]) -> int:
    """The number of the module's last file that was played by path, -1 for none."""
    return whole_number(channel.get(f"variable_{DONE}", ""), -1)


def number_of(path: str) -> int:
    """The module's count in the name of one of its files."""
    return int(path.rpartition(".tmp.")[0].rpartition("_")[2])


def _following(path: str) -> str:
    """The module's next file: ``…_7.tmp.r8`` after ``…_6.tmp.r8``."""
    stem, _, kind = path.rpartition(".tmp.")
    return f"{stem.rpartition('_')[0]}_{number_of(path) + 1}.tmp.{kind}"


# Ten times a second for each call that is spoken to: pathlib would take longer than the file system.


def _remove(path: str) -> None:
    with suppress(OSError):  # the module would keep it until its stream stops, and then deletes it
        os.unlink(path)  # noqa: PTH108


def _claim(path: str) -> str:
    """Rename one of the module's files, so that no other controller says it again; its name now."""
    if path.endswith(TAKEN):
        return path
    try:
        os.rename(path, path + TAKEN)  # noqa: PTH104
    except OSError as error:  # a directory in which we may write and not rename: then so be it
        log.debug("speech_not_claimed", error=str(error))
        return path
    return path + TAKEN


def _give_back(claimed: str, path: str) -> None:
    with suppress(OSError):  # then nobody can have it, which the next reader of it says
        Path(claimed).rename(path)


def _whole(wav: bytes) -> bool:
    """Whether a RIFF file is as long as it says."""
    return len(wav) >= 8 and int.from_bytes(wav[4:8], "little") + 8 <= len(wav)


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0


def is_speech_file(path: str, temp_dir: str, uuid: str) -> bool:
    """Whether the module wrote ``path`` for the call ``uuid``: it names its files after the call."""
    prefix = f"{temp_dir}/{uuid}"
    return path.startswith(prefix) and _FILE_NAME.fullmatch(path[len(prefix) :]) is not None


def _read(path: str) -> bytes:
    """The content of one of the module's files."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        size = os.fstat(file).st_size
        if size > MAX_CHUNK_BYTES:
            raise UnusableAudio(f"one message with over {MAX_CHUNK_BYTES} bytes of audio; send chunks")
        return os.read(file, size)
    finally:
        os.close(file)


def _rest(path: str, played: int) -> bytes:
    """What of an utterance's file has not been played."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return os.pread(file, int(MAX_QUEUED) * RATE, played)
    finally:
        os.close(file)
