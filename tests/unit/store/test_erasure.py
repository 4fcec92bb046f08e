"""After an erasure nothing in the database holds or names the person, and nobody else has lost anything."""

from __future__ import annotations

import datetime as dt
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import psycopg
import pytest
from psycopg.types.json import Jsonb

from faceward.errors import NotFoundError, PersonMergedError, RequestReusedError, UnknownPersonError
from faceward.jobs.photo_paths import photo_path, shown
from faceward.store.audit_log import AuditLog, record
from faceward.store.database import APP_ROLE, Database, deadline
from faceward.store.decision_log import Compared, DecisionStore, NewDecision
from faceward.store.erasure import Eraser
from faceward.store.gallery import Gallery
from faceward.store.personal_data import PersonalDataStore
from faceward.store.photo_vault import PhotoVault
from faceward.store.photos import StoredPhotos
from faceward.store.schema import Schema
from faceward.types import Candidate, NewFace, RequestToken
from rows import waiting
from synthetic import MODEL, new_face, unit

CLIENT = "acme"
PAST = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def eraser(database: Database) -> Eraser:
    return Eraser(database)


def decided(person_id: int, *others: int) -> NewDecision:
    return NewDecision(
        CLIENT,
        dt.datetime.now(dt.UTC),
        "key:door",
        "recognize",
        ("A",),
        0.4,
        "pack",
        "match",
        tuple(Compared(each, 1, 0.9 - 0.1 * n) for n, each in enumerate((person_id, *others))),
    )


def test_every_trace_goes_and_what_is_others_stays(
    database: Database, database_url: str, gallery: Gallery, eraser: Eraser
) -> None:
    token = RequestToken(1, "alice-token", b"f")
    alice, _ = gallery.create_person(
        CLIENT, "A", "Alice", [new_face(1), NewFace(unit(2), image_data=b"p")], external_id="E-1", request=token
    )
    bob, _ = gallery.create_person(CLIENT, "A", "Bob", [new_face(3)], request=RequestToken(1, "bob-token", b"f"))
    decisions = DecisionStore(database)
    decisions.write(CLIENT, [decided(alice.id, bob.id), decided(bob.id)])
    with database.transaction(CLIENT) as tx:
        tx.exec_driver_sql(
            "INSERT INTO jobs (client_id, id, kind, state, error_message) VALUES "
            "('acme', 7, 'archive', 'failed', 'It ended at A/E-1/2.jpg.'), ('acme', 8, 'archive', 'queued', NULL)"
        )
        tx.exec_driver_sql(
            "INSERT INTO job_refusals (client_id, job_id, position, item, code, reason) VALUES "
            "('acme', 7, 0, 'A/E-1/1.jpg', 'no_face', 'No face was found.'), "
            "('acme', 7, 1, 'line 4', 'duplicate_face', %s), ('acme', 7, 2, 'A/alice/1.jpg', 'no_face', 'x'), "
            "('acme', 7, 3, 'A/E-11/1.jpg', 'no_face', 'Malice'), ('acme', 7, 4, 'A/Bob/1.jpg', 'no_face', %s)",
            (f"It is enrolled for person {alice.id}.", f"person {alice.id}0"),
        )
    erased = eraser.erase(CLIENT, alice.id)
    assert asdict(erased.removed) == {
        "persons": 1,
        "faces": 2,
        "photos": 1,
        "request_tokens": 1,
        "refusals": 4,
        "audit_entries": 1,
        "decisions": 1,
    }
    assert (erased.imports_under_way, erased.jobs_under_way) == (1, (8,))
    assert eraser.left(erased, alice.id) == {}
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT position, item FROM job_refusals ORDER BY 1").fetchall() == [
            (0, "erased"),
            (1, "erased"),
            (2, "erased"),
            (3, "A/E-11/1.jpg"),
            (4, "A/Bob/1.jpg"),
        ]
        assert connection.execute("SELECT error_message FROM jobs ORDER BY id").fetchall() == [("erased",), (None,)]
    first, second = decisions.list(CLIENT).decisions
    assert [each.person_id for each in first.candidates] == [bob.id]
    assert (second.decision, [each.person_id for each in second.candidates]) == ("match", [bob.id])
    entries = AuditLog(database).list(CLIENT).entries
    assert [entry.action for entry in entries] == [
        "person.erase", "person.enroll", "person.enroll", "region.create", "client.create"
    ]  # fmt: skip
    assert [entry.person_id for entry in entries] == [None, bob.id, None, None, None]
    assert entries[0].details == {"receipt": erased.receipt_id, "removed": asdict(erased.removed)}
    assert entries[2].details == {}
    assert gallery.get_person(CLIENT, bob.id).face_count == 1


