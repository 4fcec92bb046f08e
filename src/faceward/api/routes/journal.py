"""What was done in the key's client: for those who answer for it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from faceward.actors import MAX_ACTOR
from faceward.api import answers
from faceward.api.authentication import parse_cursor
from faceward.api.openapi import ALWAYS, refusals
from faceward.api.parts import Manager
from faceward.api.routes.common import Cursor, Limit, next_cursor
from faceward.http_types import answered, fields
from faceward.store.audit_log import Action
from faceward.store.decision_log import Outcome

router = APIRouter(prefix="/v1", tags=["journal"], responses=refusals(*ALWAYS))

PersonFilter = Annotated[int | None, Query(ge=1, le=2**63 - 1, description="Only of this person.")]
Since = Annotated[fields.Moment | None, Query(description="Only from this time on, as 2030-01-31T12:00:00Z.")]


@router.get("/audit")
async def list_audit(
    work: Manager,
    person_id: PersonFilter = None,
    actor: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=MAX_ACTOR,
            description="Only of this actor, as key:PREFIX.",
            json_schema_extra={"pattern": fields.LINE},
        ),
    ] = None,
    action: Annotated[Action | None, Query(description="Only this action.")] = None,
    since: Since = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> answered.AuditPage:
    """Who did what to whom, the newest first."""
    work.caller.require_all_regions()
    before = None if cursor is None else parse_cursor(cursor)
    page = await work.ask(
        lambda: work.parts.journal.list_audit(
            client_id=work.caller.client_id,
            person_id=person_id,
            actor=actor,
            action=action,
            since=since,
            before=before,
            limit=limit,
        )
    )
    return answered.AuditPage(
        items=[answers.audit_entry(each) for each in page.entries], next=next_cursor(page.next_before)
    )


@router.get("/decisions")
async def list_decisions(
    work: Manager,
    person_id: PersonFilter = None,
    decision: Annotated[Outcome | None, Query(description="Only this outcome.")] = None,
    since: Since = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> answered.DecisionPage:
    """Who was recognised, found or verified as whom, the newest first. Empty where audit.decisions is off."""
    work.caller.require_all_regions()
    before = None if cursor is None else parse_cursor(cursor)
    page = await work.ask(
        lambda: work.parts.journal.list_decisions(
            client_id=work.caller.client_id,
            person_id=person_id,
            decision=decision,
            since=since,
            before=before,
            limit=limit,
        )
    )
    return answered.DecisionPage(
        items=[answers.decision(each) for each in page.decisions], next=next_cursor(page.next_before)
    )
