"""Stored photos: sealed however they come in, read in one place, and changed in batches that may be stopped."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from faceward.errors import ImageKeyError, UnknownPersonError
from faceward.store.bulk import BulkWriter, NewPerson, NewPhoto
from faceward.store.database import Database
from faceward.store.gallery import Gallery
from faceward.store.job_queue import JobQueue
from faceward.store.jobs import JobStore
from faceward.store.photo_vault import PhotoVault
from faceward.store.photos import FaceTable, PhotoBatch, StoredPhoto, StoredPhotos, photos_of
from faceward.store.regions import RegionStore
from faceward.types import Box, Crop, NewFace
from searching import at_last
from synthetic import MODEL, unit

KEYS = {"2025": os.urandom(32), "2026": os.urandom(32)}
OLD, NEW, NONE = PhotoVault(KEYS, "2025"), PhotoVault(KEYS, "2026"), PhotoVault(KEYS)
FACE = Box(10, 20, 30, 40)
KEPT = Crop(Box(5, 10, 55, 70), 2.0)


def photo(number: int, crop: Crop | None = None) -> NewFace:
    data = f"photo {number}".encode() * 10
    return NewFace(
        unit(number), box=FACE, image_data=data, image_sha256=number.to_bytes(2, "big") * 16, image_crop=crop
    )


def store(database: Database, vault: PhotoVault, numbers: range, client: str = "acme", region: str = "A") -> list[int]:
    """One person for each photo."""
    gallery = Gallery(database, MODEL, vault=vault)
    return [gallery.create_person(client, region, f"{n}", [photo(n)])[0].id for n in numbers]


def kept(database: Database, vault: PhotoVault, person_id: int) -> list[StoredPhoto]:
    with database.transaction("acme") as tx:
        return list(photos_of(tx, vault, "acme", person_id, []))


def all_batches(step: Callable[[int], PhotoBatch]) -> tuple[int, Counter[str]]:
    done, unopened, after = 0, Counter[str](), 0
    while True:
        batch = step(after)
        done += batch.done
        unopened.update(batch.unopened)
        if batch.next_after is None:
            return done, unopened
        after = batch.next_after


def live(photos: StoredPhotos) -> FaceTable:
    (table,) = photos.tables("acme")
    return table


def rotate(database: Database, vault: PhotoVault, client: str = "acme") -> int:
    photos = StoredPhotos(database, vault)
    table = live(photos)
    return sum(
        all_batches(lambda after, key=key: photos.rotate(client, table, key, after=after))[0]  # type: ignore[misc]
        for key in photos.keys_to_leave(client, table)
    )


def test_photos_are_sealed_whichever_way_they_come(database_url: str, database: Database) -> None:
    gallery = Gallery(database, MODEL, vault=OLD)
    alice, _ = gallery.create_person("acme", "A", "Alice", [photo(1), NewFace(unit(100))])
    gallery.add_faces("acme", alice.id, [photo(2, KEPT)])
    writer = BulkWriter(database, gallery, MODEL, vault=OLD)
    writer.write("acme", [NewPerson("bulk", "A", "Bulk", (photo(3, KEPT), unit(101)))])
    writer.add_photos("acme", [NewPhoto("photo", "A", "Photo", photo(4, KEPT))])
    with psycopg.connect(database_url) as owner:
        rows = owner.execute(
            "SELECT image_key_id, position('photo' IN encode(image_data, 'escape')) FROM face_encodings "
            "WHERE image_data IS NOT NULL"
        ).fetchall()
    assert rows == [("2025", 0)] * 4
    photos = StoredPhotos(database, NEW)
    found = [each for person in gallery.list_persons("acme").persons for each in kept(database, NEW, person.id)]
    assert [each.data for each in found] == [photo(n).image_data for n in (1, 2, 3, 4)]
    assert [each.crop for each in found] == [None, KEPT, KEPT, KEPT]
    assert [each.box_here for each in found] == [FACE, *[Box(10, 20, 50, 60)] * 3]
    assert photos.read("acme", alice.id, found[1].face_id) == photo(2).image_data
    with pytest.raises(UnknownPersonError):
        photos.read("globex", alice.id, found[1].face_id)


def test_a_photo_whose_key_is_gone_is_told_by_the_keys_id(database: Database) -> None:
    (person_id,) = store(database, OLD, range(1))
    face_id = Gallery(database, MODEL).list_faces("acme", person_id)[0].id
    for vault in (PhotoVault(), PhotoVault({"2025": KEYS["2026"]})):
        with pytest.raises(ImageKeyError, match="2025"):
            StoredPhotos(database, vault).read("acme", person_id, face_id)


def test_keys_are_changed_photo_by_photo_and_the_old_one_can_go(database_url: str, database: Database) -> None:
    store(database, NONE, range(3))
    store(database, OLD, range(3, 10))
    store(database, OLD, range(2), client="globex")
    photos = StoredPhotos(database, NEW)
    assert photos.key_ids("acme") == {None, "2025"}
    assert rotate(database, NEW) == 10
    assert rotate(database, NEW) == 0
    assert photos.key_ids("acme") == {"2026"}
    assert photos.key_ids("globex") == {"2025"}
    (counts,) = photos.counts("acme")
    assert (counts.key_id, counts.photos, counts.crops) == ("2026", 10, 0)
    without = PhotoVault({"2026": KEYS["2026"]}, "2026")
    people = Gallery(database, MODEL).list_persons("acme").persons
    assert [kept(database, without, p.id)[0].data for p in people] == [photo(n).image_data for n in range(10)]
    assert rotate(database, NONE) == 10
    assert photos.key_ids("acme") == {None}


def test_a_batch_ends_with_a_few_megabytes_and_goes_on_where_it_was(database: Database) -> None:
    gallery = Gallery(database, MODEL, vault=OLD)
    large = [NewFace(unit(n), image_data=os.urandom(5 << 20), image_sha256=bytes([n]) * 32) for n in range(4)]
    gallery.create_person("acme", "A", "Large", large)
    photos = StoredPhotos(database, NEW)
    first = photos.rotate("acme", live(photos), "2025")
    assert first.done == 2
    assert first.next_after is not None
    assert photos.key_ids("acme") == {"2025", "2026"}
    # Whoever was stopped here begins again at the front.
    assert rotate(database, NEW) == 2
    assert photos.key_ids("acme") == {"2026"}


def test_a_batch_whose_photos_are_deleted_meanwhile_is_not_the_last(database_url: str, database: Database) -> None:
    large = NewFace(unit(1), image_data=bytes(9 << 20), image_sha256=b"large")  # a batch of its own
    person, _ = Gallery(database, MODEL, vault=OLD).create_person("acme", "A", "Alice", [large])
    store(database, OLD, range(2, 4))
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database() "
        "AND application_name = 'faceward'"
    )
    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(database_url, autocommit=True) as looking,
        psycopg.connect(database_url) as deleting,
    ):
        deleting.execute("DELETE FROM persons WHERE client_id = 'acme' AND id = %s", (person.id,))
        running = pool.submit(rotate, database, NEW)
        at_last(lambda: running.done() or looking.execute(waiting).fetchone() == (1,))
        deleting.commit()
        assert running.result(timeout=30) == 2
    assert StoredPhotos(database, NEW).key_ids("acme") == {"2026"}


def test_photos_that_do_not_open_are_left_and_told(database: Database) -> None:
    store(database, OLD, range(2))
    photos = StoredPhotos(database, PhotoVault({"2026": KEYS["2026"]}, "2026"))
    done, unopened = all_batches(lambda after: photos.rotate("acme", live(photos), "2025", after=after))
    assert (done, unopened) == (0, {"2025": 2})
    assert photos.key_ids("acme") == {"2025"}


def test_photos_are_dropped_and_the_faces_stay(database: Database) -> None:
    store(database, OLD, range(3))
    store(database, OLD, range(3, 5), region="B")
    store(database, OLD, range(1), client="globex")
    photos = StoredPhotos(database, OLD)
    assert all_batches(lambda after: photos.drop("acme", live(photos), region="B", after=after))[0] == 2
    assert all_batches(lambda after: photos.drop("acme", live(photos), after=after))[0] == 3
    assert photos.counts("acme") == ()
    assert photos.counts("globex")[0].photos == 1
    regions = RegionStore(database).list("acme").regions
    assert [(region.name, region.faces) for region in regions] == [("A", 3), ("B", 2)]


def test_whole_photos_become_crops(database: Database) -> None:
    (person_id, _) = store(database, NONE, range(2))
    photos = StoredPhotos(database, NEW)
    change = {photo(0).image_data: (b"crop", KEPT)}
    done, _ = all_batches(
        lambda after: photos.change("acme", live(photos), lambda each: change.get(each.data), after=after)
    )
    assert done == 1
    (left,) = kept(database, NEW, person_id)
    assert (left.data, left.crop) == (b"crop", KEPT)
    assert photos.key_ids("acme") == {None, "2026"}


def test_uploads_of_imports_are_sealed_while_they_wait(database_url: str, database: Database) -> None:
    jobs = JobStore(database, vault=OLD)
    job = jobs.begin("acme", "archive")
    for position, piece in enumerate((b"first ", b"second")):
        jobs.append("acme", job.id, position, piece)
    jobs.finish_upload("acme", job.id)
    with psycopg.connect(database_url) as owner:
        rows = owner.execute("SELECT key_id, position('first' IN encode(data, 'escape')) FROM job_chunks").fetchall()
    assert rows == [("2025", 0)] * 2
    assert StoredPhotos(database, NEW).key_ids("acme") == {"2025"}
    claimed = JobQueue(database, JobStore(database, vault=NEW)).claim()
    assert claimed is not None
    assert b"".join(JobQueue(database, JobStore(database, vault=NEW)).payload(claimed)) == b"first second"
    with pytest.raises(ImageKeyError):
        list(JobQueue(database, JobStore(database)).payload(claimed))