def test_a_request_that_is_sent_again_does_not_bring_the_person_back(gallery: Gallery, eraser: Eraser) -> None:
    token = RequestToken(1, "alice-2026", b"f")
    alice, _ = gallery.create_person(CLIENT, "A", "Alice", [new_face(1)], request=token)
    eraser.erase(CLIENT, alice.id)
    with pytest.raises(NotFoundError, match="erased since"):
        gallery.create_person(CLIENT, "A", "Alice", [new_face(1)], request=token)
    with pytest.raises(NotFoundError, match="erased since"):
        gallery.enrollment_of(CLIENT, token, "enroll")
    with pytest.raises(RequestReusedError):
        gallery.create_person(CLIENT, "A", "Alice", [], request=RequestToken(1, "alice-2026", b"other"))
    assert gallery.list_persons(CLIENT).persons == ()
    # Another key's same text is another request.
    gallery.create_person(CLIENT, "A", "Alice", [], request=RequestToken(2, "alice-2026", b"f"))


def test_others_enrolments_forget_that_the_person_was_near(
    database: Database, database_url: str, gallery: Gallery, eraser: Eraser
) -> None:
    alice, (first,) = gallery.create_person(CLIENT, "A", "Alice", [new_face(1)])
    carol, (second,) = gallery.create_person(CLIENT, "A", "Carol", [new_face(2)])
    dora, (third,) = gallery.create_person(CLIENT, "A", "Dora", [new_face(3)])
    near = [
        Candidate(person.id, face, person.name, "A", similarity)
        for person, face, similarity in ((alice, first, 0.9), (carol, second, 0.8), (dora, third, 0.7))
    ]
    token = RequestToken(1, "bob-token", b"f")
    gallery.create_person(CLIENT, "A", "Bob", [new_face(4)], request=token, likely_duplicates=near)
    kept = "SELECT detail -> 'near' FROM request_tokens WHERE token = 'bob-token'"
    with psycopg.connect(database_url, autocommit=True) as owner:
        erased = eraser.erase(CLIENT, alice.id)
        assert owner.execute(kept).fetchall() == [([[second, 0.8], [third, 0.7]],)]
        assert eraser.left(erased, alice.id) == {}
        gallery.delete_person(CLIENT, carol.id)
        eraser.erase(CLIENT, carol.id)
        assert owner.execute(kept).fetchall() == [([[third, 0.7]],)]
        again = gallery.enrollment_of(CLIENT, token, "enroll")
        assert again is not None
        assert [each.person_id for each in again.likely_duplicates] == [dora.id]
        erased = eraser.erase(CLIENT, dora.id)
        assert owner.execute(kept).fetchall() == [([],)]
        owner.execute("UPDATE request_tokens SET detail = jsonb_set(detail, '{near}', %s)", (Jsonb([[third, 0.7]]),))
        assert eraser.left(erased, dora.id) == {"request_tokens.detail": 1}


def test_who_was_deleted_before_is_erased_of_what_is_left(database: Database, gallery: Gallery, eraser: Eraser) -> None:
    token = RequestToken(1, "alice-token", b"f")
    alice, _ = gallery.create_person(CLIENT, "A", "Alice", [new_face(1)], request=token)
    DecisionStore(database).write(CLIENT, [decided(alice.id)])
    gallery.delete_person(CLIENT, alice.id)
    erased = eraser.erase(CLIENT, alice.id)
    removed = erased.removed
    assert (removed.persons, removed.request_tokens, removed.audit_entries, removed.decisions) == (0, 1, 2, 1)
    assert eraser.left(erased, alice.id) == {}
    with pytest.raises(UnknownPersonError):
        eraser.erase(CLIENT, alice.id)


@pytest.mark.parametrize("number", range(4))
def test_who_was_merged_into_somebody_deleted_since_is_erased_with_that_one(
    database: Database, gallery: Gallery, eraser: Eraser, number: int
) -> None:
    """By whichever number of the chain: it is one human being, and nobody could find the others' traces afterwards."""
    other, *ids = (
        gallery.create_person(CLIENT, "A", f"{n}", [new_face(n)], request=RequestToken(1, f"token {n}", b"f"))[0].id
        for n in range(5)
    )
    DecisionStore(database).write(CLIENT, [decided(each, other) for each in ids])
    for gone, into in ((0, 1), (1, 2), (3, 2)):
        gallery.merge_persons(CLIENT, ids[gone], ids[into])
    gallery.delete_person(CLIENT, ids[2])
    erased = eraser.erase(CLIENT, ids[number])
    assert (erased.removed.request_tokens, erased.removed.decisions) == (4, 4)
    assert eraser.left(erased, ids[number]) == {}
    assert {entry.person_id for entry in AuditLog(database).list(CLIENT).entries} == {other, None}
    assert {each.person_id for row in DecisionStore(database).list(CLIENT).decisions for each in row.candidates} == {
        other
    }
    for each in ids:
        with pytest.raises(UnknownPersonError):
            eraser.erase(CLIENT, each)
    with database.transaction(CLIENT) as tx:
        tokens = "SELECT token FROM request_tokens WHERE left(token, 7) <> 'erased:'"
        assert tx.exec_driver_sql(tokens).all() == [("token 0",)]


