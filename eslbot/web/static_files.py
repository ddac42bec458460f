"""The call page's own files, read once; nothing else is ever served from the disk."""

from __future__ import annotations

import hashlib
from html import escape
from http import HTTPStatus
from importlib import resources

from flask import Request, Response

from eslbot.web.errors import ApiError

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_MESSAGE = "<!-- message -->"


class StaticFiles:
    """``/static/NAME``, and the two HTML pages."""

    def __init__(self) -> None:
        folder = resources.files("eslbot.web") / "static"
        self._files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
        self._tags = {name: hashlib.sha256(data).hexdigest()[:32] for name, data in self._files.items()}

    def static(self, name: str, request: Request) -> Response:
        """A file, or that the browser's copy is still good. Raises ApiError."""
        data = self._files.get(name)
        kind = _TYPES.get(f".{name.rpartition('.')[2]}")
        if data is None or kind is None or name.endswith(".html"):
            raise ApiError(HTTPStatus.NOT_FOUND, "not_here", "there is no such file")
        response = Response(data, content_type=kind, headers={"Cache-Control": "no-cache"})
        response.set_etag(self._tags[name])
        response.make_conditional(request)
        return response

    def page(self) -> Response:
        """The call page, which asks for all that it shows."""
        return Response(self._files["page.html"], content_type=_TYPES[".html"])

    def sign_in(self, message: str = "", status: HTTPStatus = HTTPStatus.OK) -> Response:
        """The form for a token."""
        text = self._files["sign-in.html"].decode().replace(_MESSAGE, escape(message))
        return Response(text, status, content_type=_TYPES[".html"])
