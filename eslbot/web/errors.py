"""Requests that are answered with an error, and the headers of every answer."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

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


class ApiError(Exception):
    """An error answer: its status, a fixed word for programs, what is wrong, and what to do about it.

    ``fields``: what is wrong with which field of a query.
    """

    def __init__(
        self,
        status: HTTPStatus,
        error: str,
        problem: str,
        remedy: str = "",
        headers: Headers = (),
        fields: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(problem)
        self.status, self.error, self.problem, self.remedy = status, error, problem, remedy
        self.headers, self.fields = headers, dict(fields or {})

    @property
    def document(self) -> dict[str, object]:
        """For programs, the page among them."""
        document: dict[str, object] = {"error": self.error, "problem": self.problem, "remedy": self.remedy}
        return {**document, "fields": self.fields} if self.fields else document

    @property
    def text(self) -> str:
        """For people."""
        return "\n".join(part for part in (self.problem, self.remedy) if part)


def bad_request(problem: str, fields: Mapping[str, str] | None = None) -> ApiError:
    """400."""
    return ApiError(HTTPStatus.BAD_REQUEST, "bad_request", problem, fields=fields)


def unavailable(error: str, problem: str, remedy: str, headers: Headers = ()) -> ApiError:
    """503."""
    return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, error, problem, remedy, headers)


def method_not_allowed(*allowed: str) -> ApiError:
    """405."""
    headers = (("Allow", ", ".join(allowed)),)
    return ApiError(
        HTTPStatus.METHOD_NOT_ALLOWED, "method", f"expected {' or '.join(allowed)}", headers=headers
    )
