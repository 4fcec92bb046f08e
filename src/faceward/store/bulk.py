"""Many persons at once: binary COPY into a temporary table, then one INSERT for each table, batch by batch.

Row-level security forbids COPY into the tables themselves; the INSERT that follows obeys it like any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import psycopg

from faceward.checks import check_new_client_id
from faceward.errors import ConstraintViolatedError
from faceward.store.audit_log import RECORD, entry
from faceward.store.clients import ENSURE_CLIENT
from faceward.store.copy_rows import COPY, STAGING, copy_blocks
from faceward.store.database import SET_TENANT, Database
from faceward.store.gallery import Gallery
from faceward.store.moved_away import take_out_moved
from faceward.store.photo_vault import PhotoVault
from faceward.store.regions import COUNT_REGIONS, MOST_REGIONS, check_region_count
from faceward.types import Embedding, NewFace

_REGIONS = """
INSERT INTO regions (client_id, name) SELECT DISTINCT %(client_id)s, region FROM import_staging ORDER BY region
ON CONFLICT DO NOTHING RETURNING name
"""
# Those that were there may have been renamed or deleted before they are held: then they are to be made again.
_HOLD_REGIONS = """
SELECT (SELECT count(*) FROM (
    SELECT FROM regions WHERE client_id = %(client_id)s AND name IN (SELECT region FROM import_staging)
    ORDER BY name FOR KEY SHARE) held) = (SELECT count(DISTINCT region) FROM import_staging)
"""
# When the new people of each region expire: as EXPIRY_OF_NEW, for all regions of a batch at once.
_TERMS = """
of_client AS MATERIALIZED (SELECT retention_days FROM clients WHERE client_id = %(client_id)s::varchar FOR KEY SHARE),
of_regions AS MATERIALIZED (
    SELECT name, retention_days FROM regions WHERE client_id = %(client_id)s::varchar
    AND name IN (SELECT region FROM import_staging) ORDER BY name FOR KEY SHARE
),
terms AS MATERIALIZED (
    SELECT name AS region,
           now() + make_interval(days => coalesce(retention_days, (SELECT retention_days FROM of_client))) AS expires_at
    FROM of_regions
)
"""
_SKIP_PRESENT = "ON CONFLICT ON CONSTRAINT uq_person_external_id DO NOTHING"


def _rows(skip: str) -> str:
    return f"""
WITH {_TERMS}, new AS (
    INSERT INTO persons (client_id, region, external_id, name, description, expires_at)
    SELECT DISTINCT ON (s.region, s.external_id) %(client_id)s::varchar, s.region, s.external_id, s.name, s.description,
           t.expires_at
    FROM import_staging s LEFT JOIN terms t ON t.region = s.region ORDER BY s.region, s.external_id, s.position
    {skip}
    RETURNING id, region, external_id, matchable_until
), faces AS (
    INSERT INTO face_encodings (client_id, person_id, region, model_id, embedding, image_path, image_data, image_key_id,
                                image_box, image_sha256, face_bbox, confidence, quality_score, matchable_until)
    SELECT %(client_id)s::varchar, new.id, new.region, %(model_id)s::varchar, s.embedding, s.image_path, s.image_data,
           s.image_key_id, s.image_box, s.image_sha256, s.face_bbox, s.confidence, s.quality_score, new.matchable_until
    FROM import_staging s JOIN new USING (region, external_id) ORDER BY s.position
    RETURNING 1
)
SELECT (SELECT count(*) FROM new), (SELECT count(*) FROM faces)
"""


# ON CONFLICT skips a person that is there already, with all faces: an interrupted import goes on where it stopped. It looks
# each of them up once more, and writes twice to the log: a tenth of what PostgreSQL does for an import.
_ROWS, _ROWS_OF_NEW = _rows(_SKIP_PRESENT), _rows("")
# Of a batch in which somebody was skipped. The statements begin after it: who came with it has a face by then, and the
# name that was given.
_CALLED_SO = """
(p.name = s.name OR EXISTS (SELECT 1 FROM former_names n WHERE n.client_id = %(client_id)s::varchar AND n.person_id = p.id
                            AND n.name = s.name))
