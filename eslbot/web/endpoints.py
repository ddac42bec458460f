"""What the groups of endpoints below ``/api`` have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flask import Blueprint, Response

from eslbot.web.services import PageServices
from eslbot.web.sessions import Access

View = Callable[..., Response | dict[str, Any]]


class Endpoints:
    """A group of them, for viewers that ``access`` knows."""

    def __init__(self, services: PageServices, access: Access) -> None:
        self._services = services
        self._access = access

    def views(self) -> Mapping[str, View]:
        """What answers GET, by the path below ``/api``."""
        raise NotImplementedError

    def blueprint(self) -> Blueprint:
        """To be registered at ``/api``."""
        blueprint = Blueprint(type(self).__name__, __name__)
        for rule, view in self.views().items():
            endpoint = rule.replace(".", "_")  # Flask takes no dots
            blueprint.add_url_rule(rule, endpoint, view, methods=["GET"], provide_automatic_options=False)
        return blueprint
