"""What is wrong in a gallery: photos filed under the wrong person, persons enrolled twice, persons who pass for each other,
photos too poor to find anybody by.

Each face is held against all others of its region, and of other regions where that is asked for, by exact products
(`faceward.evaluation.nearest`). What is found is a suspicion, with its similarity and what to do if it is right.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from faceward.errors import UnknownRegionError
from faceward.evaluation.audit import Progress
from faceward.evaluation.nearest import (
    NOBODY,
    Elsewhere,
    Ints,
    Nearest,
    Strangers,
    compare_again,
    compare_region,
    compare_regions,
)
from faceward.evaluation.suspicions import CheckedRegion, Finding, FindingKind, Suspicions, wrong_persons
from faceward.service.thresholds import Thresholds
from faceward.store.gallery_scan import FiledFaces, GalleryScanner, GallerySnapshot
from faceward.types import Threshold

_BLOCK_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class RegionReport:
    """threshold: the one in use, and what set it. by_chance: the similarity that strangers among so many may reach by
    chance; None where too few met to know.
    """

    name: str
    persons: int
    faces: int
    threshold: Threshold
    by_chance: float | None


@dataclass(frozen=True, slots=True)
class GalleryReport:
    """pairs: of photos that were compared. counts: of each kind, all that were found. findings: of each kind the worst
    first, as many as were asked for.
    """

    client_id: str
    regions: tuple[RegionReport, ...]
    across_regions: bool
    pairs: int
    counts: Mapping[FindingKind, int]
    findings: tuple[Finding, ...] = field(repr=False)

    @property
    def found(self) -> int:
        return sum(self.counts.values())


class GalleryCheck:
    """Checks the galleries of clients.

    thresholds: those in use. min_quality: the least stored quality of a photo that is not poor. block_bytes: of the
    embeddings that are held in memory; beside them there are about a hundred bytes a face.
    """

    def __init__(
        self, scanner: GalleryScanner, thresholds: Thresholds, *, min_quality: float, block_bytes: int = _BLOCK_BYTES
    ) -> None:
        self._scanner = scanner
        self._thresholds = thresholds
        self._min_quality = min_quality
        self._block_bytes = block_bytes

    def run(
        self,
        client_id: str,
        regions: Sequence[str] | None = None,
        *,
        across_regions: bool = False,
        most: int = 100,
        progress: Progress | None = None,
    ) -> GalleryReport:
        """Check regions of a client; None takes all. across_regions: look for persons enrolled in two of them as well,
        except for those whom an equal external id says to be one. most: findings of each kind to name.

        Raises UnknownRegionError, StoreError.
        """
        with self._scanner.open(client_id) as snapshot:
            known = snapshot.regions()
            chosen = known if regions is None else tuple(dict.fromkeys(regions))
            for name in chosen:
                if name not in known:
                    raise UnknownRegionError(name, known)
            limits = self._thresholds.of_regions(client_id, chosen, None)
            filed = {name: snapshot.faces(name) for name in chosen}
            run = _Run(
                snapshot, max(1, self._block_bytes // (4 * snapshot.dimension)), _Meter(progress, filed, across_regions)
            )
            checked = [run.region(name, filed[name], limits[name]) for name in chosen]
            suspicions = Suspicions(most, self._min_quality)
            for region in checked:
                suspicions.add_region(region)
            if across_regions and checked:
                suspicions.add_elsewhere(checked, run.elsewhere(checked))
            persons = snapshot.persons(suspicions.person_ids())
        return GalleryReport(
            client_id=client_id,
            regions=tuple(map(_report, checked)),
            across_regions=across_regions,
            pairs=run.pairs,
            counts=suspicions.counts,
            findings=suspicions.worded(client_id, persons, limits),
        )


@dataclass(slots=True)
class _Run:
    """block: faces held in memory. pairs: compared so far."""

    snapshot: GallerySnapshot
    block: int
    meter: _Meter
    pairs: int = 0

    def region(self, name: str, faces: FiledFaces, threshold: Threshold) -> CheckedRegion:
        strangers = Strangers()
        told = self.meter.of(f"comparing within {name}")
        met = compare_region(self.snapshot, name, faces, threshold.value, self.block, strangers, told)
        self.pairs += strangers.pairs
        wrong = wrong_persons(faces, met, threshold.value, partial(self.snapshot.rows_of, name))
        deceived = ~wrong & np.isin(met.other_face, faces.ids[wrong])
        compare_again(self.snapshot, name, faces, met, deceived, wrong, threshold.value, self.block)
        return CheckedRegion(name, threshold, faces, met, Nearest.of(faces), wrong, strangers.reach())

    def elsewhere(self, checked: Sequence[CheckedRegion]) -> float:
        """Compare each two of the regions; returns the similarity that strangers of two regions reach by chance."""
        strangers = Strangers()
        twins = self.snapshot.twins()
        for one, other in itertools.combinations(checked, 2):
            floor = min(one.threshold.value, other.threshold.value)
            sides = [
                Elsewhere(each.name, each.faces, _whose(each.faces, twins), each.elsewhere, each.wrong)
                for each in (one, other)
            ]
            told = self.meter.of(f"comparing {one.name} with {other.name}")
            compare_regions(self.snapshot, sides[0], sides[1], floor, self.block, strangers, told)
        self.pairs += strangers.pairs
        return strangers.reach()


class _Meter:
    """Adds up what was compared, for a progress bar."""

    def __init__(self, progress: Progress | None, filed: Mapping[str, FiledFaces], across_regions: bool) -> None:
        sizes = [len(faces) for faces in filed.values()]
        self._progress = progress
        self._total = sum(size * size for size in sizes) // 2
        if across_regions:
            self._total += (sum(sizes) ** 2 - sum(size * size for size in sizes)) // 2
        self._done = 0

    def of(self, what: str) -> Callable[[int], None]:
        def told(pairs: int) -> None:
            self._done += pairs
            if self._progress is not None:
                self._progress(what, min(self._done, self._total), self._total)

        return told


def _whose(faces: FiledFaces, twins: Mapping[int, int]) -> Ints:
    """The person of each face; one number for all who are one person by their external id."""
    persons, places = np.unique(faces.persons, return_inverse=True)
    return np.array([twins.get(person, person) for person in persons.tolist()], dtype=np.int64)[places]


def _report(region: CheckedRegion) -> RegionReport:
    return RegionReport(
        name=region.name,
        persons=len(np.unique(region.faces.persons)),
        faces=len(region.faces),
        threshold=region.threshold,
        by_chance=None if region.by_chance == NOBODY else region.by_chance,
    )