def test_who_was_merged_into_the_person_was_the_person(database: Database, gallery: Gallery, eraser: Eraser) -> None:
    ids = [gallery.create_person(CLIENT, "A", f"{n}", [new_face(n)])[0].id for n in range(4)]
    DecisionStore(database).write(CLIENT, [decided(ids[0], ids[1], ids[3])])
    for gone, into in ((0, 1), (1, 2)):
        with database.transaction(CLIENT) as tx:
            record(tx, CLIENT, "person.merge", person_id=ids[gone], other_person_id=ids[into])
        gallery.delete_person(CLIENT, ids[gone])
    eraser.erase(CLIENT, ids[2])
    entries = AuditLog(database).list(CLIENT).entries
    assert {entry.person_id for entry in entries} == {ids[3], None}
    assert {entry.other_person_id for entry in entries} == {None}
    (decision,) = DecisionStore(database).list(CLIENT).decisions
    assert [each.person_id for each in decision.candidates] == [ids[3]]


def test_a_merge_that_never_was_keeps_nobody_from_being_erased(
    database: Database, gallery: Gallery, eraser: Eraser
) -> None:
    alice, bob = (gallery.create_person(CLIENT, "A", name, [])[0].id for name in ("Alice", "Bob"))
    with database.transaction(CLIENT) as tx:
        record(tx, CLIENT, "person.merge", person_id=bob, other_person_id=alice)
    erased = eraser.erase(CLIENT, alice)
    assert eraser.left(erased, alice) == {}
    assert [entry.action for entry in AuditLog(database).list(CLIENT, person_id=bob).entries] == ["person.enroll"]


def test_who_was_merged_is_erased_with_the_one_who_stays_and_not_before(
    database: Database, database_url: str, gallery: Gallery, eraser: Eraser
) -> None:
    gone, into, last = (
        gallery.create_person(CLIENT, "A", name, [new_face(n)])[0].id for n, name in enumerate(("Al", "Ali", "Alice"))
    )
    gallery.merge_persons(CLIENT, gone, into)
    gallery.merge_persons(CLIENT, into, last)
    before = AuditLog(database).list(CLIENT).entries
    for number in (gone, into):
        with pytest.raises(PersonMergedError, match=f"merged into person {last}") as refused:
            eraser.erase(CLIENT, number)
        assert refused.value.person_id == last
        with pytest.raises(UnknownPersonError):  # whose key sees other regions hears nothing of the one who stays
            eraser.erase(CLIENT, number, regions=["B"])
    with psycopg.connect(database_url) as owner:
        owner.execute("DELETE FROM former_names")  # of a merge before these were kept the log alone tells
    with pytest.raises(PersonMergedError, match=f"merged into person {last}"):
        eraser.erase(CLIENT, gone)
    assert AuditLog(database).list(CLIENT).entries == before
    assert gallery.get_person(CLIENT, last).face_count == 3


def test_a_merge_while_the_erasure_waits_is_seen(database_url: str, gallery: Gallery, eraser: Eraser) -> None:
    gone, into = (gallery.create_person(CLIENT, "A", name, [])[0].id for name in ("Al", "Alice"))
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database_url) as merging:
        merging.execute(
            "INSERT INTO former_names (client_id, person_id, person_number, name) VALUES ('acme', %s, %s, 'Al')",
            (into, gone),
        )
        merging.execute("DELETE FROM persons WHERE client_id = 'acme' AND id = %s", (gone,))
        erasing = pool.submit(eraser.erase, CLIENT, gone)
        while not erasing.done() and not waiting(database_url):
            pass
        merging.commit()
        with pytest.raises(PersonMergedError):
            erasing.result(timeout=30)


def test_a_merge_that_an_entry_made_up_keeps_nobody_who_was_deleted_from_being_erased(
    database: Database, gallery: Gallery, eraser: Eraser
) -> None:
    alice, bob = (gallery.create_person(CLIENT, "A", name, [])[0].id for name in ("Alice", "Bob"))
    gallery.delete_person(CLIENT, alice)
    with database.transaction(CLIENT) as tx:
        record(tx, CLIENT, "person.merge", person_id=alice, other_person_id=bob)
    assert eraser.left(eraser.erase(CLIENT, alice), alice) == {}


def test_who_was_merged_into_another_is_not_erased_by_a_merge_that_never_was(
    database: Database, gallery: Gallery, eraser: Eraser
) -> None:
    gone, into, other = (gallery.create_person(CLIENT, "A", name, [])[0].id for name in ("Al", "Alice", "Bob"))
    gallery.merge_persons(CLIENT, gone, into)
    with database.transaction(CLIENT) as tx:
        record(tx, CLIENT, "person.merge", person_id=gone, other_person_id=other)
    eraser.erase(CLIENT, other)
    entries = AuditLog(database).list(CLIENT, person_id=gone).entries
    assert [entry.action for entry in entries] == ["person.merge", "person.enroll"]


def report(database: Database, *items: str, client: str = CLIENT, error: str = "An error.") -> None:
    """An import of the past that refused these."""
    with database.transaction(client) as tx:
        tx.exec_driver_sql(
            "INSERT INTO jobs (client_id, id, kind, state, error_message) VALUES (%s, 7, 'archive', 'failed', %s)",
            (client, error),
        )
        for position, item in enumerate(items):
            tx.exec_driver_sql(
                "INSERT INTO job_refusals (client_id, job_id, position, item, code, reason) VALUES (%s, 7, %s, %s, 'c', 'r')",
                (client, position, item),
            )


