"""Persons who were moved out of a region: an import of the source that still has them there must not let them in again.

What tells of a move is the audit log, for as long as it keeps the entry, by the region's name of then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

# Most clients never moved anybody: one probe of idx_audit_action for each batch.
_ANYBODY = "SELECT 1 FROM audit_log WHERE client_id = %(client_id)s AND action = 'person.move' LIMIT 1"
# Who is in the region all the same, by another record of the same external id, is there on purpose.
_TAKE_OUT = """
WITH moved AS MATERIALIZED (
    SELECT DISTINCT a.details ->> 'old' AS region, p.external_id, p.id
    FROM audit_log a JOIN persons p ON p.client_id = %(client_id)s AND p.id = a.person_id
    WHERE a.client_id = %(client_id)s AND a.action = 'person.move' AND p.external_id IS NOT NULL
    AND p.region <> a.details ->> 'old' AND a.details ->> 'old' IN (SELECT region FROM import_staging)
)
DELETE FROM import_staging s USING moved m WHERE s.region = m.region AND s.external_id = m.external_id
AND NOT EXISTS (SELECT 1 FROM persons p WHERE p.client_id = %(client_id)s AND p.region = s.region
                AND p.external_id = s.external_id)
RETURNING s.region, s.external_id, m.id
"""


def take_out_moved(cursor: psycopg.Cursor[Any], parameters: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    """Take the rows of persons who were moved out of their region from the temporary table of an import.

    Returns the person for each region and external id.
    """
    if cursor.execute(_ANYBODY, parameters).fetchone() is None:
        return {}
    return {(row[0], row[1]): row[2] for row in cursor.execute(_TAKE_OUT, parameters)}
