"""What those who run the service ask: is it alive, is it ready, how does it do."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from faceward.api.parts import parts_of
from faceward.http_types import answered

router = APIRouter(tags=["operation"])


class Alive(BaseModel):
    alive: bool


@router.get("/healthz")
async def get_health() -> Alive:
    """The process answers."""
    return Alive(alive=True)


@router.get("/readyz", responses={503: {"model": answered.Ready, "description": "Something that it needs is missing."}})
async def get_readiness(request: Request, response: Response) -> answered.Ready:
    """Database, tables and model pack are there."""
    parts = parts_of(request)
    checks = await parts.data.run(parts.checks)
    ready = all(state == "ok" for state in checks.values())
    response.status_code = 200 if ready else 503
    return answered.Ready(ready=ready, checks=checks)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def get_metrics(request: Request) -> Response:
    """As Prometheus reads them."""
    parts = parts_of(request)
    parts.gauges()
    page = await asyncio.to_thread(parts.metrics.page)
    return Response(page, headers={"Content-Type": CONTENT_TYPE_LATEST})