def reported(url: str, client: str = CLIENT) -> list[str]:
    """What the reports of a client say, without reasons."""
    with psycopg.connect(url) as owner:
        return [
            text
            for (text,) in owner.execute(
                "SELECT item FROM (SELECT position, item FROM job_refusals WHERE client_id = %(client)s "
                "UNION ALL SELECT 99, error_message FROM jobs WHERE client_id = %(client)s) AS said ORDER BY position",
                {"client": client},
            )
        ]


def test_reports_that_name_who_was_merged_into_the_person_are_blanked_too(
    database: Database, database_url: str, gallery: Gallery, eraser: Eraser
) -> None:
    items = ("A/E-1/1.jpg", "A/E-1/E-1/2.jpg", "of Alicia", "A/E-11/1.jpg", "Malicia", "E-2")
    for client in (CLIENT, "globex"):
        report(database, *items, client=client, error="It ended at A/E-1/9.jpg")
    gone, _ = gallery.create_person(CLIENT, "A", "Alicia", [new_face(1)], external_id="E-1")
    into, _ = gallery.create_person(CLIENT, "A", "Alice", [new_face(2)], external_id="E-2")
    last, _ = gallery.create_person(CLIENT, "A", "Alice Smith", [new_face(3)], external_id="E-3")
    gallery.merge_persons(CLIENT, gone.id, into.id)
    assert reported(database_url) == [*items, "It ended at A/E-1/9.jpg"], "what they say stays until an erasure"
    with PersonalDataStore(database).open(CLIENT, into.id) as held:
        assert [each["item"] for each in held.refusals()] == [*items[:3], "E-2"], "all of them are told to the person"
        rows = dict(held.more())["former_names"]
        assert [(row["person_number"], row["name"], row["external_id"]) for row in rows] == [(gone.id, "Alicia", "E-1")]
    gallery.merge_persons(CLIENT, into.id, last.id)
    erased = eraser.erase(CLIENT, last.id)
    assert erased.removed.refusals == 5
    assert reported(database_url) == ["erased"] * 3 + ["A/E-11/1.jpg", "Malicia", "erased", "erased"]
    assert eraser.left(erased, last.id) == {}
    assert reported(database_url, "globex") == [*items, "It ended at A/E-1/9.jpg"]


def test_a_merge_changes_nothing_that_reports_say_of_others(
    database: Database, database_url: str, gallery: Gallery, eraser: Eraser
) -> None:
    """Whose names hold that of the record that goes: their own erasure still finds them."""
    report(database, "A/Ann/1.jpg", "A/Ann Lee/1.jpg", "of Bob")
    gone, into, lee = (gallery.create_person(CLIENT, "A", name, [])[0] for name in ("Ann", "Anna", "Ann Lee"))
    gallery.merge_persons(CLIENT, gone.id, into.id)
    assert eraser.erase(CLIENT, lee.id).removed.refusals == 1
    assert reported(database_url)[:3] == ["A/Ann/1.jpg", "erased", "of Bob"]
    assert eraser.erase(CLIENT, into.id).removed.refusals == 1
    assert reported(database_url)[:3] == ["erased", "erased", "of Bob"]


def test_reports_that_name_the_person_as_before_are_blanked_too(
    database: Database, database_url: str, gallery: Gallery, eraser: Eraser
) -> None:
    report(database, "of Ann", "A/E-1/1.jpg", "of Anne", "A/E-2/1.jpg", "of Bob")
    person, _ = gallery.create_person(CLIENT, "A", "Ann", [new_face(1)], external_id="E-1")
    for name in ("Anne", "Ann", "Anne"):
        gallery.update_person(CLIENT, person.id, name=name)
    gallery.update_person(CLIENT, person.id, external_id="E-2", description="no name")
    with database.transaction(CLIENT) as tx:
        kept = "SELECT name, external_id FROM former_names ORDER BY id"
        assert tx.exec_driver_sql(kept).all() == [("Ann", "E-1"), ("Anne", "E-1")], "each once"
    erased = eraser.erase(CLIENT, person.id)
    assert reported(database_url) == [*["erased"] * 4, "of Bob", "An error."]
    assert eraser.left(erased, person.id) == {}


def test_of_two_changes_at_once_both_former_names_are_kept(database_url: str, gallery: Gallery) -> None:
    person, _ = gallery.create_person(CLIENT, "A", "Ann", [])
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database_url) as first:
        first.execute("INSERT INTO former_names (client_id, person_id, name) VALUES ('acme', %s, 'Ann')", (person.id,))
        first.execute("UPDATE persons SET name = 'Bea' WHERE client_id = 'acme' AND id = %s", (person.id,))
        second = pool.submit(gallery.update_person, CLIENT, person.id, name="Cea")
        while not second.done() and not waiting(database_url):
            pass
        first.commit()
        assert second.result(timeout=30).name == "Cea"
    with psycopg.connect(database_url) as owner:
        assert owner.execute("SELECT array_agg(name ORDER BY name) FROM former_names").fetchall() == [(["Ann", "Bea"],)]


