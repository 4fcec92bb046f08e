"""What the OpenAPI document says beside what the routes' signatures do."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from faceward.api.examples import EXAMPLES
from faceward.http_types.answered import Problem
from faceward.http_types.sent import Sent

_REASONS = {
    400: "The request can't be read.",
    401: "No valid key was sent.",
    403: "The key may not do this: its role, or its regions.",
    404: "It does not exist for this client.",
    408: "The body came too slowly.",
    409: "It contradicts what is stored.",
    413: "The body or image is too large.",
    415: "The body is of a type that this route does not read.",
    422: "A value can't be used, or the photo can't.",
    429: "The key sends more than it may.",
    503: "The service is full, or its database away: try again after Retry-After.",
}
ALWAYS = (400, 401, 403, 429, 503)
WITH_BODY = (408, 413, 415, 422)

IDEMPOTENT: dict[str, Any] = {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "Any text of your own. A call that is repeated with it is done once, and answered alike.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
        }
    ]
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that a route may answer with."""
    return {
        status: {"description": _REASONS[status], "content": {"application/problem+json": {"schema": _PROBLEM}}}
        for status in sorted(set(statuses))
    }


_PROBLEM = {"$ref": "#/components/schemas/Problem"}


def document(app: FastAPI) -> dict[str, Any]:
    """The whole OpenAPI document, with the bodies that the routes read themselves."""
    content = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
    )
    models: list[type[BaseModel]] = [*Sent.__subclasses__(), Problem]
    modes: list[tuple[type[BaseModel], Literal["validation"]]] = [(model, "validation") for model in models]
    _, schemas = models_json_schema(modes, ref_template="#/components/schemas/{model}")
    components = content.setdefault("components", {})
    components["schemas"] = dict(sorted({**components.get("schemas", {}), **schemas["$defs"]}.items()))
    for model, example in EXAMPLES.items():
        components["schemas"][model.__name__]["examples"] = [example]
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    for path, operations in content["paths"].items():
        if path.startswith("/v1/"):
            for operation in operations.values():
                operation["security"] = [{"bearer": []}, {"key": []}]
                # FastAPI adds its own shape of a 422 to whatever has a parameter.
                operation["responses"]["422"] = refusals(422)[422]
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    return content
