"""What a restore brings over from the tables that it replaces into those that take their place, in its transaction.

Numbers are not given twice, workers lose the jobs that they had, who expires otherwise than before is named, and a purge
stands still: nobody is erased by what a backup says before somebody has looked at it. As lines for psql, which is the tables'
owner, and bound by their policies unless they are not forced.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from psycopg import sql

from faceward.store.own_tables import OwnTable

HOLD_DAYS = 7
"""After a restore, in which nobody is purged."""

MOST_EXPIRIES = 1000
HELD_UNTIL = f"""
SELECT held FROM (
    SELECT substring(obj_description('persons'::regclass, 'pg_class') from
        'restored by faceward at ([0-9]{{4}}(?:-[0-9]{{2}}){{2}}T[0-9:]{{8}}Z)')::timestamptz
        + make_interval(days => {HOLD_DAYS:d}) AS held
) h WHERE held > now()
"""

_NUMBERS = """
CREATE TEMPORARY TABLE faceward_numbers ON COMMIT DROP AS
SELECT s.relname::text AS name, pg_sequence_last_value(s.oid) AS last FROM pg_class s JOIN pg_depend d
    ON d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
WHERE s.relkind = 'S' AND d.refobjid IN ({oids});
"""
# The expiry is absent from the tables of an older version.
_EXPIRIES = """
ALTER TABLE {schema}.persons NO FORCE ROW LEVEL SECURITY;
CREATE TEMPORARY TABLE faceward_expiries ON COMMIT DROP AS
SELECT client_id, id, (to_jsonb(p) ->> 'expires_at')::timestamptz AS expires_at FROM {schema}.persons p;
"""
_ATTEMPTS = """
ALTER TABLE {schema}.jobs NO FORCE ROW LEVEL SECURITY;
CREATE TEMPORARY TABLE faceward_attempts ON COMMIT DROP AS SELECT max(attempt) AS most FROM {schema}.jobs;
"""
_SET_NUMBERS = """
DO $$ DECLARE number record; BEGIN
FOR number IN SELECT n.last, to_regclass(format('%I.%I', {schema}, n.name)) AS standing FROM pg_temp.faceward_numbers n LOOP
    IF number.last > coalesce(pg_sequence_last_value(number.standing), 0) THEN
        PERFORM setval(number.standing, number.last);
    END IF;
END LOOP; END $$;
"""
# A worker of before knows its job by the attempt. It goes on for nobody's: what it stored may be gone, and it would report it.
_LOSE_JOBS = """
ALTER TABLE {schema}.jobs NO FORCE ROW LEVEL SECURITY;
UPDATE {schema}.jobs SET attempt = greatest(attempt, {most}) + 1,
    lease_until = CASE WHEN state = 'receiving' THEN lease_until END,
    state = CASE WHEN state = 'running' THEN 'queued' ELSE state END
WHERE state IN ('receiving', 'queued', 'running');
ALTER TABLE {schema}.jobs FORCE ROW LEVEL SECURITY;
"""
_TELL_EXPIRIES = """
SELECT 'faceward-expiry ' || json_build_array(o.client_id, o.id, o.expires_at, n.expires_at)
FROM (SELECT client_id, id, (to_jsonb(p) ->> 'expires_at')::timestamptz AS expires_at FROM {schema}.persons p) n
JOIN pg_temp.faceward_expiries o USING (client_id, id)
WHERE o.expires_at IS DISTINCT FROM n.expires_at ORDER BY n.expires_at NULLS LAST, client_id, id LIMIT {most};
"""
_TELL_EXPIRED = """
SELECT 'faceward-expired ' || count(*) FROM {schema}.persons p WHERE (to_jsonb(p) ->> 'expires_at')::timestamptz <= now();
"""
# Where psql shows it, and no later backup brings it back.
_MARK = """
DO $$ BEGIN EXECUTE format('COMMENT ON TABLE %I.persons IS %L', {schema}, 'restored by faceward at '
    || to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')); END $$;
"""


@dataclass(frozen=True, slots=True)
class ChangedExpiry:
    """Of a person who was there before the restore too. None: kept for good."""

    client_id: str
    person_id: int
    before: dt.datetime | None
    restored: dt.datetime | None


def remembered(schema: str, own: Sequence[OwnTable]) -> list[str]:
    """Before the old tables are dropped, under their locks."""
    names = {table.name for table in own}
    oids = sql.SQL(", ").join(sql.Literal(table.oid) for table in own)
    lines = [sql.SQL(_NUMBERS).format(oids=oids)]
    lines += [_of(_EXPIRIES, schema)] if "persons" in names else []
    lines += [_of(_ATTEMPTS, schema)] if "jobs" in names else []
    return [line.as_string() for line in lines]


def carried_over(schema: str, own: Sequence[OwnTable], restored: Collection[str]) -> list[str]:
    """Once the new tables are there. own: those before. restored: the names of the new ones."""
    names = {table.name for table in own}
    lines = [sql.SQL(_SET_NUMBERS).format(schema=sql.Literal(schema))] if own else []
    if "jobs" in restored:
        most = "(SELECT most FROM pg_temp.faceward_attempts)" if "jobs" in names else "0"
        lines.append(sql.SQL(_LOSE_JOBS).format(schema=sql.Identifier(schema), most=sql.SQL(most)))
    lines.append(_of("ALTER TABLE {schema}.persons NO FORCE ROW LEVEL SECURITY;", schema))
    if "persons" in names:
        tell = sql.SQL(_TELL_EXPIRIES).format(schema=sql.Identifier(schema), most=sql.Literal(MOST_EXPIRIES))
        lines.append(tell)
    lines.append(_of(_TELL_EXPIRED, schema))
    lines.append(_of("ALTER TABLE {schema}.persons FORCE ROW LEVEL SECURITY;", schema))
    lines.append(sql.SQL(_MARK).format(schema=sql.Literal(schema)))
    return [line.as_string() for line in lines]


def told_expiries(printed: str) -> tuple[list[ChangedExpiry], int]:
    """Out of what psql printed: whose expiry is another than before, the nearest first, and how many have expired."""
    changed = []
    for line in re.findall(r"faceward-expiry (\[.*\])", printed):
        client_id, person_id, before, restored = json.loads(line)
        changed.append(ChangedExpiry(client_id, person_id, _moment(before), _moment(restored)))
    expired = re.search(r"faceward-expired (\d+)", printed)
    return changed, int(expired[1]) if expired else 0


def _moment(text: str | None) -> dt.datetime | None:
    return None if text is None else dt.datetime.fromisoformat(text)


def _of(statement: str, schema: str) -> sql.Composed:
    return sql.SQL(statement).format(schema=sql.Identifier(schema))
