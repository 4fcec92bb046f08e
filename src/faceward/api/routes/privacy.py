"""What a person may ask of those who keep the face: what they hold, and to be erased."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from faceward.api import answers
from faceward.api.openapi import ALWAYS, IDEMPOTENT, refusals
from faceward.api.parts import Manager
from faceward.api.routes.common import RowId
from faceward.http_types import answered
from faceward.receipts import Receipt

router = APIRouter(prefix="/v1/persons/{person_id}", tags=["privacy"], responses=refusals(404, *ALWAYS))


_IN_MEMORY = 4 << 20
_PIECE = 1 << 20


@router.get(
    "/export",
    response_class=Response,
    responses={200: {"description": "A zip of JSON and photos.", "content": {"application/zip": {}}}},
)
async def export_person(work: Manager, person_id: RowId) -> Response:
    """All that is held of a person, as a zip."""
    # Whole before its first byte is sent: an answer that has begun can't become an error.
    file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - closed by whoever sends it

    def export() -> int:
        key = work.caller.key
        work.service.export_person(person_id, file, regions=key.regions, client_id=key.client_id)
        size = file.tell()
        file.seek(0)
        return size

    try:
        size = await work.ask(export)
    except BaseException:
        file.close()
        raise
    return StreamingResponse(
        _pieces(file),
        media_type="application/zip",
        headers={
            "Content-Length": str(size),
            "Content-Disposition": f'attachment; filename="person-{person_id}.zip"',
        },
    )


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE):
            yield piece


@router.post("/erase", openapi_extra=IDEMPOTENT, responses=refusals(409))
async def erase_person(work: Manager, person_id: RowId) -> answered.ReceiptOut:
    """Erase a person, also one deleted before, with every trace, for good. The answer is a signed receipt."""
    token, caller = work.token(), work.caller

    def erase() -> Receipt:
        # A key with regions of its own: of one who is gone nobody knows the region, but for whom it erased itself.
        return work.service.erase_person(
            person_id, regions=caller.key.regions, client_id=caller.client_id, request=token
        )

    return answers.receipt(await work.take_long(erase))
