"""A source that is imported again, and another one that gives the same ids to other people: who is who, and who has a face."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from importing import Importing, faces, persons
from old_systems import write_people

from faceward.bulk_import import PersonRecord
from faceward.cli.advice import advised_words
from faceward.errors import InvalidValueError
from faceward.importers import SqliteSource
from faceward.service import FaceService
from synthetic import unit

Old = Callable[..., SqliteSource]


@pytest.fixture
def importing(service: FaceService, client: str) -> Importing:
    return Importing(service, client)


@pytest.fixture
def old(tmp_path: Path) -> Old:
    """A file of people by their ids, from 1, each with an embedding of the seed."""

    def write(*names: str, seed: int = 0) -> SqliteSource:
        path = tmp_path / f"{'-'.join(names)}.db"
        if not path.exists():
            numbered = list(enumerate(names, 1))
            write_people(path, numbered, ((n, unit(seed + n).tobytes()) for n, _ in numbered))
        return SqliteSource(path)

    return write


@pytest.fixture
def pictured(tmp_path: Path, photos: dict[str, Path]) -> Callable[..., SqliteSource]:
    """A file of people by their ids, from 1, each with the photos of these names in the file itself."""

    def write(people: dict[str, Sequence[str]], name: str = "pictured.db") -> SqliteSource:
        path = tmp_path / name
        path.unlink(missing_ok=True)
        write_people(path, enumerate(people, 1), [])
        rows = [
            (n, photos[each].read_bytes() if each else None) for n, own in enumerate(people.values(), 1) for each in own
        ]
        with closing(sqlite3.connect(path)) as file, file:
            file.executemany("INSERT INTO face_encodings (person_id, image) VALUES (?, ?)", rows)
        return SqliteSource(path)

    return write


def lose_faces(url: str, client: str) -> None:
    """As a change of the model leaves who has no photo behind."""
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute("DELETE FROM face_encodings WHERE client_id = %s", (client,))


def test_people_of_another_source_with_the_same_ids_are_no_people_of_before(old: Old, importing: Importing) -> None:
    with old("Ann", "Bob", "Eve") as first, old("Carl", "Bob", "Dora", "Finn", seed=10) as second:
        importing.run(first)
        account = importing.run(second)
        assert (persons(account), account.persons.refused) == ((4, 1, 1), {"other_person": 2})
        assert (faces(account), account.faces.refused) == ((4, 1, 1), {"person_refused": 2})
        assert [(each.table, each.row, each.code) for each in account.problems] == [
            ("persons", 1, "other_person"),
            ("persons", 3, "other_person"),
        ]
        assert "the external id sqlite:1 is that of 'Ann', who was never called 'Carl'" in account.problems[0].reason
        assert "--source NAME" in advised_words(account.problems[0].code, account.problems[0].reason)
        named = importing.run(second, source_name="plant")
        assert (persons(named), importing.found(unit(11), "A")) == ((4, 4, 0), "sqlite:plant:1")
        assert persons(importing.run(second, source_name="plant")) == (4, 0, 4)
        assert persons(importing.run(first)) == (3, 0, 3)
        with pytest.raises(InvalidValueError, match="--source"):
            importing.plan(second, source_name="a:b")


def test_who_was_renamed_or_merged_since_is_no_other_person(old: Old, importing: Importing) -> None:
    service, client = importing.service, importing.client
    with old("Ann", "Bob", "Eve") as source:
        importing.run(source)
        of = {each.external_id: each.id for each in service.list_persons(client_id=client).persons}
        service.update_person(of["sqlite:1"], name="Ann Smith", client_id=client)
        kept = service.list_persons(external_id="sqlite:2", client_id=client).persons[0]
        service.update_person(kept.id, external_id=None, client_id=client)
        service.merge_persons(of["sqlite:3"], kept.id, client_id=client)  # gets the external id of Eve
        assert service.list_persons(external_id="sqlite:3", client_id=client).persons[0].name == "Bob"
        assert persons(importing.run(source)) == (3, 1, 2)  # Bob gave his up


def test_a_name_that_another_person_has_is_told_before_images_are_worked_on(
    pictured: Callable[..., SqliteSource], importing: Importing
) -> None:
    with pictured({"Barack": ["obama.jpg"]}) as source:
        assert faces(importing.run(source, reembed=True)) == (1, 1, 0)
    with pictured({"Joe": ["biden.jpg"]}) as source:
        account = importing.run(source, reembed=True)
        assert (persons(account), account.persons.refused) == ((1, 0, 0), {"other_person": 1})
        assert (faces(account), account.faces.refused) == ((1, 0, 0), {"person_refused": 1})
    barack = importing.service.list_persons(client_id=importing.client).persons[0]
    importing.service.update_person(barack.id, name="Barack Obama", client_id=importing.client)
    with pictured({"Barack": ["obama.jpg"]}) as source:
        assert persons(importing.run(source, reembed=True)) == (1, 0, 1)


@pytest.mark.parametrize("reembed", [True, False], ids=["--re-embed", "--same-model"])
def test_who_is_there_without_a_face_gets_the_faces(
    pictured: Callable[..., SqliteSource], old: Old, importing: Importing, service_url: str, reembed: bool
) -> None:
    with pictured({"Barack": ["obama.jpg", "obama2.jpg"]}) if reembed else old("Ann", "Bob") as source:
        account = importing.run(source, reembed=reembed)
        people = account.persons.imported
        assert faces(account) == (2, 2, 0)
        lose_faces(service_url, importing.client)
        again = importing.run(source, reembed=reembed)
        assert (persons(again), faces(again)) == ((people, 0, people), (2, 2, 0))
        assert sum(each.face_count for each in importing.service.list_persons(client_id=importing.client).persons) == 2
        assert faces(importing.run(source, reembed=reembed)) == (2, 0, 2)


def test_faces_that_an_import_did_not_store_are_not_there_before(
    pictured: Callable[..., SqliteSource], importing: Importing
) -> None:
    with pictured({"Barack": ["obama.jpg", ""], "Joe": ["obama.jpg", "biden.jpg"]}) as source:
        refused = {"no_image": 1, "duplicate": 1}
        for imported, present in ((2, 0), (0, 2)):
            account = importing.run(source, reembed=True)
            assert (faces(account), account.faces.refused) == ((4, imported, present), refused)
            assert {each.row: each.code for each in account.problems} == {2: "no_image", 3: "duplicate"}
    with pictured({"Barack": ["obama.jpg", "obama2.jpg"], "Joe": ["biden.jpg"]}) as source:
        account = importing.run(source, reembed=True)
        assert (faces(account), account.faces.refused) == ((3, 0, 2), {"not_added": 1})
        assert [(each.row, each.code) for each in account.problems] == [(2, "not_added")]


def test_embeddings_that_came_later_are_not_there_before(old: Old, importing: Importing) -> None:
    with old("Ann", "Bob") as source:
        importing.run(source)
    with closing(sqlite3.connect(source.path)) as file, file:
        more = ((2, unit(seed).tobytes()) for seed in (50, 51))
        file.executemany("INSERT INTO face_encodings (person_id, embedding) VALUES (?, ?)", more)
    with old("Ann", "Bob") as source:
        account = importing.run(source)
    assert (persons(account), faces(account)) == ((2, 0, 2), (4, 0, 2))
    assert account.faces.refused == {"not_added": 2}
    assert [(each.table, each.row, each.code) for each in account.problems] == [("persons", 2, "not_added")]
    assert account.problems[0].reason.startswith("2 faces are not in the gallery")


def test_who_was_moved_away_is_not_let_in_again(old: Old, importing: Importing) -> None:
    """The same external id in two regions on purpose is another thing."""
    service, client = importing.service, importing.client
    with old("Vlad", "Ann") as source:
        importing.run(source)
        (vlad,) = service.list_persons(client_id=client, external_id="sqlite:1").persons
        service.move_region(vlad.id, "B", client_id=client)
        account = importing.run(source)
        assert (persons(account), account.persons.refused) == ((2, 0, 1), {"moved": 1})
        assert faces(account) == (2, 0, 1)
        (problem,) = account.problems
        assert (problem.code, "was moved out of region A" in problem.reason) == ("moved", True)
        assert [each.region for each in service.list_persons(client_id=client, external_id="sqlite:1").persons] == ["B"]

        row = PersonRecord("sqlite:2", "B", "Ann", unit(2))
        assert service.import_embeddings([row], client_id=client).persons == 1
        service.move_region(vlad.id, "A", client_id=client)
        assert persons(importing.run(source)) == (2, 0, 2)
