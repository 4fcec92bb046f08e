"""Many persons at once: binary COPY into a temporary table, then one INSERT for each table, batch by batch.

Row-level security forbids COPY into the tables themselves; the INSERT that follows obeys it like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pgvector import Vector

from faceward.store.database import SET_TENANT, Database
from faceward.store.gallery import ENSURE_CLIENT, Gallery, box_text
from faceward.types import Embedding, NewFace

_STAGING = """
CREATE TEMPORARY TABLE import_staging (
    position integer, region varchar(50), external_id varchar(255), name varchar(255), description text, embedding vector,
    image_path varchar(500), image_data bytea, image_sha256 bytea, face_bbox varchar(100), confidence real, quality_score real
) ON COMMIT DROP
"""
_REGIONS = """
INSERT INTO regions (client_id, name) SELECT DISTINCT %(client_id)s, region FROM import_staging ON CONFLICT DO NOTHING
"""
# ON CONFLICT skips a person that is there already, with all faces: an interrupted import goes on where it stopped.
_ROWS = """
WITH new AS (
    INSERT INTO persons (client_id, region, external_id, name, description)
    SELECT DISTINCT ON (region, external_id) %(client_id)s, region, external_id, name, description
    FROM import_staging ORDER BY region, external_id, position
    ON CONFLICT ON CONSTRAINT uq_person_external_id DO NOTHING
    RETURNING id, region, external_id
), faces AS (
    INSERT INTO face_encodings (client_id, person_id, region, model_id, embedding, image_path, image_data, image_sha256,
                                face_bbox, confidence, quality_score)
    SELECT %(client_id)s, new.id, new.region, %(model_id)s, s.embedding, s.image_path, s.image_data, s.image_sha256,
           s.face_bbox, s.confidence, s.quality_score
    FROM import_staging s JOIN new USING (region, external_id) ORDER BY s.position
    RETURNING 1
)
SELECT (SELECT count(*) FROM new), (SELECT count(*) FROM faces)
"""

_FACE_TYPES = ("varchar", "bytea", "bytea", "varchar", "float4", "float4")


@dataclass(frozen=True, slots=True)
class NewPerson:
    """A person about to be imported, with all faces.

    embeddings: float32, unit length, of the gallery's model; or faces with such embeddings and what else is known of them.
    """

    external_id: str
    region: str
    name: str
    embeddings: tuple[Embedding | NewFace, ...] = field(repr=False)
    description: str | None = None


class BulkWriter:
    """Imports batches of persons of one model; each batch is one transaction."""

    def __init__(self, database: Database, gallery: Gallery, model_id: str) -> None:
        self._database = database
        self._gallery = gallery
        self._model_id = model_id

    def write(self, client_id: str, persons: Sequence[NewPerson]) -> tuple[int, int]:
        """Store the persons whose external id is not in their region yet; returns (persons, faces) stored."""
        self._gallery.claim_model(client_id)
        with self._database.driver_connection() as connection, connection.transaction():
            connection.execute(SET_TENANT, (client_id,))
            connection.execute(_STAGING)
            with connection.cursor() as cursor:
                with cursor.copy("COPY import_staging FROM STDIN (FORMAT BINARY)") as copy:
                    copy.set_types(["int4", "varchar", "varchar", "varchar", "text", "vector", *_FACE_TYPES])
                    position = 0
                    for person in persons:
                        for given in person.embeddings:
                            face = given if isinstance(given, NewFace) else NewFace(given)
                            copy.write_row(
                                (
                                    position,
                                    person.region,
                                    person.external_id,
                                    person.name,
                                    person.description,
                                    Vector(face.embedding),
                                    face.image_path,
                                    face.image_data,
                                    face.image_sha256,
                                    box_text(face.box),
                                    face.confidence,
                                    face.quality,
                                )
                            )
                            position += 1
                parameters = {"client_id": client_id, "model_id": self._model_id}
                if cursor.execute(_REGIONS, parameters).rowcount:
                    cursor.execute(ENSURE_CLIENT, parameters)
                stored = cursor.execute(_ROWS, parameters).fetchone()
        assert stored is not None
        return stored[0], stored[1]
