"""`faceward.Client`: a typed client of the REST API whose methods mirror FaceService.

It tries again by itself when the service is full, restarting or out of reach. Every creating call carries an idempotency key of
its own, so that a repetition after a broken connection does nothing twice.
"""

from __future__ import annotations

import json
import os
import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self, TypeAlias, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

from faceward import errors
from faceward import http_types as http
from faceward.errors import FacewardError, ImageNotFoundError, NotFoundError, ServiceUnreachableError
from faceward.types import UNCHANGED, Unchanged

Image: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO"
"""A path, the bytes of an image file, or an open binary file."""

Answer = TypeVar("Answer", bound=BaseModel)

_AGAIN = (429, 503)
_LONGEST_WAIT = 30.0


class Client:
    """One key's view of a service. Safe to share between threads; close it, or use it in a `with`.

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
        self._http = httpx.Client(
            base_url=url,
            headers={"authorization": f"Bearer {key}"},
            timeout=timeout,
            verify=verify,
            follow_redirects=False,
        )
        self._retries = retries
        self._sleep = sleep
        self._jitter = random.Random()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

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
    ) -> http.EnrollmentOut:
        """Store a person with one or more photos: all of them, or none."""
        fields = {
            "name": name,
            "region": region,
            "description": description,
            "external_id": external_id,
            "several_faces": several_faces,
        }
        return self._send("POST", "/v1/persons", http.EnrollmentOut, form=fields, files=_files("images", images))

    def add_face(
        self,
        person_id: int,
        images: Image | Sequence[Image],
        *,
        several_faces: Literal["error", "largest"] = "error",
    ) -> http.EnrollmentOut:
        """Store more photos of a person: all of them, or none."""
        return self._send(
            "POST",
            f"/v1/persons/{person_id}/faces",
            http.EnrollmentOut,
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
        strategy: http.StrategyName | None = None,
    ) -> http.RecognitionOut:
        """Who of the region (or regions) is in the image: one entry for each face, the largest first."""
        fields = {
            "region": region,
            "threshold": threshold,
            "top_k": top_k,
            "max_faces": max_faces,
            "min_quality": min_quality,
            "strategy": strategy,
        }
        return self._send("POST", "/v1/recognize", http.RecognitionOut, form=fields, files=_files("image", image))

    def search(
        self,
        embedding: Iterable[float],
        *,
        region: str | Sequence[str],
        threshold: float | None = None,
        top_k: int = 5,
        strategy: http.StrategyName | None = None,
    ) -> http.SearchOut:
        """The persons of the region nearest to an embedding of the service's model."""
        body = {
            "embedding": [float(number) for number in embedding],
            "region": region if isinstance(region, str) else list(region),
            "threshold": threshold,
            "top_k": top_k,
            "strategy": strategy,
        }
        return self._send("POST", "/v1/search", http.SearchOut, body=body)

    def verify(
        self,
        image: Image,
        other: Image | None = None,
        *,
        person_id: int | None = None,
        threshold: float | None = None,
    ) -> http.VerificationOut:
        """Whether a photo shows the same person as another photo, or as an enrolled person."""
        files = [*_files("image", image), *([] if other is None else _files("other", other))]
        fields = {"person_id": person_id, "threshold": threshold}
        return self._send("POST", "/v1/verify", http.VerificationOut, form=fields, files=files)

    def detect(self, image: Image, *, max_faces: int = 100) -> http.Detection:
        """The faces in an image, the largest first."""
        return self._send(
            "POST", "/v1/detect", http.Detection, form={"max_faces": max_faces}, files=_files("image", image)
        )

    # Persons

    def get_person(self, person_id: int) -> http.PersonOut:
        return self._send("GET", f"/v1/persons/{person_id}", http.PersonOut)

    def list_persons(
        self,
        *,
        region: str | None = None,
        name_prefix: str | None = None,
        external_id: str | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> http.PersonPage:
        """A page of persons. cursor: the `next` of the page before."""
        query = {
            "region": region,
            "name_prefix": name_prefix,
            "external_id": external_id,
            "cursor": cursor,
            "limit": limit,
        }
        return self._send("GET", "/v1/persons", http.PersonPage, query=query)

    def persons(self, **filters: Any) -> Iterator[http.PersonOut]:
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
    ) -> http.PersonOut:
        """Change what is given and leave the rest; None clears."""
        body = _given(name=name, description=description, external_id=external_id)
        return self._send("PATCH", f"/v1/persons/{person_id}", http.PersonOut, body=body)

    def move_region(self, person_id: int, region: str) -> http.PersonOut:
        """Move a person with all faces to another region."""
        return self._send("PUT", f"/v1/persons/{person_id}/region", http.PersonOut, body={"region": region})

    def delete_person(self, person_id: int) -> None:
        self._delete(f"/v1/persons/{person_id}")

    def list_faces(self, person_id: int) -> list[http.FaceOut]:
        return self._send("GET", f"/v1/persons/{person_id}/faces", http.FaceList).items

    def delete_face(self, person_id: int, face_id: int) -> None:
        self._delete(f"/v1/persons/{person_id}/faces/{face_id}")

    def face_image(self, person_id: int, face_id: int) -> bytes:
        """The stored photo of a face."""
        return self._ask("GET", f"/v1/persons/{person_id}/faces/{face_id}/image").content

    # Regions

    def list_regions(self) -> list[http.RegionOut]:
        return self._send("GET", "/v1/regions", http.RegionList).items

    def create_region(self, name: str, *, threshold: float | None = None) -> http.RegionOut:
        return self._send("POST", "/v1/regions", http.RegionOut, body={"name": name, "threshold": threshold})

    def get_region(self, region: str) -> http.RegionOut:
        return self._send("GET", _path("/v1/regions", region), http.RegionOut)

    def update_region(
        self, region: str, *, name: str | Unchanged = UNCHANGED, threshold: float | Unchanged | None = UNCHANGED
    ) -> http.RegionOut:
        """Rename a region, or set its threshold; None clears it."""
        return self._send(
            "PATCH", _path("/v1/regions", region), http.RegionOut, body=_given(name=name, threshold=threshold)
        )

    def delete_region(self, region: str) -> None:
        """Delete a region that has no person."""
        self._delete(_path("/v1/regions", region))

    # Imports

    def import_archive(
        self, archive: str | os.PathLike[str], *, several_faces: Literal["error", "largest"] = "error"
    ) -> http.JobOut:
        """Send a zip or tar of REGION/PERSON/photo.jpg; it is imported in the background."""
        path = Path(archive)
        kind = "application/zip" if path.suffix.lower() == ".zip" else "application/x-tar"
        if path.suffix.lower() in (".gz", ".tgz"):
            kind = "application/gzip"
        return self._import(path, kind, {"several_faces": several_faces})

    def import_embeddings(self, lines: str | os.PathLike[str]) -> http.JobOut:
        """Send a file of JSON lines with embeddings; it is imported in the background."""
        return self._import(Path(lines), "application/x-ndjson", {})

    def get_job(self, job_id: int) -> http.JobOut:
        return self._send("GET", f"/v1/jobs/{job_id}", http.JobOut)

    def list_jobs(self, *, cursor: str | None = None, limit: int = 100) -> http.JobPage:
        return self._send("GET", "/v1/jobs", http.JobPage, query={"cursor": cursor, "limit": limit})

    def cancel_job(self, job_id: int) -> http.JobOut:
        return self._send("POST", f"/v1/jobs/{job_id}/cancel", http.JobOut)

    def list_refusals(self, job_id: int, *, cursor: str | None = None, limit: int = 100) -> http.RefusalPage:
        """What an import did not store, and why."""
        return self._send(
            "GET", f"/v1/jobs/{job_id}/refusals", http.RefusalPage, query={"cursor": cursor, "limit": limit}
        )

    def wait_for_job(self, job_id: int, *, seconds: float = 3600.0, every: float = 0.5) -> http.JobOut:
        """The job when it has ended, or as it is after `seconds`."""
        until = time.monotonic() + seconds
        while True:
            job = self.get_job(job_id)
            if job.finished_at is not None or time.monotonic() >= until:
                return job
            self._sleep(every)

    # Keys and clients

    def me(self) -> http.Me:
        """What this key is and may do."""
        return self._send("GET", "/v1/me", http.Me)

    def create_client(
        self, client_id: str, *, name: str | None = None, threshold: float | None = None
    ) -> http.ClientOut:
        body = {"client_id": client_id, "name": name, "threshold": threshold}
        return self._send("POST", "/v1/clients", http.ClientOut, body=body)

    def list_clients(self, *, cursor: str | None = None, limit: int = 100) -> http.ClientPage:
        return self._send("GET", "/v1/clients", http.ClientPage, query={"cursor": cursor, "limit": limit})

    def get_client(self, client_id: str) -> http.ClientOut:
        return self._send("GET", _path("/v1/clients", client_id), http.ClientOut)

    def update_client(
        self, client_id: str, *, name: str | Unchanged = UNCHANGED, threshold: float | Unchanged | None = UNCHANGED
    ) -> http.ClientOut:
        body = _given(name=name, threshold=threshold)
        return self._send("PATCH", _path("/v1/clients", client_id), http.ClientOut, body=body)

    def create_key(self, role: http.RoleName, **options: Any) -> http.NewKeyOut:
        """options: client_id, regions, name, expires_at, rate_limit, as POST /v1/keys takes them."""
        body = http.KeyCreate(role=role, **options).model_dump(mode="json", exclude_none=True)
        return self._send("POST", "/v1/keys", http.NewKeyOut, body=body)

    def list_keys(self, *, client_id: str | None = None, cursor: str | None = None, limit: int = 100) -> http.KeyPage:
        query = {"client_id": client_id, "cursor": cursor, "limit": limit}
        return self._send("GET", "/v1/keys", http.KeyPage, query=query)

    def get_key(self, key_id: int, *, client_id: str | None = None) -> http.KeyOut:
        return self._send("GET", f"/v1/keys/{key_id}", http.KeyOut, query={"client_id": client_id})

    def rotate_key(self, key_id: int, *, client_id: str | None = None) -> http.NewKeyOut:
        """A new secret; the old one ends at once. Not tried again by itself: a second try would end the first's secret."""
        query = _sent({"client_id": client_id})
        answer = self._once("POST", f"/v1/keys/{key_id}/rotate", params=query)
        return http.NewKeyOut.model_validate_json(_good(answer).content)

    def revoke_key(self, key_id: int, *, client_id: str | None = None) -> http.KeyOut:
        return self._send("DELETE", f"/v1/keys/{key_id}", http.KeyOut, query={"client_id": client_id})

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
    ) -> Answer:
        sent: dict[str, Any] = {"params": _sent(query or {})}
        if body is not None:
            sent["json"] = body
        if files is not None:
            sent |= {"data": _sent(form or {}), "files": files}
        return answer.model_validate_json(self._ask(method, path, **sent).content)

    def _delete(self, path: str) -> None:
        self._ask("DELETE", path)

    def _import(self, path: Path, kind: str, query: Mapping[str, Any]) -> http.JobOut:
        headers = {"content-type": kind}
        try:
            with path.open("rb") as file:
                answer = self._ask("POST", "/v1/imports", params=_sent(query), content=_Replayed(file), headers=headers)
        except OSError as exc:
            raise ImageNotFoundError(f"The file {path} can't be read: {exc.strerror}.") from exc
        return http.JobOut.model_validate_json(answer.content)

    def _ask(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **sent: Any) -> httpx.Response:
        """The answer after as many tries as it takes and as are allowed. Raises the error that the service names."""
        named = {**(headers or {}), **({"idempotency-key": uuid.uuid4().hex} if method == "POST" else {})}
        broken = False
        for number in range(self._retries + 1):
            try:
                answer = self._once(method, path, headers=named, **sent)
            except ServiceUnreachableError:
                if number == self._retries:
                    raise
                broken = True
                self._wait(number, None)
                continue
            if answer.status_code in _AGAIN and number < self._retries:
                self._wait(number, answer.headers.get("retry-after"))
                continue
            if method == "DELETE" and broken and answer.status_code == 404:
                return answer  # the try whose answer was lost had done it
            return _good(answer)
        raise AssertionError("the last try returns or raises")

    def _once(self, method: str, path: str, **sent: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **sent)
        except httpx.TransportError as exc:
            raise ServiceUnreachableError(
                f"The service at {self._http.base_url} can't be reached: {type(exc).__name__}: {exc}"
            ) from exc

    def _wait(self, number: int, retry_after: str | None) -> None:
        """At least what the service asks for, growing with the tries, never in step with other clients."""
        asked = float(retry_after) if retry_after is not None and retry_after.isdigit() else 0.0
        self._sleep(min(_LONGEST_WAIT, max(asked, 0.2 * 2**number)) * self._jitter.uniform(1.0, 1.3))


