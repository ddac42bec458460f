"""Options and kinds of values that several commands have."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def config_option(command: F, *, required: bool = True) -> F:
    """``--config FILE``."""
    return click.option(
        "--config",
        "path",
        required=required,
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        envvar="ESLBOT_CONFIG",
        show_envvar=True,
        help="The TOML configuration.",
    )(command)


def config_option_here_or_above(command: F) -> F:
    """``--config FILE``, for a command and for the group it is in: it may stand behind either."""
    return config_option(command, required=False)


def log_option(command: F) -> F:
    """``--log``, of what runs as a service: whether its lines are JSON."""

    def as_json(_: click.Context, __: click.Parameter, value: str) -> bool:
        return value == "json" or (value == "auto" and not sys.stderr.isatty())

    return click.option(
        "--log",
        "json_logs",
        type=click.Choice(["auto", "json", "console"]),
        default="auto",
        show_default=True,
        callback=as_json,
        help="Log lines as JSON or for people; auto: for people on a terminal.",
    )(command)


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, in the order of the help text."""

    def decorate(command: F) -> F:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")
numbers_option = click.option("--numbers", is_flag=True, help="Show phone numbers in full.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


class DurationParam(click.ParamType[float]):
    """``"0s"``, ``"30m"``: as in the configuration; seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds."""
        from marshmallow import ValidationError

        from eslbot.config.fields import Duration

        try:
            return Duration(at_least=0).read(str(value))
        except ValidationError as error:
            self.fail("; ".join(str(message) for message in error.messages), param, ctx)


class AddressParam(click.ParamType[tuple[str, int]]):
    """``HOST:PORT``."""

    name = "host:port"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Host and port."""
        host, _, port = str(value).rpartition(":")
        if not host or not port.isdecimal() or not 0 <= int(port) <= 65535:
            self.fail(f"{value!r} is not HOST:PORT", param, ctx)
        return host, int(port)


class PortRangeParam(click.ParamType[tuple[int, int]]):
    """``FIRST-LAST``."""

    name = "first-last"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """First and last port."""
        first, _, last = str(value).partition("-")
        if not (first.isdecimal() and last.isdecimal() and 0 < int(first) < int(last) <= 65535):
            self.fail(f"{value!r} is not FIRST-LAST", param, ctx)
        return int(first), int(last)


class NetworkParam(click.ParamType[Any]):
    """An address or a CIDR block."""

    name = "cidr"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The network."""
        try:
            return ip_network(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class MomentParam(click.ParamType[float]):
    """``2h`` ago, or a date and time; epoch seconds."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Epoch seconds."""
        from eslbot.ledger.terminal import parse_time

        try:
            return parse_time(str(value), time.time())
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time; expected 2h, 2026-11-23 or 2026-11-23T10:15", param, ctx)
