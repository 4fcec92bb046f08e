"""The second table of faces: filled beside the live one, exchanged with it by name, and never a tenant's way into another."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable

import numpy as np
import psycopg
import pytest

from faceward.errors import BusyError, ConflictError, ModelMismatchError
from faceward.store import in_line
from faceward.store import reembedded_faces as remade
from faceward.store import reembeddings as records
from faceward.store import shadow as tables
from faceward.store.comparing import choose_faces, nearest, region_sizes
from faceward.store.database import APP_ROLE, Database
from faceward.store.embedding_models import models_in_use
from faceward.store.erasure import Eraser
from faceward.store.gallery import Gallery
from faceward.store.graph_index import GraphSettings
from faceward.store.personal_data import PersonalDataStore
from faceward.store.photo_vault import PhotoVault
from faceward.store.regions import RegionStore
from faceward.store.schema import CONTRACT_INDEXES, Schema
from faceward.types import Embedding, NewFace, PersonState
from faceward.vision.pack_manifest import MAX_DIMENSION
from synthetic import MODEL, new_face, unit

OTHER = "another-model"
WIDE, NARROW = 512, 128

SHAPE = """
SELECT 'column ' || attname,
       format_type(atttypid, atttypmod) || attstorage::text || attnotnull || attgenerated::text || attidentity::text
       || coalesce(attstattarget, -1)