def test_who_was_merged_is_known_for_longer_than_the_audit_log_is_kept(
    database: Database, database_url: str, gallery: Gallery, eraser: Eraser
) -> None:
    gone, into, last = (gallery.create_person(CLIENT, "A", name, [])[0].id for name in ("Alicia", "Alice", "Al"))
    DecisionStore(database).write(CLIENT, [decided(gone, into)])
    gallery.merge_persons(CLIENT, gone, into)
    gallery.merge_persons(CLIENT, into, last)
    with psycopg.connect(database_url) as owner:
        owner.execute("DELETE FROM audit_log")
    report(database, "of Alicia", f"It is enrolled for person {gone}.")
    erased = eraser.erase(CLIENT, last)
    assert (erased.removed.refusals, erased.removed.decisions) == (2, 2)
    assert eraser.left(erased, last) == {}


def test_what_is_held_of_who_was_merged_is_told_with_the_person_s(database: Database, gallery: Gallery) -> None:
    gone, into, other = (gallery.create_person(CLIENT, "A", name, [])[0].id for name in ("Alicia", "Alice", "Bob"))
    DecisionStore(database).write(CLIENT, [decided(gone, into, other), decided(other), decided(gone)])
    gallery.merge_persons(CLIENT, gone, into)
    for person, expected in ((into, ([0.9, 0.9, 0.8], 3)), (other, ([0.9, 0.7], 1))):
        with PersonalDataStore(database).open(CLIENT, person) as held:
            similarities = [round(each["similarity"], 1) for each in held.decisions()]
            assert (sorted(similarities, reverse=True), len(list(held.audit()))) == expected


def test_whose_regions_are_limited_is_told_nothing_of_imports_into_others(
    database: Database, database_url: str, gallery: Gallery, eraser: Eraser
) -> None:
    """As `GET /v1/jobs` shows them: an import of all regions is nobody's whose regions are limited."""
    person, _ = gallery.create_person(CLIENT, "A", "Anna", [])
    limits = (["A"], ["B"], ["A", "B"], None)
    with database.transaction(CLIENT) as tx:
        for job, limit in enumerate(limits):
            tx.exec_driver_sql(
                "INSERT INTO jobs (client_id, id, kind, state, region_limit) VALUES ('acme', %s, 'archive', 'succeeded', %s)",
                (job, limit),
            )
            tx.exec_driver_sql(
                "INSERT INTO job_refusals (client_id, job_id, position, item, code, reason) "
                "VALUES ('acme', %s, 0, 'B/Anna/1.jpg', 'c', 'r')",
                (job,),
            )
    store = PersonalDataStore(database)
    for regions, seen in ((["A"], [0]), (["A", "B"], [0, 1, 2]), (None, [0, 1, 2, 3])):
        with store.open(CLIENT, person.id, regions=regions) as held:
            assert [each["job_id"] for each in held.refusals()] == seen
    assert eraser.erase(CLIENT, person.id, regions=["A"]).removed.refusals == 4, "the name goes wherever it stands"
    with psycopg.connect(database_url) as owner:
        assert owner.execute("SELECT count(*) FROM job_refusals WHERE item = 'erased'").fetchone() == (4,)


def test_what_is_said_of_namesakes_is_not_told(database: Database, database_url: str, gallery: Gallery) -> None:
    own = ("A/Anna/1.jpg", "A/anna (2)/1.jpg", "A/E1/1.jpg", "A/Anna.jpg")
    report(
        database, *own, "A/Anna Meier/1.jpg", "A/AnnaMeier/1.jpg", "A/Bob/anna.jpg", "A/Johanna/anna.jpg", "A/Bo/1.jpg"
    )
    person, _ = gallery.create_person(CLIENT, "A", "Anna", [], external_id="E-1")
    with psycopg.connect(database_url) as owner:
        owner.execute("UPDATE job_refusals SET reason = %s WHERE item = 'A/Bo/1.jpg'", (f"Of person {person.id}.",))
    with PersonalDataStore(database).open(CLIENT, person.id) as held:
        assert [each["item"] for each in held.refusals()] == [*own, "A/Bo/1.jpg"]


@pytest.mark.parametrize(
    "path",
    [
        unicodedata.normalize("NFD", "EE/Zoë_Brontë/bad.jpg"),  # as macOS packs it
        "EE\\Zoë_Brontë\\bad.jpg",
        "EE/Zoë_Brontë.jpg",
        "photos/EE/Zoë_Brontë/bad.jpg",
        "EE/zoe brontë (2)/bad.jpg",
    ],
)
def test_names_are_found_however_an_archive_spells_them(
    database: Database, database_url: str, gallery: Gallery, eraser: Eraser, path: str
) -> None:
    person, _ = gallery.create_person(CLIENT, "EE", "Zoë Brontë", [], external_id="Zoë_Brontë")
    report(database, shown(path), "EE/Zoe_Bronson/bad.jpg", error=f"It ended at {path}")
    erased = eraser.erase(CLIENT, person.id)
    assert reported(database_url) == ["erased", "EE/Zoe_Bronson/bad.jpg", "erased"]
    assert eraser.left(erased, person.id) == {}


