"""SQLite files as older systems left them, made for the tests."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synthetic import unit


def npy(vector: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, vector)
    return stream.getvalue()


ENCODINGS: dict[str, Callable[[np.ndarray], object]] = {
    "float32": lambda v: v.tobytes(),
    "float64": lambda v: v.astype("<f8").tobytes(),
    "npy": npy,
    "json": lambda v: json.dumps(v.tolist()),
    "base64 of float32": lambda v: base64.b64encode(v.tobytes()).decode(),
    "pickle": pickle.dumps,
}

# Each as (statements, the arguments of --map); persons 1 to 3 with the faces of seeds 1 to 3 and a second one of 1.
LAYOUTS: dict[str, tuple[str, str, str, list[str]]] = {
    "persons and face_encodings": (
        "CREATE TABLE persons (id INTEGER PRIMARY KEY, name TEXT, description TEXT);"
        "CREATE TABLE face_encodings (id INTEGER PRIMARY KEY, person_id INTEGER, embedding, image_path TEXT);",
        "INSERT INTO persons (id, name) VALUES (?, ?)",
        "INSERT INTO face_encodings (person_id, embedding) VALUES (?, ?)",
        [],
    ),
    "users with a declared key, without row ids": (
        "CREATE TABLE users (user_id TEXT PRIMARY KEY, full_name TEXT) WITHOUT ROWID;"
        "CREATE TABLE audit (id INTEGER, name TEXT);"
        "CREATE TABLE faces (face_id INTEGER PRIMARY KEY, owner TEXT REFERENCES users (user_id), Encoding) WITHOUT ROWID;",
        "INSERT INTO users VALUES (?, ?)",
        "INSERT INTO faces VALUES ((SELECT count(*) FROM faces), ?, ?)",
        [],
    ),
    "one table": (
        "CREATE TABLE known_faces (id INTEGER PRIMARY KEY, name TEXT, encoding BLOB, person INTEGER)",
        "",
        "INSERT INTO known_faces (person, encoding, name) VALUES (?1, ?2, 'Person ' || ?1)",
        ["persons.id=known_faces.person"],
    ),
    "names that only a mapping explains": (
        'CREATE TABLE "old staff" (nr INTEGER, "full ""name" TEXT); CREATE TABLE vecs (staff_nr TEXT, data BLOB);',
        'INSERT INTO "old staff" VALUES (?, ?)',
        "INSERT INTO vecs VALUES (?, ?)",
        [
            "persons.id=old staff.nr",
            'persons.name=old staff.full "name',
            "faces.person_id=vecs.staff_nr",
            "faces.embedding=vecs.data",
        ],
    ),
}


def write_layout(path: Path, layout: str, encoding: str) -> list[str]:
    """Returns the mappings that the layout needs."""
    tables, person, face, mappings = LAYOUTS[layout]
    encode = ENCODINGS[encoding]
    with closing(sqlite3.connect(path)) as old, old:
        old.executescript(tables)
        if person:
            old.executemany(person, [(number, f"Person {number}") for number in (1, 2, 3)])
        old.executemany(face, [(number, encode(unit(seed))) for number, seed in ((3, 3), (1, 1), (2, 2), (1, 101))])
    return mappings


def write_people(path: Path, people: Iterable[tuple[object, object]], faces: Iterable[tuple[object, object]]) -> None:
    """people: (id, name). faces: (person's id, embedding as stored)."""
    with closing(sqlite3.connect(path)) as old, old:
        old.execute("CREATE TABLE persons (id, name)")
        old.execute("CREATE TABLE face_encodings (id INTEGER PRIMARY KEY, person_id, embedding, image BLOB)")
        old.executemany("INSERT INTO persons VALUES (?, ?)", people)
        old.executemany("INSERT INTO face_encodings (person_id, embedding) VALUES (?, ?)", faces)


@dataclass(frozen=True)
class Planted:
    """A file of many persons, one in a hundred with a defect; each defect in turn.

    There are `each` of every defect: a second, equal face; no embedding; bytes that are none; a pickle that would make a file;
    NaN; a pickled list; another length; no region; no name; no face; a face of somebody who is gone; one of nobody; a second
    person of the same id.
    """

    path: Path
    regions: Path
    would_make: Path
    vectors: np.ndarray
    each: int

    @classmethod
    def write(cls, directory: Path, persons: int) -> Planted:
        rng = np.random.default_rng(1)
        vectors = rng.standard_normal((persons, 512)).astype("<f4")
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        made = directory / "made by a pickle"
        planted = cls(directory / "old.db", directory / "regions.csv", made, vectors, persons // 1300)
        with closing(sqlite3.connect(planted.path)) as old, old:
            old.execute("CREATE TABLE persons (id INTEGER, name TEXT)")
            old.execute("CREATE TABLE face_encodings (id INTEGER PRIMARY KEY, person_id, embedding)")
            old.executemany("INSERT INTO persons VALUES (?, ?)", planted._people())
            old.executemany("INSERT INTO face_encodings (person_id, embedding) VALUES (?, ?)", planted._faces())
        lines = (f"{n},{planted.region(n)}" for n in range(persons) if planted.defect(n) != 7)
        planted.regions.write_text("\n".join(["id,region", *lines]))
        return planted

    @property
    def persons(self) -> int:
        return len(self.vectors)

    def region(self, number: int) -> str:
        return f"Region {number % 3}"

    def defect(self, number: int) -> int | None:
        if number % 100 or number // 100 >= 13 * self.each:
            return None
        return number // 100 % 13

    @property
    def imported(self) -> list[int]:
        """The numbers of the persons who can be imported, each with one face."""
        return [n for n in range(self.persons) if self.defect(n) not in (1, 2, 3, 4, 5, 6, 7, 8, 9, 12)]

    @property
    def persons_refused(self) -> dict[str, int]:
        return {"no_face": 7 * self.each, "no_region": self.each, "invalid": self.each, "duplicate_id": 2 * self.each}

    @property
    def faces_refused(self) -> dict[str, int]:
        return {
            "duplicate": self.each,
            "unreadable": 5 * self.each,
            "other_length": self.each,
            "person_refused": 3 * self.each,
            "orphan": 2 * self.each,
        }

    def _people(self) -> Iterator[tuple[object, object]]:
        for n in range(self.persons):
            yield n, None if self.defect(n) == 8 else f"Person {n}"
            if self.defect(n) == 12:
                yield n, "Another"

    def _faces(self) -> Iterator[tuple[object, object]]:
        encodings = list(ENCODINGS.values())
        for n in reversed(range(self.persons)):
            value = encodings[n % len(encodings)](self.vectors[n])
            match self.defect(n):
                case 0:
                    yield n, value
                case 1:
                    value = None
                case 2:
                    value = b"\x00\x01\x02"
                case 3:
                    value = pickle.dumps(MakesAFile(self.would_make))
                case 4:
                    value = np.full(512, np.nan, "f4").tobytes()
                case 5:
                    value = pickle.dumps([1.0, 2.0])
                case 6:
                    value = self.vectors[n][:128].tobytes()
                case 9:
                    continue
                case 10:
                    yield f"gone {n}", value
                case 11:
                    yield None, value
            yield n, value


class MakesAFile:
    """Pickled, a program that makes one where it is run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch '{self.path}'",)
