"""What those who run the service ask: is it alive, is it ready, how does it do."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from faceward.api.parts import parts_of
from faceward.http_types import answered

router = APIRouter(tags=["operation"])


class Alive(BaseModel):
    alive: bool


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def get_health() -> Alive:
    """The process answers."""
    return Alive(alive=True)


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses={503: {"model": answered.Ready, "description": "Something that it needs is missing."}})
async def get_readiness(request: Request, response: Response) -> answered.Ready:
    """Database, tables and model pack are there."""
    checks = await parts_of(request).checks()
    ready = all(state == "ok" for state in checks.values())
    response.status_code = 200 if ready else 503
    return answered.Ready(ready=ready, checks=checks)


@router.head("/metrics", include_in_schema=False)
@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def get_metrics(request: Request) -> Response:
    """As Prometheus reads them."""
    return Response(await parts_of(request).page(), headers={"Content-Type": CONTENT_TYPE_LATEST})
