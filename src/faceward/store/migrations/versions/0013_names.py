"""Regions that look alike are one by name, or differ to the eye: names are in Unicode's NFC, without invisible characters.
None is "." or "..", which no path of the API can name.

Callers' names are brought into that form from now on, and what stands in another could not be reached. A region whose name in
that form is taken gets a number behind it; its people are moved by whoever knows that the two are one.

Revision ID: 0013
"""

import unicodedata

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TABLES = ("regions", "persons", "face_encodings", "api_keys", "jobs")


def upgrade() -> None:
    # The tables' owner is bound by their policies too, and no tenant is set here.
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    connection = op.get_bind()
    taken: dict[str, set[str]] = {}
    for client_id, name in connection.exec_driver_sql("SELECT client_id, name FROM regions"):
        taken.setdefault(client_id, set()).add(name)
    renamed = {}
    for client_id, names in taken.items():
        for old in sorted(name for name in names if _plain(name) != name):
            new = _free(_plain(old), names)
            names.add(new)
            renamed[client_id, old] = new
            _rename(client_id, old, new)
    for table, column in (("api_keys", "regions"), ("jobs", "region_limit")):
        rows = connection.exec_driver_sql(f"SELECT client_id, id, {column} FROM {table} WHERE {column} IS NOT NULL")
        for client_id, row_id, regions in rows.all():
            found = [renamed.get((client_id, name), _plain(name) or name) for name in regions]
            if found != regions:
                connection.exec_driver_sql(
                    f"UPDATE {table} SET {column} = %s WHERE client_id = %s AND id = %s",
                    (list(dict.fromkeys(found)), client_id, row_id),
                )
    _compose_external_ids()
    for table in TABLES:
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")


def downgrade() -> None:
    """Older versions take these names as they are."""


def _rename(client_id: str, old: str, new: str) -> None:
    connection, names = op.get_bind(), {"client_id": client_id, "old": old, "new": new}
    connection.exec_driver_sql(
        "INSERT INTO regions (client_id, name, threshold, retention_days, created_at, updated_at) "
        "SELECT client_id, %(new)s, threshold, retention_days, created_at, updated_at FROM regions "
        "WHERE client_id = %(client_id)s AND name = %(old)s",
        names,
    )
    # In one statement: a key that joins persons and faces names the region.
    connection.exec_driver_sql(
        """
        WITH moved AS (
            UPDATE persons SET region = %(new)s WHERE client_id = %(client_id)s AND region = %(old)s
        )
        UPDATE face_encodings SET region = %(new)s, row_version = pg_current_xact_id()
        WHERE client_id = %(client_id)s AND region = %(old)s
        """,
        names,
    )
    connection.exec_driver_sql("DELETE FROM regions WHERE client_id = %(client_id)s AND name = %(old)s", names)


def _compose_external_ids() -> None:
    """Those whose composed form another person of the region has stay as they are: which is which, no migration can say."""
    connection = op.get_bind()
    # As a stream: there may be millions.
    rows = connection.exec_driver_sql(
        "SELECT client_id, id, external_id FROM persons WHERE external_id ~ '[^ -~]' ORDER BY client_id, id",
        execution_options={"stream_results": True},
    )
    for client_id, person_id, external_id in rows:
        composed = unicodedata.normalize("NFC", external_id)
        if composed != external_id and len(composed) <= 255:
            connection.exec_driver_sql(
                """
                UPDATE persons p SET external_id = %(new)s WHERE p.client_id = %(client_id)s AND p.id = %(id)s
                AND NOT EXISTS (SELECT 1 FROM persons o WHERE o.client_id = p.client_id AND o.region = p.region
                                AND o.external_id = %(new)s)
                """,
                {"client_id": client_id, "id": person_id, "new": composed},
            )


def _plain(name: str) -> str:
    """In NFC, without format characters but those that shape Arabic and Indic letters, and no step of a path."""
    composed = unicodedata.normalize("NFC", name)
    shown = "".join(
        char
        for place, char in enumerate(composed)
        if unicodedata.category(char) != "Cf" or _shapes_letters(composed, place)
    )
    plain = unicodedata.normalize("NFC", shown).strip()
    return f"region {plain}" if plain in (".", "..") else plain


def _shapes_letters(text: str, place: int) -> bool:
    if text[place] not in "\u200c\u200d" or not 0 < place < len(text) - 1:
        return False
    before, after = text[place - 1], text[place + 1]
    arabic = unicodedata.bidirectional(before) == unicodedata.bidirectional(after) == "AL"
    return arabic or unicodedata.combining(before) == 9


def _free(name: str, taken: set[str]) -> str:
    """The name as it is, or with the first number that makes it another one."""
    name, number = name[:50].strip() or "unnamed", 2
    found = name
    while found in taken:
        found, number = f"{name[:44].strip()} ({number})", number + 1
    return found
