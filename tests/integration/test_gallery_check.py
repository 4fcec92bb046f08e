"""What is planted in a gallery is what the check reports: no more, no less, and the same however it is cut into blocks."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from faceward.errors import UnknownRegionError
from faceward.evaluation.gallery_check import GalleryCheck, GalleryReport
from faceward.evaluation.noise_model import NoiseModel, Rows
from faceward.service.thresholds import Thresholds
from faceward.store.bulk import BulkWriter, NewPerson
from faceward.store.database import Database
from faceward.store.gallery import Gallery
from faceward.store.gallery_scan import GalleryScanner
from faceward.store.regions import RegionStore
from faceward.types import NewFace
from synthetic import MODEL

CLIENT = "acme"
THRESHOLD = 0.55
Photos = list[tuple[NDArray[np.float32], float | None]]


def check(database: Database, *, threshold: float = THRESHOLD, faces: int = 10**6, **options: Any) -> GalleryReport:
    """faces: held in memory."""
    thresholds = Thresholds(RegionStore(database), threshold)
    scanner = GalleryScanner(database, MODEL, 512)
    return GalleryCheck(scanner, thresholds, min_quality=0.3, block_bytes=2048 * faces).run(CLIENT, **options)


def fill(database: Database, people: dict[str, Photos], region: str = "A", client: str = CLIENT) -> None:
    persons = [
        NewPerson(name, region, name, tuple(NewFace(row, quality=quality) for row, quality in photos))
        for name, photos in people.items()
    ]
    BulkWriter(database, Gallery(database, MODEL), MODEL).write(client, persons)


class People:
    """Makes people, and photos of them."""

    def __init__(self, seed: int) -> None:
        self.model = NoiseModel.load()
        self.rng = np.random.default_rng(seed)

    def directions(self, count: int) -> Rows:
        return self.model.persons(count, self.rng)

    def photo(self, direction: Any, similarity: float = 0.88, quality: float | None = 0.9) -> Any:
        return self.model.near(direction[np.newaxis], similarity, self.rng)[0], quality

    def photos(self, direction: Any, count: int = 2) -> Photos:
        return [self.photo(direction) for _ in range(count)]


@pytest.fixture(scope="module")
def planted() -> dict[str, Photos]:
    """People as they should be, and three of each defect."""
    people = People(1)
    each = iter(people.directions(260))
    gallery = {f"good {n}": people.photos(next(each)) for n in range(200)}
    for n in range(3):
        mistaken, true, twice, far, torn, poor = (next(each) for _ in range(6))
        gallery[f"mistaken {n}"] = [*people.photos(mistaken), people.photo(true)]
        gallery[f"true {n}"] = people.photos(true)
        gallery[f"twice {n}"] = people.photos(twice)
        gallery[f"twice {n} again"] = people.photos(twice)
        gallery[f"far {n}"] = [*people.photos(far), people.photo(far, 0.1)]
        gallery[f"torn {n}"] = [people.photo(torn, 0.9, 0.4), people.photo(torn, 0.05, 0.95)]
        gallery[f"poor {n}"] = [people.photo(poor), people.photo(poor, quality=0.1)]
        gallery[f"unrated {n}"] = [people.photo(next(each), quality=None)]
    return gallery


def told(report: GalleryReport) -> dict[str, list[tuple[str, str | None]]]:
    found: dict[str, list[tuple[str, str | None]]] = {kind: [] for kind in report.counts}
    for each in report.findings:
        found[each.kind].append((each.name, each.other_name))
    return {kind: sorted(names, key=str) for kind, names in found.items()}


def test_what_is_planted_is_what_is_reported(database: Database, planted: dict[str, Photos]) -> None:
    fill(database, planted)
    report = check(database)
    assert told(report) == {
        "wrong_person": [(f"mistaken {n}", f"true {n}") for n in range(3)],
        "enrolled_twice": [(f"twice {n} again", f"twice {n}") for n in range(3)],
        "alike": [],
        "poor_photo": sorted((f"{kind} {n}", None) for kind in ("far", "poor", "torn") for n in range(3)),
    }
    assert (report.found, report.pairs) == (15, len_pairs(planted))
    (region,) = report.regions
    assert (region.persons, region.faces) == (len(planted), sum(map(len, planted.values())))
    assert (region.threshold.value, region.threshold.source) == (THRESHOLD, "pack")
    assert region.by_chance is not None
    assert 0.4 < region.by_chance < THRESHOLD


def len_pairs(people: dict[str, Photos]) -> int:
    """Of photos of different people."""
    counts = [len(photos) for photos in people.values()]
    return (sum(counts) ** 2 - sum(count * count for count in counts)) // 2


def test_each_finding_has_its_similarity_its_reason_and_what_to_do(
    database: Database, planted: dict[str, Photos]
) -> None:
    fill(database, planted)
    RegionStore(database).update(CLIENT, "A", threshold=0.56)
    report = check(database)
    gallery = Gallery(database, MODEL)
    for each in report.findings:
        faces = [face.id for face in gallery.list_faces(CLIENT, each.person_id)]
        rows = {face: row for face, (row, _) in zip(faces, planted[each.name], strict=True)}
        own = max((float(rows[each.face_id] @ row) for face, row in rows.items() if face != each.face_id), default=None)
        assert each.own_similarity == pytest.approx(own, abs=1e-5)
        assert each.region == "A"
        assert f"--client {CLIENT}" in each.proposal
        if each.kind == "poor_photo":
            assert (each.similarity, each.other_person_id, each.other_face_id) == (None, None, None)
            assert f"faceward people delete-photo {each.person_id} {each.face_id}" in each.proposal
            said = (
                "quality is 0.10, below 0.3"
                if each.name.startswith("poor")
                else "below the threshold 0.56 of the region"
            )
            assert said in each.reason
            if each.name.startswith("torn"):
                assert each.quality == pytest.approx(0.4), "of two that are not alike the better one stays"
        else:
            others = [face.id for face in gallery.list_faces(CLIENT, each.other_person_id or 0)]
            row = planted[each.other_name or ""][others.index(each.other_face_id or 0)][0]
            assert each.similarity == pytest.approx(float(rows[each.face_id] @ row), abs=1e-5)
            assert f"{each.similarity:.3f}" in each.reason
        if each.kind == "wrong_person":
            assert (
                f"enroll it there, then faceward people delete-photo {each.person_id} {each.face_id}" in each.proposal
            )
        if each.kind == "enrolled_twice":
            assert f"faceward people merge {each.person_id} {each.other_person_id} --client" in each.proposal


class TestSeveralPhotosUnderTheWrongPerson:
    """What is near to another person is wrong where the rest of the photos is somebody's, and else the person is that one."""

    def of(self, database: Database, people: dict[str, Photos]) -> GalleryReport:
        crowd = People(7)
        fill(database, people | {f"good {n}": crowd.photos(row) for n, row in enumerate(crowd.directions(100))})
        return check(database)

    def test_all_of_them_are_named_and_no_merge_is_proposed(self, database: Database) -> None:
        people = People(8)
        blair, putin = people.directions(2)
        mixed = [*people.photos(blair, 4), *people.photos(putin, 2)]
        report = self.of(database, {"Blair": mixed, "Putin": people.photos(putin, 4)})
        assert told(report) == {
            "wrong_person": [("Blair", "Putin")] * 2,
            "enrolled_twice": [],
            "alike": [],
            "poor_photo": [],
        }
        rows = np.array([row for row, _ in mixed])
        own = (rows[4:] @ rows[:4].T).max(axis=1)
        assert sorted(each.own_similarity or 0 for each in report.findings) == pytest.approx(sorted(own), abs=1e-5)

    def test_also_where_they_are_the_most_but_the_others_are_of_one(self, database: Database) -> None:
        people = People(9)
        blair, putin = people.directions(2)
        mixed = [*people.photos(blair, 2), *people.photos(putin, 3)]
        report = self.of(database, {"Blair": mixed, "Putin": people.photos(putin, 2)})
        assert told(report)["wrong_person"] == [("Blair", "Putin")] * 3
        assert report.found == 3

    def test_a_person_but_for_a_photo_that_is_unlike_all_is_enrolled_twice(self, database: Database) -> None:
        people = People(10)
        (one,) = people.directions(1)
        photos = [*people.photos(one, 2), people.photo(one, 0.05)]
        report = self.of(database, {"early": people.photos(one), "late": photos})
        assert told(report) == {
            "wrong_person": [],
            "enrolled_twice": [("late", "early")],
            "alike": [],
            "poor_photo": [("late", None)],
        }

    def test_photos_that_lead_from_one_to_the_other_are_of_one_person(self, database: Database) -> None:
        """The last of them is near to the other person and not to the first ones, but to one that is near to both."""
        people = People(11)
        one, other = people.directions(2)
        between = one + other
        halfway = (between / np.linalg.norm(between)).astype(np.float32), 0.9
        photos = [*people.photos(one), halfway, *people.photos(other)]
        report = self.of(database, {"one": photos, "other": people.photos(other)})
        assert told(report)["wrong_person"] == []
        assert told(report)["enrolled_twice"] == [("other", "one")]


