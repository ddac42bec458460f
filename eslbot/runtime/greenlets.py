"""Spawns greenlets whose log lines say which call they are about, as their parent's do."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import ParamSpec, TypeVar

import gevent

P = ParamSpec("P")
R = TypeVar("R")


def spawn(work: Callable[P, R], *args: P.args, **options: P.kwargs) -> gevent.Greenlet[..., R]:
    """``gevent.spawn``, but with the context variables of the greenlet that calls it."""
    greenlet: gevent.Greenlet[..., R] = gevent.Greenlet(work, *args, **options)
    greenlet.gr_context = copy_context()
    greenlet.start()
    return greenlet
