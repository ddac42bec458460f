"""A hand-off as Ameyo's REST server gets it, and what is wrong with it by the contract.

The contract is in the Ringg/Ameyo integration document, section 2: one route, four headers, a body of five
keys of which three are constants. Everything that differs from it is an error here, since the real server's
tolerance is unknown.

===========================================  ======
what is wrong with a request                 status
===========================================  ======
path                                         404
method                                       405
``Host`` is no tenant's                      404
``policy-name`` is not ``token``             403
``Authorization`` is not the tenant's token  401
no ``Content-Length``                        411
``Content-Type`` is not ``application/json`` 415
body over 1 MB                               413
body is not exactly the schema               400
===========================================  ======
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

#: The route of the integration document.
ROUTE = "/ameyorestapi/voice/sendAgentResponseForCallNotification"

CONSTANTS = {"notificationId": "95", "callResponse": True, "sessionId": "na"}

#: Bytes of a body that are taken.
MAX_BODY = 1 << 20


@dataclass(slots=True)
class Notification:
    """A request as it came, ``at`` epoch seconds, and what became of it.

    ``headers`` keep order and spelling, ``json`` is None where the body is none. ``problem`` names the
    first fault of the request, None for a correct one. ``status`` is None while there is no answer and
    where the connection was dropped.
    """

    at: float
    peer: tuple[str, int]
    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    json: Any
    problem: str | None
    status: int | None = None
    answered_at: float | None = None
    accepted: bool = False

    def header(self, name: str) -> str | None:
        """The first header of that name, whatever its spelling."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def crt_object_id(self) -> str | None:
        """``uniqueId`` of the body."""
        value = self.json.get("uniqueId") if isinstance(self.json, dict) else None
        return value if isinstance(value, str) else None

    @property
    def properties(self) -> dict[str, Any]:
        """``properties`` of the body; empty where it has none."""
        value = self.json.get("properties") if isinstance(self.json, dict) else None
        return value if isinstance(value, dict) else {}


class Fault(Exception):
    """What is wrong with a request."""

    def __init__(self, status: HTTPStatus, problem: str) -> None:
        super().__init__(problem)
        self.status, self.problem = status, problem


def fault_of(request: Notification, length: int | None, tenants: Mapping[str, str]) -> Fault | None:
    """What is wrong with a request; None for a correct one.

    Args:
        length: its ``Content-Length``.
        tenants: tenant host to its token.
    """
    try:
        _check(request, length, tenants)
    except Fault as fault:
        return fault
    return None


def _check(request: Notification, length: int | None, tenants: Mapping[str, str]) -> None:
    if request.path != ROUTE:
        raise Fault(HTTPStatus.NOT_FOUND, f"no such resource: {request.path}")
    if request.method != "POST":
        raise Fault(HTTPStatus.METHOD_NOT_ALLOWED, f"{request.method} is not POST")
    token = tenants.get(_only(request, "Host"))
    if token is None:
        raise Fault(HTTPStatus.NOT_FOUND, f"no tenant {request.header('Host')!r}")
    if _only(request, "policy-name") != "token":
        raise Fault(HTTPStatus.FORBIDDEN, "policy-name is not 'token'")
    if _only(request, "Authorization") != token:
        raise Fault(HTTPStatus.UNAUTHORIZED, "Authorization is not this tenant's token")
    if length is None:
        raise Fault(HTTPStatus.LENGTH_REQUIRED, "no Content-Length")
    if length > MAX_BODY:
        raise Fault(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"body of {length} bytes")
    media_type, _, parameters = _only(request, "Content-Type").partition(";")
    if media_type.strip().lower() != "application/json" or parameters.strip().lower() not in (
        "",
        "charset=utf-8",
    ):
        raise Fault(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Content-Type is not application/json")
    problem = schema_problem(request.body)
    if problem is not None:
        raise Fault(HTTPStatus.BAD_REQUEST, problem)


def schema_problem(body: bytes) -> str | None:
    """What is wrong with a notification's body; None where it is exactly the schema."""
    try:
        document = json.loads(body.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except ValueError as error:
        return f"not JSON: {error}"
    if not isinstance(document, dict):
        return "not an object"
    expected = {*CONSTANTS, "uniqueId", "properties"}
    if document.keys() != expected:
        missing, strange = expected - document.keys(), document.keys() - expected
        return f"missing keys {sorted(missing)}, unknown keys {sorted(strange)}"
    for key, value in CONSTANTS.items():
        if document[key] != value or type(document[key]) is not type(value):
            return f"{key} is {document[key]!r}, not {value!r}"
    if not isinstance(document["uniqueId"], str) or not document["uniqueId"]:
        return "uniqueId is no text"
    properties = document["properties"]
    if not isinstance(properties, dict):
        return "properties is no object"
    for key, value in properties.items():
        if not isinstance(value, str):
            return f"properties[{key!r}] is no text"
    return None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key stands twice")
    return document


def _only(request: Notification, name: str) -> str:
    """The value of a header that may stand once; empty where it is missing."""
    values = [value for key, value in request.headers if key.lower() == name.lower()]
    if len(values) > 1:
        raise Fault(HTTPStatus.BAD_REQUEST, f"{name} stands {len(values)} times")
    return values[0] if values else ""
