"""What the routes work with, and the dependencies that hand it to them."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from starlette.types import Receive

from faceward.actors import acting_as
from faceward.administration import Administration
from faceward.api.admission import WorkPool
from faceward.api.authentication import Authenticator, Caller
from faceward.api.metrics import Metrics
from faceward.api.rate_limit import RateLimiter
from faceward.api.uploads import MOST_PROBLEMS, InvalidBodyError
from faceward.errors import InvalidValueError
from faceward.jobs.imports import Imports
from faceward.journal import Journal
from faceward.service import FaceService
from faceward.types import Person, RequestToken, Role

T = TypeVar("T")

_LONGEST_TOKEN = 255


@dataclass(frozen=True, slots=True)
class ApiParts:
    """The collaborators of the routes.

    inference: threads that compute on images. data: threads that only ask the database. long: threads for what may take
    minutes, so that it takes none from the others. checks: whether requests can be served. page: of the figures, as
    Prometheus reads it.
    """

    service: FaceService
    administration: Administration
    imports: Imports
    journal: Journal
    authenticator: Authenticator
    limiter: RateLimiter
    inference: WorkPool
    data: WorkPool
    long: WorkPool
    metrics: Metrics
    checks: Callable[[], Awaitable[dict[str, str]]]
    page: Callable[[], Awaitable[bytes]]


class Work:
    """One authenticated request: who calls, and how its work reaches the threads. changes: as of WorkPool.run."""

    def __init__(self, request: Request, parts: ApiParts, caller: Caller, *, changes: bool) -> None:
        self.request = request
        self.parts = parts
        self.caller = caller
        self.service = parts.service
        self._changes = changes
        self._since = time.monotonic()

    async def compute(self, work: Callable[[], T]) -> T:
        """On a thread for images."""
        return await self._run(self.parts.inference, work)

    async def ask(self, work: Callable[[], T]) -> T:
        """On a thread for the database."""
        return await self._run(self.parts.data, work)

    async def take_long(self, work: Callable[[], T]) -> T:
        """On a thread for what reads or changes very many rows."""
        return await self._run(self.parts.long, work)

    async def step(self, work: Callable[[], T], *, last: bool = False) -> T:
        """One of many steps on a thread for the database: with a time of its own, and done though the caller may have gone.

        last: the one that makes the others count.
        """
        return await self.parts.data.run(self._named(work), client_id=self.caller.client_id, changes=last)

    async def _run(self, pool: WorkPool, work: Callable[[], T]) -> T:
        return await pool.run(
            self._named(work),
            client_id=self.caller.client_id,
            since=self._since,
            gone=lambda: _disconnected(self.request.receive),
            changes=self._changes,
        )

    def _named(self, work: Callable[[], T]) -> Callable[[], T]:
        """The work as this key's doing, on whatever thread."""

        def named() -> T:
            with acting_as(self.caller.actor):
                return work()

        return named

    def person(self, person_id: int) -> Person:
        """A person that the key may reach; called on a thread. Raises UnknownPersonError."""
        return self.caller.reach(self.service.get_person(person_id, client_id=self.caller.client_id))

    def token_text(self) -> str | None:
        """The Idempotency-Key as it was sent. Raises InvalidValueError."""
        text = self.request.headers.get("idempotency-key")
        if text is not None and not (0 < len(text) <= _LONGEST_TOKEN and text.isascii() and text.isprintable()):
            raise InvalidValueError("Idempotency-Key", text, f"1 to {_LONGEST_TOKEN} printable ASCII characters")
        return text

    def token(self, *parts: Any, images: tuple[bytes, ...] | list[bytes] = ()) -> RequestToken | None:
        """The Idempotency-Key of this request, if one was sent. parts, images: what makes it this request and no other."""
        text = self.token_text()
        if text is None:
            return None
        digest = hashlib.sha256(json.dumps([self.request.method, self.request.url.path, *parts]).encode())
        for image in images:
            digest.update(hashlib.sha256(image).digest())
        return RequestToken(self.caller.key.id, text, digest.digest())


def parts_of(request: Request) -> ApiParts:
    parts: ApiParts = request.app.state.parts
    return parts


def may(role: Role, *, computes: bool = False) -> Callable[[Request], Awaitable[Work]]:
    """A dependency: the caller's key must have this role, and be within its rate. computes: the route needs inference.

    All of that is settled before the body is read, and so is whether the route knows what the query says.
    """

    async def work(request: Request) -> Work:
        parts = parts_of(request)
        caller = await parts.authenticator.caller(request)
        request.state.caller = caller
        allowance = parts.limiter.take(caller.client_id, caller.key.id, caller.key.rate_limit)
        if allowance is not None:
            request.state.headers = allowance.headers()
        caller.require(role)
        _refuse_parameters(request)
        (parts.inference if computes else parts.data).check(caller.client_id)
        # What a recogniser may do leaves everything as it is.
        return Work(request, parts, caller, changes=role != "recognizer" and request.method != "GET")

    return work


Recognizer = Annotated[Work, Depends(may("recognizer"))]
Enroller = Annotated[Work, Depends(may("enroller"))]
Manager = Annotated[Work, Depends(may("manager"))]
Admin = Annotated[Work, Depends(may("admin"))]
RecognizerOfImages = Annotated[Work, Depends(may("recognizer", computes=True))]
EnrollerOfImages = Annotated[Work, Depends(may("enroller", computes=True))]


def _refuse_parameters(request: Request) -> None:
    """Raise InvalidBodyError for what the route does not declare, and for what comes twice, of which no route takes more than
    one: a misspelt filter must not pass unseen, nor a client's id that changes nothing, nor the first of two regions.
    """
    route: APIRoute = request.scope["route"]
    known = [parameter.alias for parameter in route.dependant.query_params]
    takes = ", ".join(known) if known else "none"
    problems = [
        {
            "field": f"query.{name[:100]}",
            "message": "sent more than once"
            if name in known
            else f"this call knows no such parameter; those it does: {takes}",
        }
        for name, times in Counter(name for name, _ in request.query_params.multi_items()).items()
        if name not in known or times > 1
    ]
    if problems:
        raise InvalidBodyError(problems[:MOST_PROBLEMS])


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
