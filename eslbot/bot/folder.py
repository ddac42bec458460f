"""FreeSWITCH's directory of speech as one worker sees it: where mod_audio_stream writes, and we do."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from pathlib import Path

import gevent
import structlog

log = structlog.get_logger()

#: Seconds after which a file belongs to no sound that still plays (:data:`eslbot.bot.speech.MAX_QUEUED`).
STALE = 3600.0
#: Seconds between two sweeps.
EVERY = 600.0

#: Ours and the module's; both begin with the call's UUID.
_OURS = re.compile(r"[0-9a-f-]{36}_\d{1,10}\.(eslbot\.PCM[UA]|tmp\.[a-z0-9]{2,4}(\.taken)?)")


class SpeechFolder:
    """``path`` is FreeSWITCH's ``temp_dir``."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._told = False

    def not_shared(self, error: OSError) -> None:
        """Say once in this worker's life that FreeSWITCH has to play alone."""
        if not self._told:
            self._told = True
            log.warning(
                "speech_by_path",
                folder=self.path,
                error=str(error),
                remedy="let eslbot read and write temp_dir; where FreeSWITCH is another host there is none",
            )

    def keep_swept(self) -> None:
        """Sweep now, since a worker that starts is what follows a crash, and then every now and again."""
        while True:
            self.sweep()
            gevent.sleep(EVERY)

    def sweep(self) -> int:
        """Remove what calls have left whose end no worker saw; how many files that were."""
        swept, now = 0, time.time()
        try:
            ours = [path for path in Path(self.path).iterdir() if _OURS.fullmatch(path.name)]
        except OSError as error:  # where FreeSWITCH is another host, its directory is not here
            log.debug("speech_folder_not_here", error=str(error))
            return 0
        for path in ours:
            with suppress(OSError):  # another worker sweeps, too; what is not ours to delete stays
                if now - path.stat().st_mtime > STALE:
                    path.unlink()
                    swept += 1
        if swept:
            log.info("speech_folder_swept", files=swept)
        return swept
