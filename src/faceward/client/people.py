"""Enrolled people over HTTP: stored, looked at, changed, moved and deleted."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import IO, Any, Literal

from faceward.client.requests import Image, Requests, files_of, given
from faceward.http_types import answered
from faceward.http_types.fields import PersonStateName
from faceward.types import UNCHANGED, Unchanged


class People(Requests):
    """The part of the client that keeps people."""

    def enroll(
        self,
        images: Image | Sequence[Image],
        *,
        name: str,
        region: str,
        description: str | None = None,
        external_id: str | None = None,
        expires_at: dt.datetime | None = None,
        several_faces: Literal["error", "largest"] = "error",
        allow_duplicate: bool = False,
    ) -> answered.EnrollmentOut:
        """Store a person with one or more photos: all of them, or none.

        expires_at: with its time zone; left out, by the retention of the region, else of the client.
        allow_duplicate: also where the service refuses who looks like another person of the region.
        """
        fields = {
            "name": name,
            "region": region,
            "description": description,
            "external_id": external_id,
            "expires_at": None if expires_at is None else expires_at.isoformat(),
            "several_faces": several_faces,
            "allow_duplicate": allow_duplicate,
        }
        return self._send("POST", "/v1/persons", answered.EnrollmentOut, form=fields, files=files_of("images", images))

    def add_face(
        self,
        person_id: int,
        images: Image | Sequence[Image],
        *,
        several_faces: Literal["error", "largest"] = "error",
        allow_duplicate: bool = False,
    ) -> answered.EnrollmentOut:
        """Store more photos of a person: all of them, or none. allow_duplicate: as in `enroll`."""
        return self._send(
            "POST",
            f"/v1/persons/{person_id}/faces",
            answered.EnrollmentOut,
            form={"several_faces": several_faces, "allow_duplicate": allow_duplicate},
            files=files_of("images", images),
        )

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
        state: PersonStateName | Unchanged = UNCHANGED,
        expires_at: dt.datetime | Unchanged | None = UNCHANGED,
    ) -> answered.PersonOut:
        """Change what is given and leave the rest; None clears. state "suspended": kept, and not matched."""
        expiry = expires_at.isoformat() if isinstance(expires_at, dt.datetime) else expires_at
        body = given(name=name, description=description, external_id=external_id, state=state, expires_at=expiry)
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

    def export_person(self, person_id: int, file: IO[bytes]) -> None:
        """Write all that is held of a person into a file, as a zip."""
        file.write(self._transport.ask("GET", f"/v1/persons/{person_id}/export").content)

    def erase_person(self, person_id: int) -> answered.ReceiptOut:
        """Erase a person with every trace, for good; the answer is a signed receipt."""
        return self._send("POST", f"/v1/persons/{person_id}/erase", answered.ReceiptOut)

    def list_faces(self, person_id: int) -> list[answered.FaceOut]:
        """All stored faces of a person, the oldest first."""
        found: list[answered.FaceOut] = []
        cursor: str | None = None
        while True:
            query = {"cursor": cursor, "limit": 1000}
            page = self._send("GET", f"/v1/persons/{person_id}/faces", answered.FacePage, query=query)
            found += page.items
            cursor = page.next
            if cursor is None:
                return found

    def delete_face(self, person_id: int, face_id: int) -> None:
        self._delete(f"/v1/persons/{person_id}/faces/{face_id}")

    def face_image(self, person_id: int, face_id: int) -> bytes:
        """The stored photo of a face."""
        return self._transport.ask("GET", f"/v1/persons/{person_id}/faces/{face_id}/image").content