"""
_SKIPPED = """
import_staging s
JOIN persons p ON p.client_id = %(client_id)s::varchar AND p.region = s.region AND p.external_id = s.external_id
"""
_FACELESS = """
NOT EXISTS (SELECT 1 FROM face_encodings f WHERE f.client_id = %(client_id)s::varchar AND f.person_id = p.id)
"""
_SHORT = f"""
SELECT s.region, s.external_id, count(*) - stored.faces FROM {_SKIPPED}
CROSS JOIN LATERAL (SELECT count(*) AS faces FROM face_encodings f
                    WHERE f.client_id = %(client_id)s::varchar AND f.person_id = p.id) stored
WHERE {_CALLED_SO} GROUP BY s.region, s.external_id, stored.faces HAVING count(*) > stored.faces
"""
_OTHERS = f"SELECT DISTINCT s.region, s.external_id, p.name FROM {_SKIPPED} WHERE NOT {_CALLED_SO}"
# Two imports at once give nobody faces twice: the second waits for the first here, and its next statement sees them.
_HOLD_FACELESS = f"""
SELECT 1 FROM persons p WHERE p.client_id = %(client_id)s::varchar
AND p.id IN (SELECT p.id FROM {_SKIPPED} WHERE {_FACELESS} AND {_CALLED_SO}) ORDER BY p.id FOR NO KEY UPDATE
"""
_FACES_OF_FACELESS = f"""
INSERT INTO face_encodings (client_id, person_id, region, model_id, embedding, image_path, image_data, image_key_id,
                            image_box, image_sha256, face_bbox, confidence, quality_score, matchable_until)
SELECT %(client_id)s::varchar, p.id, p.region, %(model_id)s::varchar, s.embedding, s.image_path, s.image_data,
       s.image_key_id, s.image_box, s.image_sha256, s.face_bbox, s.confidence, s.quality_score, p.matchable_until
FROM {_SKIPPED} WHERE {_FACELESS} AND {_CALLED_SO} ORDER BY s.position
"""

# The photos are new to their regions when they come here, but for what other processes enrolled a moment ago.
_STRANGE = """
NOT EXISTS (SELECT 1 FROM face_encodings f
            WHERE f.client_id = %(client_id)s::varchar AND f.region = s.region AND f.image_sha256 = s.image_sha256)
"""
_PEOPLE_OF_PHOTOS = f"""
WITH {_TERMS}
INSERT INTO persons (client_id, region, external_id, name, description, expires_at)
SELECT DISTINCT ON (s.region, s.external_id) %(client_id)s::varchar, s.region, s.external_id, s.name, s.description,
       t.expires_at
FROM import_staging s LEFT JOIN terms t ON t.region = s.region WHERE {_STRANGE} ORDER BY s.region, s.external_id, s.position
{_SKIP_PRESENT}
RETURNING id
"""
_PHOTOS = f"""
INSERT INTO face_encodings (client_id, person_id, region, model_id, embedding, image_path, image_data, image_key_id,
                            image_box, image_sha256, face_bbox, confidence, quality_score, matchable_until)
SELECT %(client_id)s::varchar, p.id, s.region, %(model_id)s::varchar, s.embedding, s.image_path, s.image_data, s.image_key_id,
       s.image_box, s.image_sha256, s.face_bbox, s.confidence, s.quality_score, p.matchable_until
