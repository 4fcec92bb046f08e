"""Imports in the background, sent and watched over HTTP."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from faceward.client.requests import Requests, present
from faceward.client.transport import Replayed
from faceward.errors import ImportSourceError
from faceward.http_types import answered


class Importing(Requests):
    """The part of the client that sends many people at once."""

    def import_archive(
        self, archive: str | os.PathLike[str], *, several_faces: Literal["error", "largest"] = "error"
    ) -> answered.JobOut:
        """Send a zip or tar of REGION/PERSON/photo.jpg; it is imported in the background."""
        path = Path(archive)
        kind = "application/zip" if path.suffix.lower() == ".zip" else "application/x-tar"
        if path.suffix.lower() in (".gz", ".tgz"):
            kind = "application/gzip"
        return self._import(path, kind, {"several_faces": several_faces})

    def import_embeddings(self, lines: str | os.PathLike[str], *, model_id: str | None = None) -> answered.JobOut:
        """Send a file of JSON lines with embeddings; it is imported in the background.

        model_id: the model that made them; where that is not the service's, the import fails and stores nothing.
        """
        return self._import(Path(lines), "application/x-ndjson", {"model_id": model_id})

    def get_job(self, job_id: int) -> answered.JobOut:
        return self._send("GET", f"/v1/jobs/{job_id}", answered.JobOut)

    def list_jobs(self, *, cursor: str | None = None, limit: int = 100) -> answered.JobPage:
        return self._send("GET", "/v1/jobs", answered.JobPage, query={"cursor": cursor, "limit": limit})

    def cancel_job(self, job_id: int) -> answered.JobOut:
        return self._send("POST", f"/v1/jobs/{job_id}/cancel", answered.JobOut)

    def list_refusals(self, job_id: int, *, cursor: str | None = None, limit: int = 100) -> answered.RefusalPage:
        """What an import did not store, and why."""
        return self._send(
            "GET", f"/v1/jobs/{job_id}/refusals", answered.RefusalPage, query={"cursor": cursor, "limit": limit}
        )

    def wait_for_job(self, job_id: int, *, seconds: float = 3600.0, every: float = 0.5) -> answered.JobOut:
        """The job when it has ended, or as it is after `seconds`."""
        until = time.monotonic() + seconds
        while True:
            job = self.get_job(job_id)
            if job.finished_at is not None or time.monotonic() >= until:
                return job
            self._transport.sleep(every)

    def _import(self, path: Path, kind: str, query: Mapping[str, Any]) -> answered.JobOut:
        try:
            file = path.open("rb")
        except OSError as exc:
            raise ImportSourceError(f"The file {path} can't be read: {exc.strerror}.") from exc
        with file:
            return self._transport.value(
                "POST",
                "/v1/imports",
                answered.JobOut,
                params=present(query),
                content=Replayed(file),
                headers={"content-type": kind},
            )
