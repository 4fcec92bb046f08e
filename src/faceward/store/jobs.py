"""Imports in the background, as their callers see them: uploaded in pieces, listed, cancelled, reported.

The upload lies in the database, so that any process on any machine can go on where another one ended. What workers do
with a job stands in job_queue.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from psycopg.types.json import Jsonb

from faceward.errors import OverloadedError, UnauthenticatedError, UnknownJobError
from faceward.store.audit_log import record
from faceward.store.database import Database
from faceward.store.photo_vault import PhotoVault, upload_binding
from faceward.store.request_tokens import AnsweredRequest, claim, complete, recorded
from faceward.types import FINISHED, Job, JobKind, JobRefusal, RequestToken

JOB_COLUMNS = ", ".join(Job.__dataclass_fields__)
UPLOAD_PATIENCE = 3600
"""Seconds after its last piece at which an upload counts as abandoned."""

_OPERATION = "import"
_CHUNKS_AT_ONCE = 256
_CANCEL = (
    "UPDATE jobs SET state = 'cancelled', finished_at = now(), lease_until = NULL, intent = NULL "
    "WHERE client_id = %(client_id)s AND state IN ('queued', 'running')"
)
_REFUSAL_COLUMNS = ", ".join(JobRefusal.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class JobPage:
    """The newest first. next_before: the `before` of the next page, or None at the end."""

    jobs: tuple[Job, ...]
    next_before: int | None


@dataclass(frozen=True, slots=True)
class RefusalPage:
    """By position. next_after: the `after` of the next page, or None at the end."""

    refusals: tuple[JobRefusal, ...]
    next_after: int | None


class JobStore:
    """The imports of all tenants in one database.

    most_open: of one tenant, waiting or being received at once. most_bytes: of one tenant's uploads, until they are imported.
    vault: seals the uploads; None keeps them as they are.
    """

    def __init__(
        self,
        database: Database,
        *,
        most_open: int = 100,
        most_bytes: int = 8 << 30,
        vault: PhotoVault | None = None,
    ) -> None:
        self.vault = vault or PhotoVault()
        self._database = database
        self._most_open = most_open
        self._most_bytes = most_bytes

    def begin(
        self,
        client_id: str,
        kind: JobKind,
        *,
        region_limit: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        key_id: int | None = None,
    ) -> Job:
        """A job that waits for its upload. Raises OverloadedError where the tenant has too many that wait, or too large
        ones.
        """
        with self._database.transaction(client_id) as tx:
            waiting = tx.exec_driver_sql(
                "SELECT count(*) FROM jobs WHERE client_id = %s AND state IN ('receiving', 'queued')", (client_id,)
            ).scalar_one()
            if waiting >= self._most_open:
                raise OverloadedError(
                    f"{waiting} imports of this client are waiting, and no more may. Send this one when some are done.",
                    60.0,
                )
            self._check_bytes(tx, client_id, more=1)
            row = (
                tx.exec_driver_sql(
                    "INSERT INTO jobs (client_id, kind, state, region_limit, options, key_id, lease_until) "
                    "VALUES (%s, %s, 'receiving', %s, %s, %s, now() + make_interval(secs => %s)) "
                    f"RETURNING {JOB_COLUMNS}",
                    (
                        client_id,
                        kind,
                        None if region_limit is None else list(region_limit),
                        Jsonb(dict(options or {})),
                        key_id,
                        UPLOAD_PATIENCE,
                    ),
                )
                .mappings()
                .one()
            )
        return Job.from_row(row)

    def append(self, client_id: str, job_id: int, position: int, data: bytes) -> None:
        """Store the upload's piece `position` (from 0, without a gap).

        Raises UnknownJobError where it was given up, OverloadedError where the tenant's uploads are too large together.
        """
        with self._database.transaction(client_id) as tx:
            self._check_bytes(tx, client_id, more=len(data))
            waiting = tx.exec_driver_sql(
                "UPDATE jobs SET bytes = bytes + %s, lease_until = now() + make_interval(secs => %s) "
                "WHERE client_id = %s AND id = %s AND state = 'receiving'",
                (len(data), UPLOAD_PATIENCE, client_id, job_id),
            ).rowcount
            if not waiting:
                raise UnknownJobError(job_id)
            sealed = self.vault.seal(data, upload_binding(client_id, job_id, position))
            tx.exec_driver_sql(
                "INSERT INTO job_chunks (client_id, job_id, position, data, key_id) VALUES (%s, %s, %s, %s, %s)",
                (client_id, job_id, position, sealed.data, sealed.key_id),
            )

    def finish_upload(self, client_id: str, job_id: int, request: RequestToken | None = None) -> Job:
        """The upload is whole: the job may be worked on.

        Where the request was answered before, its first job is returned and this one is gone. Raises UnknownJobError,
        RequestReusedError; UnauthenticatedError where the key that sends it was revoked meanwhile.
        """
        with self._database.transaction(client_id) as tx:
            _require_key(tx, client_id, job_id)
            answered = None if request is None else claim(tx, client_id, request, _OPERATION)
            if answered is None:
                row = (
                    tx.exec_driver_sql(
                        "UPDATE jobs SET state = 'queued', lease_until = NULL "
                        f"WHERE client_id = %s AND id = %s AND state = 'receiving' RETURNING {JOB_COLUMNS}",
                        (client_id, job_id),
                    )
                    .mappings()
                    .first()
                )
                if row is None:
                    raise UnknownJobError(job_id)
                if request is not None:
                    complete(tx, client_id, request, job_id)
                record(tx, client_id, "import.create", job=job_id, kind=row["kind"])
                return Job.from_row(row)
        self.abort_upload(client_id, job_id)
        return self._answer(client_id, answered)

    def answered(self, client_id: str, request: RequestToken) -> Job | None:
        """The job that the request made before, or None where it is new. Raises RequestReusedError."""
        with self._database.transaction(client_id) as tx:
            answered = recorded(tx, client_id, request, _OPERATION)
        return None if answered is None else self._answer(client_id, answered)

    def abort_upload(self, client_id: str, job_id: int) -> None:
        """Forget a job whose upload is not whole; no other is touched."""
        with self._database.transaction(client_id) as tx:
            receiving = tx.exec_driver_sql(
                "UPDATE jobs SET state = 'cancelled', finished_at = now() "
                "WHERE client_id = %s AND id = %s AND state = 'receiving'",
                (client_id, job_id),
            ).rowcount
        if receiving:
            self.purge(client_id, job_id)
            with self._database.transaction(client_id) as tx:
                tx.exec_driver_sql("DELETE FROM jobs WHERE client_id = %s AND id = %s", (client_id, job_id))

    def get(self, client_id: str, job_id: int) -> Job:
        """Raises UnknownJobError."""
        with self._database.transaction(client_id) as tx:
            return _get(tx, client_id, job_id)

    def list(self, client_id: str, *, before: int | None = None, limit: int = 100) -> JobPage:
        """A page of jobs, those with an id below `before`."""
        with self._database.transaction(client_id) as tx:
            rows = (
                tx.exec_driver_sql(
                    f"SELECT {JOB_COLUMNS} FROM jobs WHERE client_id = %s AND id < %s AND state <> 'receiving' "
                    "ORDER BY id DESC LIMIT %s",
                    (client_id, 2**63 - 1 if before is None else before, limit + 1),
                )
                .mappings()
                .all()
            )
        jobs = tuple(Job.from_row(row) for row in rows[:limit])
        return JobPage(jobs, jobs[-1].id if len(rows) > limit else None)

    def cancel(self, client_id: str, job_id: int) -> Job:
        """End a job that isn't finished; what it stored until then stays. A finished one is returned as it is.

        Its worker learns it with its next batch. Raises UnknownJobError.
        """
        with self._database.transaction(client_id) as tx:
            cancelled = tx.exec_driver_sql(
                f"{_CANCEL} AND id = %(job_id)s", {"client_id": client_id, "job_id": job_id}
            ).rowcount
            job = _get(tx, client_id, job_id)
            if cancelled:
                record(tx, client_id, "import.cancel", job=job_id)
        if cancelled:
            self.purge(client_id, job_id)
        return job

    def refusals(self, client_id: str, job_id: int, *, after: int = -1, limit: int = 100) -> RefusalPage:
        """A page of what the job refused, from behind the position `after` on. Raises UnknownJobError."""
        with self._database.transaction(client_id) as tx:
            _get(tx, client_id, job_id)
            rows = (
                tx.exec_driver_sql(
                    f"SELECT {_REFUSAL_COLUMNS} FROM job_refusals WHERE client_id = %s AND job_id = %s AND position > %s "
                    "ORDER BY position LIMIT %s",
                    (client_id, job_id, after, limit + 1),
                )
                .mappings()
                .all()
            )
        refusals = tuple(JobRefusal.from_row(row) for row in rows[:limit])
        return RefusalPage(refusals, refusals[-1].position if len(rows) > limit else None)

    def purge(self, client_id: str, job_id: int) -> None:
        """Delete the upload of a finished job, in small steps; its report stays."""
        while True:
            with self._database.transaction(client_id) as tx:
                deleted = tx.exec_driver_sql(
                    "DELETE FROM job_chunks WHERE client_id = %(client_id)s AND job_id = %(job_id)s AND position IN ("
                    "SELECT position FROM job_chunks WHERE client_id = %(client_id)s AND job_id = %(job_id)s "
                    "ORDER BY position LIMIT %(most)s)",
                    {"client_id": client_id, "job_id": job_id, "most": _CHUNKS_AT_ONCE},
                ).rowcount
                if deleted < _CHUNKS_AT_ONCE:
                    tx.exec_driver_sql(
                        "UPDATE jobs SET payload = false WHERE client_id = %s AND id = %s AND state = ANY(%s)",
                        (client_id, job_id, list(FINISHED)),
                    )
                    return

    def forget(self, client_id: str, job_id: int, days: int) -> None:
        """Delete a job with its report, if it is over for that many days and its upload is gone."""
        with self._database.transaction(client_id) as tx:
            tx.exec_driver_sql(
                "DELETE FROM jobs WHERE client_id = %s AND id = %s AND state = ANY(%s) AND NOT payload "
                "AND finished_at < now() - make_interval(days => %s)",
                (client_id, job_id, list(FINISHED), days),
            )

    def _check_bytes(self, tx: sa.Connection, client_id: str, *, more: int) -> None:
        """Of uploads that come in at once each may see the others a piece late: the bound is exact to a mebibyte each."""
        held = tx.exec_driver_sql(
            "SELECT coalesce(sum(bytes), 0)::bigint FROM jobs "
            "WHERE client_id = %s AND state IN ('receiving', 'queued', 'running')",
            (client_id,),
        ).scalar_one()
        if held + more > self._most_bytes:
            raise OverloadedError(
                f"The imports of this client that are not done hold {held} bytes, and no more than {self._most_bytes} may. "
                "Send this one when some are done.",
                60.0,
            )

    def _answer(self, client_id: str, answered: AnsweredRequest) -> Job:
        assert answered.resource_id is not None  # a job is kept longer than a token
        return self.get(client_id, answered.resource_id)


def cancel_of_key(tx: sa.Connection, client_id: str, key_id: int) -> None:
    """Cancel the jobs that a key queued and that are not finished, in the transaction that revokes it, which holds the key.

    As `JobStore.cancel`, but that their uploads are left to the next sweep.
    """
    cancelled = tx.exec_driver_sql(
        f"{_CANCEL} AND key_id = %(key_id)s RETURNING id", {"client_id": client_id, "key_id": key_id}
    ).scalars()
    for job_id in cancelled.all():
        record(tx, client_id, "import.cancel", job=job_id)


def _require_key(tx: sa.Connection, client_id: str, job_id: int) -> None:
    """Raise UnauthenticatedError where the key that sends the job was revoked.

    Nobody revokes it until the transaction ends: whoever does then sees the job, and cancels it.
    """
    revoked = tx.exec_driver_sql(
        "SELECT k.revoked_at IS NOT NULL FROM jobs j JOIN api_keys k ON k.client_id = %(client_id)s AND k.id = j.key_id "
        "WHERE j.client_id = %(client_id)s AND j.id = %(job_id)s FOR SHARE OF k",
        {"client_id": client_id, "job_id": job_id},
    ).scalar()
    if revoked:
        raise UnauthenticatedError


def _get(tx: sa.Connection, client_id: str, job_id: int) -> Job:
    row = (
        tx.exec_driver_sql(
            f"SELECT {JOB_COLUMNS} FROM jobs WHERE client_id = %s AND id = %s AND state <> 'receiving'",
            (client_id, job_id),
        )
        .mappings()
        .first()
    )
    if row is None:
        raise UnknownJobError(job_id)
    return Job.from_row(row)