def test_what_a_report_does_not_show_of_a_name_hides_nobody(
    database: Database, database_url: str, gallery: Gallery, eraser: Eraser
) -> None:
    path = photo_path("EE/نام\u200cخانوادگی/bad.jpg")
    person, _ = gallery.create_person(CLIENT, "EE", path.name, [], external_id=path.external_id)
    report(database, shown(f"EE/{path.external_id}/bad.jpg"))
    assert eraser.erase(CLIENT, person.id).removed.refusals == 1
    assert reported(database_url) == ["erased", "An error."]


def test_who_is_called_by_an_ordinary_word_takes_no_report_of_others_along(
    database: Database, database_url: str, gallery: Gallery, eraser: Eraser
) -> None:
    items = ("EE/A/1.jpg", "A/Bob/1.jpg", "EE/7/1.jpg", "EE/Bob/7.jpg", "EE/Bob/a 7.jpg", "line 7", "EE/A.jpg")
    report(database, *items, error="Send a JPEG, at most 7, of region 'A'. It will end at line 7.")
    for name, external_id in (("A", "7"), ("Will", "jpeg"), ("It", "at")):
        person, _ = gallery.create_person(CLIENT, "EE", name, [], external_id=external_id)
        erased = eraser.erase(CLIENT, person.id)
        assert eraser.left(erased, person.id) == {}
    assert reported(database_url)[:-1] == [
        "erased", "A/Bob/1.jpg", "erased", "EE/Bob/7.jpg", "EE/Bob/a 7.jpg", "line 7", "erased"
    ]  # fmt: skip
    assert reported(database_url)[-1].startswith("Send a JPEG")


def test_what_is_erased_in_reports_names_nobody(
    database: Database, database_url: str, gallery: Gallery, eraser: Eraser
) -> None:
    person, _ = gallery.create_person(CLIENT, "EE", "Erased", [])
    report(database, "EE/Erased/1.jpg", error="It ended at EE/Erased/2.jpg")
    erased = eraser.erase(CLIENT, person.id)
    assert (erased.removed.refusals, eraser.left(erased, person.id)) == (2, {})


def test_every_page_of_the_reports_is_read(
    database: Database, database_url: str, gallery: Gallery, eraser: Eraser
) -> None:
    person, _ = gallery.create_person(CLIENT, "EE", "Alice", [])
    report(database)
    with database.transaction(CLIENT) as tx:
        tx.exec_driver_sql(
            "INSERT INTO job_refusals (client_id, job_id, position, item, code, reason) "
            "SELECT 'acme', 7, n, CASE mod(n, 5000) WHEN 0 THEN 'EE/Alice/1.jpg' ELSE 'EE/Bob/1.jpg' END, 'c', 'r' "
            "FROM generate_series(0, 10000) AS n"
        )
    erased = eraser.erase(CLIENT, person.id)
    assert (erased.removed.refusals, eraser.left(erased, person.id)) == (3, {})


def test_of_who_is_unknown_no_report_is_read(database_url: str, gallery: Gallery, eraser: Eraser) -> None:
    person, _ = gallery.create_person(CLIENT, "A", "Alice", [])
    with psycopg.connect(database_url) as reports, deadline(5):
        reports.execute("LOCK TABLE job_refusals IN ACCESS EXCLUSIVE MODE")
        for number, regions in ((person.id + 1, None), (person.id, ["B"])):
            with pytest.raises(UnknownPersonError):
                eraser.erase(CLIENT, number, regions=regions)


def test_decisions_are_written_while_reports_are_read(
    database: Database, database_url: str, gallery: Gallery, eraser: Eraser
) -> None:
    person, _ = gallery.create_person(CLIENT, "A", "Alice", [])
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database_url) as reports:
        reports.execute("LOCK TABLE job_refusals IN ACCESS EXCLUSIVE MODE")
        erasing = pool.submit(eraser.erase, CLIENT, person.id)
        while not erasing.done() and not waiting(database_url):
            pass
        with deadline(5):
            DecisionStore(database).write(CLIENT, [decided(person.id)])
        reports.rollback()
        assert erasing.result(timeout=30).removed.decisions == 1


