from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from archives import Site, tarball, wanted_file

from faceward.errors import PackUnavailableError
from faceward.vision.fetch import WebFiles
from faceward.vision.sample_photos import PHOTO_SETS, PhotoSet, fetch_sample_photos

NAMES = [
    "obama.jpg",
    "obama2.jpg",
    "obama3.jpg",
    "obama_partial_face.jpg",
    "obama_partial_face2.jpg",
    "biden.jpg",
    "astronaut.png",
]


def test_the_photos_are_there(photos: dict[str, Path]) -> None:
    assert list(photos) == NAMES
    for photo in (photo for photos in PHOTO_SETS for photo in photos.photos):
        assert hashlib.sha256(photos[photo.name].read_bytes()).hexdigest() == photo.sha256


def test_photos_are_fetched_once_or_put_there_by_hand(site: Site, tmp_path: Path) -> None:
    content = {"tests/a.jpg": b"a photo"}
    packed = tarball(content)
    photos = PhotoSet(
        photos=(wanted_file("a.jpg", "tests/a.jpg", b"a photo"),),
        sources=(WebFiles(site.base),),
        archive="thing.tar.gz",
        archive_sha256=hashlib.sha256(packed).hexdigest(),
        how="python -m pip download thing",
    )
    with pytest.raises(PackUnavailableError) as failure:
        fetch_sample_photos(tmp_path, sets=[photos])
    downloads = tmp_path / "downloads"
    assert f"put the file thing.tar.gz that it writes into {downloads}" in str(failure.value)
    assert "pip download thing" in str(failure.value)
    downloads.mkdir()
    (downloads / "thing.tar.gz").write_bytes(packed)
    seen: list[tuple[int, int]] = []
    found = fetch_sample_photos(tmp_path, lambda done, total: seen.append((done, total)), sets=[photos])
    assert found == {"a.jpg": tmp_path / "photos" / "a.jpg"}
    assert found["a.jpg"].read_bytes() == b"a photo"
    assert seen == [(7, 7)]
    site.asked.clear()
    assert fetch_sample_photos(tmp_path, sets=[photos]) == found
    assert site.asked == []
