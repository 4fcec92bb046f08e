"""How the server that a service works on is doing: what goes wrong slowly, and is seen before anybody waits for it."""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass

from faceward.store.clients import ClientStore
from faceward.store.database import Database

# Pages as they are now, not as the last VACUUM found them: the visibility map can't cover what it has not seen.
_HEALTH = """
SELECT current_setting('max_connections')::int AS max_connections,
       current_setting('superuser_reserved_connections')::int
           + coalesce(current_setting('reserved_connections', true)::int, 0) AS reserved_connections,
       extract(epoch FROM clock_timestamp())::float8 AS clock,
       current_setting('autovacuum')::bool AS autovacuum,
       pg_relation_size(c.oid) / current_setting('block_size')::int AS face_pages,
       c.relallvisible AS visible_pages,
       greatest(s.last_vacuum, s.last_autovacuum) AS last_vacuum,
       pg_total_relation_size('audit_log') AS audit_bytes,
       pg_total_relation_size('decisions') + pg_total_relation_size('decision_candidates') AS decision_bytes
FROM pg_class c LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid WHERE c.oid = 'face_encodings'::regclass
"""


# By the indexes alone: (client_id, id) of the one, (client_id, person_id) of the other.
_WITHOUT_FACE = """
SELECT count(*) FROM persons p WHERE p.client_id = %(client_id)s AND NOT EXISTS
(SELECT 1 FROM face_encodings f WHERE f.client_id = %(client_id)s AND f.person_id = p.id)
"""
_EXPIRED = "SELECT count(*), min(expires_at) FROM persons WHERE client_id = %s AND expires_at <= now()"


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """connections: that services may have together. clock_ahead: seconds by which the server's clock is ahead of this
    machine's. face_pages: of the table of faces; visible_pages: those that an index-only scan need not look at.
    audit_bytes, decision_bytes: of the audit log and of the decisions kept, indexes included.
    """

    connections: int
    clock_ahead: float
    autovacuum: bool
    face_pages: int
    visible_pages: int
    last_vacuum: dt.datetime | None
    audit_bytes: int
    decision_bytes: int


def server_health(database: Database) -> ServerHealth:
    """Reads only, and no rows of tenants. Raises StoreError."""
    with database.unscoped() as connection:
        connection.exec_driver_sql("SELECT 1")  # what a first statement costs is not the clock's
        before = time.time()
        row = connection.exec_driver_sql(_HEALTH).one()
        after = time.time()
    # Between asking and hearing: any difference within that time is none.
    ahead = row.clock - max(before, min(row.clock, after))
    return ServerHealth(
        connections=row.max_connections - row.reserved_connections,
        clock_ahead=ahead,
        autovacuum=row.autovacuum,
        face_pages=row.face_pages,
        visible_pages=min(row.visible_pages, row.face_pages),
        last_vacuum=row.last_vacuum,
        audit_bytes=row.audit_bytes,
        decision_bytes=row.decision_bytes,
    )


def expired_people(database: Database) -> tuple[int, dt.datetime | None]:
    """How many people of all clients have expired and are there still, and when the first of them did. Raises StoreError."""
    total, first = 0, None
    for client_id in ClientStore(database).ids():
        with database.transaction(client_id) as tx:
            count, earliest = tx.exec_driver_sql(_EXPIRED, (client_id,)).one()
        total += count
        first = min(filter(None, (first, earliest)), default=None)
    return total, first


def people_without_face(database: Database) -> int:
    """How many people of all clients nobody can find, as those whom a change of the model left behind. Raises StoreError."""
    total = 0
    for client_id in ClientStore(database).ids():
        with database.transaction(client_id) as tx:
            total += tx.exec_driver_sql(_WITHOUT_FACE, {"client_id": client_id}).scalar_one()
    return total
