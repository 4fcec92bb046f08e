"""`faceward.Client`: the methods of FaceService, over HTTP."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self, TypeAlias
from urllib.parse import quote

from faceward.client.transport import Answer, Replayed, Transport
from faceward.errors import ImageNotFoundError, ImportSourceError
from faceward.http_types import answered, fields, sent
from faceward.types import UNCHANGED, Unchanged

Image: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO"
"""A path, the bytes of an image file, or an open binary file."""


class Client:
    """One key's view of a service. Safe to share between threads; close it, or use it in a `with`.

    It tries again by itself when the service is full, restarting or out of reach. An enrolment carries an idempotency key of
    its own, so that a repetition does nothing twice; what could not be repeated safely (a new key's secret, a region or a
    client that may have been made) raises ServiceUnreachableError where its answer is lost.

    url: of the service, as https://faces.example.com. key: as the service showed it once. timeout: seconds for one try.
    retries: further tries after 429, 503 and broken connections, with growing waits. verify: False, or a file of
    certificates, for a service whose certificate is not public. sleep: waits some seconds.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout: float = 60.0,
        retries: int = 5,
        verify: bool | str = True,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transport = Transport(url, key, timeout=timeout, retries=retries, verify=verify, sleep=sleep)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    # Enrolment

    def enroll(
        self,
        images: Image | Sequence[Image],
        *,
        name: str,
        region: str,
        description: str | None = None,
        external_id: str | None = None,
        several_faces: Literal["error", "largest"] = "error",
    ) -> answered.EnrollmentOut:
        """Store a person with one or more photos: all of them, or none."""
        fields = {
            "name": name,
            "region": region,
            "description": description,
            "external_id": external_id,
            "several_faces": several_faces,
        }
        return self._send("POST", "/v1/persons", answered.EnrollmentOut, form=fields, files=_files("images", images))

    def add_face(
        self,
        person_id: int,
        images: Image | Sequence[Image],
        *,
        several_faces: Literal["error", "largest"] = "error",
    ) -> answered.EnrollmentOut:
        """Store more photos of a person: all of them, or none."""
        return self._send(
            "POST",
            f"/v1/persons/{person_id}/faces",
            answered.EnrollmentOut,
            form={"several_faces": several_faces},
            files=_files("images", images),
        )

    # Recognition

    def recognize(
        self,
        image: Image,
        *,
        region: str | Sequence[str],
        threshold: float | None = None,
        top_k: int = 5,
        max_faces: int = 100,
        min_quality: float = 0.0,
        strategy: fields.StrategyName | None = None,
    ) -> answered.RecognitionOut:
        """Who of the region (or regions) is in the image: one entry for each face, the largest first."""
        fields = {
            "region": region,
            "threshold": threshold,
            "top_k": top_k,
            "max_faces": max_faces,
            "min_quality": min_quality,
            "strategy": strategy,
        }
        return self._send("POST", "/v1/recognize", answered.RecognitionOut, form=fields, files=_files("image", image))

    def search(
        self,
        embedding: Iterable[float],
        *,
        region: str | Sequence[str],
        threshold: float | None = None,
        top_k: int = 5,
        strategy: fields.StrategyName | None = None,
    ) -> answered.SearchOut:
        """The persons of the region nearest to an embedding of the service's model."""
        body = {
            "embedding": [float(number) for number in embedding],
            "region": region if isinstance(region, str) else list(region),
            "threshold": threshold,
            "top_k": top_k,
            "strategy": strategy,
        }
        return self._send("POST", "/v1/search", answered.SearchOut, body=body)

    def verify(
        self,
        image: Image,
        other: Image | None = None,
        *,
        person_id: int | None = None,
        threshold: float | None = None,
    ) -> answered.VerificationOut:
        """Whether a photo shows the same person as another photo, or as an enrolled person."""
        files = [*_files("image", image), *([] if other is None else _files("other", other))]
        fields = {"person_id": person_id, "threshold": threshold}
        return self._send("POST", "/v1/verify", answered.VerificationOut, form=fields, files=files)

    def detect(self, image: Image, *, max_faces: int = 100) -> answered.Detection:
        """The faces in an image, the largest first."""
        return self._send(
            "POST", "/v1/detect", answered.Detection, form={"max_faces": max_faces}, files=_files("image", image)
        )

    # Persons

    def get_person(self, person_id: int) -> answered.PersonOut:
        return self._send("GET", f"/v1/persons/{person_id}", answered.PersonOut)

    def list_persons(
        self,
        *,
        region: str | None = None,
        name_prefix: str | None = None,
        external_id: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> answered.PersonPage:
        """A page of persons. cursor: the `next` of the page before."""
        query = {
            "region": region,
            "name_prefix": name_prefix,
            "external_id": external_id,
            "cursor": cursor,
            "limit": limit,
        }
        return self._send("GET", "/v1/persons", answered.PersonPage, query=query)

    def persons(self, **filters: Any) -> Iterator[answered.PersonOut]:
        """All persons of `list_persons`, page after page."""
        cursor: str | None = None
        while True:
            page = self.list_persons(cursor=cursor, **filters)
            yield from page.items
            cursor = page.next
            if cursor is None:
                return

    def update_person(
        self,
        person_id: int,
        *,
        name: str | Unchanged = UNCHANGED,
        description: str | Unchanged | None = UNCHANGED,
        external_id: str | Unchanged | None = UNCHANGED,
    ) -> answered.PersonOut:
        """Change what is given and leave the rest; None clears."""
        body = _given(name=name, description=description, external_id=external_id)
        return self._send("PATCH", f"/v1/persons/{person_id}", answered.PersonOut, body=body)

    def move_region(self, person_id: int, region: str) -> answered.PersonOut:
        """Move a person with all faces to another region."""
        return self._send("PUT", f"/v1/persons/{person_id}/region", answered.PersonOut, body={"region": region})

    def merge_persons(self, person_id: int, into_id: int, *, across_regions: bool = False) -> answered.MergeOut:
        """Give all faces of a person to another, and delete the first."""
        body = {"into": into_id, "across_regions": across_regions}
        return self._send("POST", f"/v1/persons/{person_id}/merge", answered.MergeOut, body=body)

    def delete_person(self, person_id: int) -> None:
        self._delete(f"/v1/persons/{person_id}")

    def list_faces(self, person_id: int) -> list[answered.FaceOut]:
        return self._send("GET", f"/v1/persons/{person_id}/faces", answered.FaceList).items

    def delete_face(self, person_id: int, face_id: int) -> None:
        self._delete(f"/v1/persons/{person_id}/faces/{face_id}")

    def face_image(self, person_id: int, face_id: int) -> bytes:
        """The stored photo of a face."""
        return self._transport.ask("GET", f"/v1/persons/{person_id}/faces/{face_id}/image").content

    # Regions

    def list_regions(self) -> list[answered.RegionOut]:
        return self._send("GET", "/v1/regions", answered.RegionList).items

    def create_region(self, name: str, *, threshold: float | None = None) -> answered.RegionOut:
        return self._send(
            "POST", "/v1/regions", answered.RegionOut, body={"name": name, "threshold": threshold}, repeatable=False
        )

    def get_region(self, region: str) -> answered.RegionOut:
        return self._send("GET", _path("/v1/regions", region), answered.RegionOut)

    def update_region(
        self, region: str, *, name: str | Unchanged = UNCHANGED, threshold: float | Unchanged | None = UNCHANGED
    ) -> answered.RegionOut:
        """Rename a region, or set its threshold; None clears it."""
        return self._send(
            "PATCH", _path("/v1/regions", region), answered.RegionOut, body=_given(name=name, threshold=threshold)
        )

    def delete_region(self, region: str) -> None:
        """Delete a region that has no person."""
        self._delete(_path("/v1/regions", region))

    # Imports

    def import_archive(
        self, archive: str | os.PathLike[str], *, several_faces: Literal["error", "largest"] = "error"
    ) -> answered.JobOut:
        """Send a zip or tar of REGION/PERSON/photo.jpg; it is imported in the background."""
        path = Path(archive)
        kind = "application/zip" if path.suffix.lower() == ".zip" else "application/x-tar"
        if path.suffix.lower() in (".gz", ".tgz"):
            kind = "application/gzip"
        return self._import(path, kind, {"several_faces": several_faces})

    def import_embeddings(self, lines: str | os.PathLike[str]) -> answered.JobOut:
        """Send a file of JSON lines with embeddings; it is imported in the background."""
        return self._import(Path(lines), "application/x-ndjson", {})

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

    # Keys and clients

    def me(self) -> answered.Me:
        """What this key is and may do."""
        return self._send("GET", "/v1/me", answered.Me)

    def create_client(
        self, client_id: str, *, name: str | None = None, threshold: float | None = None
    ) -> answered.ClientOut:
        body = {"client_id": client_id, "name": name, "threshold": threshold}
        return self._send("POST", "/v1/clients", answered.ClientOut, body=body, repeatable=False)

    def list_clients(self, *, cursor: str | None = None, limit: int = 100) -> answered.ClientPage:
        return self._send("GET", "/v1/clients", answered.ClientPage, query={"cursor": cursor, "limit": limit})

    def get_client(self, client_id: str) -> answered.ClientOut:
        return self._send("GET", _path("/v1/clients", client_id), answered.ClientOut)

    def update_client(
        self, client_id: str, *, name: str | Unchanged = UNCHANGED, threshold: float | Unchanged | None = UNCHANGED
    ) -> answered.ClientOut:
        body = _given(name=name, threshold=threshold)
        return self._send("PATCH", _path("/v1/clients", client_id), answered.ClientOut, body=body)

    def create_key(self, role: fields.RoleName, **options: Any) -> answered.NewKeyOut:
        """options: client_id, regions, name, expires_at, rate_limit, as POST /v1/keys takes them."""
        body = sent.KeyCreate(role=role, **options).model_dump(mode="json", exclude_none=True)
        return self._send("POST", "/v1/keys", answered.NewKeyOut, body=body, repeatable=False)

    def list_keys(
        self, *, client_id: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> answered.KeyPage:
        query = {"client_id": client_id, "cursor": cursor, "limit": limit}
        return self._send("GET", "/v1/keys", answered.KeyPage, query=query)

    def get_key(self, key_id: int, *, client_id: str | None = None) -> answered.KeyOut:
        return self._send("GET", f"/v1/keys/{key_id}", answered.KeyOut, query={"client_id": client_id})

    def rotate_key(self, key_id: int, *, client_id: str | None = None) -> answered.NewKeyOut:
        """A new secret; the old one ends at once. Not tried again by itself: a second try would end the first's secret."""
        return self._send(
            "POST",
            f"/v1/keys/{key_id}/rotate",
            answered.NewKeyOut,
            query={"client_id": client_id},
            repeatable=False,
        )

    def revoke_key(self, key_id: int, *, client_id: str | None = None) -> answered.KeyOut:
        return self._send("DELETE", f"/v1/keys/{key_id}", answered.KeyOut, query={"client_id": client_id})

    # Parts

    def _send(
        self,
        method: str,
        path: str,
        answer: type[Answer],
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        form: Mapping[str, Any] | None = None,
        files: list[tuple[str, tuple[str, bytes]]] | None = None,
        repeatable: bool = True,
    ) -> Answer:
        parts: dict[str, Any] = {"params": _present(query or {}), "repeatable": repeatable}
        if body is not None:
            parts["json"] = body
        if files is not None:
            parts |= {"data": _present(form or {}), "files": files}
        return self._transport.value(method, path, answer, **parts)

    def _delete(self, path: str) -> None:
        self._transport.ask("DELETE", path)

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
                params=_present(query),
                content=Replayed(file),
                headers={"content-type": kind},
            )


def _files(field: str, images: Image | Sequence[Image]) -> list[tuple[str, tuple[str, bytes]]]:
    several = images if isinstance(images, (list, tuple)) else [images]
    return [(field, (f"{field}-{number}", _bytes(image))) for number, image in enumerate(several)]


def _bytes(image: Any) -> bytes:
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if hasattr(image, "read"):
        data: bytes = image.read()
        return data
    try:
        return Path(image).read_bytes()
    except OSError as exc:
        raise ImageNotFoundError(f"The image {image} can't be read: {exc.strerror}.") from exc


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what was left out."""
    return {name: value for name, value in values.items() if value is not None}


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not isinstance(value, Unchanged)}


def _path(*parts: str) -> str:
    return parts[0] + "/" + quote(parts[1], safe="")
