"""CompreFace's gallery in PostgreSQL.

Its tables, by its own changelogs (java/admin/src/main/resources/db/changelog, those of subjects since 0.1.7): subject (id
uuid, api_key, subject_name), embedding (id uuid, subject_id, embedding float8[], calculator, img_id), img (id uuid, content
bytea) and model (name, api_key): its services, each with subjects of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from faceward.errors import ImportSourceError
from faceward.importers.postgres_source import MAX_NUMBERS, Statements

_TABLES = {
    "subject": ("id", "api_key", "subject_name"),
    "embedding": ("id", "subject_id", "embedding", "calculator", "img_id"),
    "img": ("id", "content"),
    "model": ("name", "api_key"),
}
_COLUMNS = """
SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped
"""
_OF_SERVICE = "(%(service)s::text IS NULL OR m.name = %(service)s)"
# An embedding whose subject is gone belongs to no service, and is told as an orphan whichever is asked for.
_FROM = f"""
FROM embedding e LEFT JOIN subject s ON s.id = e.subject_id LEFT JOIN model m ON m.api_key = s.api_key
WHERE (s.id IS NULL OR {_OF_SERVICE})
"""
_SUBJECTS = f"FROM subject s LEFT JOIN model m ON m.api_key = s.api_key WHERE {_OF_SERVICE}"
_SUBJECT = "SELECT s.id::text, s.id::text, s.id::text, s.subject_name, NULL"
_FACE = f"""
SELECT e.id::text, e.subject_id::text, CASE WHEN cardinality(e.embedding) <= {MAX_NUMBERS} THEN e.embedding END,
       NULL::text, e.img_id IS NOT NULL, e.calculator
"""


def compreface(service: str | None = None) -> Callable[[psycopg.Connection[Any]], Statements]:
    """How CompreFace's tables are read. service: the name of the one whose subjects are meant; None: of all."""

    def find(connection: psycopg.Connection[Any]) -> Statements:
        for table, columns in _TABLES.items():
            found = {row[0] for row in connection.execute(_COLUMNS, (table,))}
            if missing := [column for column in columns if column not in found]:
                what = f"no table {table}" if not found else f"no column {table}.{missing[0]}"
                raise ImportSourceError(f"This is no database of CompreFace: it has {what}.")
        services = [row[0] for row in connection.execute("SELECT DISTINCT name FROM model ORDER BY name")]
        if service is not None and service not in services:
            raise ImportSourceError(
                f"--service {service}: there is none of that name. There are: {', '.join(services)}."
            )
        return Statements(
            prefix="compreface:",
            persons_table="subject",
            faces_table="embedding",
            layout={
                "persons.id": "subject.id",
                "persons.name": "subject.subject_name",
                "faces.person_id": "embedding.subject_id",
                "faces.embedding": "embedding.embedding",
                "faces.image": "img.content",
            },
            count=f"SELECT count(*) {_FROM}",
            models=f"SELECT e.calculator, count(*) {_FROM} GROUP BY 1 ORDER BY 2 DESC, 1",
            persons=f'{_SUBJECT} {_SUBJECTS} ORDER BY s.id::text COLLATE "C"',
            faces=f'{_FACE} {_FROM} ORDER BY e.subject_id::text COLLATE "C" NULLS FIRST, e.id',
            sample=(
                f"{_FACE} {_FROM} AND e.img_id IS NOT NULL AND (%(model)s::text IS NULL OR e.calculator = %(model)s) "
                "ORDER BY md5(e.id::text) LIMIT %(most)s"
            ),
            image=(
                "SELECT i.content FROM img i JOIN embedding e ON e.img_id = i.id WHERE e.id = %(row)s::uuid "
                "AND length(i.content) <= %(max_image)s"
            ),
            same_names=(
                f"SELECT s.subject_name, count(*) {_SUBJECTS} AND s.subject_name IS NOT NULL GROUP BY 1 "
                "HAVING count(*) > 1 ORDER BY 2 DESC, 1 LIMIT %(most)s"
            ),
            parameters={"service": service},
        )

    return find
