"""Puts the application together: routes, limits around them, and one handler for every error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from faceward.api.authentication import Caller
from faceward.api.bodies import BodyLimits, BodySettings
from faceward.api.docs_page import docs_page
from faceward.api.observation import LogLine, Observation
from faceward.api.openapi import document
from faceward.api.parts import ApiParts
from faceward.api.problems import answer, problem, status_of
from faceward.api.routes import (
    administration,
    faces,
    imports,
    journal,
    operation,
    persons,
    privacy,
    recognition,
    regions,
)
from faceward.api.uploads import MOST_PROBLEMS, InvalidBodyError, described
from faceward.errors import FacewardError, UnknownRegionError

_DESCRIPTION = """Face recognition inside a region, inside a client.

Send the key as `Authorization: Bearer KEY` or `x-api-key: KEY`; the client is the key's. Every error is a problem (RFC 9457)
with a stable `code`. A creating call that carries an `Idempotency-Key` can be repeated after a broken connection.
"""
_TAGS = {
    "recognition": "Who is it.",
    "persons": "Enrolled people.",
    "faces": "Their stored faces.",
    "privacy": "What is held of a person, and its end.",
    "regions": "Sites of the client.",
    "imports": "Many people at once.",
    "administration": "Keys and clients.",
    "journal": "What was done.",
    "operation": "For those who run it.",
}
_CODES = {404: "not_found", 405: "method_not_allowed"}


@dataclass(frozen=True, slots=True)
class AppSettings:
    """bodies: limits of the requests' bodies. origins: browser pages that may call. tls: whether HTTPS is spoken."""

    bodies: BodySettings
    origins: Sequence[str] = ()
    tls: bool = False


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """With the bodies that the routes read themselves; made once."""
        if self.openapi_schema is None:
            self.openapi_schema = document(self)
        return self.openapi_schema


def create_app(parts: ApiParts, settings: AppSettings, log: LogLine, on_stop: Callable[[], None]) -> FastAPI:
    """The application. on_stop: called at the server's end, on a thread."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            # Beside the event loop: what the end cuts off is answered by it before the work that goes on is done.
            await asyncio.to_thread(on_stop)

    app = _Application(
        title="faceward",
        version=version("faceward"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # else a redirection to whatever the Host header says, without a key
        openapi_tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
    )
    app.state.parts = parts
    for routes in (recognition, persons, faces, privacy, regions, imports, administration, journal, operation):
        app.include_router(routes.router)
    app.add_api_route("/docs", docs_page, include_in_schema=False)
    app.add_exception_handler(FacewardError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_parameters)
    app.add_exception_handler(HTTPException, _refuse_http)

    def for_browsers(inner: ASGIApp) -> ASGIApp:
        """A refusal without these headers would be no answer at all to a page."""
        if not settings.origins:
            return inner
        return CORSMiddleware(
            inner,
            allow_origins=list(settings.origins),
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["authorization", "x-api-key", "content-type", "idempotency-key", "x-request-id"],
            expose_headers=["x-request-id", "retry-after", "location", "ratelimit", "ratelimit-policy"],
        )

    app.add_middleware(for_browsers)
    app.add_middleware(BodyLimits, settings=settings.bodies)
    app.add_middleware(Observation, metrics=parts.metrics, log=log, tls=settings.tls, dressed=for_browsers)
    return app


async def _refuse(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, FacewardError)
    error: FacewardError = exc
    caller: Caller | None = getattr(request.state, "caller", None)
    if isinstance(error, UnknownRegionError) and caller is not None:
        error = caller.narrowed(error)
    request.state.error = error.code
    if status_of(error) >= 500:
        request.state.cause = str(error)  # of the service's own parts: it names no person
    return problem(error, request.state.request_id)


async def _refuse_parameters(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    problems = [described(error) for error in exc.errors()[:MOST_PROBLEMS]]
    return await _refuse(request, InvalidBodyError(problems))


async def _refuse_http(request: Request, exc: Exception) -> Response:
    """What the framework refuses on its own: an unknown path, a method that a path does not have."""
    assert isinstance(exc, HTTPException)
    code = _CODES.get(exc.status_code, "invalid_request")
    request.state.error = code
    detail = f"{request.method} is not possible here." if code == "method_not_allowed" else str(exc.detail)
    if code == "not_found":
        detail = "There is nothing at this path. /docs lists what there is."
    return answer(exc.status_code, code, detail, request.state.request_id, headers=dict(exc.headers or {}))
