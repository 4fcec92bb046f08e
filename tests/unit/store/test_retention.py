"""A retention comes to people who are there already: counted from their enrolment, keeping nobody longer."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from faceward.errors import DeadlineExceededError, UnknownClientError, UnknownRegionError
from faceward.store import retention as retention_module
from faceward.store.audit_log import AuditLog
from faceward.store.bulk import BulkWriter, NewPerson
from faceward.store.clients import ClientStore
from faceward.store.database import Database
from faceward.store.erasure import Eraser
from faceward.store.gallery import Gallery
from faceward.store.regions import RegionStore
from faceward.types import RetentionEffect
from rows import waiting
from searching import CLIENT, Searching
from synthetic import MODEL, new_face, unit

DAY = dt.timedelta(days=1)
NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def regions(database: Database) -> RegionStore:
    return RegionStore(database)


@pytest.fixture
def clients(database: Database) -> ClientStore:
    return ClientStore(database)


def enroll(
    gallery: Gallery,
    url: str,
    days_ago: int,
    expires: dt.datetime | None = None,
    *,
    client: str = CLIENT,
    region: str = "A",
) -> int:
    """Somebody who was enrolled so many days ago, with two faces; the person's id is the name as well."""
    with psycopg.connect(url) as owner:
        row = owner.execute("SELECT coalesce(max(id), 0) + 1 FROM persons").fetchone()
    seed = row[0] if row else 0
    person, _ = gallery.create_person(
        client, region, str(seed), [new_face(seed), new_face(100 + seed)], expires_at=expires
    )
    with psycopg.connect(url) as owner:
        owner.execute("UPDATE persons SET created_at = created_at - %s WHERE id = %s", (days_ago * DAY, person.id))
    return person.id


def expiries(gallery: Gallery, client: str = CLIENT) -> dict[int, dt.datetime | None]:
    return {person.id: person.expires_at for person in gallery.list_persons(client).persons}


@pytest.mark.parametrize("at_once", [2, 1000])
def test_nobody_is_kept_longer_and_nobody_else_is_touched(
    gallery: Gallery, regions: RegionStore, database_url: str, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(retention_module, "_AT_ONCE", at_once)
    later, nearer, over = NOW + 900 * DAY, NOW + 5 * DAY, NOW - DAY
    fresh = enroll(gallery, database_url, 10)
    old = enroll(gallery, database_url, 40)
    kept_by_hand = enroll(gallery, database_url, 10, later)
    nearer_by_hand = enroll(gallery, database_url, 10, nearer)
    gone_already = enroll(gallery, database_url, 40, over)
    elsewhere = enroll(gallery, database_url, 40, region="B")
    globex = enroll(gallery, database_url, 40, client="globex")
    made = {person.id: person.created_at for person in gallery.list_persons(CLIENT).persons}

    assert regions.count_existing(CLIENT, "A", 30) == RetentionEffect(people=3, expired=1)
    changed = regions.update(CLIENT, "A", retention_days=30, existing=True)
    assert (changed.existing, changed.retention_days) == (RetentionEffect(people=3, expired=1), 30)
    assert expiries(gallery) == {
        fresh: made[fresh] + 30 * DAY,
        old: made[old] + 30 * DAY,
        kept_by_hand: made[kept_by_hand] + 30 * DAY,
        nearer_by_hand: nearer,
        gone_already: over,
        elsewhere: None,
    }
    assert expiries(gallery, "globex") == {globex: None}
    assert regions.update(CLIENT, "A", retention_days=30, existing=True).existing == RetentionEffect(0, 0)
    assert regions.update(CLIENT, "A", retention_days=900, existing=True).existing == RetentionEffect(0, 0)


def test_whose_time_is_over_by_it_is_matched_no_more_and_purged(
    database: Database, regions: RegionStore, database_url: str
) -> None:
    searching = Searching.on(database)
    old = enroll(searching.gallery, database_url, 40)
    fresh = enroll(searching.gallery, database_url, 10)
    searching.warm()
    for seed in (old, fresh):
        assert searching.names(unit(seed))[0] == str(seed)
    regions.update(CLIENT, "A", retention_days=30, existing=True)
    for strategy in ("exact", "sketch"):
        for seed in (old, 100 + old):
            assert str(old) not in searching.names(unit(seed), strategy=strategy)
        for seed in (fresh, 100 + fresh):
            assert searching.names(unit(seed), strategy=strategy)[0] == str(fresh)
    assert Eraser(database).expired(CLIENT) == [old]
    searching.keeper.close()


def test_who_is_suspended_stays_so_and_expires(gallery: Gallery, regions: RegionStore, database_url: str) -> None:
    person = enroll(gallery, database_url, 40)
    gallery.update_person(CLIENT, person, state="suspended")
    regions.update(CLIENT, "A", retention_days=30, existing=True)
    with psycopg.connect(database_url) as owner:
        assert owner.execute("SELECT DISTINCT matchable_until::text FROM face_encodings").fetchall() == [("-infinity",)]
    assert expiries(gallery)[person] is not None


def test_a_client_s_reaches_the_regions_that_have_none_of_their_own(
    gallery: Gallery, regions: RegionStore, clients: ClientStore, database_url: str
) -> None:
    regions.create(CLIENT, "B", retention_days=1000)
    people = {region: enroll(gallery, database_url, 40, region=region) for region in ("A", "C")}
    theirs = enroll(gallery, database_url, 40, NOW + 960 * DAY, region="B")
    globex = enroll(gallery, database_url, 40, client="globex")
    before = expiries(gallery)
    assert clients.count_existing(CLIENT, 30) == RetentionEffect(2, 2)
    changed = clients.update(CLIENT, retention_days=30, existing=True)
    assert (changed.existing, changed.retention_days) == (RetentionEffect(2, 2), 30)
    after = expiries(gallery)
    assert {person for person in after if after[person] != before[person]} == set(people.values())
    assert after[theirs] == before[theirs]
    assert expiries(gallery, "globex") == {globex: None}


def test_the_audit_log_has_the_counts(
    database: Database, gallery: Gallery, regions: RegionStore, clients: ClientStore, database_url: str
) -> None:
    enroll(gallery, database_url, 40)
    enroll(gallery, database_url, 10)
    regions.update(CLIENT, "A", retention_days=30, existing=True)
    clients.update(CLIENT, retention_days=30)
    told = [(each.action, each.details) for each in AuditLog(database).list(CLIENT, limit=2).entries]
    assert told == [
        ("client.change", {"fields": ["retention_days"]}),
        (
            "region.change",
            {"region": "A", "fields": ["retention_days"], "existing": {"people": 2, "expired": 1}},
        ),
    ]


def test_what_is_not_there_is_said(regions: RegionStore, clients: ClientStore) -> None:
    clients.create(CLIENT, CLIENT)
    with pytest.raises(UnknownRegionError):
        regions.count_existing(CLIENT, "A", 30)
    for call in (
        lambda: clients.count_existing("nobody", 30),
        lambda: clients.update("nobody", retention_days=30, existing=True),
    ):
        with pytest.raises(UnknownClientError):
            call()


def test_one_that_takes_too_long_changes_nothing(
    database: Database, gallery: Gallery, regions: RegionStore, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_module, "_AT_ONCE", 1)
    ids = [enroll(gallery, database_url, 40) for _ in range(3)]
    steps = iter(range(4))

    def late() -> str | None:
        if next(steps, None) is None:
            raise DeadlineExceededError("The time given to this request is over.")
        return None

    monkeypatch.setattr(database, "timeout", late)
    with pytest.raises(DeadlineExceededError):
        regions.update(CLIENT, "A", retention_days=30, existing=True)
    monkeypatch.undo()
    assert expiries(gallery) == dict.fromkeys(ids)
    assert regions.get(CLIENT, "A").retention_days is None


@pytest.mark.parametrize("of", ["region", "client"])
@pytest.mark.parametrize("way", ["one", "many"])
def test_who_is_enrolled_at_that_moment_expires_too(
    database: Database, gallery: Gallery, database_url: str, of: str, way: str
) -> None:
    """The enrolment began when there was no retention, and waits for it."""
    gallery.create_person(CLIENT, "A", "before", [])
    ways: dict[str, Callable[[], object]] = {
        "one": lambda: gallery.create_person(CLIENT, "A", "Alice", [new_face(1)]),
        "many": lambda: BulkWriter(database, gallery, MODEL).write(CLIENT, [NewPerson("1", "A", "Alice", (unit(1),))]),
    }
    row = {"region": "regions WHERE client_id = 'acme' AND name = 'A'", "client": "clients WHERE client_id = 'acme'"}[
        of
    ]
    table, _, condition = row.partition(" WHERE ")
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database_url) as applying:
        applying.execute(f"SELECT 1 FROM {row} FOR UPDATE")
        running = pool.submit(ways[way])
        while not running.done() and not waiting(database_url):
            pass
        applying.execute(f"UPDATE {table} SET retention_days = 30 WHERE {condition}")
        applying.commit()
        running.result(timeout=30)
    (alice,) = gallery.list_persons(CLIENT, name_prefix="Alice").persons
    assert alice.expires_at == alice.created_at + 30 * DAY


