"""What callers do with imports: send one, look at it, cancel it, read its report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, get_args

from faceward.checks import (
    MAX_NAME,
    check_client_id,
    check_count,
    check_id,
    check_region,
    check_request_token,
    check_text,
)
from faceward.errors import ImportSourceError, InvalidValueError, RequestTooLargeError
from faceward.store.jobs import JobPage, JobStore, RefusalPage
from faceward.types import Job, JobKind, RequestToken

_PIECE = 1024 * 1024


class Imports:
    """The imports of all clients. max_bytes: of one upload. model_id: of the model in use, whose embeddings an upload
    holds unless it says otherwise. on_queued: called when a job is ready to be worked on.
    """

    def __init__(
        self,
        jobs: JobStore,
        *,
        max_bytes: int = 2 << 30,
        model_id: Callable[[], str] | None = None,
        on_queued: Callable[[], None] = lambda: None,
    ) -> None:
        self._jobs = jobs
        self._model_id = model_id
        self._max_bytes = max_bytes
        self._on_queued = on_queued

    def receive(
        self,
        client_id: str | None,
        kind: JobKind,
        *,
        key_id: int | None = None,
        region_limit: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        max_bytes: int | None = None,
    ) -> Upload:
        """Begin an import, whose upload is then appended piece by piece.

        kind: "archive" (a zip or a tar, plain or gzip, of REGION/PERSON/photo.jpg) or "embeddings" (lines of JSON). key_id:
        of the key that sends it. region_limit: the only regions it may write to. options: of an archive "several_faces",
        "error" or "largest"; of embeddings "model_id", the model that made them. max_bytes: less than the service takes.

        Raises InvalidValueError, OverloadedError, StoreError.
        """
        client_id = check_client_id(client_id)
        options = _checked_options(kind, options or {})
        if kind == "embeddings" and self._model_id is not None:
            # By the time it runs the gallery may be of another model.
            options.setdefault("model_id", self._model_id())
        regions = None if region_limit is None else [check_region(region) for region in region_limit]
        most = self._max_bytes if max_bytes is None else min(max_bytes, self._max_bytes)
        job = self._jobs.begin(client_id, kind, region_limit=regions, options=options, key_id=key_id)
        return Upload(self._jobs, job, most, self._on_queued)

    def get(self, job_id: int, *, client_id: str | None = None) -> Job:
        """Raises UnknownJobError."""
        return self._jobs.get(check_client_id(client_id), check_id("job_id", job_id))

    def list(self, *, client_id: str | None = None, before: int | None = None, limit: int = 100) -> JobPage:
        """A page of the client's jobs, the newest first. before: the `next_before` of the page before. limit: 1..1000."""
        check_count("limit", limit, 1000)
        if before is not None:
            check_id("before", before)
        return self._jobs.list(check_client_id(client_id), before=before, limit=limit)

    def cancel(self, job_id: int, *, client_id: str | None = None) -> Job:
        """End a job; what it stored until then stays. A finished one is left as it is. Raises UnknownJobError."""
        return self._jobs.cancel(check_client_id(client_id), check_id("job_id", job_id))

    def refusals(
        self, job_id: int, *, client_id: str | None = None, after: int | None = None, limit: int = 100
    ) -> RefusalPage:
        """A page of what a job refused, by position; the first ten thousand are kept. after: the `next_after` of the page
        before. Raises UnknownJobError.
        """
        check_count("limit", limit, 1000)
        if after is not None:
            check_count("after", after + 1, 2**63 - 1)
        return self._jobs.refusals(
            check_client_id(client_id), check_id("job_id", job_id), after=-1 if after is None else after, limit=limit
        )


class Upload:
    """The upload of one import, on its way in: append() what arrives, then finish(), or abort().

    Each call is synchronous and may come from another thread than the one before; two at once may not. As a context manager
    it aborts what was not finished.
    """

    def __init__(self, jobs: JobStore, job: Job, max_bytes: int, on_queued: Callable[[], None]) -> None:
        self._jobs = jobs
        self._job = job
        self._max_bytes = max_bytes
        self._on_queued = on_queued
        self._waiting = bytearray()
        self._pieces = 0
        self._received = 0
        self._over = False
        described = json.dumps([job.kind, job.options], sort_keys=True)
        self._fingerprint = hashlib.sha256(described.encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    @property
    def job_id(self) -> int:
        """Of the job that comes of it; unknown to everybody until finish()."""
        return self._job.id

    def append(self, data: bytes) -> None:
        """Take in what arrived; it is stored by the mebibyte. Raises RequestTooLargeError, UnknownJobError, StoreError."""
        self._received += len(data)
        if self._received > self._max_bytes:
            raise RequestTooLargeError(
                f"The upload is larger than {self._max_bytes} bytes. Nothing was stored; send it in parts."
            )
        self._fingerprint.update(data)
        self._waiting += data
        while len(self._waiting) >= _PIECE:
            self._store(bytes(self._waiting[:_PIECE]))
            del self._waiting[:_PIECE]

    def finish(self, token: str | None = None) -> Job:
        """The upload is whole: the job is queued. token: the caller's name for this request; sent again with the same
        upload it gets the job that was made first, and nothing is done twice.

        Raises ImportSourceError (it is empty), RequestReusedError, InvalidValueError, UnknownJobError, StoreError.
        """
        if not self._received:
            raise ImportSourceError("The upload is empty. Send an archive of photos, or lines of embeddings.")
        request = None
        if token is not None:
            request = check_request_token(RequestToken(self._job.key_id or 0, token, self._fingerprint.digest()))
        if self._waiting:
            self._store(bytes(self._waiting))
            self._waiting.clear()
        job = self._jobs.finish_upload(self._job.client_id, self._job.id, request)
        self._over = True
        self._on_queued()
        return job

    def abort(self) -> None:
        """Forget the upload, unless it was finished."""
        if not self._over:
            self._over = True
            self._jobs.abort_upload(self._job.client_id, self._job.id)

    def _store(self, data: bytes) -> None:
        self._jobs.append(self._job.client_id, self._job.id, self._pieces, data)
        self._pieces += 1


def _checked_options(kind: object, options: Mapping[str, Any]) -> dict[str, Any]:
    if kind not in get_args(JobKind):
        raise InvalidValueError("kind", kind, " or ".join(get_args(JobKind)))
    known = "several_faces" if kind == "archive" else "model_id"
    for name, value in options.items():
        if name != known:
            raise InvalidValueError("options", name, f"{known}, the only option of this kind of import")
        if name == "several_faces" and value not in ("error", "largest"):
            raise InvalidValueError(name, value, "'error' or 'largest'")
        if name == "model_id":
            check_text(name, value, MAX_NAME)
    return dict(options)
