"""Imports of many persons at once, as background jobs."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from starlette.requests import ClientDisconnect

from faceward.api import answers
from faceward.api.admission import ClientGoneError
from faceward.api.authentication import parse_cursor
from faceward.api.openapi import ALWAYS, IDEMPOTENT, WITH_BODY, refusals
from faceward.api.parts import Enroller, Work
from faceward.api.routes.common import Cursor, Limit, RowId, next_cursor
from faceward.checks import MAX_NAME
from faceward.errors import StoreError, UnknownJobError, UnsupportedMediaTypeError
from faceward.http_types import answered
from faceward.jobs.imports import Upload
from faceward.store.jobs import RefusalPage
from faceward.types import Job, JobKind

router = APIRouter(prefix="/v1", tags=["imports"], responses=refusals(*ALWAYS))

_PIECE = 1 << 20
_KINDS: dict[str, JobKind] = {
    "application/zip": "archive",
    "application/x-tar": "archive",
    "application/gzip": "archive",
    "application/x-ndjson": "embeddings",
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in _KINDS},
    }
}


@router.post("/imports", status_code=202, openapi_extra=_BODY | IDEMPOTENT, responses=refusals(409, *WITH_BODY))
async def create_import(
    work: Enroller,
    request: Request,
    response: Response,
    several_faces: Annotated[Literal["error", "largest"] | None, Query(description="Of an archive's photos.")] = None,
    model_id: Annotated[
        str | None, Query(max_length=MAX_NAME, description="Of embeddings: the model that made them.")
    ] = None,
) -> answered.JobOut:
    """Send a zip or tar of REGION/PERSON/photo.jpg, or JSON lines with embeddings; it is imported in the background.

    A line: {"external_id": ..., "region": ..., "name": ..., "embedding": [...], "description": ...}.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _KINDS:
        raise UnsupportedMediaTypeError(
            f"A body of type {kind or '(none)'!r} can't be imported: send {', '.join(_KINDS)}."
        )
    token = work.token_text()
    given = {"several_faces": several_faces, "model_id": model_id}
    options = {name: value for name, value in given.items() if value is not None}
    upload = await work.step(
        lambda: work.parts.imports.receive(
            work.caller.client_id,
            _KINDS[kind],
            key_id=work.caller.key.id,
            region_limit=work.caller.key.regions,
            options=options,
        )
    )
    try:
        await _store(work, request, upload)
        job = await work.step(lambda: upload.finish(token), last=True)
    except BaseException:
        # Not in the pool, which may be full, nor as the last word: an upload that stays is swept away within the hour.
        with contextlib.suppress(StoreError):
            await asyncio.to_thread(upload.abort)
        raise
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return answers.job(job)


@router.get("/jobs")
async def list_jobs(work: Enroller, cursor: Cursor = None, limit: Limit = 100) -> answered.JobPage:
    """The imports of the client, the newest first."""
    before = None if cursor is None else parse_cursor(cursor)
    page = await work.ask(lambda: work.parts.imports.list(client_id=work.caller.client_id, before=before, limit=limit))
    seen = [answers.job(each) for each in page.jobs if _sees(work, each)]
    return answered.JobPage(items=seen, next=next_cursor(page.next_before))


@router.get("/jobs/{job_id}", responses=refusals(404))
async def get_job(work: Enroller, job_id: RowId) -> answered.JobOut:
    """How far an import is."""
    return answers.job(await work.ask(lambda: _job(work, job_id)))


@router.post("/jobs/{job_id}/cancel", responses=refusals(404))
async def cancel_job(work: Enroller, job_id: RowId) -> answered.JobOut:
    """End an import; what it stored until then stays."""

    def cancel() -> Job:
        _job(work, job_id)
        return work.parts.imports.cancel(job_id, client_id=work.caller.client_id)

    return answers.job(await work.ask(cancel))


@router.get("/jobs/{job_id}/refusals", responses=refusals(404))
async def list_refusals(
    work: Enroller, job_id: RowId, cursor: Cursor = None, limit: Limit = 100
) -> answered.RefusalPage:
    """What an import did not store, and why."""
    after = None if cursor is None else parse_cursor(cursor) - 1

    def refused() -> RefusalPage:
        _job(work, job_id)
        return work.parts.imports.refusals(job_id, client_id=work.caller.client_id, after=after, limit=limit)

    page = await work.ask(refused)
    # Positions begin at 0, cursors at 1.
    following = None if page.next_after is None else page.next_after + 1
    return answered.RefusalPage(items=[answers.refusal(each) for each in page.refusals], next=next_cursor(following))


def _sees(work: Work, job: Job) -> bool:
    """A key with regions of its own sees imports into these only: a report names what others sent."""
    own = work.caller.key.regions
    return own is None or (job.region_limit is not None and set(job.region_limit) <= set(own))


def _job(work: Work, job_id: int) -> Job:
    job = work.parts.imports.get(job_id, client_id=work.caller.client_id)
    if not _sees(work, job):
        raise UnknownJobError(job_id)
    return job


async def _store(work: Work, request: Request, upload: Upload) -> None:
    """Write the body away while it comes in, a mebibyte at a time."""
    waiting = bytearray()

    async def write() -> None:
        piece = bytes(waiting)
        waiting.clear()
        await work.step(lambda: upload.append(piece))

    try:
        async for part in request.stream():
            waiting += part
            if len(waiting) >= _PIECE:
                await write()
    except ClientDisconnect as exc:
        raise ClientGoneError from exc
    if waiting:
        await write()
