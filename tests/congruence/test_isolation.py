"""Whatever is enrolled, moved, merged, suspended and deleted, each search finds the people of its client and region: all who
may be matched, and nobody else.

A state machine drives the gallery and a plain dictionary side by side, and compares every strategy's answer in every
scope after each step.
"""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from faceward.errors import DifferentRegionsError, DuplicateFaceError, DuplicatePersonError, UnknownPersonError
from faceward.retrieval import Retriever
from faceward.retrieval.freshness import SketchKeeper
from faceward.retrieval.retriever import RetrievalSettings
from faceward.sketches import SketchCache
from faceward.store.database import Database
from faceward.store.gallery import Gallery
from faceward.store.regions import RegionStore
from faceward.store.scopes import ScopeReader
from faceward.store.search import FaceSearch, FullVectors, SignBits
from faceward.types import Box, Candidate, NewFace
from synthetic import MODEL, unit

CLIENTS = ("acme", "Acme")
REGIONS = ("A", "a%")
# A few directions, each again and again: equal and nearly equal embeddings are where an order goes wrong.
EMBEDDINGS = [unit(seed) for seed in range(6)]
EMBEDDINGS += [
    (v / np.linalg.norm(v)).astype(np.float32) for v in (EMBEDDINGS[0] + 0.3 * EMBEDDINGS[i] for i in (1, 2, 3))
]
BOX = Box(1, 2, 3, 4)
PAST, FUTURE = (dt.datetime(year, 1, 1, tzinfo=dt.UTC) for year in (2020, 2100))

clients = st.sampled_from(CLIENTS)
regions = st.sampled_from(REGIONS)
face_lists = st.lists(st.sampled_from(range(len(EMBEDDINGS))), min_size=1, max_size=3) | st.just([])
photos = st.none() | st.sampled_from(["one", "two"])
external_ids = st.none() | st.sampled_from(["x", "y"])
anyone = st.integers(0, 10**6)


@dataclass
class Known:
    """What the dictionary knows of a person. faces: the number of the embedding by face id; photos: of each face id."""

    client: str
    region: str
    name: str
    external_id: str | None
    state: str = "active"
    expired: bool = False
    faces: dict[int, int] = field(default_factory=dict)
    photos: dict[int, str] = field(default_factory=dict)

    @property
    def matchable(self) -> bool:
        return self.state == "active" and not self.expired


@dataclass(frozen=True)
class Store:
    gallery: Gallery
    regions: RegionStore
    search: FaceSearch
    retriever: Retriever
    keeper: SketchKeeper


