"""Persons, enrolled in a region of the key's client."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from faceward.api import answers
from faceward.api.authentication import parse_cursor
from faceward.api.openapi import ALWAYS, IDEMPOTENT, WITH_BODY, refusals
from faceward.api.parts import Enroller, EnrollerOfImages, Manager, Recognizer
from faceward.api.routes.common import Cursor, Limit, RowId, next_cursor
from faceward.api.uploads import body_of, images_of, request_body
from faceward.checks import MAX_EXTERNAL_ID, MAX_NAME, MAX_REGION, composed
from faceward.http_types import answered, fields, sent
from faceward.types import Merge, Person

router = APIRouter(prefix="/v1/persons", tags=["persons"], responses=refusals(*ALWAYS))


def _text(longest: int) -> Any:
    return Query(min_length=1, max_length=longest, json_schema_extra={"pattern": fields.LINE})


@router.post(
    "",
    status_code=201,
    openapi_extra=request_body(sent.PersonCreate, images=True) | IDEMPOTENT,
    responses=refusals(409, *WITH_BODY),
)
async def create_person(
    work: EnrollerOfImages, body: Annotated[sent.PersonCreate, Depends(body_of(sent.PersonCreate, images=True))]
) -> answered.EnrollmentOut:
    """Enroll a person with one or more photos: all of them are stored, or none. The region is made on first use."""
    client_id = work.caller.client_id
    token = work.token(body.model_dump(mode="json", exclude={"images"}), images=body.images)
    if token is not None and not work.caller.key.may_enter(body.region):
        # The region may have been renamed since, and the key gone with it, as a request that is repeated can't.
        before = await work.ask(lambda: work.service.enrolled_before(token, client_id=client_id))
        if before is not None:
            work.caller.reach(before.person)
            return answers.enrollment(before)
    work.caller.enter([body.region])
    stored = await work.compute(
        lambda: work.service.enroll(
            images_of(work.request, "images", body.images),
            name=body.name,
            region=body.region,
            client_id=client_id,
            description=body.description,
            external_id=body.external_id,
            expires_at=body.expires_at,
            several_faces=body.several_faces,
            allow_duplicate=body.allow_duplicate,
            request=token,
        )
    )
    # A repeated request may find the person moved to a region that the key does not see.
    work.caller.reach(stored.person)
    return answers.enrollment(stored)


@router.get("")
async def list_persons(
    work: Recognizer,
    region: Annotated[str | None, _text(MAX_REGION)] = None,
    name_prefix: Annotated[str | None, _text(MAX_NAME)] = None,
    external_id: Annotated[str | None, _text(MAX_EXTERNAL_ID)] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> answered.PersonPage:
    """Persons by ascending id; a key with regions of its own sees those of them."""
    region = composed(region)
    if region is not None:
        work.caller.enter([region])
    after = parse_cursor(cursor)
    page = await work.ask(
        lambda: work.service.list_persons(
            regions=work.caller.key.regions if region is None else (region,),
            name_prefix=name_prefix,
            external_id=external_id,
            client_id=work.caller.client_id,
            after=after,
            limit=limit,
        )
    )
    return answered.PersonPage(items=[answers.person(each) for each in page.persons], next=next_cursor(page.next_after))


@router.get("/{person_id}", responses=refusals(404))
async def get_person(work: Recognizer, person_id: RowId) -> answered.PersonOut:
    """A person."""
    return answers.person(await work.ask(lambda: work.person(person_id)))


@router.patch("/{person_id}", openapi_extra=request_body(sent.PersonPatch), responses=refusals(404, 409, *WITH_BODY))
async def update_person(
    work: Enroller, person_id: RowId, body: Annotated[sent.PersonPatch, Depends(body_of(sent.PersonPatch))]
) -> answered.PersonOut:
    """Change what is sent and leave the rest."""
    changes, key = body.model_dump(exclude_unset=True), work.caller.key

    def update() -> Person:
        return work.service.update_person(person_id, regions=key.regions, client_id=key.client_id, **changes)

    return answers.person(await work.ask(update))


@router.put(
    "/{person_id}/region", openapi_extra=request_body(sent.PersonMove), responses=refusals(404, 409, *WITH_BODY)
)
async def move_person(
    work: Enroller, person_id: RowId, body: Annotated[sent.PersonMove, Depends(body_of(sent.PersonMove))]
) -> answered.PersonOut:
    """Move a person with all faces to another region; the next search sees it."""
    work.caller.enter([body.region])
    key = work.caller.key

    def move() -> Person:
        return work.service.move_region(person_id, body.region, regions=key.regions, client_id=key.client_id)

    return answers.person(await work.ask(move))


@router.post(
    "/{person_id}/merge",
    openapi_extra=request_body(sent.PersonMerge) | IDEMPOTENT,
    responses=refusals(404, 409, *WITH_BODY),
)
async def merge_persons(
    work: Manager, person_id: RowId, body: Annotated[sent.PersonMerge, Depends(body_of(sent.PersonMerge))]
) -> answered.MergeOut:
    """Give all faces of this person to another, `into`, and delete this one; each search finds the person meanwhile."""
    token = work.token(body.model_dump())

    def merge() -> Merge:
        return work.service.merge_persons(
            person_id,
            body.into,
            across_regions=body.across_regions,
            regions=work.caller.key.regions,
            client_id=work.caller.client_id,
            request=token,
        )

    merged = await work.ask(merge)
    work.caller.reach(merged.person)  # as after a repeated enrolment
    return answers.merged(merged)


@router.delete("/{person_id}", status_code=204, responses=refusals(404))
async def delete_person(work: Enroller, person_id: RowId) -> Response:
    """Delete a person with all faces."""
    key = work.caller.key
    await work.ask(lambda: work.service.delete_person(person_id, regions=key.regions, client_id=key.client_id))
    return Response(status_code=204)
