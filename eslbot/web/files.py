"""The call page's own files, read once; nothing else is ever served from the disk."""

from __future__ import annotations

import hashlib
from html import escape
from http import HTTPStatus
from importlib import resources

from eslbot.web.http import Answer, Headers, Refusal, Request

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_MESSAGE = "<!-- message -->"


class Files:
    """``/static/NAME``, and the two HTML pages."""

    def __init__(self) -> None:
        folder = resources.files("eslbot.web") / "static"
        self._files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}

    def static(self, request: Request) -> Answer:
        """A file, or that the browser's copy is still good. Raises Refusal."""
        name = request.path.removeprefix("/static/")
        data = self._files.get(name)
        kind = _TYPES.get(f".{name.rpartition('.')[2]}")
        if data is None or kind is None or name.endswith(".html"):
            raise Refusal(HTTPStatus.NOT_FOUND, "not_here", "there is no such file")
        tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        headers: Headers = (("Cache-Control", "no-cache"), ("ETag", tag))
        if request.header("If-None-Match") == tag:
            return Answer(HTTPStatus.NOT_MODIFIED, kind, b"", headers)
        return Answer(HTTPStatus.OK, kind, data, headers)

    def page(self) -> Answer:
        """The call page; what it shows, it asks for."""
        return Answer(HTTPStatus.OK, _TYPES[".html"], self._files["page.html"])

    def sign_in(self, message: str = "", status: HTTPStatus = HTTPStatus.OK, headers: Headers = ()) -> Answer:
        """The form for a token."""
        text = self._files["sign-in.html"].decode().replace(_MESSAGE, escape(message))
        return Answer(status, _TYPES[".html"], text.encode(), headers)
