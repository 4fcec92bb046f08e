"""What a person may ask of those who keep the face: to be erased."""

from __future__ import annotations

from fastapi import APIRouter

from faceward.api import answers
from faceward.api.openapi import ALWAYS, IDEMPOTENT, refusals
from faceward.api.parts import Manager
from faceward.api.routes.common import RowId
from faceward.http_types import answered
from faceward.receipts import Receipt

router = APIRouter(prefix="/v1/persons/{person_id}", tags=["privacy"], responses=refusals(404, *ALWAYS))


@router.post("/erase", openapi_extra=IDEMPOTENT)
async def erase_person(work: Manager, person_id: RowId) -> answered.ReceiptOut:
    """Erase a person, also one deleted before, with every trace, for good. The answer is a signed receipt."""
    token = work.token()

    def erase() -> Receipt:
        if work.caller.key.regions is not None:  # of one who is gone nobody knows the region
            work.person(person_id)
        return work.service.erase_person(person_id, client_id=work.caller.client_id, request=token)

    return answers.receipt(await work.ask(erase))
