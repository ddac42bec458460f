"""From a TOML file to a :class:`~eslbot.config.model.Config`, or to every problem with it at once."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from marshmallow import ValidationError

from eslbot.config.model import BEEP, Config, ConfigError
from eslbot.config.schemas.whole import ConfigSchema

#: A configuration is written by people; more than this is some other file.
MAX_BYTES = 4 * 1024 * 1024
#: A secret file holds one token.
MAX_SECRET_BYTES = 16 * 1024
#: A text that will do wherever one may be wanted: as a token, a header, a host's name.
SUBSTITUTE = "reference-not-resolved"

_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def load(path: Path, environment: Mapping[str, str] | None = None) -> Config:
    """Read, expand and validate the file at ``path``.

    ``${NAME}`` in a text becomes the environment variable, ``${file:/path}`` the file's content without
    the white space around it. Raises :class:`ConfigError` with every problem that was found.
    """
    tree = parse(path)
    try:
        return from_tree(tree, os.environ if environment is None else environment)
    except RecursionError as error:
        raise ConfigError([f"{path}: is nested too deeply"]) from error


def from_tree(tree: dict[str, Any], environment: Mapping[str, str]) -> Config:
    """What :func:`load` makes of a file's tree. Raises ConfigError; RecursionError on one too deep."""
    tree, unneeded = _without_unneeded(tree)
    unresolved: dict[tuple[str, ...], list[str]] = {}
    expanded = _expand(tree, environment, unresolved)
    problems = {place: list(found) for place, found in unresolved.items()}
    config: Config | None = None
    try:
        config = ConfigSchema().load(expanded)
    except ValidationError as error:
        for place, message in _flatten(error.messages):
            # A value that could not be resolved is reported once, as that; not again as a bad URL, say.
            if place not in unresolved:
                problems.setdefault(place, []).append(_unexpanded(message, place, tree, expanded))
    if problems or config is None:
        raise ConfigError(
            [f"{_spell(place)}: {message}" for place, messages in problems.items() for message in messages]
        )
    return _complete(config, unneeded)


def parse(path: Path) -> dict[str, Any]:
    """The TOML as it stands, nothing expanded. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error
    return parse_text(content, path)


def parse_text(content: bytes, path: Path) -> dict[str, Any]:
    """The same of what was read from ``path``. Raises ConfigError."""
    if len(content) > MAX_BYTES:
        raise ConfigError([f"{path}: is over {MAX_BYTES} bytes; is it the right file?"])
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: is not UTF-8 text (byte {error.start})"]) from error
    except ValueError as error:  # TOMLDecodeError, and what int() says of a number with 5,000 digits
        raise ConfigError([f"{path}: is not valid TOML: {error}"]) from error
    except RecursionError as error:
        raise ConfigError([f"{path}: is nested too deeply"]) from error


def workspace_names(tree: Mapping[str, Any]) -> dict[str, str]:
    """The workspaces' names by their ids, as they stand in a file's tree."""
    workspaces = tree.get("workspaces")
    tables = workspaces if isinstance(workspaces, dict) else {}
    return {str(key): str(table.get("name")) for key, table in tables.items() if isinstance(table, dict)}


def with_substitutes(tree: Any, environment: Mapping[str, str]) -> tuple[Any, dict[str, str]]:
    """``tree`` with :data:`SUBSTITUTE` for each reference that cannot be resolved here; and where, and why.

    For who looks at a configuration without the secrets of the service. Raises RecursionError.
    """
    unresolved: dict[tuple[str, ...], list[str]] = {}

    def substitute(text: str, place: tuple[str, ...]) -> str:
        def one(match: re.Match[str]) -> str:
            if not (match[1].startswith("file:") or _ENVIRONMENT_NAME.fullmatch(match[1])):
                return match[0]  # it is no reference, whoever reads it
            try:
                _resolve(match[1], environment)
            except LookupError as error:
                unresolved.setdefault(place, []).append(str(error.args[0]))
                return SUBSTITUTE
            return match[0]

        return _REFERENCE.sub(one, text)

    found = _with_texts(tree, (), substitute)
    return found, {_spell(place): "; ".join(whys) for place, whys in unresolved.items()}


def references(text: str) -> list[str]:
    """What stands in the ``${…}`` of a text: names of the environment's, and ``file:/path``."""
    return _REFERENCE.findall(text)


def resolved(place: str, text: str, environment: Mapping[str, str] | None = None) -> str:
    """A ``text`` from elsewhere with what its references stand for. Raises ConfigError."""
    environment = os.environ if environment is None else environment
    try:
        return _REFERENCE.sub(lambda match: _resolve(match[1], environment), text)
    except LookupError as error:
        raise ConfigError([f"{place}: {error.args[0]}"]) from error


def _expand(
    value: Any,
    environment: Mapping[str, str],
    unresolved: dict[tuple[str, ...], list[str]],
) -> Any:
    def expanded(text: str, place: tuple[str, ...]) -> str:
        def resolve(match: re.Match[str]) -> str:
            try:
                return _resolve(match[1], environment)
            except LookupError as error:
                unresolved.setdefault(place, []).append(str(error.args[0]))
                return match[0]

        return _REFERENCE.sub(resolve, text)

    return _with_texts(value, (), expanded)


