"""Hostile requests: what each is, as the bytes that are sent on a connection of its own."""

from __future__ import annotations

#: Just under what the page takes as a head (:data:`eslbot.web.server.MAX_HEAD`).
LONG = 7900


def _get(target: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


KINDS = {
    "cookie": _get("/api/session", f"Cookie: {'=' * LONG}"),
    "pipelined": _get("/healthz") * 200,
    "chunked POST": b"POST /sign-in HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"400\r\n"
    + b"x" * 1024
    + b"\r\n0\r\n\r\n",
    "endless head": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000,
    "query": _get("/api/calls?" + "a=%41&" * 1300),
    "unfinished": b"GET / HTTP/1.1\r\nHost: x\r\n",
    "metrics": _get("/metrics", "Authorization: Bearer none"),
}