FROM pg_attribute WHERE attrelid = 'face_encodings'::regclass AND attnum > 0 AND NOT attisdropped
UNION ALL SELECT 'index ' || indexname, regexp_replace(indexdef, '^.* USING', '') FROM pg_indexes
WHERE tablename = 'face_encodings'
UNION ALL SELECT 'constraint ' || conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE conrelid = 'face_encodings'::regclass AND contype <> 'n'
UNION ALL SELECT 'policy ' || policyname, qual || with_check FROM pg_policies WHERE tablename = 'face_encodings'
UNION ALL SELECT 'table', relrowsecurity::text || relforcerowsecurity || reloptions::text FROM pg_class
WHERE oid = 'face_encodings'::regclass
UNION ALL SELECT 'grants', string_agg(privilege_type, ',' ORDER BY privilege_type) FROM information_schema.role_table_grants
WHERE table_name = 'face_encodings' AND grantee = 'faceward_app'
UNION ALL SELECT 'sequence', pg_get_serial_sequence('face_encodings', 'id')
"""


def shape(url: str) -> dict[str, str]:
    with psycopg.connect(url) as connection:
        return dict(connection.execute(SHAPE).fetchall())


def narrow(seed: int) -> Embedding:
    """As another model might embed the same photo."""
    row = unit(seed)[:NARROW]
    return np.asarray(row / np.linalg.norm(row), np.float32)


def photo(seed: int) -> NewFace:
    face = new_face(seed, f"photo {seed}")
    return NewFace(face.embedding, image_data=f"photo {seed}".encode(), image_sha256=face.image_sha256)


class Change:
    """A change of the model of one database, step by step."""

    def __init__(self, url: str, database: Database) -> None:
        self.url = url
        self.database = database
        self.schema = Schema(url)
        with self.schema.transaction() as tx:
            self.record = records.begin(tx, MODEL, OTHER)
            tables.make(tx, OTHER, NARROW)
            self.carried = tables.carried_columns(tx, tables.NEXT)

    def fill(self, client_id: str) -> list[int]:
        """Make what waits, and bring in line what changed."""
        shadow, model = self.record.shadow, self.record.model_of_shadow
        embed = narrow if model == OTHER else unit
        with self.database.transaction(client_id) as tx:
            in_line.bring_in_line(tx, client_id, shadow, carried=self.carried)
            waiting = remade.photos_waiting(tx, client_id, shadow, model, after=0, limit=100, vault=PhotoVault())
            made = {each.face_id: embed(int(each.image.split()[1])) for each in waiting}
            in_line.hold(tx, client_id, list(made))
            remade.store_made(tx, client_id, shadow, model, made, carried=self.carried)
        return list(made)

    def index(self) -> None:
        self.schema.build_shadow_indexes()
        self.schema.apply_graph(GraphSettings(), tables.NEXT)

    def exchange(self, outgoing: tables.Shadow, *, searches: float = 3) -> None:
        record = self.record
        with self.schema.transaction() as tx:
            tables.hold_writes(tx, record.shadow, seconds=3)
            tables.hold_searches(tx, record.shadow, seconds=searches)
            tables.exchange(
                tx, record.shadow, outgoing, model_from=record.model_of_live, model_to=record.model_of_shadow
            )
            if record.state == "filling":
                record = records.advance(tx, record, "ready")
            self.record = records.advance(tx, record, "cut_over" if outgoing == tables.PREVIOUS else "ready")
        with self.schema.transaction() as tx:
            tables.validate(tx)

    def cut_over(self) -> None:
        self.index()
        self.exchange(tables.PREVIOUS)


@pytest.fixture
def alice(gallery: Gallery) -> int:
    return gallery.create_person("acme", "A", "Alice", [photo(1), photo(2)])[0].id


@pytest.fixture
def change(database_url: str, database: Database, gallery: Gallery, alice: int) -> Change:
    gallery.create_person("globex", "A", "Bob", [photo(3)])
    return Change(database_url, database)


def faces(database: Database, table: str, client_id: str = "acme") -> dict[int, tuple[str, int]]:
    with database.transaction(client_id) as tx:
        rows = tx.exec_driver_sql(f"SELECT id, region, person_id FROM {table}")
        return {row.id: (row.region, row.person_id) for row in rows}


def test_after_a_cut_over_the_table_is_as_a_new_one_but_for_its_dimension(database_url: str, change: Change) -> None:
    before = shape(database_url)
    change.fill("acme")
    change.fill("globex")
    change.cut_over()
    after = shape(database_url)
    rule = after.pop("constraint ck_face_model")
    assert OTHER in rule
    assert {name: text.replace(f"({NARROW})", f"({WIDE})") for name, text in after.items()} == before
    assert f"vector({NARROW})" in after["column embedding"]
    assert set(CONTRACT_INDEXES) <= Schema(database_url).status().indexes
    change.exchange(tables.NEXT)
    again = shape(database_url)
    assert MODEL in again.pop("constraint ck_face_model")
    assert again == before


def test_a_row_of_the_longest_names_fits_a_page_with_the_largest_embedding(database_url: str) -> None:
    """Nothing of it but the photo and its path may lie elsewhere. An emoji is four bytes, of any text the most."""
    named = f"{'m' * 64}:{'0' * 12}"
    with Schema(database_url).transaction() as tx:
        tables.make(tx, named, MAX_DIMENSION)
    row = {
        "client_id": "😀" * 100,
        "person_id": 1,
        "region": "😀" * 50,
        "model_id": named,
        "embedding": np.eye(1, MAX_DIMENSION, dtype=np.float32)[0].tolist(),
        "image_path": "".join(chr(0x10000 + number * 97) for number in range(500)),
        "image_data": random.Random(1).randbytes(10_000),
        "image_key_id": "k" * 100,
        "image_box": "1" * 100,
        "image_sha256": bytes(32),
        "face_bbox": "1" * 100,
        "confidence": 1,
        "quality_score": 1,
    }
    values = ", ".join("%s::real[]" if name == "embedding" else "%s" for name in row)
    with psycopg.connect(database_url) as owner:
        owner.execute("SET session_replication_role = replica")  # of no person
        stored = owner.execute(f"INSERT INTO {tables.NEXT} ({', '.join(row)}) VALUES ({values})", [*row.values()])  # type: ignore[arg-type]
    assert stored.rowcount == 1


def test_another_change_can_follow(database_url: str, database: Database, change: Change) -> None:
    change.fill("acme")
    change.fill("globex")
    change.cut_over()
    with change.schema.transaction() as tx:
        tables.drop(tx, tables.PREVIOUS, seconds=3)
        assert records.advance(tx, change.record, "finished").ended_at is not None
        records.begin(tx, OTHER, MODEL)
        tables.make(tx, MODEL, WIDE)
    assert tables.NEXT not in Schema(database_url).status().unforced
    with database.transaction("acme") as tx:
        assert tables.dimension_of(tx, tables.NEXT) == WIDE


def test_new_faces_get_ids_of_their_own_before_and_after(database: Database, gallery: Gallery, change: Change) -> None:
    made = set(change.fill("acme")) | set(change.fill("globex"))
    change.cut_over()
    assert models_in_use(database) == {OTHER}
    _, later = Gallery(database, OTHER).create_person("acme", "A", "Carol", [NewFace(narrow(4), image_data=b"photo 4")])
    change.fill("acme")
    change.exchange(tables.NEXT)
    assert models_in_use(database) == {MODEL}
    _, last = gallery.create_person("acme", "A", "Dora", [photo(5)])
    assert len(made | {*later, *last}) == 5
    assert {*later, *last} <= set(faces(database, "face_encodings"))


def test_faces_of_the_model_before_are_refused_by_the_tables_themselves(
    database: Database, gallery: Gallery, change: Change, alice: int
) -> None:
    """Whatever a service still believes: also where both models make embeddings of one length."""
    change.cut_over()
    write = "INSERT INTO face_encodings (client_id, person_id, region, model_id, embedding) VALUES ('acme', %s, 'A', %s, %s)"
    for model, embedding in ((MODEL, narrow(7)), (OTHER, unit(7))):
        with pytest.raises(ModelMismatchError, match="not of the model"), database.transaction("acme") as tx:
            tx.exec_driver_sql(write, (alice, model, str(embedding.tolist())))
    with pytest.raises(ModelMismatchError):
        gallery.create_person("acme", "A", "Eve", [photo(7)])


def test_no_tenant_sees_anothers_faces_in_the_second_table(database_url: str, change: Change) -> None:
    change.fill("acme")
    change.fill("globex")
    for table in (tables.NEXT, tables.PREVIOUS):
        with psycopg.connect(database_url) as connection:
            connection.execute(f"SET ROLE {APP_ROLE}")
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
            connection.execute("SELECT set_config('faceward.client_id', 'acme', false)")
            assert connection.execute(f"SELECT DISTINCT client_id FROM {table}").fetchall() == [("acme",)]
            assert connection.execute(f"DELETE FROM {table} WHERE client_id = 'globex'").rowcount == 0
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
                connection.execute(f"UPDATE {table} SET client_id = 'globex'")
        if table == tables.NEXT:
            change.cut_over()


@pytest.mark.parametrize("cut_over", [False, True])
def test_what_is_deleted_is_gone_from_both_tables_at_once(
    database: Database, gallery: Gallery, change: Change, alice: int, cut_over: bool
) -> None:
    first, second = change.fill("acme")
    if cut_over:
        change.cut_over()
    assert gallery.delete_face("acme", alice, first)
    assert set(faces(database, change.record.shadow)) == {second}
    gallery.delete_person("acme", alice)
    assert faces(database, change.record.shadow) == {}


def test_a_person_who_was_left_behind_can_still_be_deleted(
    database: Database, gallery: Gallery, change: Change
) -> None:
    """Their faces are in the previous table only."""
    person, _ = gallery.create_person("acme", "A", "No Photo", [new_face(9)])
    change.fill("acme")
    change.cut_over()
    assert gallery.get_person("acme", person.id).face_count == 0
    assert person.id in {owner for _, owner in faces(database, tables.PREVIOUS).values()}
    gallery.delete_person("acme", person.id)
    assert person.id not in {owner for _, owner in faces(database, tables.PREVIOUS).values()}


def test_what_was_left_behind_is_exported_and_counted_when_it_is_erased(
    database: Database, gallery: Gallery, change: Change, alice: int
) -> None:
    change.cut_over()
    Gallery(database, OTHER).add_faces("acme", alice, [NewFace(narrow(4), image_data=b"photo 4")])
    change.fill("acme")
    with PersonalDataStore(database).open("acme", alice) as held:
        assert [each.data for each in held.photos()] == [b"photo 4", b"photo 1", b"photo 2"]
    erased = Eraser(database).erase("acme", alice)
    assert (erased.removed.faces, erased.removed.photos) == (3, 3)
    assert faces(database, tables.PREVIOUS) == faces(database, "face_encodings") == {}


@pytest.mark.parametrize("cut_over", [False, True])
def test_people_move_while_there_are_two_tables(
    database: Database, gallery: Gallery, change: Change, alice: int, cut_over: bool
) -> None:
    change.fill("acme")
    if cut_over:
        change.cut_over()
    gallery.move_person("acme", alice, "B")
    # The photo is free in region A again, and taken by somebody else before the two tables are compared.
    other = gallery if not cut_over else Gallery(database, OTHER)
    face = photo(1) if not cut_over else NewFace(narrow(1), image_data=b"photo 1", image_sha256=photo(1).image_sha256)
    other.create_person("acme", "A", "Twin", [face])
    change.fill("acme")
    assert faces(database, change.record.shadow) == faces(database, "face_encodings")


def test_a_retention_that_people_are_given_reaches_both_tables(
    database: Database, database_url: str, change: Change, alice: int
) -> None:
    """An exchange brings in line what was written since the filling, and looks at nothing else."""
    change.fill("acme")
    with database.transaction("acme") as tx:
        before = remade.snapshot_version(tx)
    RegionStore(database).update("acme", "A", retention_days=30, existing=True)
    with database.transaction("acme") as tx:
        in_line.bring_in_line(tx, "acme", change.record.shadow, carried=change.carried, since=before)
    with psycopg.connect(database_url) as owner:
        for table in (change.record.shadow, "face_encodings"):
            until = f"SELECT count(*) FROM {table} f JOIN persons p ON p.id = f.person_id AND p.expires_at = f.matchable_until"
            assert owner.execute(until).fetchone() == (2,), table


def embeddings(database: Database, table: str, person_id: int) -> list[bytes]:
    """Of a person's faces, in no order."""
    with database.transaction("acme") as tx:
        rows = tx.exec_driver_sql(f"SELECT embedding FROM {table} WHERE person_id = %s", (person_id,))
        return sorted(row.embedding.to_numpy().astype(np.float32).tobytes() for row in rows)