def test_a_client_s_reaches_a_region_that_is_being_renamed(
    gallery: Gallery, clients: ClientStore, database_url: str
) -> None:
    for region in ("A", "B"):
        gallery.create_person(CLIENT, region, region, [new_face(1)])
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database_url) as renaming:
        renaming.execute("SELECT 1 FROM regions WHERE client_id = 'acme' AND name = 'A' FOR UPDATE")
        renaming.execute("INSERT INTO regions (client_id, name) VALUES ('acme', 'Z')")
        renaming.execute(
            "WITH p AS (UPDATE persons SET region = 'Z' WHERE client_id = 'acme' AND region = 'A') "
            "UPDATE face_encodings SET region = 'Z' WHERE client_id = 'acme' AND region = 'A'"
        )
        renaming.execute("DELETE FROM regions WHERE client_id = 'acme' AND name = 'A'")
        running = pool.submit(clients.update, CLIENT, retention_days=30, existing=True)
        while not running.done() and not waiting(database_url):
            pass
        renaming.commit()
        effect = running.result(timeout=30).existing
    assert effect is not None
    assert effect.people == 2
    assert all(person.expires_at for person in gallery.list_persons(CLIENT).persons)


def test_who_is_being_erased_and_a_client_s_retention_do_not_wait_for_each_other(
    database: Database, gallery: Gallery, clients: ClientStore, database_url: str
) -> None:
    """An erasure holds the person when it comes to the client's row, the retention the other way round."""
    ids = [enroll(gallery, database_url, 40) for _ in range(12)]
    eraser = Eraser(database)
    with ThreadPoolExecutor(3) as pool:
        work = [pool.submit(eraser.erase, CLIENT, person) for person in ids[::2]]
        work.append(pool.submit(clients.update, CLIENT, retention_days=30, existing=True))
        for done in work:
            done.result(timeout=30)
    assert set(expiries(gallery)) == set(ids[1::2])
    assert None not in expiries(gallery).values()