def _with_texts(value: Any, place: tuple[str, ...], change: Callable[[str, tuple[str, ...]], str]) -> Any:
    """``value`` with each text in it changed; ``change`` gets the text and where it stands."""
    if isinstance(value, dict):
        return {key: _with_texts(entry, (*place, key), change) for key, entry in value.items()}
    if isinstance(value, list):
        return [_with_texts(entry, (*place, str(number)), change) for number, entry in enumerate(value)]
    return change(value, place) if isinstance(value, str) else value


def _resolve(reference: str, environment: Mapping[str, str]) -> str:
    if reference.startswith("file:"):
        path = Path(reference.removeprefix("file:"))
        try:
            with path.open("rb") as file:
                content = file.read(MAX_SECRET_BYTES + 1)
            if len(content) > MAX_SECRET_BYTES:
                raise LookupError(f"{path} holds over {MAX_SECRET_BYTES} bytes; is it the right file?")
            return content.decode().strip()
        except OSError as error:
            raise LookupError(f"{path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise LookupError(f"{path} is not UTF-8 text") from error
        except ValueError as error:  # open() on a NUL
            raise LookupError(f"{str(path)!r} is not a path") from error
    if not _ENVIRONMENT_NAME.fullmatch(reference):
        raise LookupError(f"${{{reference}}} is neither ${{NAME}} nor ${{file:/path}}")
    if reference not in environment:
        raise LookupError(f"the environment variable {reference} is not set")
    return environment[reference]


def _unexpanded(message: str, place: tuple[str, ...], tree: Any, expanded: Any) -> str:
    """``message`` quoting texts as they stand in the file: what a reference stood for may be a secret.

    Messages quote a text by its ``repr``, whole.
    """
    for key in place:
        if isinstance(tree, list) and key.isdecimal() and int(key) < len(tree):
            tree, expanded = tree[int(key)], expanded[int(key)]
        elif isinstance(tree, dict) and key in tree:
            tree, expanded = tree[key], expanded[key]
    for raw, full in zip(_texts(tree), _texts(expanded), strict=True):
        if raw != full:
            message = message.replace(repr(full), repr(raw))
    return message


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


#: Tables with keys of the user's choice; marshmallow puts a level "key" or "value" under each of those.
_OPEN_TABLES = ("workspaces", "headers", "properties", "tokens")


def _flatten(messages: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Marshmallow's tree of messages as (path in the file, message)."""
    if isinstance(messages, dict):
        for key, inner in messages.items():
            below_chosen_key = len(place) > 1 and place[-2] in _OPEN_TABLES and key in ("key", "value")
            yield from _flatten(inner, place if key == "_schema" or below_chosen_key else (*place, str(key)))
    elif isinstance(messages, list):
        for message in messages:
            yield from _flatten(message, place)
    else:
        yield place, str(messages)


def _spell(place: tuple[str, ...]) -> str:
    return ".".join(place) or "the file"


def _without_unneeded(tree: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The tree without keys of earlier versions, and a warning for each."""
    warnings: list[str] = []

    def without(table: Any, place: str, key: str) -> Any:
        if not isinstance(table, dict) or key not in table:
            return table
        warnings.append(f"{place}.{key}: is no longer needed, and not read; take it out")
        return {name: value for name, value in table.items() if name != key}

    changed = dict(tree)
    if "freeswitch" in tree:
        changed["freeswitch"] = without(tree["freeswitch"], "freeswitch", "temp_dir")
    if isinstance(workspaces := tree.get("workspaces"), dict):
        changed["workspaces"] = {
            key: {**workspace, "bot": without(workspace["bot"], f"workspaces.{key}.bot", "playback")}
            if isinstance(workspace, dict) and "bot" in workspace
            else workspace
            for key, workspace in workspaces.items()
        }
    return changed, warnings


def _complete(config: Config, warnings: Sequence[str]) -> Config:
    """Defaults that depend on other keys, and what the operator should be told."""
    warnings = [*warnings]
    if config.server.open_to_this_host:
        warnings.append(
            "server.switch_user: any, so every local user of this host can speak to the event-socket "
            "listener as FreeSWITCH does; name the user FreeSWITCH runs as"
        )
    freeswitch = config.freeswitch
    if not freeswitch.controllers:
        freeswitch = replace(freeswitch, controllers=(config.server.listen.from_own_host,))
    for workspace in config.workspaces.values():
        ca_file = workspace.ameyo.ca_file
        if ca_file and not os.access(ca_file, os.R_OK):
            warnings.append(f"workspaces.{workspace.id}.ameyo.ca_file: {ca_file} cannot be read on this host")
        announcement = workspace.recording.announcement
        if workspace.record and announcement not in (None, BEEP) and not os.access(announcement, os.R_OK):
            warnings.append(
                f"workspaces.{workspace.id}.recording.announcement: {announcement} cannot be read on this "
                "host; a relay that cannot read it records no call of this workspace"
            )
    return replace(config, freeswitch=freeswitch, warnings=tuple(warnings))
