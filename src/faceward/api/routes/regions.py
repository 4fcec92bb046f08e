"""The regions of the key's client."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from faceward.api import answers
from faceward.api.openapi import ALWAYS, WITH_BODY, refusals
from faceward.api.parts import Manager, Recognizer
from faceward.api.routes.common import RegionName
from faceward.api.uploads import body_of, request_body
from faceward.http_types import answered, sent
from faceward.types import RegionSummary

router = APIRouter(prefix="/v1/regions", tags=["regions"], responses=refusals(*ALWAYS))


@router.get("")
async def list_regions(work: Recognizer) -> answered.RegionList:
    """The regions by name with their counts; a key with regions of its own sees those of them."""
    regions = await work.ask(lambda: work.service.list_regions(client_id=work.caller.client_id))
    return answered.RegionList(items=[answers.region(each) for each in regions if work.caller.key.may_enter(each.name)])


@router.post("", status_code=201, openapi_extra=request_body(sent.RegionCreate), responses=refusals(409, *WITH_BODY))
async def create_region(
    work: Manager, body: Annotated[sent.RegionCreate, Depends(body_of(sent.RegionCreate))]
) -> answered.RegionOut:
    """Make a region before its first person."""
    work.caller.enter([body.name])
    return answers.region(
        await work.ask(
            lambda: work.service.create_region(body.name, threshold=body.threshold, client_id=work.caller.client_id)
        )
    )


@router.get("/{region:path}", responses=refusals(404))
async def get_region(work: Recognizer, region: RegionName) -> answered.RegionOut:
    """A region with its counts and settings."""
    work.caller.enter([region])
    return answers.region(await work.ask(lambda: work.service.get_region(region, client_id=work.caller.client_id)))


@router.patch("/{region:path}", openapi_extra=request_body(sent.RegionPatch), responses=refusals(404, 409, *WITH_BODY))
async def update_region(
    work: Manager, region: RegionName, body: Annotated[sent.RegionPatch, Depends(body_of(sent.RegionPatch))]
) -> answered.RegionOut:
    """Rename a region, which takes its persons along, or change its settings."""
    work.caller.enter([region])
    if body.name is not None:
        work.caller.enter([body.name])
    changes = body.model_dump(exclude_unset=True)

    def update() -> RegionSummary:
        return work.service.update_region(region, client_id=work.caller.client_id, **changes)

    return answers.region(await work.ask(update))


@router.delete("/{region:path}", status_code=204, responses=refusals(404, 409))
async def delete_region(work: Manager, region: RegionName) -> Response:
    """Delete a region that has no person."""
    work.caller.enter([region])
    await work.ask(lambda: work.service.delete_region(region, client_id=work.caller.client_id))
    return Response(status_code=204)
