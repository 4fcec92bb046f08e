"""The enrolled persons and their faces: looked at, changed, moved and deleted."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from faceward.checks import (
    MAX_NAME,
    check_client_id,
    check_count,
    check_description,
    check_expires_at,
    check_external_id,
    check_id,
    check_name,
    check_optional_text,
    check_region,
    check_regions,
    check_request_token,
    check_state,
)
from faceward.errors import InvalidValueError, NotFoundError
from faceward.store.gallery import Gallery
from faceward.store.person_rows import FacePage, PersonPage
from faceward.store.photos import StoredPhotos
from faceward.types import UNCHANGED, Merge, Person, PersonState, RequestToken, StoredFace, Unchanged
from faceward.vision.image_headers import ImageFormat, image_format

_MEDIA_TYPES: dict[ImageFormat, str] = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WebP": "image/webp",
    "BMP": "image/bmp",
}


class People:
    """The part of FaceService that keeps people."""

    def __init__(self, gallery: Gallery, photos: StoredPhotos) -> None:
        self._gallery = gallery
        self._photos = photos

    def get_person(self, person_id: int, *, client_id: str | None = None) -> Person:
        """Raises UnknownPersonError."""
        return self._gallery.get_person(check_client_id(client_id), check_id("person_id", person_id))

    def was_called(self, person_id: int, name: str, *, client_id: str | None = None) -> bool:
        """Whether the person has the name, or had it, or a record had it that was merged into the person's."""
        return self._gallery.was_called(check_client_id(client_id), check_id("person_id", person_id), check_name(name))

    def list_persons(
        self,
        *,
        region: str | None = None,
        regions: Sequence[str] | None = None,
        name_prefix: str | None = None,
        external_id: str | None = None,
        client_id: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> PersonPage:
        """A page of persons by ascending id. after: the `next_after` of the page before. limit: 1..1000.

        region: of this one; or regions: of any of these.
        """
        if region is not None and regions is not None:
            raise InvalidValueError("regions", regions, "left out where region is given")
        check_count("limit", limit, 1000)
        if after != 0:
            check_id("after", after)
        return self._gallery.list_persons(
            check_client_id(client_id),
            region=None if region is None else check_region(region),
            regions=_checked(regions),
            name_prefix=check_optional_text("name_prefix", name_prefix, MAX_NAME),
            external_id=None if external_id is None else check_external_id(external_id),
            after=after,
            limit=limit,
        )

    def update_person(
        self,
        person_id: int,
        *,
        name: str | Unchanged = UNCHANGED,
        description: str | Unchanged | None = UNCHANGED,
        external_id: str | Unchanged | None = UNCHANGED,
        state: PersonState | Unchanged = UNCHANGED,
        expires_at: dt.datetime | Unchanged | None = UNCHANGED,
        regions: Sequence[str] | None = None,
        client_id: str | None = None,
    ) -> Person:
        """Change what is given and leave the rest; None clears a description, an external id or an expiry.

        state: "suspended" keeps the person and all faces, and matches nobody with them; "active" takes that back.
        expires_at: with its time zone; from then on as if suspended, until `faceward purge` erases the person. The next
        search sees either. regions: only a person of these. Raises UnknownPersonError, DuplicatePersonError,
        InvalidValueError.
        """
        return self._gallery.update_person(
            check_client_id(client_id),
            check_id("person_id", person_id),
            name=name if isinstance(name, Unchanged) else check_name(name),
            description=description if isinstance(description, Unchanged) else check_description(description),
            external_id=external_id
            if external_id is None or isinstance(external_id, Unchanged)
            else check_external_id(external_id),
            state=state if isinstance(state, Unchanged) else check_state(state),
            expires_at=expires_at if isinstance(expires_at, Unchanged) else check_expires_at(expires_at),
            regions=_checked(regions),
        )

    def move_region(
        self, person_id: int, region: str, *, regions: Sequence[str] | None = None, client_id: str | None = None
    ) -> Person:
        """Move a person with all faces to another region of the same client; seen by the next search.

        regions: only a person of these. Raises UnknownPersonError, DuplicateFaceError, DuplicatePersonError.
        """
        return self._gallery.move_person(
            check_client_id(client_id),
            check_id("person_id", person_id),
            check_region(region),
            regions=_checked(regions),
        )

    def merge_persons(
        self,
        person_id: int,
        into_id: int,
        *,
        across_regions: bool = False,
        regions: Sequence[str] | None = None,
        client_id: str | None = None,
        request: RequestToken | None = None,
    ) -> Merge:
        """Make two records of one person one: `into_id` gets all faces of `person_id`, which is deleted.

        The one that stays keeps its region, name, description and external id, and takes over an external id or a
        description that it lacks. across_regions: they may be of different regions; the faces move to that of `into_id`.
        regions: both are looked for in these only. Each search finds the person, before and after. request: as in `enroll`.

        Raises UnknownPersonError, DifferentRegionsError, InvalidValueError; across regions also DuplicateFaceError and
        DuplicatePersonError (a photo or the external id is another person's there).
        """
        client_id, person_id = check_client_id(client_id), check_id("person_id", person_id)
        if check_id("into_id", into_id) == person_id:
            raise InvalidValueError("into_id", into_id, "another person than the one that is merged into it")
        return self._gallery.merge_persons(
            client_id,
            person_id,
            into_id,
            across_regions=across_regions,
            regions=_checked(regions),
            request=None if request is None else check_request_token(request),
        )

    def delete_person(
        self, person_id: int, *, regions: Sequence[str] | None = None, client_id: str | None = None
    ) -> int:
        """Delete a person and all faces; returns how many faces there were. regions: only a person of these.

        Raises UnknownPersonError.
        """
        return self._gallery.delete_person(
            check_client_id(client_id), check_id("person_id", person_id), regions=_checked(regions)
        )

    def list_faces(self, person_id: int, *, client_id: str | None = None) -> tuple[StoredFace, ...]:
        """The stored faces of a person, the oldest first. Raises UnknownPersonError."""
        return self._gallery.list_faces(check_client_id(client_id), check_id("person_id", person_id))

    def face_page(
        self,
        person_id: int,
        *,
        regions: Sequence[str] | None = None,
        client_id: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> FacePage:
        """As `list_faces`, a page at a time. after: the `next_after` of the page before. limit: 1..1000. regions: only of a
        person of these.
        """
        if after != 0:
            check_id("after", after)
        return self._gallery.face_page(
            check_client_id(client_id),
            check_id("person_id", person_id),
            after=after,
            limit=check_count("limit", limit, 1000),
            regions=_checked(regions),
        )

    def delete_face(
        self, person_id: int, face_id: int, *, regions: Sequence[str] | None = None, client_id: str | None = None
    ) -> None:
        """Delete one face of a person. regions: only of a person of these. Raises UnknownPersonError, NotFoundError."""
        client_id, person_id = check_client_id(client_id), check_id("person_id", person_id)
        if not self._gallery.delete_face(client_id, person_id, check_id("face_id", face_id), regions=_checked(regions)):
            raise NotFoundError(
                f"Person {person_id} has no face {face_id}. The list of the person's faces shows those that there are."
            )

    def face_image(
        self, person_id: int, face_id: int, *, regions: Sequence[str] | None = None, client_id: str | None = None
    ) -> tuple[bytes, str]:
        """What is kept of a face's photo, as it was sent or the face alone, and its media type.

        regions: only of a person of these. Raises UnknownPersonError; NotFoundError where the person has no such face, or its
        photo was not kept (images.store); ImageKeyError where it is encrypted with a key that is not there.
        """
        client_id, person_id = check_client_id(client_id), check_id("person_id", person_id)
        image = self._photos.read(client_id, person_id, check_id("face_id", face_id), regions=_checked(regions))
        if image is None:
            raise NotFoundError(
                f"There is no photo of face {face_id} of person {person_id}. Photos are kept where images.store says so, "
                "from then on."
            )
        return image, _MEDIA_TYPES[image_format(image)]


def _checked(regions: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if regions is None else check_regions(regions)