class _Replayed:
    """A file as a body that begins anew with each try."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        while chunk := self._file.read(1 << 16):
            yield chunk


def _good(answer: httpx.Response) -> httpx.Response:
    if answer.is_success:
        return answer
    raise error_of(answer)


def error_of(answer: httpx.Response) -> FacewardError:
    """The error of faceward that a problem names, with the fields that came with it."""
    try:
        problem = json.loads(answer.content)
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or not isinstance(problem.get("code"), str):
        kind: type[FacewardError] = NotFoundError if answer.status_code == 404 else FacewardError
        return kind(f"The service answered {answer.status_code} without saying why.")
    found = _kinds().get(problem["code"], FacewardError)
    error = found.__new__(found)  # what a constructor would put into words, the service has
    Exception.__init__(error, problem.get("detail", ""))
    for name, value in problem.items():
        field = "known" if name == "known_regions" else name
        if field not in ("code", "type", "title", "detail"):
            setattr(error, field, tuple(value) if isinstance(value, list) else value)
    return error


def _kinds() -> dict[str, type[FacewardError]]:
    kinds = {
        kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FacewardError)
    }
    return {code: kind for code, kind in kinds.items() if code != FacewardError.code}


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


def _sent(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what was left out."""
    return {name: value for name, value in values.items() if value is not None}


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not isinstance(value, Unchanged)}


def _path(*parts: str) -> str:
    return parts[0] + "/" + quote(parts[1], safe="")
