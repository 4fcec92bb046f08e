"""CompreFace's gallery in PostgreSQL.

Its tables, by its own changelogs (java/admin/src/main/resources/db/changelog, those of subjects since 0.1.7): subject (id
uuid, api_key, subject_name), embedding (id uuid, subject_id, embedding float8[], calculator, img_id), img (id uuid, content
bytea) and model (name, api_key): its services, each with subjects of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
_OF_SERVICE = "(%(key)s::text IS NULL OR s.api_key = %(key)s)"
# An embedding whose subject is gone belongs to no service, and is told as an orphan whichever is asked for.
_FROM = f"FROM embedding e LEFT JOIN subject s ON s.id = e.subject_id WHERE (s.id IS NULL OR {_OF_SERVICE})"
_SUBJECTS = f"FROM subject s WHERE {_OF_SERVICE}"
_SERVICES = "SELECT DISTINCT name, api_key FROM model ORDER BY name, api_key"
_SHOWN = 8  # characters of a key, which is a secret
_SUBJECT = "SELECT s.id::text, s.id::text, s.id::text, s.subject_name, NULL"
_FACE = f"""
SELECT e.id::text, e.subject_id::text, CASE WHEN cardinality(e.embedding) <= {MAX_NUMBERS} THEN e.embedding END,
       NULL::text, e.img_id IS NOT NULL, e.calculator
"""


def compreface(service: str | None = None) -> Callable[[psycopg.Connection[Any]], Statements]:
    """How CompreFace's tables are read. service: the name of the one whose subjects are meant, or the beginning of its key, for
    services of several applications may have one name; None: of all.
    """

    def find(connection: psycopg.Connection[Any]) -> Statements:
        for table, columns in _TABLES.items():
            found = {row[0] for row in connection.execute(_COLUMNS, (table,))}
            if missing := [column for column in columns if column not in found]:
                what = f"no table {table}" if not found else f"no column {table}.{missing[0]}"
                raise ImportSourceError(f"This is no database of CompreFace: it has {what}.")
        key = None if service is None else _key(service, connection.execute(_SERVICES).fetchall())
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
            parameters={"key": key},
        )

    return find


def _key(service: str, services: Sequence[tuple[str, str]]) -> str:
    """Of the service that is meant, of (name, key) of all. Raises ImportSourceError."""
    keys = [key for name, key in services if name == service]
    if not keys and len(service) >= _SHOWN:
        keys = [key for _, key in services if key.startswith(service)]
    if len(keys) > 1:
        shown = ", ".join(f"{key[:_SHOWN]}…" for key in keys)
        raise ImportSourceError(
            f"--service {service}: {len(keys)} services are called so, of several applications. Say which by the beginning of "
            f"its API key instead: {shown}"
        )
    if not keys:
        names = ", ".join(dict.fromkeys(name for name, _ in services))
        raise ImportSourceError(f"--service {service}: there is none of that name. There are: {names}.")
    return keys[0]
