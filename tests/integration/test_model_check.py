"""`--same-model` is a word that the images are asked about: what they say, and that they could not be asked, is told."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from importing import Importing, faces

from faceward.errors import ImportSourceError, InputError, ModelMismatchError
from faceward.importers import SqliteSource
from faceward.service import FaceService
from synthetic import unit

Written = Callable[..., Path]


@pytest.fixture
def importing(service: FaceService, client: str) -> Importing:
    return Importing(service, client)


@pytest.fixture
def old(tmp_path: Path) -> Written:
    """A file of one table: a row for each (embedding, path of the image)."""

    def write(*rows: tuple[bytes, str]) -> Path:
        path = tmp_path / "old.db"
        with closing(sqlite3.connect(path)) as file, file:
            file.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, name, embedding, image_path)")
            file.executemany(
                "INSERT INTO people (name, embedding, image_path) VALUES (?, ?, ?)",
                ((f"Person {n}", *row) for n, row in enumerate(rows, 1)),
            )
        return path

    return write


@pytest.fixture(scope="module")
def portraits(service: FaceService, photos: dict[str, Path]) -> dict[Path, bytes]:
    """Photos of one face each, with the embedding that the model in use makes of them."""
    made: dict[Path, bytes] = {}
    for photo in photos.values():
        try:
            made[photo] = service.faces_to_store(photo)[0].embedding.tobytes()
        except InputError:
            continue
        if len(made) == 4:
            break
    return made


def test_images_that_are_not_where_they_should_be_are_told(old: Written, importing: Importing, tmp_path: Path) -> None:
    path = old(*((unit(n).tobytes(), f"gone/{n}.jpg") for n in range(3)))
    with SqliteSource(path) as source:
        account = importing.run(source)
    assert (faces(account), account.compared) == ((3, 3, 0), 0)
    (warning,) = account.warnings
    assert "was not checked: none of the 3 images that were tried could be compared" in warning
    assert f"There is no image file at {tmp_path / 'gone'}" in warning


def test_without_images_there_is_nothing_to_warn_of(old: Written, importing: Importing) -> None:
    with SqliteSource(old((unit(1).tobytes(), ""))) as source:
        assert importing.run(source).warnings == ()


def test_a_folder_of_images_that_is_not_there_is_an_error(old: Written, importing: Importing, tmp_path: Path) -> None:
    with SqliteSource(old((unit(1).tobytes(), "a.jpg"))) as source:
        for act in (importing.plan, importing.run):
            with pytest.raises(ImportSourceError, match=r"--images .*nowhere: there is no such folder"):
                act(source, images=tmp_path / "nowhere")
    assert importing.service.list_persons(client_id=importing.client).persons == ()


def test_paths_that_windows_wrote_are_found(
    old: Written, importing: Importing, tmp_path: Path, portraits: dict[Path, bytes]
) -> None:
    photo = next(iter(portraits))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(photo.read_bytes())
    with SqliteSource(old((unit(1).tobytes(), "photos\\one.jpg"))) as source:
        with pytest.raises(ModelMismatchError, match="of 1 that were compared"):
            importing.run(source)
        assert faces(importing.run(source, reembed=True)) == (1, 1, 0)


def test_which_of_the_compared_disagree_is_told(
    old: Written, importing: Importing, portraits: dict[Path, bytes]
) -> None:
    rows = [(embedding, str(photo)) for photo, embedding in portraits.items()]
    rows[2] = unit(1).tobytes(), rows[2][1]
    with SqliteSource(old(*rows)) as source:
        account = importing.run(source)
    assert (faces(account), account.compared, account.agreed) == ((4, 4, 0), 4, 3)
    (problem,) = account.problems
    assert (problem.table, problem.row, problem.code) == ("people", 3, "image_disagrees")
    assert account.warnings == ()