def test_what_is_done_as_proposed_is_not_found_again(database: Database, planted: dict[str, Photos]) -> None:
    fill(database, planted)
    gallery = Gallery(database, MODEL)
    for each in check(database).findings:
        if each.kind == "enrolled_twice":
            assert each.other_person_id is not None
            gallery.merge_persons(CLIENT, each.person_id, each.other_person_id)
        else:
            assert gallery.delete_face(CLIENT, each.person_id, each.face_id)
    assert check(database).found == 0


@pytest.fixture(scope="module")
def crowd() -> dict[str, Photos]:
    """2,100 photos of 700 people as real ones are: at a low threshold, all sorts of things are to be found."""
    people = People(2)
    directions = people.directions(700)
    photos = [people.model.photos(directions, people.rng) for _ in range(3)]
    quality = people.rng.random((700, 3)).round(2).tolist()
    return {f"{n}": [(photos[k][n], quality[n][k]) for k in range(3)] for n in range(700)}


@dataclasses.dataclass(frozen=True)
class Expected:
    """The same by the definitions, from the whole matrix: names of persons, and the places of photos."""

    wrong: set[tuple[str, int]]
    pairs: dict[frozenset[str], float]
    poor: set[tuple[str, int]]

    @classmethod
    def of(cls, people: dict[str, Photos], limit: float) -> Expected:
        whose = np.array([name for name, photos in people.items() for _ in photos])
        place = [(name, k) for name, photos in people.items() for k in range(len(photos))]
        quality = np.array([quality for photos in people.values() for _, quality in photos], dtype=float)
        rows = np.array([row for photos in people.values() for row, _ in photos])
        scores = rows @ rows.T
        np.fill_diagonal(scores, -2)
        same = whose[:, np.newaxis] == whose
        own = np.where(same, scores, -2).max(axis=1)
        others = np.where(same, -2, scores)
        best, nearest = others.max(axis=1), others.argmax(axis=1)
        near_to = [whose[nearest[i]] if best[i] >= limit else None for i in range(len(rows))]
        wrong = set()
        for i in range(len(rows)):
            of_person = set(np.flatnonzero(whose == whose[i]).tolist())
            rest = {k for k in of_person if near_to[k] != near_to[i]}
            for _ in of_person:
                rest |= {k for k in of_person if any(scores[k, j] >= limit for j in rest)}
            of_one = any(scores[k, j] >= limit for k in rest for j in rest)
            if near_to[i] is not None and rest and i not in rest and (2 * len(rest) >= len(of_person) or of_one):
                wrong.add(i)
        pairs: dict[frozenset[str], float] = {}
        others[:, sorted(wrong)] = -2
        for i in range(len(rows)):
            if i not in wrong and others[i].max() >= limit:
                pair = frozenset((str(whose[i]), str(whose[others[i].argmax()])))
                pairs[pair] = max(pairs.get(pair, -2), float(others[i].max()))
        poor = set(np.flatnonzero(quality < 0.3).tolist())
        for name in people:
            left = [i for i in np.flatnonzero(whose == name) if i not in wrong]
            far = [i for i in left if own[i] < limit] if len(left) > 1 else []
            if len(far) == len(left) and far:
                far.remove(max(far, key=lambda i: (quality[i], -i)))
            poor |= set(far)
        return cls({place[i] for i in wrong}, pairs, {place[i] for i in poor - wrong})


