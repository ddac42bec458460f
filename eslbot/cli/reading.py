"""Loads the configuration for a command; one that cannot be used ends the command."""

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
    """A configuration that cannot be used: each problem on a line of its own, exit code 2."""
    from eslbot.config import ConfigError

    try:
        yield
    except ConfigError as error:
        count = len(error.problems)
        give_up(f"the configuration has {count} problem{'s' if count > 1 else ''}:", UNUSABLE, error.problems)


def read(path: Path) -> Config:
    """The configuration; its warnings are printed, and its secrets redacted from all further output."""
    from eslbot.config import load
    from eslbot.config.secrets import secrets_of
    from eslbot.telemetry import redaction

    with configuration_errors():
        config = load(path)
    redaction.protect(secrets_of(config))
    for warning in config.warnings:
        warn(warning)
    return config
