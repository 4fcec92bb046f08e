"""DeepFace's gallery in PostgreSQL.

Its tables, by its own code (deepface/modules/database/postgres.py and pgvector.py): `embeddings` with embedding float8[], or
one table for each model and detector, as embeddings_facenet512_retinaface_aligned_raw, with embedding vector(n). In both a
row is a face: id, img_name, model_name, embedding. img_name is what DeepFace.register was given: a name, or the path of the
photo. The column face is left alone: it is what was cut out for the network, no photo.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import psycopg

from faceward.errors import ImportSourceError
from faceward.importers.decoding import MAX_ENCODED
from faceward.importers.postgres_source import MAX_NUMBERS, Statements

PersonOf: TypeAlias = Literal["name", "folder", "file"]
"""What of img_name tells the person: all of it, the folder that the photo lies in, or the photo's own name without ending."""

_PERSON: dict[PersonOf, str] = {
    "name": "img_name",
    "folder": r"substring(img_name from '([^/\\]+)[/\\][^/\\]*$')",
    "file": r"regexp_replace(regexp_replace(img_name, '^.*[/\\]', ''), '\.[^.]*$', '')",
}
_FOUND = """
SELECT c.oid::regclass::text, format_type(e.atttypid, NULL)
FROM pg_class c JOIN pg_attribute e ON e.attrelid = c.oid AND e.attname = 'embedding' AND NOT e.attisdropped
WHERE c.relkind IN ('r', 'p', 'v', 'm') AND pg_table_is_visible(c.oid)
AND 3 = (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped
         AND a.attname IN ('id', 'img_name', 'model_name'))
ORDER BY c.relname
"""
_MEANT = "(%(model)s::text IS NULL OR model_name = %(model)s)"
# By the column's type: how it is read, and what keeps a senseless length out.
_EMBEDDING = {
    "double precision[]": f"CASE WHEN cardinality(embedding) <= {MAX_NUMBERS} THEN embedding END",
    "real[]": f"CASE WHEN cardinality(embedding) <= {MAX_NUMBERS} THEN embedding END",
    "vector": "embedding",
    "bytea": f"CASE WHEN length(embedding) <= {MAX_ENCODED} THEN embedding END",
    "text": f"CASE WHEN length(embedding) <= {MAX_ENCODED} THEN embedding END",
    "json": f"CASE WHEN length(embedding::text) <= {MAX_ENCODED} THEN embedding::text END",
    "jsonb": f"CASE WHEN length(embedding::text) <= {MAX_ENCODED} THEN embedding::text END",
}


def deepface(table: str | None = None, person_of: PersonOf = "name") -> Callable[[psycopg.Connection[Any]], Statements]:
    """How DeepFace's tables are read. table: which, where there are several."""

    def find(connection: psycopg.Connection[Any]) -> Statements:
        kinds = dict(connection.execute(_FOUND).fetchall())
        name = _table(connection, table, list(kinds))
        if kinds[name] not in _EMBEDDING:
            raise ImportSourceError(f"The embeddings of {name} are of the type {kinds[name]}, which is not read.")
        key, quoted = _PERSON[person_of], name.replace("%", "%%")
        face = f"SELECT id, {key}, {_EMBEDDING[kinds[name]]}, img_name, coalesce(img_name, '') <> '', model_name FROM {quoted}"
        return Statements(
            prefix="deepface:",
            persons_table=name,
            faces_table=name,
            layout={
                "persons.name": f"{name}.img_name ({person_of})",
                "faces.embedding": f"{name}.embedding",
                "faces.image_path": f"{name}.img_name",
            },
            count=f"SELECT count(*) FROM {quoted}",
            models=f"SELECT model_name, count(*) FROM {quoted} GROUP BY 1 ORDER BY 2 DESC, 1",
            persons=(
                f"SELECT min(id), person, person, person, NULL FROM (SELECT id, {key} AS person FROM {quoted}) AS faces "
                "WHERE person IS NOT NULL GROUP BY person ORDER BY convert_to(person, 'UTF8')"
            ),
            faces=f"{face} ORDER BY convert_to({key}, 'UTF8') NULLS FIRST, id",
            sample=f"{face} WHERE img_name <> '' AND {_MEANT} ORDER BY md5(id::text) LIMIT %(most)s",
        )

    return find


def _table(connection: psycopg.Connection[Any], wanted: str | None, found: list[str]) -> str:
    """The name, quoted where it must be. Of several the only one with rows."""
    if not found:
        raise ImportSourceError(
            "This is no database of DeepFace: no table has the columns id, img_name, model_name and embedding."
        )
    if wanted is not None:
        if wanted not in found:
            raise ImportSourceError(f"--table {wanted}: there is no such table. There are: {', '.join(found)}.")
        return wanted
    filled = [name for name in found if connection.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone()]
    if len(filled) > 1:
        raise ImportSourceError(
            f"Several tables hold faces: {', '.join(filled)}. Say which is meant: --table {filled[0]}."
        )
    return (filled or found)[0]