@pytest.mark.parametrize("faces", [10**6, 1000], ids=["in one block", "in three blocks"])
def test_blocks_and_tiles_find_what_the_whole_matrix_shows(
    database: Database, crowd: dict[str, Photos], faces: int
) -> None:
    fill(database, crowd)
    limit = 0.4
    expected = Expected.of(crowd, limit)
    report = check(database, threshold=limit, faces=faces, most=10_000)
    places = {
        face.id: (person.name, k)
        for person in Gallery(database, MODEL).list_persons(CLIENT, limit=1000).persons
        for k, face in enumerate(Gallery(database, MODEL).list_faces(CLIENT, person.id))
    }
    found = {kind: [each for each in report.findings if each.kind == kind] for kind in report.counts}
    assert {places[each.face_id] for each in found["wrong_person"]} == expected.wrong
    assert {places[each.face_id] for each in found["poor_photo"]} == expected.poor
    pairs = {
        frozenset((each.name, each.other_name or "")): each.similarity
        for each in found["alike"] + found["enrolled_twice"]
    }
    assert pairs == pytest.approx(expected.pairs, abs=1e-5)
    by_chance = report.regions[0].by_chance
    assert by_chance is not None
    assert all((each.similarity or 0) < by_chance for each in found["alike"])
    assert all((each.similarity or 0) >= by_chance for each in found["enrolled_twice"])
    assert min(len(expected.wrong), len(found["alike"]), len(expected.poor)) > 5, "there is something to find"
    assert {kind: len(each) for kind, each in found.items()} == report.counts
    part = check(database, threshold=limit, faces=faces, most=3)
    assert part.counts == report.counts
    assert part.findings == tuple(each for kind in found.values() for each in kind[:3]), "the worst of each kind"