@pytest.mark.parametrize("state", ["running", "partial"])
def test_what_came_since_the_reports_were_read_is_blanked(
    database: Database, database_url: str, gallery: Gallery, eraser: Eraser, state: str
) -> None:
    """state: of the import at that moment; it may have reported on, and new ones come."""
    report(database, "EE/Alice/0.jpg")
    person, _ = gallery.create_person(CLIENT, "EE", "Alice", [], expires_at=PAST)
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("UPDATE jobs SET state = %s, error_message = NULL", (state,))
        owner.execute("INSERT INTO jobs (client_id, id, kind, state) VALUES ('acme', 6, 'archive', 'queued')")
        surveyed = eraser.survey(CLIENT, [person.id])
        owner.execute("UPDATE jobs SET state = 'failed', error_message = 'It ended at EE/Alice/9.jpg' WHERE id = 6")
        owner.execute(
            "INSERT INTO job_refusals (client_id, job_id, position, item, code, reason) "
            "VALUES ('acme', 6, 1, 'EE/Alice/1.jpg', 'c', 'r'), ('acme', 6, 2, 'EE/Bob/1.jpg', 'c', 'r')"
        )
        if state == "running":
            owner.execute(
                "INSERT INTO job_refusals (client_id, job_id, position, item, code, reason) "
                "VALUES ('acme', 7, 1, 'EE/Alice/2.jpg', 'c', 'r')"
            )
    erased = eraser.erase_expired(CLIENT, person.id, surveyed)
    assert erased.removed.refusals == (4 if state == "running" else 3)
    assert eraser.left(erased, person.id) == {}


def test_who_was_renamed_since_the_reports_were_read_is_found_by_the_new_name(
    database: Database, database_url: str, gallery: Gallery, eraser: Eraser
) -> None:
    report(database, "EE/Alice/1.jpg", "EE/Zoe/1.jpg", "EE/Bob/1.jpg")
    person, _ = gallery.create_person(CLIENT, "EE", "Alice", [], expires_at=PAST)
    surveyed = eraser.survey(CLIENT, [person.id])
    gallery.update_person(CLIENT, person.id, name="Zoe")
    eraser.erase_expired(CLIENT, person.id, surveyed)
    assert reported(database_url)[:3] == ["erased", "erased", "EE/Bob/1.jpg"]


def test_what_is_left_of_who_was_merged_is_told(database: Database, gallery: Gallery, eraser: Eraser) -> None:
    gone, _ = gallery.create_person(CLIENT, "A", "Alicia", [new_face(1)])
    into, _ = gallery.create_person(CLIENT, "A", "Alice", [new_face(2)])
    gallery.merge_persons(CLIENT, gone.id, into.id)
    erased = eraser.erase(CLIENT, into.id)
    report(database, f"It is enrolled for person {gone.id}.", error=f"person {gone.id}")
    other, _ = gallery.create_person(CLIENT, "A", "Bob", [])
    with database.transaction(CLIENT) as tx:
        record(tx, CLIENT, "photo.read", person_id=gone.id)
        tx.exec_driver_sql(
            "INSERT INTO former_names (client_id, person_id, person_number, name) VALUES ('acme', %s, %s, 'Alicia')",
            (other.id, gone.id),
        )
    assert eraser.left(erased, into.id) == {
        "audit_log.person_id": 1, "former_names.person_number": 1, "job_refusals.item": 1, "jobs.error_message": 1
    }  # fmt: skip


def test_of_another_client_nobody_is_erased(database: Database, gallery: Gallery, eraser: Eraser) -> None:
    alice, _ = gallery.create_person(CLIENT, "A", "Alice", [new_face(1)])
    with pytest.raises(UnknownPersonError):
        eraser.erase("globex", alice.id)
    assert gallery.get_person(CLIENT, alice.id) == alice
    assert AuditLog(database).list(CLIENT, person_id=alice.id).entries
    assert AuditLog(database).list("globex").entries == ()


def test_the_same_request_has_the_same_receipt(gallery: Gallery, eraser: Eraser) -> None:
    alice, _ = gallery.create_person(CLIENT, "A", "Alice", [new_face(1)])
    token = RequestToken(1, "t", b"f")
    first = eraser.erase(CLIENT, alice.id, token)
    again = eraser.erase(CLIENT, alice.id, token)
    assert (again.receipt_id, again.at, again.removed) == (first.receipt_id, first.at, first.removed)
    assert eraser.left(again, alice.id) == {}
    with pytest.raises(RequestReusedError):
        eraser.erase(CLIENT, alice.id, RequestToken(1, "t", b"another person"))


def test_the_key_of_an_erasure_is_kept_as_a_digest(database_url: str, gallery: Gallery, eraser: Eraser) -> None:
    """It is the caller's own text, and may name the person."""
    alice, _ = gallery.create_person(CLIENT, "A", "Alice", [new_face(1)])
    token = RequestToken(1, "erase-Alice-1", b"f")
    eraser.erase(CLIENT, alice.id, token)
    with psycopg.connect(database_url) as owner:
        kept = owner.execute("SELECT token FROM request_tokens").fetchall()
    assert [text.partition(":")[0] for (text,) in kept] == ["erased"]
    with pytest.raises(RequestReusedError):
        gallery.create_person(CLIENT, "A", "Alice", [], request=token)


def test_a_key_of_another_request_erases_nobody(gallery: Gallery, eraser: Eraser) -> None:
    token = RequestToken(1, "t", b"f")
    bob, _ = gallery.create_person(CLIENT, "A", "Bob", [new_face(2)], request=token)
    with pytest.raises(RequestReusedError):
        eraser.erase(CLIENT, bob.id, token)
    assert gallery.get_person(CLIENT, bob.id) == bob


