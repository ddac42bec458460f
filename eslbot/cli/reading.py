"""The configuration, read for a command: what is wrong with it is told, and the command is over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from eslbot.cli.output import UNUSABLE, give_up, warn

if TYPE_CHECKING:
    from eslbot.config import Config


@contextmanager
def configuration_errors() -> Iterator[None]:
    """Every problem on a line of its own, exit code 2."""
    from eslbot.config import ConfigError

    try:
        yield
    except ConfigError as error:
        count = len(error.problems)
        give_up(f"the configuration has {count} problem{'s' if count > 1 else ''}:", UNUSABLE, error.problems)


def read(path: Path) -> Config:
    """The configuration, its warnings told; from here on nothing that goes wrong quotes a secret of it."""
    from eslbot.config import load
    from eslbot.config.secrets import secrets_of
    from eslbot.telemetry import redaction

    with configuration_errors():
        config = load(path)
    redaction.protect(secrets_of(config))
    for warning in config.warnings:
        warn(warning)
    return config
