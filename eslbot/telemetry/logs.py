"""Logs: structlog, one line an event, JSON for machines or text for people; gunicorn's go the same way.

A line never holds a secret of the configuration, wherever it came from, and with ``[logs] mask_numbers`` no
phone number in full. A line of a call's says which call it is, whichever greenlet writes it.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

import structlog
from gunicorn.glogging import Logger

from eslbot.telemetry import redaction
from eslbot.telemetry.masking import masked

if TYPE_CHECKING:
    from eslbot.config import Config

log = structlog.get_logger()

Event = structlog.typing.EventDict

#: Fields that are a number from one end to the other.
_NUMBERS = frozenset({"did", "caller", "called", "from", "to"})
#: Fields that are never a number, and without which a line could not be found.
_NAMES = frozenset({"call_id", "crt_object_id", "workspace", "workspace_id", "timestamp", "level"})
#: A UUID or a date, which stay, or what may be a number: seven digits or more, perhaps in groups.
_RUN = re.compile(
    r"(?P<kept>(?<![0-9a-fA-F])[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?![0-9a-fA-F])"
    r"|(?<!\d)20\d\d-[01]\d-[0-3]\d(?!\d))"
    r"|\+?\d(?:[ -]?\d){6,}"
)
#: A caller's name for itself with fewer digits could be a word of our own.
_TELLING_DIGITS = 5


@dataclass
class About:
    """Whose lines these are: ``facts`` stand in each; ``numbers`` are the call's, to be known in any text."""

    facts: dict[str, str | None] = field(default_factory=dict)
    numbers: tuple[str, ...] = ()


_about: ContextVar[About | None] = ContextVar("about", default=None)


def speak_of(about: About) -> None:
    """From here on every line of this greenlet says what ``about`` holds when it is written.

    So do those of the greenlets that it spawns by :func:`eslbot.runtime.greenlets.spawn`.
    """
    _about.set(about)


_mask_numbers = False


def guard(config: Config) -> None:
    """Let no line of this process, and of those it forks, tell what ``config`` forbids."""
    from eslbot.config.secrets import secrets_of

    global _mask_numbers
    _mask_numbers = config.logs.mask_numbers
    redaction.protect(secrets_of(config))


def configure(*, json_logs: bool, for_good: bool = False) -> None:
    """Set the process's logs up; everything goes to standard error. What they hide, :func:`guard` says.

    ``for_good``: never to be changed, so that each logger is put together once and not for each line.
    """
    render: Any
    if json_logs:
        render = _as_json
    else:
        render = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )

    def line(logger: object, method: str, event: Event) -> str:
        """The finished line, without what it must not tell; one processor, as each costs every line."""
        about = _about.get()
        if about is not None:
            event = {**about.facts, **event}
        structlog.processors.add_log_level(logger, method, event)
        event["timestamp"] = f"{datetime.now(UTC).replace(tzinfo=None).isoformat()}Z"
        # A traceback is made a text before it is masked; without local variables: those are a call's.
        if "exc_info" in event:
            event = structlog.processors.format_exc_info(logger, method, event)
        if _mask_numbers:
            event = _without_any_number(event)
        return redaction.redact(render(logger, method, event))  # whatever slipped into the finished line

    structlog.configure(
        processors=[line],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=for_good,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, line],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)


def hear_gevent() -> None:
    """Have what ends a greenlet told in a line of ours, not on standard error, where nothing is hidden."""
    import gevent

    hub: Any = gevent.get_hub()
    hub.print_exception = _greenlet_failed


def _greenlet_failed(
    context: object, kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    log.error("greenlet_failed", exc_info=(kind, error, trace))


# -- processors -------------------------------------------------------------------------------------------


def _without_any_number(event: Event) -> Event:
    about = _about.get()
    known = [number for number in about.numbers if _is_telling(number)] if about else []
    return {
        key: value if key in _NAMES else _without_numbers(key, value, known) for key, value in event.items()
    }


def _without_numbers(key: str, value: Any, known: list[str]) -> Any:
    if value is None or isinstance(value, bool | float | int):
        return value  # counts and times; no number of a phone is one
    if isinstance(value, Mapping):
        return {
            _without_numbers("", str(name), known): _without_numbers(str(name), one, known)
            for name, one in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_without_numbers(key, one, known) for one in value]
    text = value if isinstance(value, str) else repr(value)
    if key in _NUMBERS:
        return masked(text)
    for number in known:
        text = text.replace(number, masked(number))
    return _RUN.sub(_masked_run, text)


def _masked_run(found: re.Match[str]) -> str:
    return found["kept"] or masked(found[0])


def _is_telling(number: str) -> bool:
    return sum(character.isdigit() for character in number) >= _TELLING_DIGITS


_encode = json.JSONEncoder(default=repr).encode


def _as_json(logger: object, method: str, event: Event) -> str:
    """One line; what JSON does not know is told as Python shows it."""
    return _encode(event)


class GunicornLogger(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's own lines, in our format."""

    def setup(self, cfg: Any) -> None:
        """Let the root logger, which is ours, write them."""
        super().setup(cfg)
        for logger in (self.error_log, self.access_log):
            logger.handlers.clear()
            logger.propagate = True