class TestAcrossRegions:
    @pytest.fixture(autouse=True)
    def regions(self, database: Database) -> None:
        people = People(3)
        one, known, other, *more = people.directions(203)
        fill(database, {"Ann": people.photos(one), "Bob": people.photos(known), **self.crowd(people, more[:100])}, "A")
        fill(database, {"Anne": people.photos(one), "Bob": people.photos(known), "Cy": people.photos(other)}, "B")
        fill(database, {f"B {name}": photos for name, photos in self.crowd(people, more[100:]).items()}, "B")
        fill(database, {"Ann": people.photos(one)}, client="globex")

    def crowd(self, people: People, directions: Any) -> dict[str, Photos]:
        return {f"{n}": people.photos(row) for n, row in enumerate(directions)}

    def test_a_person_in_two_regions_is_found_where_that_is_asked_for(self, database: Database) -> None:
        assert check(database).found == 0
        report = check(database, across_regions=True, faces=50)
        (found,) = report.findings
        assert (found.kind, found.name, found.other_name) == ("enrolled_twice", "Anne", "Ann")
        assert (found.region, found.other_region) == ("B", "A")
        assert "--across-regions, or give both the same external id" in found.proposal
        assert {region.name: region.persons for region in report.regions} == {"A": 102, "B": 103}

    def test_only_the_regions_named(self, database: Database) -> None:
        assert check(database, regions=["A"], across_regions=True).found == 0
        assert [region.name for region in check(database, regions=["B", "B"]).regions] == ["B"]
        with pytest.raises(UnknownRegionError, match=r"'C' does not exist.*A, B"):
            check(database, regions=["A", "C"])


def test_each_region_has_its_own_threshold(database: Database) -> None:
    people = People(4)
    (direction,) = people.directions(1)
    pair = people.model.near(direction[np.newaxis], 0.5, people.rng)
    for region in ("A", "B"):
        fill(database, {"one": [(direction, None)], "two": [(pair[0], None)]}, region)
    RegionStore(database).update(CLIENT, "B", threshold=0.49)
    (found,) = check(database).findings
    assert (found.region, found.similarity) == ("B", pytest.approx(0.5, abs=1e-5))
    assert [region.threshold.source for region in check(database).regions] == ["pack", "region"]


def test_exact_copies_and_lonely_photos(database: Database) -> None:
    people = People(5)
    one, other = people.directions(2)
    fill(database, {"a": [(one, 0.9), (one, 0.9)], "b": [(one, 0.9)], "c": [(other, 0.2)]})
    report = check(database)
    assert told(report)["enrolled_twice"] == [("b", "a")]
    (poor,) = [each for each in report.findings if each.kind == "poor_photo"]
    assert (poor.name, poor.own_similarity) == ("c", None)
    assert report.found == 2
    assert report.regions[0].by_chance is None, "six photos tell nothing of strangers"


def test_who_is_not_matched_is_not_checked(database: Database) -> None:
    people = People(6)
    (one,) = people.directions(1)
    fill(database, {"a": people.photos(one), "b": people.photos(one)})
    (found,) = check(database).findings
    Gallery(database, MODEL).update_person(CLIENT, found.person_id, state="suspended")
    assert (check(database).found, check(database).regions[0].persons) == (0, 1)


def test_an_empty_gallery_and_an_unknown_client_have_nothing_to_find(database: Database) -> None:
    RegionStore(database).create(CLIENT, "empty")
    report = check(database, across_regions=True)
    assert (report.found, report.pairs, report.regions[0].faces) == (0, 0, 0)
    thresholds = Thresholds(RegionStore(database), 0.4)
    assert GalleryCheck(GalleryScanner(database, MODEL, 512), thresholds, min_quality=0.3).run("nobody").regions == ()


def test_progress_reaches_its_end(database: Database, planted: dict[str, Photos]) -> None:
    fill(database, planted)
    steps: list[tuple[str, int, int]] = []
    check(database, faces=100, progress=lambda *step: steps.append(step))
    assert [step[1] for step in steps] == sorted(step[1] for step in steps)
    assert steps[-1][1] >= 0.99 * steps[-1][2] > 0
    assert {step[0] for step in steps} == {"comparing within A"}
