"""Persons, faces and regions of a tenant: written and read. Each call is one transaction."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator, Sequence

import sqlalchemy as sa
from pgvector import Vector

from faceward.errors import (
    BusyError,
    ConstraintViolatedError,
    DuplicateFaceError,
    DuplicatePersonError,
)
from faceward.store.audit_log import Action, record
from faceward.store.boxes import box_text, crop_text
from faceward.store.database import Database
from faceward.store.embedding_models import ensure_model
from faceward.store.former_names import keep_renamed, was_called
from faceward.store.merging import merge
from faceward.store.person_requests import answer, answered, merged
from faceward.store.person_rows import FacePage, PersonPage, get_person, hold_person, page_of_persons
from faceward.store.person_states import EXPIRY_OF_NEW, change_state
from faceward.store.photo_vault import PhotoVault
from faceward.store.regions import MOST_REGIONS, ensure_region, require_regions
from faceward.store.request_tokens import (
    ADD_FACE,
    ENROLL,
    MERGE,
    claim,
    complete,
    forget_person,
    recorded,
)
from faceward.types import (
    UNCHANGED,
    Candidate,
    Enrollment,
    Merge,
    NewFace,
    Person,
    PersonState,
    Quality,
    RequestToken,
    StoredFace,
    Unchanged,
)

_ACTIONS: dict[object, Action] = {"suspended": "person.suspend", "active": "person.resume"}


class Gallery:
    """The people of all tenants in one database, made by one model. max_regions: of one tenant. vault: seals the photos;
    None stores them as they are.
    """

    def __init__(
        self,
        database: Database,
        model_id: str,
        *,
        max_regions: int = MOST_REGIONS,
        vault: PhotoVault | None = None,
    ) -> None:
        self._database = database
        self._vault = vault or PhotoVault()
        self._model_id = model_id
        self._max_regions = max_regions

    def create_person(
        self,
        client_id: str,
        region: str,
        name: str,
        faces: Sequence[NewFace],
        *,
        description: str | None = None,
        external_id: str | None = None,
        expires_at: dt.datetime | None = None,
        request: RequestToken | None = None,
        quality: Sequence[Quality] = (),
        likely_duplicates: Sequence[Candidate] = (),
    ) -> tuple[Person, tuple[int, ...]]:
        """Store a person with faces; the region is made on first use.

        expires_at: None takes the retention of the region, else of the client. request: where it was answered before, that
        answer again and nothing stored. quality: of the faces, kept with it, as are the likely duplicates.

        Raises DuplicateFaceError (a photo is in this region already), DuplicatePersonError (its external id is),
        TooManyRegionsError; RequestReusedError, and UnknownPersonError where what the request made before is deleted.
        """
        with self._conflicts(client_id, region, faces, external_id), self._database.transaction(client_id) as tx:
            if request is not None and (before := claim(tx, client_id, request, ENROLL)):
                done = answered(tx, client_id, before)
                return done.person, done.face_ids
            ensure_model(tx, client_id, self._model_id)
            ensure_region(tx, client_id, region, self._max_regions)
            person_id = tx.exec_driver_sql(
                "INSERT INTO persons (client_id, region, name, description, external_id, expires_at) "
                "VALUES (%(client_id)s::varchar, %(region)s::varchar, %(name)s, %(description)s, %(external_id)s, "
                f"coalesce(%(expires_at)s::timestamptz, {EXPIRY_OF_NEW})) RETURNING id",
                {
                    "client_id": client_id,
                    "region": region,
                    "name": name,
                    "description": description,
                    "external_id": external_id,
                    "expires_at": expires_at,
                },
            ).scalar_one()
            face_ids = self._insert_faces(tx, client_id, person_id, faces)
            record(tx, client_id, "person.enroll", person_id=person_id, region=region, faces=len(face_ids))
            if request is not None:
                answer(tx, client_id, request, person_id, face_ids, quality, likely_duplicates)
            return get_person(tx, client_id, person_id), face_ids

    def add_faces(
        self,
        client_id: str,
        person_id: int,
        faces: Sequence[NewFace],
        *,
        request: RequestToken | None = None,
        quality: Sequence[Quality] = (),
        likely_duplicates: Sequence[Candidate] = (),
        regions: Sequence[str] | None = None,
    ) -> tuple[Person, tuple[int, ...]]:
        """Store more faces of a person, in the region that the person is in at that moment.

        request, quality, likely_duplicates: as in create_person. regions: only where that is one of these.
        """
        with (
            self._conflicts(client_id, None, faces, None, person_id=person_id),
            self._database.transaction(client_id) as tx,
        ):
            if request is not None and (before := claim(tx, client_id, request, ADD_FACE)):
                done = answered(tx, client_id, before)
                return done.person, done.face_ids
            ensure_model(tx, client_id, self._model_id)
            hold_person(tx, client_id, person_id, lock="SHARE", regions=regions)
            face_ids = self._insert_faces(tx, client_id, person_id, faces)
            record(tx, client_id, "face.add", person_id=person_id, faces=list(face_ids))
            if request is not None:
                answer(tx, client_id, request, person_id, face_ids, quality, likely_duplicates)
            return get_person(tx, client_id, person_id), face_ids

    def enrollment_of(self, client_id: str, request: RequestToken, operation: str) -> Enrollment | None:
        """What the request stored when it came before; None where it did not. Raises as create_person does."""
        with self._database.transaction(client_id) as tx:
            before = recorded(tx, client_id, request, operation)
            return None if before is None else answered(tx, client_id, before)

    def claim_model(self, client_id: str) -> None:
        """Record the model as the one that makes this tenant's gallery. Raises ModelMismatchError."""
        with self._database.transaction(client_id) as tx:
            ensure_model(tx, client_id, self._model_id)

    def get_person(self, client_id: str, person_id: int, *, regions: Sequence[str] | None = None) -> Person:
        """regions: only one who is in any of these. Raises UnknownPersonError."""
        with self._database.transaction(client_id) as tx:
            return get_person(tx, client_id, person_id, regions=regions)

    def was_called(self, client_id: str, person_id: int, name: str) -> bool:
        """Whether the person has the name, or had it, or a record had it that was merged into the person's."""
        with self._database.transaction(client_id) as tx:
            return was_called(tx, client_id, person_id, name)

    def list_persons(
        self,
        client_id: str,
        *,
        region: str | None = None,
        regions: Sequence[str] | None = None,
        name_prefix: str | None = None,
        external_id: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> PersonPage:
        """A page of persons by ascending id, those with an id above `after`. regions: in any of these."""
        with self._database.transaction(client_id) as tx:
            return page_of_persons(
                tx,
                client_id,
                region=region,
                regions=regions,
                name_prefix=name_prefix,
                external_id=external_id,
                after=after,
                limit=limit,
            )

    def update_person(
        self,
        client_id: str,
        person_id: int,
        *,
        name: str | Unchanged = UNCHANGED,
        description: str | Unchanged | None = UNCHANGED,
        external_id: str | Unchanged | None = UNCHANGED,
        state: PersonState | Unchanged = UNCHANGED,
        expires_at: dt.datetime | Unchanged | None = UNCHANGED,
        regions: Sequence[str] | None = None,
    ) -> Person:
        """Change what is given; None clears. The next search sees a new state or expiry. regions: only a person of these."""
        given = {
            "name": name,
            "description": description,
            "external_id": external_id,
            "state": state,
            "expires_at": expires_at,
        }
        changes = {column: value for column, value in given.items() if not isinstance(value, Unchanged)}
        with (
            self._conflicts(client_id, None, (), changes.get("external_id")),
            self._database.transaction(client_id) as tx,
        ):
            of_faces = bool(changes.keys() & {"state", "expires_at"})
            hold_person(tx, client_id, person_id, lock="UPDATE" if of_faces else "NO KEY UPDATE", regions=regions)
            if changes.keys() & {"name", "external_id"}:
                keep_renamed(tx, client_id, person_id, changes)
            if of_faces:
                change_state(tx, client_id, person_id, changes)
            elif changes:
                assignments = ", ".join(f"{column} = %({column})s" for column in changes)
                tx.exec_driver_sql(
                    f"UPDATE persons SET {assignments}, updated_at = now() "
                    "WHERE client_id = %(client_id)s AND id = %(person_id)s",
                    {**changes, "client_id": client_id, "person_id": person_id},
                )
            person = get_person(tx, client_id, person_id)
            if changes:
                record(tx, client_id, _ACTIONS.get(state, "person.change"), person_id=person_id, fields=sorted(changes))
            return person

    def move_person(
        self, client_id: str, person_id: int, region: str, *, regions: Sequence[str] | None = None
    ) -> Person:
        """Move a person with all faces to another region, which is made on first use. regions: only a person of these."""
        with self._conflicts(client_id, region, (), None), self._database.transaction(client_id) as tx:
            ensure_region(tx, client_id, region, self._max_regions)
            # Wait for a face that is being added: the next statement's snapshot has to see it, to move it along.
            old = hold_person(tx, client_id, person_id, lock="UPDATE", regions=regions)
            # One statement, so that no snapshot sees a person in one region and a face of it in another.
            tx.exec_driver_sql(
                """
                WITH moved AS (
                    UPDATE persons SET region = %(region)s, updated_at = now()
                    WHERE client_id = %(client_id)s AND id = %(person_id)s
                )
                UPDATE face_encodings SET region = %(region)s, row_version = pg_current_xact_id()
                WHERE client_id = %(client_id)s AND person_id = %(person_id)s
                """,
                {"region": region, "client_id": client_id, "person_id": person_id},
            )
            record(tx, client_id, "person.move", person_id=person_id, old=old, new=region)
            return get_person(tx, client_id, person_id)

    def merge_persons(
        self,
        client_id: str,
        person_id: int,
        into_id: int,
        *,
        across_regions: bool = False,
        regions: Sequence[str] | None = None,
        request: RequestToken | None = None,
    ) -> Merge:
        """Give all faces of a person to another, in the region of that one, and delete the first.

        regions: both are looked for in these only. request: as in create_person.

        Raises UnknownPersonError, DifferentRegionsError, and, across regions, DuplicateFaceError or DuplicatePersonError
        (a photo or the external id is another person's there).
        """
        with self._conflicts(client_id, None, (), None), self._database.transaction(client_id) as tx:
            if request is not None and (before := claim(tx, client_id, request, MERGE)):
                return merged(tx, client_id, before)
            moved, dropped, lost = merge(
                tx, client_id, person_id, into_id, across_regions=across_regions, regions=regions
            )
            if request is not None:
                counts = {"faces_moved": moved, "faces_dropped": dropped, "external_id_dropped": lost}
                complete(tx, client_id, request, into_id, {"person_id": into_id, "merge": counts})
            return Merge(get_person(tx, client_id, into_id), moved, dropped, lost)

    def delete_person(self, client_id: str, person_id: int, *, regions: Sequence[str] | None = None) -> int:
        """Delete a person and all faces; returns how many faces there were. regions: only a person of these."""
        with self._database.transaction(client_id) as tx:
            # First, as whoever moves, merges or suspends the person does: else each could hold what the other waits for.
            hold_person(tx, client_id, person_id, lock="UPDATE", regions=regions)
            faces = tx.exec_driver_sql(
                "DELETE FROM face_encodings WHERE client_id = %s AND person_id = %s", (client_id, person_id)
            ).rowcount
            tx.exec_driver_sql("DELETE FROM persons WHERE client_id = %s AND id = %s", (client_id, person_id))
            forget_person(tx, client_id, person_id)
            record(tx, client_id, "person.delete", person_id=person_id, faces=faces)
            return faces

    def list_faces(self, client_id: str, person_id: int) -> tuple[StoredFace, ...]:
        """All faces of a person, by ascending id."""
        return self.face_page(client_id, person_id).faces

    def face_page(
        self,
        client_id: str,
        person_id: int,
        *,
        after: int = 0,
        limit: int | None = None,
        regions: Sequence[str] | None = None,
    ) -> FacePage:
        """A page of a person's faces by ascending id, those with an id above `after`. limit: None is all of them.

        regions: only of a person of these.
        """
        with self._database.transaction(client_id) as tx:
            rows = (
                tx.exec_driver_sql(
                    "SELECT id, person_id, face_bbox, confidence, quality_score, image_path, "
                    "image_data IS NOT NULL AS has_image, created_at FROM face_encodings "
                    "WHERE client_id = %s AND person_id = %s AND id > %s ORDER BY id LIMIT %s",
                    (client_id, person_id, after, None if limit is None else limit + 1),
                )
                .mappings()
                .all()
            )
            get_person(
                tx, client_id, person_id, regions=regions
            )  # after: whoever was moved meanwhile is told nothing of
        faces = tuple(StoredFace.from_row(row) for row in rows[:limit])
        return FacePage(faces, faces[-1].id if len(rows) > len(faces) else None)

    def delete_face(
        self, client_id: str, person_id: int, face_id: int, *, regions: Sequence[str] | None = None
    ) -> bool:
        """Delete one face of a person; False if there is none with that id. regions: only of a person of these."""
        with self._database.transaction(client_id) as tx:
            hold_person(tx, client_id, person_id, regions=regions)
            deleted = tx.exec_driver_sql(
                "DELETE FROM face_encodings WHERE client_id = %s AND id = %s AND person_id = %s",
                (client_id, face_id, person_id),
            ).rowcount
            if deleted:
                record(tx, client_id, "face.delete", person_id=person_id, face=face_id)
            return bool(deleted)

    def require_regions(self, client_id: str, regions: Sequence[str]) -> None:
        """Raises UnknownRegionError unless the tenant has all of them."""
        with self._database.transaction(client_id) as tx:
            require_regions(tx, client_id, regions)

    def count_faces(self, client_id: str, region: str) -> int:
        """How many faces a region has."""
        with self._database.transaction(client_id) as tx:
            count: int = tx.exec_driver_sql(
                "SELECT count(*) FROM face_encodings WHERE client_id = %s AND region = %s", (client_id, region)
            ).scalar_one()
            return count

    def person_of_photo(self, client_id: str, region: str, image_sha256: bytes) -> int | None:
        """The person that a photo (the SHA-256 of its file) is enrolled for in a region, or None."""
        with self._database.transaction(client_id) as tx:
            return _person_of_photo(tx, client_id, region, image_sha256)

    def _insert_faces(
        self, tx: sa.Connection, client_id: str, person_id: int, faces: Sequence[NewFace]
    ) -> tuple[int, ...]:
        """For a person whom the transaction holds: the faces take region and expiry from there."""
        return tuple(self._insert_face(tx, client_id, person_id, face) for face in faces)

    def _insert_face(self, tx: sa.Connection, client_id: str, person_id: int, face: NewFace) -> int:
        photo = self._vault.seal_photo(client_id, face)
        # The unique index can't tell of a photo whose face came without its place in it, as by an import.
        face_id: int | None = tx.exec_driver_sql(
            "INSERT INTO face_encodings (client_id, person_id, region, model_id, embedding, image_path, image_data, "
            "image_key_id, image_box, image_sha256, face_bbox, confidence, quality_score, matchable_until) "
            "SELECT client_id, id, region, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, matchable_until FROM persons p "
            "WHERE client_id = %s AND id = %s AND NOT EXISTS (SELECT 1 FROM face_encodings f WHERE f.client_id = p.client_id "
            "AND f.region = p.region AND f.image_sha256 = %s AND f.face_bbox IS NULL) RETURNING id",
            (
                self._model_id,
                Vector(face.embedding),
                face.image_path,
                None if photo is None else photo.data,
                None if photo is None else photo.key_id,
                crop_text(face.image_crop),
                face.image_sha256,
                box_text(face.box),
                face.confidence,
                face.quality,
                client_id,
                person_id,
                face.image_sha256,
            ),
        ).scalar()
        if face_id is None:
            raise ConstraintViolatedError("The photo is in this region already.", "uq_face_photo")
        return face_id

    @contextlib.contextmanager
    def _conflicts(
        self,
        client_id: str,
        region: str | None,
        faces: Sequence[NewFace],
        external_id: object,
        *,
        person_id: int | None = None,
    ) -> Iterator[None]:
        """Name the conflict that a violated constraint stands for; the transaction inside has been rolled back.

        region: None is that of the person.
        """
        try:
            yield
        except ConstraintViolatedError as exc:
            if exc.constraint == "uq_face_photo":
                if region is None and person_id is not None:
                    region = self.get_person(client_id, person_id).region
                raise self._duplicate_face(client_id, region, faces) from exc
            if exc.constraint == "persons_client_id_region_fkey":
                raise BusyError(
                    f"Region {region!r} was renamed or deleted by another request meanwhile. Nothing was stored; try again."
                ) from exc
            if exc.constraint == "uq_person_external_id":
                named = f"The external id {external_id!r}" if external_id is not None else "This person's external id"
                where = f"region {region!r}" if region is not None else "this region"
                raise DuplicatePersonError(
                    f"{named} is taken by another person of {where}. Update that person, or use another external id."
                ) from exc
            raise

    def _duplicate_face(self, client_id: str, region: str | None, faces: Sequence[NewFace]) -> DuplicateFaceError:
        if region is not None and faces:
            with self._database.transaction(client_id) as tx:
                for place, face in enumerate(faces, start=1):
                    owner = face.image_sha256 and _person_of_photo(tx, client_id, region, face.image_sha256)
                    if owner:
                        several = len(faces) > 1
                        which = f"Photo {place}" if several else "This photo"
                        error = DuplicateFaceError(
                            f"{which} is enrolled in region {region!r} already, for person {owner}. Nothing was stored.",
                            person_id=owner,
                        )
                        error.image = place if several else None
                        return error
        if len({face.image_sha256 for face in faces}) < len(faces):
            return DuplicateFaceError("One of the photos was sent twice. Nothing was stored.")
        where = f"region {region!r}" if region is not None else "this region"
        return DuplicateFaceError(f"The same photo is enrolled in {where} already. Nothing was stored.")


def _person_of_photo(tx: sa.Connection, client_id: str, region: str, image_sha256: bytes) -> int | None:
    person_id: int | None = tx.exec_driver_sql(
        "SELECT person_id FROM face_encodings WHERE client_id = %s AND region = %s AND image_sha256 = %s LIMIT 1",
        (client_id, region, image_sha256),
    ).scalar()
    return person_id
