"""What every source of an import is read as: rows of persons and of their faces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from faceward.importers.assignment import RegionAssignment

SCATTERED = "({} & 2147483647) * 1327217885 & 2147483647"
"""Of a row's number in SQLite: ordered by it, the first rows lie all over the table, however many of them a condition leaves
out. A step through all rows may meet none of those with an image: those of an even one never have odd numbers.
"""


def scattered(number: int) -> int:
    """As SCATTERED."""
    return (number & 2147483647) * 1327217885 & 2147483647


class PersonRow(NamedTuple):
    """row: what names it in the source. key: joins it to its faces. id: the source's own of the person, by which --regions
    names it. Both are None where there is none. region: where the source says it. differing: the source has several names
    for this one person. regions_differ: several regions, or rows with one and rows without.
    """

    row: object
    key: str | None
    id: str | None
    name: object
    description: object
    region: object = None
    differing: bool = False
    regions_differ: bool = False


class FaceRow(NamedTuple):
    """row: what names it in the source. key: of its person. has_image: there is a path or an image. problem: the code and the
    reason of a row that the source can't use.
    """

    row: object
    key: str | None
    embedding: object
    image_path: object
    has_image: bool
    problem: tuple[str, str] | None = None

    def __repr__(self) -> str:
        return f"FaceRow({self.row!r})"


class Source(Protocol):
    """A gallery of an older system, open to be read. Its methods raise ImportSourceError.

    prefix: of the external ids of its persons. persons_table, faces_table: how a report names where rows are from.
    layout: roles, and what they were found as. folder: where relative paths of images begin. has_embeddings: it holds some;
    else they are made of the images. has_regions: it says where people belong.
    """

    @property
    def prefix(self) -> str: ...
    @property
    def persons_table(self) -> str: ...
    @property
    def faces_table(self) -> str: ...
    @property
    def layout(self) -> Mapping[str, str]: ...
    @property
    def folder(self) -> Path | None: ...
    @property
    def has_embeddings(self) -> bool: ...
    @property
    def has_regions(self) -> bool: ...

    def count(self) -> int:
        """How many rows of faces there are."""

    def assign_regions(self, regions: RegionAssignment) -> None:
        """Called before the rows are read: where lines without a region belong may decide whose they are."""

    def persons(self) -> Iterator[PersonRow]:
        """By ascending key, in the order of its UTF-8 bytes."""

    def faces(self) -> Iterator[FaceRow]:
        """By ascending key, as the persons."""

    def sample_with_images(self, most: int) -> Iterator[FaceRow]:
        """Up to `most` faces that have an image, spread over the source, the same ones each time."""

    def image(self, face: FaceRow) -> bytes | None:
        """The image that the source itself holds; None where there is none (the row may name a path)."""

    def same_names(self, most: int = 100) -> dict[str, int]:
        """Names that several persons have, and how many."""

    def check_unchanged(self) -> None:
        """Raises ImportSourceError where the source was changed since it was opened."""
