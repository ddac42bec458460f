"""The fields of a query or a form: each at most once, each checked."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from flask import Request
from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields, pre_load, validate, validates_schema

from eslbot.ledger.filters import MAX_VALUE
from eslbot.ledger.queries import Place
from eslbot.ledger.terminal import parse_time
from eslbot.outcome import Fault, Outcome, Stage
from eslbot.web.errors import ApiError, bad_request

_CALL_ID = re.compile(r"[!-~]{1,64}")
#: Characters of a query, bytes of a form, and fields of either.
MAX_QUERY, MAX_FORM, MAX_FIELDS = 2048, 4096, 24
#: Calls of one answer, by default and at most.
DEFAULT_LIMIT, MAX_LIMIT = 50, 200


class Parsed(fields.Field[Any]):
    """A field by a function that raises ValueError or OverflowError; ``expected`` says what it takes."""

    def __init__(self, parse: Callable[[str], Any], expected: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._parse, self._expected = parse, expected

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        try:
            return self._parse(value)
        except (ValueError, OverflowError):
            raise ValidationError(f"expected {self._expected}") from None


def _bounded(at: float) -> float:
    if not 0 <= at < 1e11:
        raise ValueError
    return at


def _parse_text(value: str) -> str:
    if len(value) > MAX_VALUE or not value.isprintable():
        raise ValueError
    return value.strip()


def _parse_time(value: str) -> float:
    """Epoch seconds, or a time as the command line takes it."""
    if len(value) > 40:
        raise ValueError
    try:
        at = float(value)
    except ValueError:
        at = parse_time(value, time.time())
    return _bounded(at)


def _parse_place(value: str) -> Place:
    at, _, call_id = value.partition(",")
    if len(at) > 32 or not _CALL_ID.fullmatch(call_id):
        raise ValueError
    return Place(_bounded(float(at)), call_id)


def _text(**options: Any) -> Parsed:
    return Parsed(_parse_text, f"at most {MAX_VALUE} printable characters", **options)


def _flag() -> Parsed:
    return Parsed(lambda value: ("false", "true").index(value) == 1, "true or false")


def _time() -> Parsed:
    return Parsed(_parse_time, "a time as 2h (ago), 2026-11-23T10:15Z or epoch seconds")


def _count(maximum: int, **options: Any) -> Parsed:
    """A whole number in ASCII digits."""

    def parse(value: str) -> int:
        number = int(value) if value.isascii() and value.isdigit() and len(value) <= 9 else 0
        if not 1 <= number <= maximum:
            raise ValueError
        return number

    return Parsed(parse, f"a whole number from 1 to {maximum}", **options)


def _word(*words: str, **options: Any) -> fields.String:
    return fields.String(validate=validate.OneOf(words, error="expected one of {choices}"), **options)


class EmptyQuery(Schema):
    """No fields. An empty field counts as absent."""

    class Meta:
        """A field that is not known is an error."""

        unknown = RAISE

    @pre_load
    def _without_empty(self, data: dict[str, str], **_: Any) -> dict[str, str]:
        return {name: value for name, value in data.items() if value or name not in self.fields}


class ExportQuery(EmptyQuery):
    """``/api/calls.csv``: which calls, and behind which place."""

    prefix, workspace, did, crt, caller = _text(), _text(), _text(), _text(), _text()
    outcome = _word(*Outcome)
    fault = _word(*Fault)
    stage = _word(*Stage, "refused")
    attention, live, handed_off = _flag(), _flag(), _flag()
    since, until = _time(), _time()
    before = Parsed(_parse_place, "the `next` of an answer", load_default=None)

    @validates_schema
    def _some_time(self, data: dict[str, Any], **_: Any) -> None:
        if "since" in data and "until" in data and data["since"] >= data["until"]:
            raise ValidationError("expected a time behind `since`", "until")


class CallsQuery(ExportQuery):
    """``/api/calls``: the same, and how many."""

    limit = _count(MAX_LIMIT, load_default=DEFAULT_LIMIT)


class ChartsQuery(EmptyQuery):
    """``/api/charts``: which time, and which tenant."""

    span = _word("24h", "7d", load_default="24h")
    workspace = _text(load_default=None)


class SignInForm(Schema):
    """``/sign-in``: a token."""

    class Meta:
        """A browser's helpers may add fields."""

        unknown = EXCLUDE

    token = fields.String(load_default="")


def query(request: Request, schema: Schema) -> dict[str, Any]:
    """The fields behind ``?``. Raises ApiError."""
    if len(request.query_string) > MAX_QUERY:
        raise bad_request(f"the query is longer than {MAX_QUERY} characters")
    return _load(schema, _pairs(request.query_string))


def form(request: Request, schema: Schema) -> dict[str, Any]:
    """The fields of a posted form. Raises ApiError."""
    if request.mimetype != "application/x-www-form-urlencoded":
        raise ApiError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "not_a_form",
            "expected the content type application/x-www-form-urlencoded",
        )
    data = request.stream.read(MAX_FORM + 1)
    if len(data) > MAX_FORM:
        raise ApiError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", f"a form here has at most {MAX_FORM} bytes"
        )
    return _load(schema, _pairs(data))


def _load(schema: Schema, values: dict[str, str]) -> dict[str, Any]:
    try:
        loaded: dict[str, Any] = schema.load(values)
    except ValidationError as error:
        problems = error.normalized_messages()  # type: ignore[no-untyped-call]
        unknown = next((name for name in problems if name not in schema.fields), None)
        if unknown is not None:
            known = ", ".join(sorted(schema.fields)) or "none"
            raise bad_request(f"unknown field {unknown[:64]!r}; known: {known}") from None
        texts = {name: f"{problems[name][0]}, got {values[name][:64]!r}" for name in problems}
        raise bad_request("\n".join(f"{name}: {problem}" for name, problem in texts.items()), texts) from None
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
