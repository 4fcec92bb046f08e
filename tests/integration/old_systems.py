"""SQLite files as older systems left them, made for the tests."""

from __future__ import annotations

import base64
import io
import json
import pickle
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
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
