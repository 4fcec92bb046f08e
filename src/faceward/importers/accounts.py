"""What became of every row of a source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

_MOST_PROBLEMS = 1_000
NOT_ADDED = "not_added"


@dataclass(frozen=True, slots=True)
class RowProblem:
    """A row that was not imported, or a face whose image was not kept or disagrees. row: its id in the table.
    code: stable, for machines.
    """

    table: str
    row: object
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Account:
    """The rows of one kind. read = imported + present + all of refused. present: were imported before."""

    read: int = 0
    imported: int = 0
    present: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)

    @property
    def left_out(self) -> int:
        return sum(self.refused.values())


@dataclass(frozen=True, slots=True)
class ImportAccount:
    """persons, faces: every row of both. In a dry run `imported` is what would be, persons that are present included.

    dimensions, encodings: of the readable embeddings, by count. regions: persons assigned to each. unmapped: names of the
    first persons without a region. same_name: names that several persons have. problems: the first thousand.
    images: faces that hold an image, or name one. images_left_out: faces imported without theirs, which can't be kept.
    compared, agreed: the sample of stored embeddings held against the model in use. warnings: what should be looked at though
    no row is refused for it.
    """

    layout: Mapping[str, str]
    dry_run: bool
    persons: Account
    faces: Account
    dimensions: Mapping[str, int]
    encodings: Mapping[str, int]
    regions: Mapping[str, int]
    unmapped: tuple[str, ...]
    same_name: Mapping[str, int]
    images: int
    compared: int
    agreed: int
    problems: tuple[RowProblem, ...]
    images_left_out: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class Tally:
    """Counts while an import runs. read: embeddings, by encoding and how many numbers they hold."""

    persons_read: int = 0
    faces_read: int = 0
    images: int = 0
    persons_refused: Counter[str] = field(default_factory=Counter)
    faces_refused: Counter[str] = field(default_factory=Counter)
    images_left_out: Counter[str] = field(default_factory=Counter)
    read: Counter[tuple[str, int]] = field(default_factory=Counter)
    regions: Counter[str] = field(default_factory=Counter)
    unmapped: list[str] = field(default_factory=list)
    problems: list[RowProblem] = field(default_factory=list)

    def dimensions(self) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for (_, numbers), count in self.read.items():
            counts[str(numbers)] += count
        return dict(counts)

    def encodings(self) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for (encoding, _), count in self.read.items():
            counts[encoding] += count
        return dict(counts)

    def refuse_person(self, problem: RowProblem) -> None:
        self.persons_refused[problem.code] += 1
        self._keep(problem)

    def refuse_face(self, problem: RowProblem) -> None:
        self.faces_refused[problem.code] += 1
        self._keep(problem)

    def refuse_offered(self, code: str, persons: int, faces: int, problems: list[RowProblem]) -> None:
        """Those that nothing here refused, but the gallery. problems: of the first of them."""
        self.persons_refused[code] += persons
        self.faces_refused["person_refused"] += faces
        for problem in problems:
            self._keep(problem)

    def not_added(self, faces: int, problems: list[RowProblem]) -> None:
        """Faces of persons who are in the gallery without them. problems: of the first of these persons."""
        self.faces_refused[NOT_ADDED] += faces
        for problem in problems:
            self._keep(problem)

    def taken(self, faces: int, problems: list[RowProblem]) -> None:
        """Photos that somebody else was enrolled with meanwhile. problems: of the first of the persons."""
        self.faces_refused["duplicate"] += faces
        for problem in problems:
            self._keep(problem)

    def leave_image_out(self, problem: RowProblem) -> None:
        self.images_left_out[problem.code] += 1
        self._keep(problem)

    def _keep(self, problem: RowProblem) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(problem)
