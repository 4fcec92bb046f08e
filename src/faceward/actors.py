"""Who is at work: what the audit log names beside each change."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

MAX_ACTOR = 255
PURGE = "purge"
"""Erases those whose time is over."""

_ACTOR: ContextVar[str] = ContextVar("faceward_actor", default="python")


@contextlib.contextmanager
def acting_as(actor: str) -> Iterator[None]:
    """What this thread does inside the block is this actor's doing: `key:PREFIX`, `cli:USER`, `import:JOB`, `purge`.

    Outside any block it is `python`: a program that calls the service in its own process. Another thread that works for
    the block has to be told, as by contextvars.copy_context.
    """
    token = _ACTOR.set(actor[:MAX_ACTOR])
    try:
        yield
    finally:
        _ACTOR.reset(token)


def current_actor() -> str:
    return _ACTOR.get()