@pytest.mark.parametrize("state", ["filling", "cut over", "rolled back"])
@pytest.mark.parametrize("region", ["A", "B"])
def test_a_merge_takes_the_embeddings_of_the_other_model_along(
    database: Database, gallery: Gallery, change: Change, alice: int, state: str, region: str
) -> None:
    """Also where no photo is stored, of which nothing could be made anew."""
    into = gallery.create_person("acme", region, "Alice B.", [photo(5)])[0].id
    change.fill("acme")
    with database.transaction("acme") as tx:
        tx.exec_driver_sql("UPDATE face_encodings SET image_data = NULL")
    if state != "filling":
        change.cut_over()
    if state == "rolled back":
        change.exchange(tables.NEXT)
    gallery.merge_persons("acme", alice, into, across_regions=True)
    with database.transaction("acme") as tx:
        named = tx.exec_driver_sql(f"SELECT DISTINCT person_id FROM {change.record.shadow}")
        assert set(named.scalars()) == {into}, "an erasure of the one who is gone must find nothing"
    assert change.fill("acme") == []
    assert faces(database, change.record.shadow) == faces(database, "face_encodings")
    assert len(faces(database, "face_encodings")) == 3
    expected = unit if state == "cut over" else narrow
    assert embeddings(database, change.record.shadow, into) == sorted(expected(seed).tobytes() for seed in (1, 2, 5))


