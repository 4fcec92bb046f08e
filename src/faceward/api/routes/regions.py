"""The regions of the key's client."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from faceward.api import answers
from faceward.api.openapi import ALWAYS, IDEMPOTENT, WITH_BODY, refusals
from faceward.api.parts import Manager, Recognizer
from faceward.api.routes.common import Limit, RegionName
from faceward.api.uploads import body_of, request_body
from faceward.checks import MAX_REGION
from faceward.http_types import answered, fields, sent
from faceward.types import RegionChange

router = APIRouter(prefix="/v1/regions", tags=["regions"], responses=refusals(*ALWAYS))

RegionCursor = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=MAX_REGION,
        description="The `next` of the page before: a region's name.",
        json_schema_extra={"pattern": fields.LINE},
    ),
]


@router.get("")
async def list_regions(work: Recognizer, cursor: RegionCursor = None, limit: Limit = 100) -> answered.RegionPage:
    """The regions by name with their counts; a key with regions of its own sees those of them."""
    page = await work.ask(
        lambda: work.service.list_regions(
            regions=work.caller.key.regions, client_id=work.caller.client_id, after=cursor, limit=limit
        )
    )
    return answered.RegionPage(items=[answers.region(each) for each in page.regions], next=page.next_after)


@router.post(
    "",
    status_code=201,
    openapi_extra=request_body(sent.RegionCreate) | IDEMPOTENT,
    responses=refusals(404, 409, *WITH_BODY),
)
async def create_region(
    work: Manager, body: Annotated[sent.RegionCreate, Depends(body_of(sent.RegionCreate))]
) -> answered.RegionOut:
    """Make a region before its first person."""
    work.caller.enter([body.name])
    token = work.token(body.model_dump(mode="json"))
    return answers.region(
        await work.ask(
            lambda: work.service.create_region(
                body.name,
                threshold=body.threshold,
                retention_days=body.retention_days,
                client_id=work.caller.client_id,
                request=token,
            )
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
) -> answered.RegionChanged:
    """Rename a region, which takes its persons along and as long as that needs, or change its settings."""
    work.caller.enter([region])
    if body.name is not None:
        work.caller.enter([body.name])
    changes = body.model_dump(exclude_unset=True)

    def update() -> RegionChange:
        return work.service.update_region(region, client_id=work.caller.client_id, **changes)

    everybody = body.name is not None or body.apply_to_existing
    changed = await (work.take_long(update) if everybody else work.ask(update))
    if body.name is not None:
        work.parts.authenticator.forget()  # keys that may work in it name it
    return answers.region_changed(changed)


@router.delete("/{region:path}", status_code=204, responses=refusals(404, 409))
async def delete_region(work: Manager, region: RegionName) -> Response:
    """Delete a region that has no person."""
    work.caller.enter([region])
    await work.ask(lambda: work.service.delete_region(region, client_id=work.caller.client_id))
    return Response(status_code=204)
