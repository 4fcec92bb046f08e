"""Imports in the background, as their workers see them: found, leased, reported on, finished.

A worker holds a job by a lease that it renews with each report. Each claim raises the job's attempt: a worker that was
thought dead learns with its next report that the job is another's now, and stops. So does a restore (carried_over.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from psycopg.types.json import Jsonb

from faceward.errors import JobLostError
from faceward.store.database import Database
from faceward.store.jobs import JOB_COLUMNS, JobStore
from faceward.store.photo_vault import Sealed, upload_binding
from faceward.types import Job, JobRefusal, JobState

EVERY_JOB = "SELECT set_config('faceward.every_job', 'on', true)"
"""Shows the transaction the jobs of all tenants, and nothing else of them."""

MOST_REFUSALS = 10_000
"""Kept of one job; all are counted."""

MOST_FRUITLESS = 5
"""Workers in a row that may end without a report before a job counts as what ends them."""

_OWN = "client_id = %(client_id)s AND id = %(id)s AND state = 'running' AND attempt = %(attempt)s"
_WAITING = "(state = 'queued' OR state = 'running' AND lease_until < now())"
_LEASE = "now() + make_interval(secs => %(lease)s)"
_OVER = "state IN ('succeeded', 'partial', 'failed', 'cancelled')"
_AT_ONCE = 20
_SWEEPS_AT_ONCE = 10


@dataclass(frozen=True, slots=True)
class JobProgress:
    """Where a job stands; counts from its beginning. As the fields of Job."""

    done: int = 0
    stored_persons: int = 0
    stored_faces: int = 0
    skipped: int = 0
    refused: int = 0

    @classmethod
    def of(cls, job: Job) -> JobProgress:
        return cls(**{name: getattr(job, name) for name in cls.__dataclass_fields__})

    def plus(
        self, *, done: int = 0, persons: int = 0, faces: int = 0, skipped: int = 0, refused: int = 0
    ) -> JobProgress:
        return JobProgress(
            self.done + done,
            self.stored_persons + persons,
            self.stored_faces + faces,
            self.skipped + skipped,
            self.refused + refused,
        )


@dataclass(frozen=True, slots=True)
class Intent:
    """A batch about to be stored: its items from `start` to before `until`, and what of them was there before.

    persons, faces: positions of the items whose person, or whose very photo, the gallery had.
    """

    start: int
    until: int
    persons: frozenset[int] = frozenset()
    faces: frozenset[int] = frozenset()


class JobQueue:
    """The work of all tenants. lease: seconds that a worker may be silent before another one takes its job over.
    keep_days: of the reports of finished jobs.
    """

    def __init__(self, database: Database, jobs: JobStore, *, lease: float = 60.0, keep_days: int = 90) -> None:
        self._database = database
        self._jobs = jobs
        self._keep_days = keep_days
        self.lease = lease

    def claim(self) -> Job | None:
        """A job to work on, of the tenant that was served least lately, or None. Nobody else gets it while it is leased."""
        with self._database.unscoped() as tx:
            tx.exec_driver_sql(EVERY_JOB)
            found = tx.exec_driver_sql(
                f"SELECT client_id, id FROM (SELECT client_id, min(id) AS id FROM jobs WHERE {_WAITING} GROUP BY client_id) j "
                "ORDER BY (SELECT max(s.started_at) FROM jobs s WHERE s.client_id = j.client_id) NULLS FIRST, id LIMIT %s",
                (_AT_ONCE,),
            ).all()
        for client_id, job_id in found:
            job = self._claim_one(client_id, job_id)
            if job is not None:
                return job
        return None

    def _claim_one(self, client_id: str, job_id: int) -> Job | None:
        given = {"client_id": client_id, "id": job_id, "lease": self.lease, "most": MOST_FRUITLESS}
        with self._database.transaction(client_id) as tx:
            row = tx.exec_driver_sql(
                f"SELECT state, fruitless FROM jobs WHERE client_id = %(client_id)s AND id = %(id)s AND {_WAITING} "
                "FOR UPDATE SKIP LOCKED",
                given,
            ).first()
            if row is None:
                return None
            if row.state == "running" and row.fruitless >= MOST_FRUITLESS:
                tx.exec_driver_sql(
                    "UPDATE jobs SET state = 'failed', finished_at = now(), lease_until = NULL, intent = NULL, "
                    "error_code = 'workers_lost', error_message = %(message)s "
                    "WHERE client_id = %(client_id)s AND id = %(id)s",
                    {
                        **given,
                        "message": f"{MOST_FRUITLESS + 1} workers in a row ended in the same batch of this import without a "
                        "word. Send the upload in smaller parts to find what ends them; what was stored until then stays.",
                    },
                )
                return None
            claimed = (
                tx.exec_driver_sql(
                    "UPDATE jobs SET fruitless = CASE WHEN state = 'running' THEN fruitless + 1 ELSE 0 END, "
                    f"state = 'running', attempt = attempt + 1, lease_until = {_LEASE}, "
                    f"started_at = coalesce(started_at, now()) WHERE client_id = %(client_id)s AND id = %(id)s "
                    f"RETURNING {JOB_COLUMNS}",
                    given,
                )
                .mappings()
                .one()
            )
            return Job.from_row(claimed)

    def reload(self, job: Job) -> Job:
        """The worker's own job as it stands. Raises JobLostError."""
        with self._database.transaction(job.client_id) as tx:
            row = (
                tx.exec_driver_sql(
                    f"SELECT {JOB_COLUMNS} FROM jobs WHERE {_OWN}",
                    {"client_id": job.client_id, "id": job.id, "attempt": job.attempt},
                )
                .mappings()
                .first()
            )
        if row is None:
            raise JobLostError(job.id)
        return Job.from_row(row)

    def renew(self, job: Job, *, total: int | None = None) -> None:
        """Keep the job for another lease; total: its number of items, once known. Raises JobLostError."""
        with self._database.transaction(job.client_id) as tx:
            self._own(tx, job, "total = coalesce(%(total)s, total)", total=total)

    def intend(self, job: Job, intent: Intent) -> None:
        """Record the batch that comes next; renews the lease. Raises JobLostError."""
        recorded = Jsonb([intent.start, intent.until, sorted(intent.persons), sorted(intent.faces)])
        with self._database.transaction(job.client_id) as tx:
            self._own(tx, job, "intent = %(intent)s", intent=recorded)

    def intent(self, job: Job) -> Intent | None:
        """The batch that was under way when the job's last worker ended."""
        with self._database.transaction(job.client_id) as tx:
            row = tx.exec_driver_sql(
                "SELECT intent FROM jobs WHERE client_id = %s AND id = %s", (job.client_id, job.id)
            ).scalar()
        if row is None:
            return None
        start, until, persons, faces = row
        return Intent(start, until, frozenset(persons), frozenset(faces))

    def report(self, job: Job, progress: JobProgress, refusals: Sequence[JobRefusal] = ()) -> None:
        """The batch is done: record it and renew the lease, in one transaction. Raises JobLostError."""
        counts = {name: getattr(progress, name) for name in progress.__dataclass_fields__}
        assignments = ", ".join(f"{name} = %({name})s" for name in counts)
        with self._database.transaction(job.client_id) as tx:
            self._own(tx, job, f"{assignments}, intent = NULL, fruitless = 0", **counts)
            room = MOST_REFUSALS - (progress.refused - len(refusals))
            kept = refusals[: max(0, room)]
            if kept:
                tx.exec_driver_sql(
                    "INSERT INTO job_refusals (client_id, job_id, position, item, code, reason) "
                    "SELECT %(client_id)s, %(id)s, u.* FROM unnest("
                    "%(positions)s::bigint[], %(items)s::text[], %(codes)s::text[], %(reasons)s::text[]) AS u "
                    "ON CONFLICT DO NOTHING",
                    {
                        "client_id": job.client_id,
                        "id": job.id,
                        "positions": [refusal.position for refusal in kept],
                        "items": [refusal.item for refusal in kept],
                        "codes": [refusal.code for refusal in kept],
                        "reasons": [refusal.reason for refusal in kept],
                    },
                )

    def release(self, job: Job) -> None:
        """Give the job back, for another worker to go on with at once; nothing where it is lost."""
        with self._database.transaction(job.client_id) as tx:
            tx.exec_driver_sql(
                f"UPDATE jobs SET state = 'queued', lease_until = NULL WHERE {_OWN}",
                {"client_id": job.client_id, "id": job.id, "attempt": job.attempt},
            )

    def finish(self, job: Job, state: JobState, *, error_code: str | None = None, message: str | None = None) -> None:
        """The job is over; its upload is deleted, its report stays. Raises JobLostError."""
        with self._database.transaction(job.client_id) as tx:
            self._own(
                tx,
                job,
                "state = %(state)s, finished_at = now(), error_code = %(error_code)s, error_message = %(message)s, "
                "intent = NULL",
                state=state,
                error_code=error_code,
                message=message,
            )
        self._jobs.purge(job.client_id, job.id)

    def payload(self, job: Job) -> Iterator[bytes]:
        """The upload, piece by piece. Raises JobLostError where a piece is gone, as after a cancel; ImageKeyError."""
        received, position = 0, 0
        while received < job.bytes:
            with self._database.transaction(job.client_id) as tx:
                row = tx.exec_driver_sql(
                    "SELECT data, key_id FROM job_chunks WHERE client_id = %s AND job_id = %s AND position = %s",
                    (job.client_id, job.id, position),
                ).first()
            if row is None:
                raise JobLostError(job.id)
            data = self._jobs.vault.open(
                Sealed(bytes(row.data), row.key_id), upload_binding(job.client_id, job.id, position)
            )
            received, position = received + len(data), position + 1
            yield data

    def sweep(self) -> None:
        """Forget uploads that were abandoned, delete what a crash left of the uploads of finished jobs, and forget jobs
        that were over long ago. A part of them at a time: the next sweep goes on.
        """
        for condition, tidy in (
            ("state = 'receiving' AND lease_until < now()", self._jobs.abort_upload),
            (f"payload AND {_OVER}", self._jobs.purge),
            (
                f"NOT payload AND {_OVER} AND finished_at < now() - make_interval(days => {self._keep_days:d})",
                self._forget,
            ),
        ):
            self._for_each(condition, tidy)

    def _forget(self, client_id: str, job_id: int) -> None:
        self._jobs.forget(client_id, job_id, self._keep_days)

    def _for_each(self, condition: str, tidy: Callable[[str, int], None]) -> None:
        for _ in range(_SWEEPS_AT_ONCE):
            with self._database.unscoped() as tx:
                tx.exec_driver_sql(EVERY_JOB)
                found = tx.exec_driver_sql(
                    f"SELECT client_id, id FROM jobs WHERE {condition} LIMIT %s", (_AT_ONCE,)
                ).all()
            for client_id, job_id in found:
                tidy(client_id, job_id)
            if len(found) < _AT_ONCE:
                return

    def _own(self, tx: sa.Connection, job: Job, changes: str, **values: object) -> None:
        """Change the worker's own job and renew its lease. Raises JobLostError."""
        changed = tx.exec_driver_sql(
            f"UPDATE jobs SET lease_until = {_LEASE}, {changes} WHERE {_OWN}",
            {"client_id": job.client_id, "id": job.id, "attempt": job.attempt, "lease": self.lease, **values},
        ).rowcount
        if not changed:
            raise JobLostError(job.id)
