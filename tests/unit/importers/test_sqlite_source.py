"""A hostile SQLite file: what it can't do to who reads it. Whole imports are in tests/integration/test_import_sqlite.py."""

from __future__ import annotations

import _thread
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faceward.importers import SqliteSource

ENDLESS = """
CREATE TABLE persons (id INTEGER PRIMARY KEY, name TEXT);
CREATE VIEW face_encodings AS WITH RECURSIVE n (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n)
SELECT id, 1 AS person_id, x'00' AS embedding FROM n;
"""


@pytest.fixture
def interruptible() -> Iterator[None]:
    """However the tests were started: a shell's background work ignores interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("read", [lambda source: source.count(), lambda source: next(iter(source.faces()))])
def test_a_view_without_end_is_ended_by_an_interrupt(tmp_path: Path, read: Callable[[SqliteSource], object]) -> None:
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as written:
        written.executescript(ENDLESS)
    written.close()
    with SqliteSource(path, {}) as source:
        interrupt = threading.Timer(0.3, _thread.interrupt_main)
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            read(source)
        interrupt.join()