def test_what_is_left_is_told(database: Database, database_url: str, gallery: Gallery, eraser: Eraser) -> None:
    alice, _ = gallery.create_person(CLIENT, "A", "Alice", [new_face(1)])
    erased = eraser.erase(CLIENT, alice.id)
    with psycopg.connect(database_url) as connection:
        # As a table would that somebody adds one day.
        connection.execute("CREATE TABLE later (client_id varchar(100) DEFAULT 'acme', person_id bigint)")
        connection.execute("GRANT SELECT ON later TO faceward_app")
        connection.execute("INSERT INTO later (person_id) VALUES (%s)", (alice.id,))
    with database.transaction(CLIENT) as tx:
        record(tx, CLIENT, "photo.read", person_id=alice.id)
    assert eraser.left(erased, alice.id) == {"later.person_id": 1, "audit_log.person_id": 1}


def test_others_who_write_at_the_same_moment_leave_no_trace(
    database: Database, gallery: Gallery, eraser: Eraser
) -> None:
    """Decisions, photos read, faces added and changes that race with the erasure."""
    decisions, photos = DecisionStore(database), StoredPhotos(database, PhotoVault())
    for round_ in range(5):
        alice, (face,) = gallery.create_person(
            CLIENT, "A", "Alice", [NewFace(unit(1), image_data=b"p", image_sha256=bytes([round_]) * 32)]
        )
        together = threading.Barrier(5)

        def often(work: object, *, person_id: int = alice.id, start: threading.Barrier = together) -> None:
            start.wait()
            for _ in range(20):
                try:
                    work()  # type: ignore[operator]
                except UnknownPersonError:
                    return

        works = [
            lambda person_id=alice.id: decisions.write(CLIENT, [decided(person_id)]),
            lambda person_id=alice.id, face_id=face: photos.read(CLIENT, person_id, face_id),
            lambda person_id=alice.id: gallery.add_faces(CLIENT, person_id, [new_face(9)]),
            lambda person_id=alice.id: gallery.update_person(CLIENT, person_id, description="x"),
        ]
        threads = [threading.Thread(target=often, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        together.wait()
        erased = eraser.erase(CLIENT, alice.id)
        for thread in threads:
            thread.join()
        assert eraser.left(erased, alice.id) == {}


@pytest.mark.parametrize(
    ("name", "external_id"),
    [("A.*", "[x"), ("***=", "\\"), ("a|b (c)", "{1}"), ("Ünï 'q' \"d\"", "%s"), ("x" * 255, "y" * 255), ("^$", "$")],
)
def test_names_of_every_kind_are_looked_for_as_they_are(
    database: Database, database_url: str, gallery: Gallery, eraser: Eraser, name: str, external_id: str
) -> None:
    person, _ = gallery.create_person(CLIENT, "A", name, [], external_id=external_id)
    with database.transaction(CLIENT) as tx:
        tx.exec_driver_sql("INSERT INTO jobs (client_id, id, kind, state) VALUES ('acme', 7, 'archive', 'failed')")
        tx.exec_driver_sql(
            "INSERT INTO job_refusals (client_id, job_id, position, item, code, reason) VALUES "
            "('acme', 7, 0, 'other', 'c', %s), ('acme', 7, 1, %s, 'c', 'r'), ('acme', 7, 2, 'other', 'c', 'other')",
            (f"of {name}, he said", f"A/{external_id}/1.jpg"),
        )
    assert eraser.erase(CLIENT, person.id).removed.refusals == 2


def test_an_owner_that_row_security_binds_forgets_too(
    empty_database: str, login: Callable[..., str], admin: psycopg.Connection
) -> None:
    """The functions run as the tables' owner: on a server of others that is no superuser, and the policies bind it."""
    url = login(empty_database, "owner", "CREATEROLE")
    admin.execute("ALTER DATABASE empty OWNER TO owner")
    admin.execute(f"GRANT {APP_ROLE} TO owner")
    with psycopg.connect(empty_database) as connection:
        connection.execute("CREATE EXTENSION vector")
    Schema(url).upgrade()
    with Database(url) as database:
        gallery, eraser = Gallery(database, MODEL), Eraser(database)
        alice, _ = gallery.create_person(CLIENT, "A", "Alice", [new_face(1)])
        other, _ = gallery.create_person("globex", "A", "Other", [new_face(1)])
        DecisionStore(database).write(CLIENT, [decided(alice.id)])
        erased = eraser.erase(CLIENT, alice.id)
        assert (erased.removed.audit_entries, erased.removed.decisions) == (1, 1)
        assert eraser.left(erased, alice.id) == {}
        with psycopg.connect(empty_database) as connection:
            connection.execute("UPDATE audit_log SET at = at - interval '400 days'")
        assert AuditLog(database).expire(CLIENT, 365, 30).audit_entries == 4
        assert AuditLog(database).list("globex", person_id=other.id).entries
    admin.execute("ALTER DATABASE empty OWNER TO postgres")