def test_a_photo_that_both_had_keeps_the_only_embedding_that_there_is(
    database: Database, gallery: Gallery, change: Change, alice: int
) -> None:
    """It is kept for the one that stays, whose face was enrolled after the cut-over, and without its photo."""
    change.fill("acme")
    change.cut_over()
    since = NewFace(narrow(1), image_sha256=photo(1).image_sha256)
    into, (kept,) = Gallery(database, OTHER).create_person("acme", "B", "Alice B.", [since])
    with database.transaction("acme") as tx:
        before = remade.snapshot_version(tx)
    merged = gallery.merge_persons("acme", alice, into.id, across_regions=True)
    assert (merged.faces_moved, merged.faces_dropped) == (1, 1)
    with database.transaction("acme") as tx:
        assert in_line.bring_in_line(tx, "acme", tables.PREVIOUS, carried=change.carried, since=before) == 2
    assert faces(database, tables.PREVIOUS) == faces(database, "face_encodings")
    assert kept in faces(database, tables.PREVIOUS)
    assert embeddings(database, tables.PREVIOUS, into.id) == sorted(unit(seed).tobytes() for seed in (1, 2))


def test_what_the_model_makes_nothing_of_stays_known_of_a_person_who_is_merged(
    database: Database, gallery: Gallery, change: Change, alice: int
) -> None:
    into = gallery.create_person("acme", "A", "Alice B.", [])[0].id
    with database.transaction("acme") as tx:
        (first, *_) = remade.photos_waiting(tx, "acme", tables.NEXT, OTHER, after=0, limit=9, vault=PhotoVault())
        remade.store_unmade(tx, OTHER, [remade.Unmade("acme", first.face_id, alice, "no_face", "None.")])
    gallery.merge_persons("acme", alice, into)
    assert first.face_id not in change.fill("acme")


