"""What a request may hold besides its path: the fields of a query or a form, each once, each checked.

An error names the field and what it held.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from flask import Request
from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields, pre_load, validate

from eslbot.ledger.queries import MAX_VALUE
from eslbot.outcome import Fault, Outcome, Stage
from eslbot.web.refusal import Refusal, bad_request

#: Characters of a query, bytes of a form, and fields of either.
MAX_QUERY, MAX_FORM, MAX_FIELDS = 2048, 4096, 24
#: Calls of one answer.
LIMIT, MAX_LIMIT = 50, 200


class Text(fields.String):
    """Something to look for."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        if len(text) > MAX_VALUE or not text.isprintable():
            raise ValidationError(f"expected at most {MAX_VALUE} printable characters")
        return text.strip()


class Flag(fields.Field[bool]):
    """``true`` or ``false``."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if value not in ("true", "false"):
            raise ValidationError("expected true or false")
        return bool(value == "true")


class Moment(fields.Field[float]):
    """Epoch seconds."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> float:
        try:
            seconds = float(value) if len(value) <= 32 else -1.0
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < 1e11:
            raise ValidationError("expected epoch seconds")
        return seconds


class Count(fields.Field[int]):
    """A whole number from 1 on, in ASCII digits."""

    def __init__(self, most: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._most = most

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        number = int(value) if value.isascii() and value.isdigit() and len(value) <= 9 else 0
        if not 1 <= number <= self._most:
            raise ValidationError(f"expected a whole number from 1 to {self._most}")
        return number


def _word(*words: str) -> fields.String:
    return fields.String(validate=validate.OneOf(words, error="expected one of {choices}"))


class Fields(Schema):
    """None at all. An empty field is as none."""

    class Meta:
        """A field that is not known is an error."""

        unknown = RAISE

    @pre_load
    def _without_empty(self, data: dict[str, str], **_: Any) -> dict[str, str]:
        return {name: value for name, value in data.items() if value or name not in self.fields}


class CallsQuery(Fields):
    """``/api/calls``: which calls, how many, and from where on."""

    workspace, did, crt, caller, text = Text(), Text(), Text(), Text(), Text()
    outcome = _word(*Outcome)
    fault = _word(*Fault)
    stage = _word(*Stage, "refused")
    live, handed_off = Flag(), Flag()
    since, until = Moment(), Moment()
    limit = Count(MAX_LIMIT, load_default=LIMIT)
    before = Moment(load_default=None)


class SignInForm(Schema):
    """``/sign-in``: a token."""

    class Meta:
        """A browser's helpers may add fields."""

        unknown = EXCLUDE

    token = fields.String(load_default="")


def query(request: Request, schema: Schema) -> dict[str, Any]:
    """The fields behind ``?``. Raises Refusal."""
    if len(request.query_string) > MAX_QUERY:
        raise bad_request(f"the query is longer than {MAX_QUERY} characters")
    return _load(schema, _pairs(request.query_string))


def form(request: Request, schema: Schema) -> dict[str, Any]:
    """The fields of a posted form. Raises Refusal."""
    if request.mimetype != "application/x-www-form-urlencoded":
        raise Refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "not_a_form",
            "expected the content type application/x-www-form-urlencoded",
        )
    data = request.stream.read(MAX_FORM + 1)
    if len(data) > MAX_FORM:
        raise Refusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", f"a form here has at most {MAX_FORM} bytes"
        )
    return _load(schema, _pairs(data))


def _load(schema: Schema, values: dict[str, str]) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = schema.load(values)
    except ValidationError as error:
        problems = error.normalized_messages()  # type: ignore[no-untyped-call]
        name = next(iter(problems))
        if name not in schema.fields:
            known = ", ".join(sorted(schema.fields)) or "none"
            raise bad_request(f"unknown field {name[:64]!r}; known: {known}") from None
        raise bad_request(f"{name}: {problems[name][0]}, got {values[name][:64]!r}") from None
    return loaded


def _pairs(data: bytes) -> dict[str, str]:
    if not data:
        return {}
    try:
        pairs = parse_qsl(
            data.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError:  # UnicodeDecodeError, too
        raise bad_request(f"expected at most {MAX_FIELDS} fields name=value, in UTF-8") from None
    found = dict(pairs)
    if len(found) < len(pairs):
        raise bad_request("a field stands there twice")
    return found
