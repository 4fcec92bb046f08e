"""The stored faces of a person."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from faceward.api import answers
from faceward.api.authentication import parse_cursor
from faceward.api.openapi import ALWAYS, IDEMPOTENT, WITH_BODY, refusals
from faceward.api.parts import Enroller, EnrollerOfImages, Recognizer
from faceward.api.routes.common import Cursor, Limit, RowId, next_cursor
from faceward.api.uploads import body_of, images_of, request_body
from faceward.http_types import answered, sent
from faceward.store.person_rows import FacePage
from faceward.types import Enrollment

router = APIRouter(prefix="/v1/persons/{person_id}/faces", tags=["faces"], responses=refusals(404, *ALWAYS))


@router.post(
    "",
    status_code=201,
    openapi_extra=request_body(sent.FacesCreate, images=True) | IDEMPOTENT,
    responses=refusals(409, *WITH_BODY),
)
async def add_faces(
    work: EnrollerOfImages,
    person_id: RowId,
    body: Annotated[sent.FacesCreate, Depends(body_of(sent.FacesCreate, images=True))],
) -> answered.EnrollmentOut:
    """Store more photos of a person: all of them, or none."""
    token = work.token(body.model_dump(exclude={"images"}), images=body.images)

    def add() -> Enrollment:
        return work.service.add_face(
            person_id,
            images_of(work.request, "images", body.images),
            regions=work.caller.key.regions,
            client_id=work.caller.client_id,
            several_faces=body.several_faces,
            allow_duplicate=body.allow_duplicate,
            request=token,
        )

    stored = await work.compute(add)
    work.caller.reach(stored.person)  # as after a repeated enrolment
    return answers.enrollment(stored)


@router.get("")
async def list_faces(
    work: Recognizer, person_id: RowId, cursor: Cursor = None, limit: Limit = 100
) -> answered.FacePage:
    """The faces of a person, the oldest first."""
    after, key = parse_cursor(cursor), work.caller.key

    def faces() -> FacePage:
        return work.service.face_page(person_id, regions=key.regions, client_id=key.client_id, after=after, limit=limit)

    page = await work.ask(faces)
    return answered.FacePage(
        items=[answers.stored_face(face) for face in page.faces], next=next_cursor(page.next_after)
    )


@router.delete("/{face_id}", status_code=204)
async def delete_face(work: Enroller, person_id: RowId, face_id: RowId) -> Response:
    """Delete one face of a person."""
    key = work.caller.key
    await work.ask(lambda: work.service.delete_face(person_id, face_id, regions=key.regions, client_id=key.client_id))
    return Response(status_code=204)


@router.get(
    "/{face_id}/image",
    response_class=Response,
    responses={200: {"description": "The photo as it was sent.", "content": {"image/*": {}}}},
)
async def get_face_image(work: Enroller, person_id: RowId, face_id: RowId) -> Response:
    """The stored photo of a face; 404 where photos are not kept."""
    key = work.caller.key

    def image() -> tuple[bytes, str]:
        return work.service.face_image(person_id, face_id, regions=key.regions, client_id=key.client_id)

    data, media_type = await work.ask(image)
    return Response(
        data, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="face-{face_id}"'}
    )
