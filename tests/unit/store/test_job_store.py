"""Jobs in the database: uploads in pieces, what each tenant sees, and leases between workers."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from faceward.errors import (
    JobLostError,
    OverloadedError,
    RequestReusedError,
    UnauthenticatedError,
    UnknownJobError,
)
from faceward.store.api_keys import KeyStore
from faceward.store.audit_log import AuditLog
from faceward.store.clients import ClientStore
from faceward.store.database import Database
from faceward.store.job_queue import MOST_FRUITLESS, MOST_REFUSALS, Intent, JobProgress, JobQueue
from faceward.store.jobs import JobStore
from faceward.types import Job, JobRefusal, RequestToken
from rows import waiting


@pytest.fixture
def jobs(database: Database) -> JobStore:
    return JobStore(database)


@pytest.fixture
def queue(database: Database, jobs: JobStore) -> JobQueue:
    return JobQueue(database, jobs)


@pytest.fixture
def late(database: Database, jobs: JobStore) -> JobQueue:
    """Its leases are over as soon as they begin."""
    return JobQueue(database, jobs, lease=0)


def queued(jobs: JobStore, client: str = "acme", pieces: tuple[bytes, ...] = (b"ab", b"c")) -> Job:
    job = jobs.begin(client, "archive", options={"several_faces": "largest"}, region_limit=["A", "B"], key_id=7)
    for position, data in enumerate(pieces):
        jobs.append(client, job.id, position, data)
    return jobs.finish_upload(client, job.id)


def chunks(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM job_chunks").fetchone()
    assert row is not None
    return int(row[0])


def claimed(queue: JobQueue) -> Job:
    job = queue.claim()
    assert job is not None
    return job


def test_a_job_keeps_what_it_was_given_and_its_upload(jobs: JobStore, queue: JobQueue) -> None:
    job = queued(jobs)
    assert (job.state, job.kind, job.key_id, job.bytes, job.total, job.done) == ("queued", "archive", 7, 3, None, 0)
    assert (job.region_limit, dict(job.options)) == (("A", "B"), {"several_faces": "largest"})
    assert (job.may_enter("A"), job.may_enter("C")) == (True, False)
    assert jobs.get("acme", job.id) == job
    assert list(queue.payload(job)) == [b"ab", b"c"]


def test_an_upload_is_nobodys_job_until_it_is_whole(jobs: JobStore, queue: JobQueue) -> None:
    job = jobs.begin("acme", "embeddings")
    for look in (jobs.get, jobs.cancel, jobs.refusals):
        with pytest.raises(UnknownJobError, match=str(job.id)):
            look("acme", job.id)
    assert jobs.list("acme").jobs == ()
    assert queue.claim() is None


def test_an_aborted_upload_leaves_nothing(jobs: JobStore, database_url: str) -> None:
    job = jobs.begin("acme", "archive")
    jobs.append("acme", job.id, 0, b"x")
    jobs.abort_upload("acme", job.id)
    assert chunks(database_url) == 0
    with pytest.raises(UnknownJobError):
        jobs.append("acme", job.id, 1, b"y")
    with pytest.raises(UnknownJobError):
        jobs.finish_upload("acme", job.id)
    whole = queued(jobs)
    jobs.abort_upload("acme", whole.id)  # too late
    assert jobs.get("acme", whole.id).state == "queued"


def test_one_tenant_never_sees_anothers_job(jobs: JobStore, queue: JobQueue) -> None:
    job = queued(jobs, "globex")
    receiving = jobs.begin("globex", "archive")
    for look in (jobs.get, jobs.cancel, jobs.refusals):
        with pytest.raises(UnknownJobError):
            look("acme", job.id)
    assert jobs.list("acme").jobs == ()
    with pytest.raises(UnknownJobError):
        jobs.append("acme", receiving.id, 0, b"x")
    with pytest.raises(UnknownJobError):
        jobs.finish_upload("acme", receiving.id)
    jobs.abort_upload("acme", job.id)
    jobs.purge("acme", job.id)
    assert claimed(queue) == queue.reload(jobs.get("globex", job.id))
    assert list(queue.payload(job)) == [b"ab", b"c"]


def test_jobs_are_listed_by_page_the_newest_first(jobs: JobStore) -> None:
    made = [queued(jobs).id for _ in range(5)]
    first = jobs.list("acme", limit=3)
    assert [job.id for job in first.jobs] == made[:1:-1]
    second = jobs.list("acme", limit=3, before=first.next_before)
    assert ([job.id for job in second.jobs], second.next_before) == (made[1::-1], None)


def test_a_tenant_may_let_only_so_many_wait(database: Database) -> None:
    jobs = JobStore(database, most_open=2)
    queued(jobs)
    jobs.begin("acme", "archive")
    with pytest.raises(OverloadedError, match="2 imports"):
        jobs.begin("acme", "archive")
    queued(jobs, "globex")


def test_a_tenants_uploads_may_hold_only_so_many_bytes_until_they_are_imported(database: Database) -> None:
    jobs = JobStore(database, most_bytes=5)
    queue = JobQueue(database, jobs)
    first = queued(jobs)
    second = jobs.begin("acme", "archive")
    jobs.append("acme", second.id, 0, b"de")
    with pytest.raises(OverloadedError, match="hold 5 bytes, and no more than 5"):
        jobs.append("acme", second.id, 1, b"f")
    with pytest.raises(OverloadedError):
        jobs.begin("acme", "archive")
    queued(jobs, "globex")
    assert claimed(queue).id == first.id
    with pytest.raises(OverloadedError):  # a running one is kept still
        jobs.append("acme", second.id, 1, b"f")
    jobs.cancel("acme", first.id)
    jobs.append("acme", second.id, 1, b"f")
    assert jobs.finish_upload("acme", second.id).bytes == 3


def test_a_request_sent_again_gets_its_first_job(jobs: JobStore, database_url: str) -> None:
    def send(token: str, fingerprint: bytes) -> Job:
        job = jobs.begin("acme", "archive", key_id=7)
        jobs.append("acme", job.id, 0, b"x")
        return jobs.finish_upload("acme", job.id, RequestToken(7, token, fingerprint))

    first = send("t", b"1")
    assert send("t", b"1") == first
    assert send("u", b"1") != first
    assert chunks(database_url) == 2
    with pytest.raises(RequestReusedError):
        send("t", b"2")
    assert jobs.answered("acme", RequestToken(7, "t", b"1")) == first
    assert jobs.answered("acme", RequestToken(8, "t", b"1")) is None
    with ThreadPoolExecutor(8) as pool:
        twins = set(pool.map(lambda _: send("v", b"3").id, range(8)))
    assert len(twins) == 1


def test_each_job_is_claimed_once(jobs: JobStore, queue: JobQueue) -> None:
    made = {queued(jobs, client).id for client in ("acme", "globex") for _ in range(5)}
    with ThreadPoolExecutor(8) as pool:
        found = [job.id for job in pool.map(lambda _: queue.claim(), range(30)) if job]
    assert len(found) == len(set(found))
    assert set(found) | {job.id for job in iter(queue.claim, None)} == made


def test_tenants_are_served_in_turn(jobs: JobStore, queue: JobQueue) -> None:
    for client in ("acme", "acme", "acme", "globex", "initech", "globex"):
        queued(jobs, client)
    order = [claimed(queue).client_id for _ in range(6)]
    assert sorted(order[:3]) == ["acme", "globex", "initech"]
    assert order[3:] == ["acme", "globex", "acme"]


def test_a_lease_that_ran_out_is_another_workers_and_the_first_one_learns_it(
    jobs: JobStore, late: JobQueue, queue: JobQueue
) -> None:
    queued(jobs)
    slow = claimed(late)
    late.report(slow, JobProgress(done=3, stored_faces=2, skipped=1))
    quick = claimed(queue)
    assert (quick.id, quick.done, quick.attempt) == (slow.id, 3, slow.attempt + 1)
    for late_word in (
        lambda: queue.renew(slow),
        lambda: queue.reload(slow),
        lambda: queue.intend(slow, Intent(3, 5)),
        lambda: queue.report(slow, JobProgress(done=9), [JobRefusal(1, "i", "c", "r")]),
        lambda: queue.finish(slow, "succeeded"),
    ):
        with pytest.raises(JobLostError):
            late_word()
    queue.release(slow)
    assert queue.reload(quick) == quick
    assert jobs.refusals("acme", quick.id).refusals == ()
    assert queue.claim() is None


def test_a_job_given_back_is_taken_up_where_it_was(jobs: JobStore, queue: JobQueue) -> None:
    queued(jobs)
    job = claimed(queue)
    queue.renew(job, total=10)
    queue.report(job, JobProgress(4, 1, 2, 1, 1), [JobRefusal(3, "i", "no_face", "No face.")])
    intent = Intent(4, 8, frozenset({5, 6}), frozenset({6}))
    queue.intend(job, intent)
    queue.release(job)
    again = claimed(queue)
    assert (again.total, JobProgress.of(again)) == (10, JobProgress(4, 1, 2, 1, 1))
    assert queue.intent(again) == intent
    queue.report(again, JobProgress(8))
    assert queue.intent(again) is None


def test_a_job_that_ends_every_worker_is_given_up(jobs: JobStore, late: JobQueue) -> None:
    job = queued(jobs)
    for _ in range(MOST_FRUITLESS + 1):
        last = claimed(late)
    late.report(last, JobProgress(1))  # it does get on, so it has as many lives again
    for _ in range(MOST_FRUITLESS):
        claimed(late)
    assert late.claim() is None
    failed = jobs.get("acme", job.id)
    assert (failed.state, failed.error_code, failed.done) == ("failed", "workers_lost", 1)


def test_giving_back_is_no_failure(jobs: JobStore, queue: JobQueue) -> None:
    queued(jobs)
    for _ in range(2 * MOST_FRUITLESS):
        queue.release(claimed(queue))
    assert claimed(queue).state == "running"


def test_a_finished_job_keeps_its_report_and_not_its_upload(jobs: JobStore, queue: JobQueue, database_url: str) -> None:
    queued(jobs, pieces=(b"x",) * 600)
    job = claimed(queue)
    refusals = [JobRefusal(number, f"line {number}", "no_face", "No face.") for number in range(7)]
    queue.report(job, JobProgress(9, 1, 2, 0, 7), refusals)
    queue.finish(job, "partial")
    done = jobs.get("acme", job.id)
    assert (done.state, done.finished, done.done, done.refused) == ("partial", True, 9, 7)
    assert done.finished_at is not None
    assert chunks(database_url) == 0
    page = jobs.refusals("acme", job.id, limit=5)
    assert (page.refusals, page.next_after) == (tuple(refusals[:5]), 4)
    assert jobs.refusals("acme", job.id, after=4).refusals == tuple(refusals[5:])
    assert queue.claim() is None


def test_only_so_many_refusals_are_kept_and_all_are_counted(jobs: JobStore, queue: JobQueue) -> None:
    queued(jobs)
    job = claimed(queue)
    numbers = itertools.count()
    for done in range(6000, MOST_REFUSALS + 6001, 6000):
        some = [JobRefusal(next(numbers), "i", "c", "r") for _ in range(6000)]
        queue.report(job, JobProgress(done=done, refused=done), some)
    assert jobs.get("acme", job.id).refused == 12_000
    assert jobs.refusals("acme", job.id, limit=1, after=MOST_REFUSALS - 2).refusals[0].position == MOST_REFUSALS - 1
    assert jobs.refusals("acme", job.id, after=MOST_REFUSALS - 1).refusals == ()


def test_a_cancelled_job_is_over_for_its_worker_too(jobs: JobStore, queue: JobQueue, database_url: str) -> None:
    queued(jobs)
    waiting = queued(jobs)
    job = claimed(queue)
    payload = queue.payload(job)
    next(payload)
    for each in (job, waiting):
        assert jobs.cancel("acme", each.id).state == "cancelled"
        assert jobs.cancel("acme", each.id).state == "cancelled"
    assert chunks(database_url) == 0
    with pytest.raises(JobLostError):
        next(payload)
    with pytest.raises(JobLostError):
        queue.report(job, JobProgress(1))
    assert queue.claim() is None


def test_a_finished_job_cannot_be_cancelled(jobs: JobStore, queue: JobQueue) -> None:
    queued(jobs)
    job = claimed(queue)
    queue.finish(job, "succeeded")
    assert jobs.cancel("acme", job.id).state == "succeeded"


def test_what_a_crash_left_behind_is_swept(jobs: JobStore, queue: JobQueue, database_url: str) -> None:
    abandoned, active = jobs.begin("acme", "archive"), jobs.begin("globex", "archive")
    finished = queued(jobs)
    running = queued(jobs, "globex")
    jobs.append("acme", abandoned.id, 0, b"x")
    jobs.append("globex", active.id, 0, b"y")
    with psycopg.connect(database_url) as owner:
        owner.execute("UPDATE jobs SET lease_until = now() - interval '1 second' WHERE id = %s", (abandoned.id,))
        owner.execute("UPDATE jobs SET state = 'failed' WHERE id = %s", (finished.id,))
    queue.sweep()
    assert chunks(database_url) == 1 + 2
    with psycopg.connect(database_url) as owner:
        left = {row[0] for row in owner.execute("SELECT id FROM jobs")}
    assert left == {active.id, finished.id, running.id}
    jobs.append("globex", active.id, 1, b"z")


def test_reports_are_kept_for_so_many_days(jobs: JobStore, database: Database, database_url: str) -> None:
    queue = JobQueue(database, jobs, keep_days=30)
    old = [jobs.cancel("acme", queued(jobs).id).id for _ in range(45)]
    young, waiting = jobs.cancel("globex", queued(jobs, "globex").id), queued(jobs)
    with psycopg.connect(database_url) as owner:
        owner.execute("UPDATE jobs SET created_at = now() - interval '40 days'")
        owner.execute("UPDATE jobs SET finished_at = now() - interval '31 days' WHERE id = ANY(%s)", (old,))
        owner.execute("UPDATE jobs SET finished_at = now() - interval '29 days' WHERE id = %s", (young.id,))
        owner.execute(
            "INSERT INTO job_refusals (client_id, job_id, position, item, code, reason) VALUES ('acme', %s, 0, 'i', 'c', 'r')",
            (old[0],),
        )
    queue.sweep()
    with psycopg.connect(database_url) as owner:
        assert {row[0] for row in owner.execute("SELECT id FROM jobs")} == {young.id, waiting.id}
        assert owner.execute("SELECT count(*) FROM job_refusals").fetchone() == (0,)
    assert list(queue.payload(waiting)) == [b"ab", b"c"]


def test_two_workers_never_hold_a_job_at_once(jobs: JobStore, late: JobQueue) -> None:
    """However fast leases run out, of two that report only the last one to claim is heard."""
    queued(jobs)
    heard: list[int] = []
    lock = threading.Lock()

    def work(_: int) -> None:
        job = late.claim()
        if job is None:
            return
        try:
            late.report(job, JobProgress(done=job.attempt))
        except JobLostError:
            return
        with lock:
            heard.append(job.attempt)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(60)))
    (job,) = jobs.list("acme").jobs
    assert job.done == max(heard)


@pytest.fixture
def keys(database: Database) -> KeyStore:
    ClientStore(database).create("acme", "acme", None)
    return KeyStore(database)


def key_of(keys: KeyStore, prefix: str) -> int:
    return keys.create("acme", "enroller", prefix=prefix, secret_hash=b"0" * 32).id


def queued_by(jobs: JobStore, key_id: int) -> Job:
    job = jobs.begin("acme", "embeddings", key_id=key_id)
    jobs.append("acme", job.id, 0, b"x")
    return jobs.finish_upload("acme", job.id)


def test_a_key_that_is_revoked_imports_nothing_more(
    database: Database, jobs: JobStore, queue: JobQueue, keys: KeyStore
) -> None:
    gone, rotated = key_of(keys, "gone"), key_of(keys, "rotated")
    running, waits, of_another = queued_by(jobs, gone), queued_by(jobs, gone), queued_by(jobs, rotated)
    work = claimed(queue)
    assert work.id == running.id
    keys.replace_secret("acme", rotated, prefix="rotated2", secret_hash=b"1" * 32)
    keys.revoke("acme", gone)
    with pytest.raises(JobLostError):
        queue.intend(work, Intent(0, 1))
    assert [jobs.get("acme", each.id).state for each in (running, waits)] == ["cancelled"] * 2
    assert jobs.get("acme", of_another.id).state == "queued"
    assert claimed(queue).id == of_another.id
    page = AuditLog(database).list("acme", action="import.cancel")
    assert {entry.details["job"] for entry in page.entries} == {running.id, waits.id}


def test_an_upload_whose_key_is_revoked_meanwhile_becomes_no_job(
    database_url: str, database: Database, jobs: JobStore, keys: KeyStore
) -> None:
    before, during = key_of(keys, "before"), key_of(keys, "during")
    job = jobs.begin("acme", "embeddings", key_id=before)
    keys.revoke("acme", before)
    with pytest.raises(UnauthenticatedError):
        jobs.finish_upload("acme", job.id)
    job = jobs.begin("acme", "embeddings", key_id=during)
    with psycopg.connect(database_url) as revoking, ThreadPoolExecutor(1) as pool:
        revoking.execute("UPDATE api_keys SET revoked_at = now() WHERE id = %s", (during,))
        finished = pool.submit(jobs.finish_upload, "acme", job.id)
        while not waiting(database_url):
            assert not finished.done()
        revoking.commit()
        with pytest.raises(UnauthenticatedError):
            finished.result()
    assert jobs.list("acme").jobs == ()
