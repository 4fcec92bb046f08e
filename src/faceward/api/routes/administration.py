"""Keys and clients, and what the key of this request is."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from faceward.api import answers
from faceward.api.authentication import parse_cursor
from faceward.api.openapi import ALWAYS, IDEMPOTENT, WITH_BODY, refusals
from faceward.api.parts import Admin, Manager, Recognizer, Work
from faceward.api.routes.common import ClientName, Cursor, Limit, RowId, next_cursor
from faceward.api.uploads import body_of, request_body
from faceward.checks import MAX_CLIENT_ID
from faceward.errors import RoleNotAllowedError
from faceward.http_types import answered, fields, sent
from faceward.types import ROLES, ApiKey, ClientChange

router = APIRouter(prefix="/v1", tags=["administration"], responses=refusals(*ALWAYS))

KeyClient = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=MAX_CLIENT_ID,
        description="Another client's keys, for admins; left out: the key's own client.",
        json_schema_extra={"pattern": fields.LINE},
    ),
]
ClientCursor = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=MAX_CLIENT_ID,
        description="The `next` of the page before: a client's id.",
        json_schema_extra={"pattern": fields.LINE},
    ),
]

_ABILITIES = {
    "recognizer": ("recognize", "verify", "detect", "search", "read"),
    "enroller": ("enroll", "change persons", "delete persons", "see photos", "import"),
    "manager": (
        "merge persons",
        "export persons",
        "erase persons",
        "read audit",
        "read decisions",
        "manage regions",
        "manage keys",
    ),
    "admin": ("manage clients", "manage all keys"),
}
"""The table of roles in docs/api.md has these words; a test holds them equal."""
_OF_ALL_REGIONS = frozenset(("read audit", "read decisions", "manage keys", "manage clients", "manage all keys"))


@router.get("/me")
async def get_me(work: Recognizer) -> answered.Me:
    """What this key is and may do."""
    key = work.caller.key
    return answered.Me(
        client_id=key.client_id,
        role=key.role,
        regions=None if key.regions is None else list(key.regions),
        prefix=key.prefix,
        expires_at=key.expires_at,
        may=[
            ability
            for role in reversed(ROLES)
            if key.may(role)
            for ability in _ABILITIES[role]
            if key.regions is None or ability not in _OF_ALL_REGIONS
        ],
        model_id=work.parts.service.model_id,
        dimension=work.parts.service.dimension,
    )


@router.get("/clients")
async def list_clients(work: Admin, cursor: ClientCursor = None, limit: Limit = 100) -> answered.ClientPage:
    """All clients by id."""
    work.caller.require_all_regions()
    page = await work.ask(lambda: work.parts.administration.list_clients(after=cursor, limit=limit))
    return answered.ClientPage(items=[answers.client(each) for each in page.clients], next=page.next_after)


@router.post(
    "/clients",
    status_code=201,
    openapi_extra=request_body(sent.ClientCreate) | IDEMPOTENT,
    responses=refusals(409, *WITH_BODY),
)
async def create_client(
    work: Admin, body: Annotated[sent.ClientCreate, Depends(body_of(sent.ClientCreate))]
) -> answered.ClientOut:
    """Make a client; its keys come next."""
    work.caller.require_all_regions()
    token = work.token(body.model_dump(mode="json"))
    return answers.client(
        await work.ask(
            lambda: work.parts.administration.create_client(
                body.client_id,
                name=body.name,
                threshold=body.threshold,
                retention_days=body.retention_days,
                request=token,
            )
        )
    )


@router.get("/clients/{client_id:path}", responses=refusals(404))
async def get_client(work: Admin, client_id: ClientName) -> answered.ClientOut:
    """A client and its settings."""
    work.caller.require_all_regions()
    return answers.client(await work.ask(lambda: work.parts.administration.get_client(client_id)))


@router.patch(
    "/clients/{client_id:path}", openapi_extra=request_body(sent.ClientPatch), responses=refusals(404, *WITH_BODY)
)
async def update_client(
    work: Admin, client_id: ClientName, body: Annotated[sent.ClientPatch, Depends(body_of(sent.ClientPatch))]
) -> answered.ClientChanged:
    """Change what is sent and leave the rest."""
    work.caller.require_all_regions()
    changes = body.model_dump(exclude_unset=True)

    def update() -> ClientChange:
        return work.parts.administration.update_client(client_id, **changes)

    return answers.client_changed(await (work.take_long(update) if body.apply_to_existing else work.ask(update)))


@router.get("/keys")
async def list_keys(
    work: Manager, client_id: KeyClient = None, cursor: Cursor = None, limit: Limit = 100
) -> answered.KeyPage:
    """The keys of a client, without their secrets."""
    client, after = _client(work, client_id), parse_cursor(cursor)
    page = await work.ask(lambda: work.parts.administration.list_keys(client, after=after, limit=limit))
    return answered.KeyPage(items=[answers.key(each) for each in page.keys], next=next_cursor(page.next_after))


@router.post(
    "/keys",
    status_code=201,
    openapi_extra=request_body(sent.KeyCreate) | IDEMPOTENT,
    responses=refusals(404, 409, *WITH_BODY),
)
async def create_key(
    work: Manager, body: Annotated[sent.KeyCreate, Depends(body_of(sent.KeyCreate))]
) -> answered.NewKeyOut:
    """Make a key. Its secret is in this answer and nowhere else."""
    client = _client(work, body.client_id)
    work.caller.require(body.role)
    expires_at, rate_limit = _within_own(work, body)
    token = work.token(body.model_dump(mode="json"))
    made = await work.ask(
        lambda: work.parts.administration.create_key(
            client,
            body.role,
            regions=body.regions,
            name=body.name,
            expires_at=expires_at,
            rate_limit=rate_limit,
            request=token,
        )
    )
    return answered.NewKeyOut(key=answers.key(made.key), secret=made.secret)


@router.get("/keys/{key_id}", responses=refusals(404))
async def get_key(work: Manager, key_id: RowId, client_id: KeyClient = None) -> answered.KeyOut:
    """A key, without its secret."""
    client = _client(work, client_id)
    return answers.key(await work.ask(lambda: work.parts.administration.get_key(client, key_id)))


@router.post("/keys/{key_id}/rotate", responses=refusals(404, 409))
async def rotate_key(work: Manager, key_id: RowId, client_id: KeyClient = None) -> answered.NewKeyOut:
    """Give a key a new secret; the old one ends at once."""
    client = _client(work, client_id)
    key = await _changeable(work, client, key_id)
    if not work.caller.key.may("admin"):
        _require_no_more(work, key.expires_at, key.rate_limit)
    made = await work.ask(lambda: work.parts.administration.rotate_key(client, key_id))
    work.parts.authenticator.forget()
    return answered.NewKeyOut(key=answers.key(made.key), secret=made.secret)


@router.delete("/keys/{key_id}", responses=refusals(404, 409))
async def revoke_key(work: Manager, key_id: RowId, client_id: KeyClient = None) -> answered.KeyOut:
    """End a key. It stays in the list as revoked."""
    client = _client(work, client_id)
    await _changeable(work, client, key_id)
    revoked = await work.ask(lambda: work.parts.administration.revoke_key(client, key_id))
    work.parts.authenticator.forget()
    return answers.key(revoked)


def _client(work: Work, client_id: str | None) -> str:
    """Whose keys: a client's own, or for an admin any client's. A key with regions of its own manages none."""
    work.caller.require_all_regions()
    if client_id is None or client_id == work.caller.client_id:
        return work.caller.client_id
    if not work.caller.key.may("admin"):
        raise RoleNotAllowedError("This key may manage the keys of its own client only.")
    return client_id


def _within_own(work: Work, body: sent.KeyCreate) -> tuple[dt.datetime | None, float | None]:
    """The expiry and the rate of a new key; what a manager leaves out is as its own."""
    own = work.caller.key
    if own.may("admin"):
        return body.expires_at, body.rate_limit
    expires_at = own.expires_at if body.expires_at is None else body.expires_at
    rate_limit = own.rate_limit if body.rate_limit is None else body.rate_limit
    _require_no_more(work, expires_at, rate_limit)
    return expires_at, rate_limit


def _require_no_more(work: Work, expires_at: dt.datetime | None, rate_limit: float | None) -> None:
    """A manager gets the secret of no key that outlives its own or sends more. Raises RoleNotAllowedError."""
    own, rate_of = work.caller.key, work.parts.limiter.rate_of
    if own.expires_at is not None and (expires_at is None or expires_at > own.expires_at):
        raise RoleNotAllowedError(
            f"This key ends at {own.expires_at.isoformat()}, and may neither make nor rotate a key that ends later."
        )
    most, rate = rate_of(own.rate_limit), rate_of(rate_limit)
    if most > 0 and not 0 < rate <= most:
        raise RoleNotAllowedError(
            f"This key may send {most:g} requests a second, and may neither make nor rotate a key that may send more."
        )


async def _changeable(work: Work, client: str, key_id: int) -> ApiKey:
    """The key. A manager changes no admin's."""
    key = await work.ask(lambda: work.parts.administration.get_key(client, key_id))
    work.caller.require(key.role)
    return key
