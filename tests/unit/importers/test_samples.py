"""The faces whose stored embedding is held against their image: drawn from those that have one, wherever they stand."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from faceward.importers import CsvSource, SqliteSource

FACES = 400


def sqlite_file(path: Path, images: set[int], options: str = "") -> SqliteSource:
    with closing(sqlite3.connect(path)) as old, old:
        old.execute("CREATE TABLE persons (id INTEGER PRIMARY KEY, name)")
        old.execute(f"CREATE TABLE faces (id INTEGER PRIMARY KEY, person_id, embedding, image_path) {options}")
        rows = ((n, n, b"", "photo.jpg" if n in images else None) for n in range(1, FACES + 1))
        old.executemany("INSERT INTO faces VALUES (?, ?, ?, ?)", rows)
    return SqliteSource(path)


def without_row_ids(path: Path, images: set[int]) -> SqliteSource:
    return sqlite_file(path, images, "WITHOUT ROWID")


def csv_file(path: Path, images: set[int]) -> CsvSource:
    lines = (f"{n},Name,A,0,{'photo.jpg' if n in images else ''}" for n in range(2, FACES + 2))
    path.write_text("\n".join(["id,name,region,embedding,photo", *lines]))
    return CsvSource(path)


@pytest.mark.parametrize("write", [sqlite_file, without_row_ids, csv_file])
@pytest.mark.parametrize("step", [1, 2, 3, 10, 41])
def test_faces_with_an_image_are_drawn_from_the_whole_source(
    tmp_path: Path, write: Callable[[Path, set[int]], SqliteSource | CsvSource], step: int
) -> None:
    images = set(range(3, FACES + 1, step))
    with write(tmp_path / "old", images) as source:
        drawn = [int(str(face.row)) for face in source.sample_with_images(40)]
        assert [int(str(face.row)) for face in source.sample_with_images(40)] == drawn
    assert set(drawn) <= images
    assert len(set(drawn)) == min(40, len(images))
    for first_ones in drawn[:10], drawn:  # the first that can be compared are enough
        assert min(first_ones) < FACES / 3
        assert max(first_ones) > FACES * 2 / 3
