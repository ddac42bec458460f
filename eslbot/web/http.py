"""Requests and answers of the web listener: small values over WSGI (PEP 3333), everything bounded.

What a request says is hostile: a refusal names what was wrong, and a browser is told to run nothing that is
not ours, whatever a page comes to show.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import gevent

#: Bytes of a form, and seconds it may take to come.
MAX_FORM = 4096
FORM_SECONDS = 5.0
#: Characters of a query, and fields of a query or a form.
MAX_QUERY = 2048
MAX_FIELDS = 24

Headers = tuple[tuple[str, str], ...]

#: On every answer: no foreign source, no inline script or style, no frame around it. (With the referrer
#: policy "no-referrer" a form of ours would come from the origin "null".)
SECURITY: Headers = (
    (
        "Content-Security-Policy",
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back. An iterable ``body`` is a stream of unknown length; it may have ``close``."""

    status: HTTPStatus
    content_type: str
    body: bytes | Iterable[bytes]
    headers: Headers = ()

    def start(self, start_response: Any, *, head: bool) -> Iterable[bytes]:
        """As WSGI wants it; with ``head`` without the body."""
        headers = [("Content-Type", self.content_type), *SECURITY, *self.headers]
        if not any(name == "Cache-Control" for name, _ in self.headers):
            headers.append(("Cache-Control", "no-store"))
        body = self.body
        if isinstance(body, bytes):
            if self.status is not HTTPStatus.NOT_MODIFIED:  # it would be that of what is not sent
                headers.append(("Content-Length", str(len(body))))
            body = [] if head else [body]
        start_response(f"{self.status.value} {self.status.phrase}", headers)
        return body


class Refusal(Exception):
    """A request that gets no more than this: a fixed word, what is wrong, and what to do about it."""

    def __init__(
        self, status: HTTPStatus, error: str, problem: str, remedy: str = "", headers: Headers = ()
    ) -> None:
        super().__init__(problem)
        self.status, self.error, self.problem, self.remedy = status, error, problem, remedy
        self.headers = headers

    @property
    def document(self) -> dict[str, str]:
        """For programs, the page among them."""
        return {"error": self.error, "problem": self.problem, "remedy": self.remedy}


def json_answer(
    document: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK, headers: Headers = ()
) -> Answer:
    """``document`` as JSON."""
    return Answer(status, "application/json", json.dumps(document).encode() + b"\n", headers)


def text_answer(status: HTTPStatus, text: str, headers: Headers = ()) -> Answer:
    """Plain text."""
    return Answer(status, "text/plain; charset=utf-8", f"{text}\n".encode(errors="replace"), headers)


def see_other(place: str, headers: Headers = ()) -> Answer:
    """303: GET ``place``, which is a path of ours."""
    return Answer(HTTPStatus.SEE_OTHER, "text/plain; charset=utf-8", b"", (("Location", place), *headers))


def bad_request(problem: str) -> Refusal:
    """400."""
    return Refusal(HTTPStatus.BAD_REQUEST, "bad_request", problem)


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Raises Refusal where a part of it is asked for that is not fit to be used."""

    environ: Mapping[str, Any] = field(repr=False)  # it holds tokens

    @property
    def method(self) -> str:
        """As sent."""
        return str(self.environ.get("REQUEST_METHOD", ""))

    @property
    def path(self) -> str:
        """Unquoted; what is not UTF-8 is no path of ours."""
        raw = str(self.environ.get("PATH_INFO", ""))
        try:
            return raw.encode("latin-1").decode()
        except (UnicodeDecodeError, UnicodeEncodeError):
            raise bad_request("the path is not UTF-8") from None

    @property
    def peer(self) -> str:
        """The address it came from; behind a proxy the proxy's."""
        return str(self.environ.get("REMOTE_ADDR", ""))

    @property
    def secure(self) -> bool:
        """Whether the browser's end of it is TLS, as a proxy in front tells us."""
        return "https" in (self.environ.get("wsgi.url_scheme"), self.header("X-Forwarded-Proto"))

    def header(self, name: str) -> str:
        """Empty where there is none."""
        return str(self.environ.get(f"HTTP_{name.upper().replace('-', '_')}", ""))

    def cookie(self, name: str) -> str:
        """Empty where there is none; of several the last.

        Ours are words without quotes. (The standard library's reader knows all that a cookie may be, and
        takes over a second for ``a=a=a=…`` of 8 kB, in which all calls wait.)
        """
        found = ""
        for pair in self.header("Cookie").split(";"):
            known, equals, value = pair.partition("=")
            if equals and known.strip() == name:
                found = value.strip()
        return found

    def query(self) -> dict[str, str]:
        """The fields behind ``?``, each once."""
        text = str(self.environ.get("QUERY_STRING", ""))
        if len(text) > MAX_QUERY:
            raise bad_request(f"the query is longer than {MAX_QUERY} characters")
        return _fields(text)

    def form(self) -> dict[str, str]:
        """The fields of a posted form, each once."""
        kind = str(self.environ.get("CONTENT_TYPE", "")).partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            raise Refusal(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "not_a_form",
                "expected the content type application/x-www-form-urlencoded",
            )
        too_large = Refusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", f"a form here has at most {MAX_FORM} bytes"
        )
        length = str(self.environ.get("CONTENT_LENGTH") or "")
        if length and (not length.isascii() or not length.isdigit() or int(length[:12]) > MAX_FORM):
            raise too_large
        slow = gevent.Timeout(FORM_SECONDS)
        try:
            with slow:
                data = b"".join(_read(self.environ["wsgi.input"]))
        except gevent.Timeout as timeout:
            if timeout is not slow:
                raise
            raise Refusal(
                HTTPStatus.REQUEST_TIMEOUT, "too_slow", f"the form did not come within {FORM_SECONDS:g} s"
            ) from None
        if len(data) > MAX_FORM:
            raise too_large
        try:
            return _fields(data.decode("ascii"))
        except UnicodeDecodeError:
            raise bad_request("a form's bytes are ASCII") from None

    def is_ours(self) -> bool:
        """Whether no page of another site made the browser send it (for requests that change something)."""
        if site := self.header("Sec-Fetch-Site"):
            return site in ("same-origin", "none")
        origin = self.header("Origin")  # of a browser that is older
        return not origin or origin.partition("://")[2] == self.header("Host")


def _read(stream: Any) -> Iterator[bytes]:
    """Not more than one byte beyond a form's bound."""
    left = MAX_FORM + 1
    while left > 0 and (data := stream.read(left)):
        left -= len(data)
        yield data


def _fields(text: str) -> dict[str, str]:
    if not text:
        return {}
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError:  # UnicodeDecodeError, too
        raise bad_request(f"expected at most {MAX_FIELDS} fields name=value, in UTF-8") from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise bad_request("a field stands there twice")
    return fields
