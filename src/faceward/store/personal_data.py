"""Reads all that is held of a person, whatever table it stands in: for the person who asks.

Rows are told as they are, by the names of their columns, so that a column or table that is added is told too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from faceward.store.audit_log import record
from faceward.store.database import Database
from faceward.store.erasure import PERSON_COLUMNS
from faceward.store.former_names import identity_of
from faceward.store.person_rows import hold_person
from faceward.store.photo_vault import PhotoVault
from faceward.store.photos import photos_of
from faceward.store.reports import tell
from faceward.store.request_tokens import OF_PERSONS

_AT_ONCE = 100
_TOLD_ELSEWHERE = {"face_encodings", "audit_log", "decision_candidates"}

# What is derived from the embedding, and what has a file of its own.
_FACES = """
SELECT f.id, to_jsonb(f) - 'image_data' - 'code' - 'row_version' AS held FROM face_encodings f
WHERE f.client_id = %(client_id)s AND f.person_id = %(person_id)s AND f.id > %(after)s ORDER BY f.id LIMIT %(most)s
"""
_AUDIT = """
SELECT a.id, to_jsonb(a) AS held FROM audit_log a
WHERE a.client_id = %(client_id)s AND (a.person_id = ANY(%(numbers)s) OR a.other_person_id = ANY(%(numbers)s))
AND (%(regions)s::text[] IS NULL OR array_remove(
    ARRAY[a.details ->> 'region', a.details ->> 'old', a.details ->> 'new'], NULL) <@ %(regions)s::text[])
AND a.id > %(after)s ORDER BY a.id LIMIT %(most)s
"""
_DECISIONS = """
SELECT d.id, to_jsonb(d) || jsonb_build_object('face_id', c.face_id, 'similarity', c.similarity) AS held
FROM decision_candidates c JOIN decisions d ON d.client_id = %(client_id)s AND d.id = c.decision_id
WHERE c.client_id = %(client_id)s AND c.person_id = %(person_id)s AND c.decision_id > %(after)s
AND (%(regions)s::varchar[] IS NULL OR d.regions <@ %(regions)s::varchar[])
ORDER BY c.decision_id LIMIT %(most)s
"""
_REQUESTS = """
SELECT to_jsonb(r) - 'fingerprint' AS held FROM request_tokens r
WHERE r.client_id = %(client_id)s AND r.resource_id = %(person_id)s AND r.operation = ANY(%(of_persons)s) ORDER BY r.created_at
"""


@dataclass(frozen=True, slots=True)
class HeldPhoto:
    """What is stored of the photo of a face, opened."""

    face_id: int
    data: bytes


class PersonalData:
    """An open reading of one person's data; plain JSON values, but for the photos.

    regions: of whoever reads; None is all of them.
    """

    def __init__(
        self,
        tx: sa.Connection,
        client_id: str,
        person_id: int,
        vault: PhotoVault,
        regions: Sequence[str] | None = None,
    ) -> None:
        self._tx = tx
        self._vault = vault
        self.regions = None if regions is None else list(regions)
        self.unopened: list[int] = []
        self._identity = identity_of(tx, client_id, person_id)
        self._of: Any = {
            "client_id": client_id,
            "person_id": person_id,
            "numbers": list(self._identity.numbers),
            "regions": self.regions,
        }

    def person(self) -> dict[str, Any]:
        return dict(
            self._tx.exec_driver_sql(
                "SELECT to_jsonb(p) FROM persons p WHERE p.client_id = %(client_id)s AND p.id = %(person_id)s", self._of
            ).scalar_one()
        )

    def faces(self) -> Iterator[dict[str, Any]]:
        """With their embeddings, as lists of numbers."""
        for face in self._pages(_FACES):
            yield {**face, "embedding": json.loads(face["embedding"])}

    def photos(self) -> Iterator[HeldPhoto]:
        """Those that open; afterwards `unopened` has the ids of the faces whose photo does not, as for a key that is lost."""
        of = self._of
        for photo in photos_of(self._tx, self._vault, of["client_id"], of["person_id"], self.unopened):
            yield HeldPhoto(photo.face_id, photo.data)

    def audit(self) -> Iterator[dict[str, Any]]:
        """Also of who was merged into the person; those that name no region but these of whoever reads."""
        return self._pages(_AUDIT)

    def decisions(self) -> Iterator[dict[str, Any]]:
        """Those that the person, or who was merged into the person, was a candidate of, without the others; those in
        no region but these of whoever reads.
        """
        for number in self._identity.numbers:
            yield from self._pages(_DECISIONS, person_id=number)

    def requests(self) -> Iterator[dict[str, Any]]:
        """Idempotency keys of requests that stored the person."""
        return self._rows(_REQUESTS, of_persons=list(OF_PERSONS))

    def refusals(self) -> Iterator[dict[str, Any]]:
        """Of imports, where they name the person: those that whoever reads may see."""
        return tell(self._tx, self._of["client_id"], self._identity, self.regions)

    def more(self) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
        """Rows of other tables that belong to a person, by table."""
        columns = self._tx.exec_driver_sql(PERSON_COLUMNS).all()
        for table, column in columns:
            if table in _TOLD_ELSEWHERE or column == "person_number":  # of who is not enrolled any more
                continue
            quote = self._tx.dialect.identifier_preparer.quote_identifier
            yield (
                table,
                self._rows(
                    f"SELECT to_jsonb(t) - 'code' - 'image_data' AS held FROM {quote(table)} t "
                    f"WHERE t.client_id = %(client_id)s AND t.{quote(column)} = %(person_id)s"
                ),
            )

    def _rows(self, statement: str, **given: Any) -> Iterator[dict[str, Any]]:
        for (held,) in self._tx.exec_driver_sql(statement, {**self._of, **given}):
            yield held

    def _pages(self, statement: str, **given: Any) -> Iterator[dict[str, Any]]:
        after = 0
        while True:
            rows = self._tx.exec_driver_sql(statement, {**self._of, **given, "after": after, "most": _AT_ONCE}).all()
            for row in rows:
                yield row.held
            if len(rows) < _AT_ONCE:
                return
            after = rows[-1].id


class PersonalDataStore:
    """The data of persons of any tenant. vault: opens their photos; None opens those that are not encrypted."""

    def __init__(self, database: Database, vault: PhotoVault | None = None) -> None:
        self._database = database
        self._vault = vault or PhotoVault()

    @contextmanager
    def open(self, client_id: str, person_id: int, *, regions: Sequence[str] | None = None) -> Iterator[PersonalData]:
        """Read a person's data, who can't be erased meanwhile; the audit log tells of it where the block ends well.

        regions: only one who is in any of these, and nothing of imports, entries and decisions that are of other ones. Raises
        UnknownPersonError.
        """
        with self._database.transaction(client_id) as tx:
            hold_person(tx, client_id, person_id, regions=regions)
            yield PersonalData(tx, client_id, person_id, self._vault, regions)
            record(tx, client_id, "person.export", person_id=person_id)
