"""A gallery with its searches on a test's own database, for tests that need no images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from faceward.retrieval import KeeperSettings, RetrievalSettings, Retriever, SketchKeeper
from faceward.sketches import SketchCache
from faceward.store.bulk import BulkWriter, NewPerson
from faceward.store.database import Database
from faceward.store.gallery import Gallery
from faceward.store.scopes import ScopeReader
from faceward.store.search import FaceSearch, SearchAnswer
from faceward.store.watermarks import Watermark
from faceward.types import Embedding, NewFace
from synthetic import MODEL

CLIENT = "acme"

AT_REST = KeeperSettings(tail=10**9, dead_share=1e9, idle_seconds=1e9)
"""Sketches are loaded and then stay as they are: what is new is in the tail, what is gone is still proposed."""


@dataclass(frozen=True)
class Searching:
    """The parts that a search is made of, on one database."""

    database: Database
    gallery: Gallery
    reader: ScopeReader
    search: FaceSearch
    keeper: SketchKeeper
    retriever: Retriever

    @classmethod
    def on(
        cls,
        database: Database,
        keeper: KeeperSettings = AT_REST,
        settings: RetrievalSettings | None = None,
        *,
        budget: int = 1 << 28,
        reads_from: Database | None = None,
    ) -> Searching:
        """reads_from: what the sketches are loaded from, where that is another login or server."""
        gallery = Gallery(database, MODEL)
        reader = ScopeReader(reads_from or database, MODEL, 512)
        kept = SketchKeeper(reader, SketchCache[tuple[str, str], Watermark](budget), keeper)
        search = FaceSearch(database)
        retriever = Retriever(search, gallery, kept, model_id=MODEL, dimension=512, settings=settings)
        return cls(database, gallery, reader, search, kept, retriever)

    def enroll(self, name: str, *embeddings: Embedding, region: str = "A") -> int:
        person, _ = self.gallery.create_person(CLIENT, region, name, [NewFace(row) for row in embeddings])
        return person.id

    def fill(self, embeddings: Iterable[Embedding], region: str = "A", prefix: str = "p") -> None:
        """One person for each embedding, named by prefix and position."""
        persons = [NewPerson(f"{prefix}{n}", region, f"{prefix}{n}", (row,)) for n, row in enumerate(embeddings)]
        writer = BulkWriter(self.database, self.gallery, MODEL)
        writer.write(CLIENT, persons)
        writer.settle()  # some tests crash the server next

    def find(self, probe: Embedding, *regions: str, strategy: Any = "sketch", top_k: int = 5) -> SearchAnswer:
        (answer,) = self.retriever.find(CLIENT, regions or ("A",), [probe], top_k=top_k, strategy=strategy)
        return answer

    def names(self, probe: Embedding, *regions: str, strategy: Any = "sketch", top_k: int = 5) -> list[str]:
        return [found.name for found in self.find(probe, *regions, strategy=strategy, top_k=top_k).candidates]

    def warm(self, *regions: str) -> None:
        for region in regions or ("A",):
            assert self.retriever.warm(CLIENT, region)


def at_last(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for what happens in the background."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def same(one: Sequence[Any], other: Sequence[Any], places: int = 5) -> bool:
    """Whether two answers name the same faces at the same similarities; faces that tie may change places."""

    def plain(candidates: Sequence[Any]) -> list[tuple[float, int, int, str]]:
        return sorted(
            (round(-found.similarity, places), found.person_id, found.face_id, found.region) for found in candidates
        )

    return plain(one) == plain(other)
