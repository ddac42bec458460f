"""What all commands share: exit codes, and how output and errors look for people and for programs.

With ``--json`` a command writes one JSON document to standard output, or nothing; everything else goes to
standard error, a JSON object a line: ``{"warning": …}``, ``{"progress": …}``, and at the end of what failed
``{"error": …, "problems": […], "exit_code": …}``. ``docs/commands.md`` is the published form.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import click

#: Exit codes: 0 well; 1 something is wrong with what was looked at, or it was not done; 2 the question was
#: wrong (usage, configuration), and nothing was begun.
FAILED, UNUSABLE = 1, 2

_JSON = "eslbot.cli.json"


class Program(click.Group):
    """The command ``eslbot``: with ``--json`` every error below it is printed as JSON."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Look for ``--json`` before the options are parsed: some errors are about those."""
        as_json = "--json" in args
        with _json_errors(as_json):
            context = super().make_context(info_name, args, parent, **extra)
        context.meta[_JSON] = as_json
        return context

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        with _json_errors(bool(ctx.meta.get(_JSON))):
            return super().invoke(ctx)


@contextmanager
def _json_errors(as_json: bool) -> Iterator[None]:
    """With ``as_json`` what click would print is one JSON object on standard error."""
    try:
        yield
    except click.ClickException as error:
        if not as_json:
            raise
        _error(error.format_message(), error.exit_code)
        raise SystemExit(error.exit_code) from None
    except click.Abort:
        if not as_json:
            raise
        _error("aborted", FAILED)
        raise SystemExit(FAILED) from None


def wants_json() -> bool:
    """Whether the command that runs was asked for ``--json``."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(_JSON))


def document(found: Mapping[str, Any] | Sequence[Any]) -> None:
    """The one JSON document of a command."""
    click.echo(json.dumps(found, indent=2, ensure_ascii=False))


def warn(text: str) -> None:
    """Print a warning to standard error."""
    click.echo(
        json.dumps({"warning": text}, ensure_ascii=False) if wants_json() else f"warning: {text}", err=True
    )


def progress(text: str) -> None:
    """Print what a long command is doing to standard error."""
    click.echo(json.dumps({"progress": text}, ensure_ascii=False) if wants_json() else f"… {text}", err=True)


def say_yes(yes: bool, *, as_json: bool) -> None:
    """With ``--json`` nobody can be asked: exit code 2 without ``--yes``."""
    if as_json and not yes:
        raise click.UsageError("with --json nobody is asked; say --yes, too")


def give_up(message: str, code: int, problems: Sequence[str] = ()) -> NoReturn:
    """Print why, each of ``problems`` on a line of its own, and exit."""
    from eslbot.telemetry import redaction

    message, problems = redaction.redact(message), [redaction.redact(problem) for problem in problems]
    if wants_json():
        _error(message, code, problems)
    else:
        click.echo(message if problems else f"eslbot: {message}", err=True)
        for problem in problems:
            click.echo(f"  {problem}", err=True)
    raise SystemExit(code)


def _error(message: str, code: int, problems: Sequence[str] = ()) -> None:
    told = {"error": message.removesuffix(":"), "problems": list(problems), "exit_code": code}
    click.echo(json.dumps(told, ensure_ascii=False), err=True)
