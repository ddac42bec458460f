"""What all tables of the file have in common, and kinds of keys that several of them have."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, post_dump, post_load, validate

from eslbot.config.fields import HeaderName, SecretField
from eslbot.config.model import IP

NAME = validate.Regexp(
    r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z",
    error="expected 1 to 64 of letters, digits, '_', '.', '-', got {input!r}",
)
#: What lets clear text pass.
INSECURE = "say insecure = true in the same table"


class Table(Schema):
    """A TOML table: it becomes a ``model``, its lists tuples. Unknown keys are errors that list the known."""

    model: ClassVar[Callable[..., Any]] = dict

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        known = ", ".join(sorted(field.data_key or name for name, field in self.fields.items()))
        self.error_messages = {
            "unknown": f"is not a known key; known here: {known}",
            "type": "expected a table",
        }

    @post_load
    def _make(self, data: dict[str, Any], **_: Any) -> Any:
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
        return self.model(**values)

    @post_dump
    def _without_unset(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        """TOML has no null: a key that is not set is left out."""
        return {key: value for key, value in data.items() if value is not None}


class Subtable(fields.Nested):
    """A table that is left out when dumped with nothing in it."""

    def _serialize(self, *args: Any, **kwargs: Any) -> Any:
        return super()._serialize(*args, **kwargs) or None  # type: ignore[no-untyped-call]


class Listed(fields.List[Any]):
    """1 to 256 entries; left out when dumped without any."""

    def __init__(self, inner: fields.Field[Any], **kwargs: Any) -> None:
        messages = {"invalid": "expected a list in [ ]", **kwargs.pop("error_messages", {})}
        bounds = validate.Length(min=1, max=256, error="expected 1 to 256 entries")
        super().__init__(inner, error_messages=messages, validate=bounds, **kwargs)

    def _serialize(self, *args: Any, **kwargs: Any) -> list[Any] | None:
        return super()._serialize(*args, **kwargs) or None


class PlainPath(fields.String):
    """An absolute path that needs no quotes anywhere: not in a command of FreeSWITCH's, not in a unit."""

    def __init__(self, default: str, suffix: str = "") -> None:
        end = re.escape(suffix) if suffix else "/?"
        wanted = f"an absolute path of letters, digits, '_', '.', '-'{suffix and f' that ends in {suffix}'}"
        super().__init__(
            load_default=default,
            validate=[
                validate.Regexp(rf"(/[A-Za-z0-9_.-]+)+{end}\Z", error=f"expected {wanted}, got {{input!r}}"),
                validate.Length(max=200, error="expected at most 200 characters"),
            ],
            error_messages={"invalid": "expected a path in quotes"},
        )

    def deserialize(self, *args: Any, **kwargs: Any) -> Any:
        """The path without a slash at its end."""
        return super().deserialize(*args, **kwargs).rstrip("/")


def required(what: str) -> dict[str, Any]:
    """The error message of a key that has to be there."""
    # Marshmallow formats its messages: a brace that is meant stands there twice.
    return {"required": f"is missing; expected {what}".replace("{", "{{").replace("}", "}}")}


def count(default: int, most: int, least: int = 1) -> fields.Integer:
    """A whole number."""
    message = f"expected a whole number from {least} to {most}"
    return fields.Integer(
        load_default=default,
        strict=True,
        validate=validate.Range(min=least, max=most, error=message + ", got {input}"),
        error_messages={"invalid": message},
    )


def flag() -> fields.Boolean:
    """``true`` or ``false``, the default."""
    return fields.Boolean(
        load_default=False,
        truthy={True},
        falsy={False},
        error_messages={"invalid": "expected true or false, without quotes"},
    )


def text(default: Any, pattern: str, error: str, kind: str = "text") -> fields.String:
    """A text of which ``pattern`` has to match the beginning; ``error`` may quote it as ``{input!r}``."""
    return fields.String(
        load_default=default,
        validate=validate.Regexp(pattern, error=error),
        error_messages={"invalid": f"expected a {kind} in quotes"},
    )


def secret_headers(**kwargs: Any) -> fields.Dict:
    """HTTP headers whose values are secrets."""
    return fields.Dict(
        keys=HeaderName(),
        values=SecretField(),
        load_default=dict,
        error_messages={"invalid": 'expected a table like {{ Authorization = "${{NAME}}" }}'},
        **kwargs,
    )


def of_one_host(ip: IP) -> None:
    """A validator: an address that is one host's."""
    if ip.is_unspecified or ip.is_multicast:
        raise ValidationError(f"expected an address of one host, got {ip}")


def clear_text(urls: tuple[str, ...], insecure: bool) -> list[str]:
    """What to say of those of ``urls`` that are not encrypted, unless their table says ``insecure``."""
    return [
        f"{url!r} sends everything in clear text; use {'wss' if url[0] in 'wW' else 'https'}://, "
        f"or {INSECURE}"
        for url in urls
        if url.lower().startswith(("ws:", "http:")) and not insecure
    ]