FROM import_staging s
JOIN persons p ON p.client_id = %(client_id)s::varchar AND p.region = s.region AND p.external_id = s.external_id
WHERE {_STRANGE} AND {_CALLED_SO} ORDER BY s.position
ON CONFLICT (client_id, region, image_sha256, face_bbox) WHERE image_sha256 IS NOT NULL DO NOTHING
RETURNING region, image_sha256, person_id, id
"""
_OF_OTHERS = f"SELECT s.region, s.image_sha256, p.id FROM {_SKIPPED} WHERE {_STRANGE} AND NOT {_CALLED_SO}"
# Whose only photo another process enrolled for somebody else between the two statements.
_WITHOUT_PHOTO = """
DELETE FROM persons p WHERE p.client_id = %(client_id)s AND p.id = ANY(%(made)s)
AND NOT EXISTS (SELECT 1 FROM face_encodings f WHERE f.client_id = %(client_id)s AND f.person_id = p.id)
"""
_OWNERS = """
SELECT f.region, f.image_sha256, f.person_id, p.external_id
FROM unnest(%(regions)s::text[], %(digests)s::bytea[]) AS wanted (region, digest)
JOIN face_encodings f ON f.client_id = %(client_id)s AND f.region = wanted.region AND f.image_sha256 = wanted.digest
JOIN persons p ON p.client_id = %(client_id)s AND p.id = f.person_id
ORDER BY f.id
"""
# A batch's embeddings are sorted in memory, its commit does not wait for the disk, and where the HNSW index is kept up with
# each row it may take longer than a search may.
_OF_MANY = (
    "SELECT set_config('synchronous_commit', 'off', true), set_config('work_mem', '32MB', true), "
    "set_config('statement_timeout', '10min', true)"
)
# A commit that does not wait for the disk may be lost with the server's crash. This one waits, for all before it as well.
_SETTLE = "SELECT pg_logical_emit_message(true, 'faceward', 'import')"


class NewPerson(NamedTuple):
    """A person about to be imported, with all faces.

    embeddings: float32, unit length, of the gallery's model; or faces with such embeddings and what else is known of them.
    position, row: of its record in the stream of an import.
    """

    external_id: str
    region: str
    name: str
    embeddings: tuple[Embedding | NewFace, ...]
    description: str | None = None
    position: int = 0
    row: object = None

    def __repr__(self) -> str:
        return f"NewPerson({self.external_id!r}, {self.region!r})"


class Written(NamedTuple):
    """What became of a batch. others: by region and external id, the names of the persons who are there under one that the
    person given was never called by: by all that is known somebody else, who has the same id. short: of those who were there,
    how many faces fewer they have than were given. moved: by region and external id, persons who were moved out of the
    region, where nothing was stored of them. taken: of a person, how many photos others were enrolled with meanwhile, which
    were left out.
    """

    persons: int
    faces: int
    others: Mapping[tuple[str, str], str] = {}
    short: Mapping[tuple[str, str], int] = {}
    moved: Mapping[tuple[str, str], int] = {}
    taken: Mapping[tuple[str, str], int] = {}


@dataclass(frozen=True, slots=True)
class NewPhoto:
    """A photo about to be enrolled, for the person of this external id. face: with the SHA-256 of the photo."""

    external_id: str
    region: str
    name: str
    face: NewFace = field(repr=False)
    description: str | None = None


PhotoKey: TypeAlias = tuple[str, bytes]
"""What tells one photo from another: its region and the SHA-256 of its file."""


@dataclass(frozen=True, slots=True)
class PhotoOwner:
    """Whom a photo is enrolled for. face_id: of its face, where the call that says so stored it. new: so is the person. moved:
    the person was moved out of the region where the photo was to be stored.
    """

    person_id: int
    external_id: str | None
    face_id: int | None = None
    new: bool = False
    moved: bool = False


class BulkWriter:
    """Imports batches of persons and photos of one model; each batch is one transaction. max_regions: of one client. vault:
    seals the photos; None stores them as they are.
    """

    def __init__(
        self,
        database: Database,
        gallery: Gallery,
        model_id: str,
        *,
        max_regions: int = MOST_REGIONS,
        vault: PhotoVault | None = None,
    ) -> None:
        self._database = database
        self._vault = vault or PhotoVault()
        self._gallery = gallery
        self._model_id = model_id
        self._max_regions = max_regions

    @property
    def model_id(self) -> str:
        """Of the model whose embeddings it stores."""
        return self._model_id

    def write(self, client_id: str, persons: Sequence[NewPerson], *, all_new: bool = False) -> Written:
        """Store the persons whose external id is not in their region yet; those who are there without a face get theirs. A
        photo that somebody else was enrolled with in the region is left out, and so is who has no other.

        all_new: the caller's guess that nobody of them is there, which saves work where it is right and costs some where not.
        Everybody sees them from then on, but only `settle` makes sure that they outlast a crash of the server.
        """
        taken: Counter[tuple[str, str]] = Counter()
        while True:
            try:
                return self._write(client_id, persons, _ROWS_OF_NEW if all_new else _ROWS)._replace(taken=taken)
            except ConstraintViolatedError as exc:
                if all_new and exc.constraint == "uq_person_external_id":
                    all_new = False
                    continue
                # Another process was faster: nothing is asked of a photo before it turns out so.
                if exc.constraint != "uq_face_photo" or not (more := self._taken(client_id, persons)):
                    raise
            left: list[NewPerson] = []
            for person in persons:
                own = tuple(
                    face for face in person.embeddings if (person.external_id, *_photo(person, face)) not in more
                )
                taken[person.region, person.external_id] += len(person.embeddings) - len(own)
                if own:
                    left.append(person._replace(embeddings=own))
            persons = left

    def _taken(self, client_id: str, persons: Sequence[NewPerson]) -> set[tuple[str, str, bytes]]:
        """The external ids of the persons with the photos that are somebody else's, each with its region."""
        given = {(person.external_id, *_photo(person, face)) for person in persons for face in person.embeddings}
        owners = self.owners_of(client_id, [(region, digest) for _, region, digest in given if digest])
        return {
            (external_id, region, digest)
            for external_id, region, digest in given
            if any(owner.external_id != external_id for owner in owners.get((region, digest), ()))
        }

    def _write(self, client_id: str, persons: Sequence[NewPerson], statement: str) -> Written:
        others: dict[tuple[str, str], str] = {}
        short: dict[tuple[str, str], int] = {}
        rows = ((person, face) for person in persons for face in person.embeddings)
        with self._staged(client_id, rows, settings=_OF_MANY) as (cursor, parameters):
            moved = take_out_moved(cursor, parameters)
            stored = cursor.execute(statement, parameters).fetchone()
            assert stored is not None
            persons_stored, faces_stored = stored
            if persons_stored < len(persons):
                others = {(row[0], row[1]): row[2] for row in cursor.execute(_OTHERS, parameters)}
                if cursor.execute(_HOLD_FACELESS, parameters).fetchone():
                    faces_stored += cursor.execute(_FACES_OF_FACELESS, parameters).rowcount
                short = {(row[0], row[1]): row[2] for row in cursor.execute(_SHORT, parameters)}
            _record(cursor, client_id, persons_stored, faces_stored)
        return Written(persons_stored, faces_stored, others, short, moved)

    def settle(self) -> None:
        """Wait until what `write` stored outlasts a crash of the server."""
        with self._database.driver_connection() as connection:
            connection.execute(_SETTLE)

    def add_photos(self, client_id: str, photos: Sequence[NewPhoto]) -> dict[PhotoKey, PhotoOwner]:
        """Store the photos that their region has not yet, for persons who are there or are made; returns those stored.

        Whose external id is that of somebody who was never called so gets none: these photos are returned without a face_id,
        with that other person. So are those of persons who were moved out of the region.

        No photo may be given twice for a region. Raises ConstraintViolatedError or BusyError, with nothing stored, where
        another process moved or deleted one of the persons, or wrote the same photos in another order.
        """
        external_ids = {(photo.region, photo.face.image_sha256 or b""): photo.external_id for photo in photos}
        with self._staged(client_id, ((photo, photo.face) for photo in photos)) as (cursor, parameters):
            moved = take_out_moved(cursor, parameters)
            made = [row[0] for row in cursor.execute(_PEOPLE_OF_PHOTOS, parameters)]
            stored = cursor.execute(_PHOTOS, parameters).fetchall()
            removed = 0
            others: list[Any] = []
            if len(stored) < len(photos):
                others = cursor.execute(_OF_OTHERS, parameters).fetchall()
                removed = cursor.execute(_WITHOUT_PHOTO, {"client_id": client_id, "made": made}).rowcount
            _record(cursor, client_id, len(made) - removed, len(stored))
        new = frozenset(made)
        away = {
            (region, digest): PhotoOwner(moved[region, external_id], external_id, moved=True)
            for (region, digest), external_id in external_ids.items()
            if (region, external_id) in moved
        }
        return away | {
            (region, digest): PhotoOwner(person_id, external_ids[region, digest], face_id, person_id in new)
            for region, digest, person_id, face_id in (*stored, *((*other, None) for other in others))
        }

    def owners_of(self, client_id: str, photos: Sequence[PhotoKey]) -> dict[PhotoKey, list[PhotoOwner]]:
        """The persons that each of the photos is enrolled for; a photo of nobody is left out."""
        owners: dict[PhotoKey, list[PhotoOwner]] = {}
        with self._database.transaction(client_id) as tx:
            regions, digests = [region for region, _ in photos], [digest for _, digest in photos]
            for region, digest, person_id, external_id in tx.exec_driver_sql(
                _OWNERS, {"client_id": client_id, "regions": regions, "digests": digests}
            ):
                owners.setdefault((region, digest), []).append(PhotoOwner(person_id, external_id))
        return owners

    @contextmanager
    def _staged(
        self, client_id: str, rows: Iterable[tuple[NewPerson | NewPhoto, Embedding | NewFace]], *, settings: str = ""
    ) -> Iterator[tuple[psycopg.Cursor[Any], dict[str, Any]]]:
        """A transaction in which the rows lie in the temporary table, and their regions exist until it ends; with its
        parameters. settings: a statement that makes its own.
        """
        self._gallery.claim_model(client_id)
        with self._database.driver_connection() as connection, connection.transaction():
            connection.execute(SET_TENANT, (client_id,))
            if settings:
                connection.execute(settings)
            connection.execute(STAGING)
            with connection.cursor() as cursor:
                with cursor.copy(COPY) as copy:
                    for block in copy_blocks(rows, lambda face: self._vault.seal_photo(client_id, face)):
                        copy.write(block)
                parameters = {"client_id": client_id, "model_id": self._model_id}
                new = self._regions(cursor, parameters)
                if new and cursor.execute(ENSURE_CLIENT, parameters).rowcount:
                    check_new_client_id(client_id)
                    cursor.execute(RECORD, entry(client_id, "client.create"))
                for region in new:
                    cursor.execute(RECORD, entry(client_id, "region.create", region=region))
                if new:
                    (regions,) = cursor.execute(COUNT_REGIONS, parameters).fetchone() or (0,)
                    check_region_count(regions, self._max_regions)
                yield cursor, parameters

    def _regions(self, cursor: psycopg.Cursor[Any], parameters: dict[str, Any]) -> list[str]:
        """Make the regions of the staged rows, and hold them; returns those that were absent."""
        new: list[str] = []
        while True:
            new += [row[0] for row in cursor.execute(_REGIONS, parameters)]
            if cursor.execute(_HOLD_REGIONS, parameters).fetchone() == (True,):
                return new


def _photo(person: NewPerson, face: Embedding | NewFace) -> PhotoKey:
    return person.region, (face.image_sha256 or b"") if isinstance(face, NewFace) else b""


def _record(cursor: psycopg.Cursor[Any], client_id: str, persons: int, faces: int) -> None:
    """One entry for a batch that stored something."""
    if persons or faces:
        cursor.execute(RECORD, entry(client_id, "import.batch", persons=persons, faces=faces))