@pytest.mark.parametrize("cut_over", [False, True])
def test_who_is_not_matched_is_not_compared(
    database: Database, gallery: Gallery, change: Change, alice: int, cut_over: bool
) -> None:
    """Nor as a probe, nor as a neighbour, from the moment on: the other table has not heard of it yet."""
    bob, (face,) = gallery.create_person("acme", "A", "Bob", [photo(5)])
    left, _ = gallery.create_person("acme", "A", "No Photo", [new_face(9)])
    change.fill("acme")
    if cut_over:
        change.cut_over()

    def compared() -> tuple[set[int], dict[str, int], list[int | None]]:
        with database.transaction("acme") as tx:
            chosen = {person for _, _, person in choose_faces(tx, "acme", change.record.shadow, 1, 0)}
            near = [
                nearest(tx, "acme", table, [face], 10)[face].other for table in ("face_encodings", change.record.shadow)
            ]
            return chosen, region_sizes(tx, "acme"), near

    def suspend(*people: int, state: PersonState = "suspended") -> None:
        for person in people:
            gallery.update_person("acme", person, state=state)

    suspend(left.id)
    assert compared() == ({alice, bob.id}, {"A": 3}, [alice, alice])
    suspend(alice)
    assert compared() == ({bob.id}, {"A": 1}, [None, None])
    suspend(alice, state="active")
    gallery.update_person("acme", bob.id, expires_at=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    assert compared()[:2] == ({alice}, {"A": 2})


def test_a_face_deleted_while_it_is_embedded_is_left_out(
    database: Database, gallery: Gallery, change: Change, alice: int
) -> None:
    with database.transaction("acme") as tx:
        waiting = remade.photos_waiting(tx, "acme", tables.NEXT, OTHER, after=0, limit=100, vault=PhotoVault())
    gallery.delete_face("acme", alice, waiting[0].face_id)
    with database.transaction("acme") as tx:
        made = {each.face_id: narrow(1) for each in waiting}
        assert remade.store_made(tx, "acme", tables.NEXT, OTHER, made, carried=change.carried) == 1


def test_what_waits_what_was_refused_and_what_has_no_photo_is_counted(
    database: Database, gallery: Gallery, change: Change, alice: int
) -> None:
    bare, _ = gallery.create_person("acme", "B", "No Photo", [new_face(9)])
    with database.transaction("acme") as tx:
        first, second = remade.photos_waiting(tx, "acme", tables.NEXT, OTHER, after=0, limit=100, vault=PhotoVault())
        one = remade.Unmade("acme", first.face_id, alice, "no_face", "None.")
        remade.store_unmade(tx, OTHER, [one])
        assert remade.photos_waiting(tx, "acme", tables.NEXT, OTHER, after=0, limit=100, vault=PhotoVault()) == [second]
        assert remade.counts(tx, "acme", tables.NEXT, OTHER) == remade.Counts(
            faces=3, made=0, unmade=1, without_image=1, persons=2, persons_left=1
        )
    change.fill("acme")
    with database.transaction("acme") as tx:
        counted = remade.counts(tx, "acme", tables.NEXT, OTHER)
        assert (counted.made, counted.waiting, counted.persons_left) == (1, 0, 1)
        assert remade.persons_left(tx, "acme", "face_encodings", tables.NEXT) == [bare.id]
        left = remade.unmade_faces(tx, "acme", tables.NEXT, OTHER)
        assert [(each.person_id, each.code) for each in left] == [(alice, "no_face"), (bare.id, "no_image")]


def test_tables_that_an_upgrade_made_different_are_not_exchanged(database_url: str, change: Change) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("ALTER TABLE face_encodings ADD COLUMN newer integer")
    with change.schema.transaction() as tx, pytest.raises(ConflictError, match=r"different: newer"):
        tables.carried_columns(tx, tables.NEXT)


def test_an_owner_that_row_security_binds_changes_the_model_of_all_tenants(
    empty_database: str, login: Callable[..., str], admin: psycopg.Connection
) -> None:
    url = login(empty_database, "owner", "CREATEROLE")
    admin.execute("ALTER DATABASE empty OWNER TO owner")
    admin.execute(f"GRANT {APP_ROLE} TO owner")
    with psycopg.connect(empty_database) as connection:
        connection.execute("CREATE EXTENSION vector")
    Schema(url).upgrade()
    with Database(url) as database:
        gallery = Gallery(database, MODEL)
        for client in ("acme", "globex"):
            gallery.create_person(client, "A", "Alice", [photo(1)])
        change = Change(url, database)
        for client in ("acme", "globex"):
            assert len(change.fill(client)) == 1
        change.cut_over()
        assert models_in_use(database) == {OTHER}
        with change.schema.transaction() as tx:
            before = remade.snapshot_version(tx)
            assert tables.changed_tenants(tx, before) == []
        Gallery(database, OTHER).create_person("globex", "B", "Bob", [NewFace(narrow(2), image_data=b"photo 2")])
        with change.schema.transaction() as tx:
            assert tables.changed_tenants(tx, before) == ["globex"]
        assert len(faces(database, "face_encodings", "globex")) == 2
    admin.execute("ALTER DATABASE empty OWNER TO postgres")


def test_who_waits_for_a_long_reader_lets_the_searches_go_on(database_url: str, change: Change) -> None:
    change.index()
    with psycopg.connect(database_url) as reader:
        reader.execute("SELECT count(*) FROM face_encodings")
        with pytest.raises(BusyError, match="lock timeout"):
            change.exchange(tables.PREVIOUS, searches=0.05)
    assert set(faces(change.database, "face_encodings")) == {1, 2}