class Galleries(RuleBasedStateMachine):
    runs = 0

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.people: dict[int, Known] = {}
        self.probe = EMBEDDINGS[0]

    @initialize()
    def begin(self) -> None:
        """Clients of this run's own; what earlier runs left behind is other tenants' and must stay unseen."""
        Galleries.runs += 1
        self.run = Galleries.runs
        for number, (name, region) in enumerate(itertools.product(CLIENTS, REGIONS)):
            self.enroll(name, region, [number], None, None)
            self.enroll(name, region, [number + 1, 0], None, None)
        self.refresh_sketches()

    def client(self, name: str) -> str:
        return f"{name} {self.run}"

    def new_faces(self, numbers: list[int], photo: str | None) -> list[NewFace]:
        """The photo stands for the first face's file."""
        return [
            NewFace(EMBEDDINGS[n], box=BOX, image_sha256=photo.encode() if photo and i == 0 else None)
            for i, n in enumerate(numbers)
        ]

    def taken(self, client: str, region: str, but: int | None = None) -> tuple[set[str], set[str | None]]:
        """The photos and external ids of a region."""
        there = [p for i, p in self.people.items() if (p.client, p.region) == (client, region) and i != but]
        return {photo for p in there for photo in p.photos.values()}, {p.external_id for p in there} - {None}

    def somebody(self, number: int) -> tuple[int, Known]:
        person_id = sorted(self.people)[number % len(self.people)]
        return person_id, self.people[person_id]

    @rule(name=clients, region=regions, numbers=face_lists, photo=photos, external_id=external_ids)
    def enroll(self, name: str, region: str, numbers: list[int], photo: str | None, external_id: str | None) -> None:
        client = self.client(name)
        seen, ids = self.taken(client, region)
        faces = self.new_faces(numbers, photo)

        def enroll() -> Any:
            return self.store.gallery.create_person(client, region, "Somebody", faces, external_id=external_id)

        if external_id in ids:
            with pytest.raises(DuplicatePersonError):
                enroll()
        elif numbers and photo in seen:
            with pytest.raises(DuplicateFaceError):
                enroll()
        else:
            person, face_ids = enroll()
            known = Known(client, region, "Somebody", external_id)
            known.faces = dict(zip(face_ids, numbers, strict=True))
            if photo and face_ids:
                known.photos[face_ids[0]] = photo
            self.people[person.id] = known

    @precondition(lambda self: self.people)
    @rule(number=anyone, numbers=face_lists, photo=photos)
    def add_faces(self, number: int, numbers: list[int], photo: str | None) -> None:
        person_id, known = self.somebody(number)
        faces = self.new_faces(numbers, photo)
        if numbers and photo in self.taken(known.client, known.region)[0]:
            with pytest.raises(DuplicateFaceError):
                self.store.gallery.add_faces(known.client, person_id, faces)
            return
        _, face_ids = self.store.gallery.add_faces(known.client, person_id, faces)
        known.faces.update(zip(face_ids, numbers, strict=True))
        if photo and face_ids:
            known.photos[face_ids[0]] = photo

    @precondition(lambda self: self.people)
    @rule(number=anyone, region=regions)
    def move(self, number: int, region: str) -> None:
        person_id, known = self.somebody(number)
        seen, ids = self.taken(known.client, region, but=person_id)
        if seen & set(known.photos.values()) or known.external_id in ids:
            with pytest.raises((DuplicateFaceError, DuplicatePersonError)):
                self.store.gallery.move_person(known.client, person_id, region)
            return
        assert self.store.gallery.move_person(known.client, person_id, region).region == region
        known.region = region

    @precondition(lambda self: len(self.people) > 1)
    @rule(number=anyone, other=anyone, across_regions=st.booleans())
    def merge(self, number: int, other: int, across_regions: bool) -> None:
        (person_id, known), (into_id, into) = self.somebody(number), self.somebody(other)
        if into_id == person_id:
            return

        def merge() -> Any:
            return self.store.gallery.merge_persons(known.client, person_id, into_id, across_regions=across_regions)

        if into.client != known.client:
            with pytest.raises(UnknownPersonError):
                merge()
            return
        if into.region != known.region and not across_regions:
            with pytest.raises(DifferentRegionsError):
                merge()
            return
        twice = {face for face, photo in known.photos.items() if photo in into.photos.values()}
        if into.region != known.region:
            seen, ids = self.taken(known.client, into.region, but=into_id)
            left = {photo for face, photo in known.photos.items() if face not in twice}
            if seen & left or (into.external_id is None and known.external_id in ids):
                with pytest.raises((DuplicateFaceError, DuplicatePersonError)):
                    merge()
                return
        merged = merge()
        assert (merged.person.id, merged.person.region) == (into_id, into.region)
        assert (merged.faces_moved, merged.faces_dropped) == (len(known.faces) - len(twice), len(twice))
        into.faces |= {face: number for face, number in known.faces.items() if face not in twice}
        into.photos |= {face: photo for face, photo in known.photos.items() if face not in twice}
        into.external_id = into.external_id or known.external_id
        del self.people[person_id]

    @precondition(lambda self: self.people)
    @rule(number=anyone)
    def delete(self, number: int) -> None:
        person_id, known = self.somebody(number)
        assert self.store.gallery.delete_person(known.client, person_id) == len(known.faces)
        del self.people[person_id]

    @precondition(lambda self: any(known.faces for known in self.people.values()))
    @rule(number=anyone)
    def delete_face(self, number: int) -> None:
        faces = sorted((face, person_id) for person_id, known in self.people.items() for face in known.faces)
        face_id, person_id = faces[number % len(faces)]
        known = self.people[person_id]
        assert self.store.gallery.delete_face(known.client, person_id, face_id) is True
        assert self.store.gallery.delete_face(known.client, person_id, face_id) is False
        del known.faces[face_id]
        known.photos.pop(face_id, None)

    @precondition(lambda self: self.people)
    @rule(number=anyone, name=st.sampled_from(["Alice", "Bob"]))
    def rename(self, number: int, name: str) -> None:
        person_id, known = self.somebody(number)
        assert self.store.gallery.update_person(known.client, person_id, name=name).name == name
        known.name = name

    @precondition(lambda self: self.people)
    @rule(number=anyone, state=st.sampled_from(["active", "suspended"]))
    def suspend_or_resume(self, number: int, state: Any) -> None:
        person_id, known = self.somebody(number)
        assert self.store.gallery.update_person(known.client, person_id, state=state).state == state
        known.state = state

    @precondition(lambda self: self.people)
    @rule(number=anyone, when=st.sampled_from([None, PAST, FUTURE]))
    def expire_or_extend(self, number: int, when: dt.datetime | None) -> None:
        person_id, known = self.somebody(number)
        assert self.store.gallery.update_person(known.client, person_id, expires_at=when).expires_at == when
        known.expired = when == PAST

    @precondition(lambda self: self.people)
    @rule(number=anyone, name=clients)
    def reach_into_another_tenant(self, number: int, name: str) -> None:
        """With the right ids, but as another client: nobody is there."""
        person_id, known = self.somebody(number)
        client = self.client(name)
        if client == known.client:
            return
        gallery = self.store.gallery
        for attempt in (
            lambda: gallery.get_person(client, person_id),
            lambda: gallery.list_faces(client, person_id),
            lambda: gallery.add_faces(client, person_id, self.new_faces([0], None)),
            lambda: gallery.update_person(client, person_id, name="Mallory"),
            lambda: gallery.update_person(client, person_id, state="suspended"),
            lambda: gallery.move_person(client, person_id, "A"),
            lambda: gallery.merge_persons(client, person_id, person_id + 1, across_regions=True),
            lambda: gallery.delete_person(client, person_id),
            lambda: gallery.delete_face(client, person_id, min(known.faces, default=1)),
        ):
            with pytest.raises(UnknownPersonError):
                attempt()

    @rule()
    def refresh_sketches(self) -> None:
        """From now on the sketches are out of date more and more; the answers must not be."""
        for name in CLIENTS:
            for region in REGIONS:
                scope = (self.client(name), region)
                self.store.keeper.load(scope)
                self.store.keeper.extend(scope)

    @rule(number=st.sampled_from(range(len(EMBEDDINGS))))
    def look_for(self, number: int) -> None:
        self.probe = EMBEDDINGS[number]

    @invariant()
    def every_search_finds_exactly_the_people_of_its_scope(self) -> None:
        search, retriever = self.store.search, self.store.retriever
        for name in CLIENTS:
            for scope in (*((region,) for region in REGIONS), REGIONS):
                client = self.client(name)
                sources = [FullVectors(limit=1000), SignBits(512)]
                answers = [
                    answer.candidates
                    for answer in search.search(client, scope, [self.probe] * 2, sources, model_id=MODEL, top_k=100)
                ]
                for strategy in ("sketch", "exact"):
                    (answer,) = retriever.find(client, scope, [self.probe], top_k=100, strategy=strategy)
                    answers.append(answer.candidates)
                self.check(client, scope, answers[0])
                assert all(other == answers[0] for other in answers)
                (graph,) = retriever.find(client, scope, [self.probe], top_k=100, strategy="hnsw")
                assert set(graph.candidates) <= set(answers[0])

    def check(self, client: str, scope: tuple[str, ...], found: tuple[Candidate, ...]) -> None:
        expected = {
            person_id: max(float(self.probe.astype(float) @ EMBEDDINGS[n]) for n in known.faces.values())
            for person_id, known in self.people.items()
            if known.client == client and known.region in scope and known.faces and known.matchable
        }
        assert {candidate.person_id for candidate in found} == set(expected)
        assert len(found) == len(expected)
        for candidate in found:
            known = self.people[candidate.person_id]
            assert (candidate.name, candidate.region, candidate.external_id) == (
                known.name,
                known.region,
                known.external_id,
            )
            assert candidate.similarity == pytest.approx(expected[candidate.person_id], abs=1e-6)
            best = float(self.probe.astype(float) @ EMBEDDINGS[known.faces[candidate.face_id]])
            assert best == pytest.approx(expected[candidate.person_id], abs=1e-6)
        assert list(found) == sorted(found, key=lambda candidate: (-candidate.similarity, candidate.face_id))

    @invariant()
    def every_list_shows_exactly_the_people_of_its_client(self) -> None:
        for name in CLIENTS:
            client = self.client(name)
            own = {person_id: known for person_id, known in self.people.items() if known.client == client}
            listed = self.store.gallery.list_persons(client, limit=1000).persons
            assert {person.id: (person.region, person.name, person.face_count, person.state) for person in listed} == {
                person_id: (known.region, known.name, len(known.faces), known.state) for person_id, known in own.items()
            }
            for region in self.store.regions.list(client, limit=1000).regions:
                there = [known for known in own.values() if known.region == region.name]
                assert (region.persons, region.faces) == (len(there), sum(len(known.faces) for known in there))


def test_no_search_crosses_a_region_or_a_tenant(database: Database, gallery: Gallery) -> None:
    search = FaceSearch(database)
    keeper = SketchKeeper(ScopeReader(database, MODEL, 512), SketchCache(1 << 20, 512))
    retriever = Retriever(
        search,
        gallery,
        keeper,
        model_id=MODEL,
        dimension=512,
        settings=RetrievalSettings(full_vectors_up_to=3, sketch_from=0, size_seconds=0),
    )
    try:
        run_state_machine_as_test(
            lambda: Galleries(Store(gallery, RegionStore(database), search, retriever, keeper)),
            settings=settings(
                max_examples=20,
                stateful_step_count=15,
                deadline=None,
                derandomize=True,
                phases=[Phase.generate],  # each step asks PostgreSQL: to find a shorter failure would take minutes
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        keeper.close()
