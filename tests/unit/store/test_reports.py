"""What the database is asked for first leaves out no report that names somebody."""

from __future__ import annotations

import pytest

from faceward.store import reports
from faceward.store.database import Database
from faceward.store.former_names import Identity
from faceward.store.naming import Naming

CLIENT = "acme"
NAMES = (
    "Ann", "A", "Bo Win", "Bo_Win", "Straße", "Ｗｉｄｅ", "李", "李娜", "김민수", "Ann\xa0Lee", "44", "E-1", "EMP0012", "4711",
    "E1", "👩", "Zoë Brontë", "McDonald", "Alice Mary Smith", "José Ángel", "[x", "a|b (c)", "***=", "\\", "%s", "İlker",
    "ΣΊΣΥΦΟΣ", "Иван Петров", "x" * 255, "^$", "\ufffd",
)  # fmt: skip
MORE = (
    "EE/person 12/1.jpg", "EE/PERSON_12/1.jpg", "line 12", "EE/person 120/1.jpg", "EE/STRASSE/1.jpg", "EE/4711a.jpg",
    "EE/zoe bronte (2)/1.jpg", "EE/JoseAngel.jpg", "EE/Smith_Alice Mary.jpg", "EE/x/AliceMarySmith2.jpg", "EE/E1_2.jpg",
    "EE/李 娜/1.jpg", "EE/李娜的照片.jpg", "EE/mcdonald2.jpg", "EE\tAnn\n/1.jpg", "EE/Bob/1.jpg", "ivan", "EE/σίσυφος/1.jpg",
    "EE/ИВАН ПЕТРОВ/1.jpg",
)  # fmt: skip


@pytest.mark.parametrize("longest", [reports._LONGEST_PATTERN, 0])
def test_the_database_s_choice_leaves_nobody_out(
    database: Database, monkeypatch: pytest.MonkeyPatch, longest: int
) -> None:
    """longest: pattern that it is given; with a longer one it chooses nothing."""
    monkeypatch.setattr(reports, "_LONGEST_PATTERN", longest)
    identities = [Identity((12 + n,), (name,), (name.replace(" ", "_"),)) for n, name in enumerate(NAMES)]
    texts = [*MORE, *(f"EE/{name}/1.jpg" for name in NAMES), *(f"of {name}, he said" for name in NAMES), *NAMES]
    said = [*((text, "-") for text in texts), *(("-", text) for text in texts)]
    with database.transaction(CLIENT) as tx:
        tx.exec_driver_sql("INSERT INTO jobs (client_id, id, kind, state) VALUES ('acme', 7, 'archive', 'failed')")
        tx.exec_driver_sql(
            "INSERT INTO job_refusals (client_id, job_id, position, item, code, reason) "
            "SELECT 'acme', 7, n - 1, item, 'c', reason "
            "FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS t (item, reason, n)",
            ([item for item, _ in said], [reason for _, reason in said]),
        )
    surveyed = reports.survey(database, CLIENT, identities)
    for identity in identities:
        naming = Naming(identity)
        expected = [
            (7, n) for n, (item, reason) in enumerate(said) if naming.in_item(item) or naming.in_sentence(reason)
        ]
        assert surveyed.mentions[identity].refusals == expected, identity.names


def test_the_database_leaves_most_of_the_others_out(database: Database) -> None:
    """Its choice is what makes millions of refusals bearable."""
    with database.transaction(CLIENT) as tx:
        tx.exec_driver_sql("INSERT INTO jobs (client_id, id, kind, state) VALUES ('acme', 7, 'archive', 'failed')")
        tx.exec_driver_sql(
            "INSERT INTO job_refusals (client_id, job_id, position, item, code, reason) "
            "SELECT 'acme', 7, n, 'EE/Bob_' || n || '/E' || n || '.jpg', 'no_face', 'No face was found.' "
            "FROM generate_series(1, 100) AS n"
        )
        naming = Naming(Identity((6, 7), ("Alice Smith", "Al"), ("E-1", "EMP-6")))
        search = reports._Search(CLIENT, [naming])
        given = search._given | {"job_id": 0, "position": 0, "last_job": 8, "last_position": 0}
        likely = [row.item for row in tx.exec_driver_sql(search._likely, given)]
    assert len(likely) < 20
