"""A folder of people as a stream of photos, and what became of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from faceward.errors import ImageNotFoundError
from faceward.photo_import import PhotoRecord, PhotoResult

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp"))


@dataclass(frozen=True, slots=True)
class PersonPhotos:
    """A person's folder. external_id: its name."""

    region: str
    external_id: str
    photos: tuple[Path, ...]

    @property
    def name(self) -> str:
        return self.external_id.replace("_", " ").strip()


@dataclass(frozen=True, slots=True)
class RefusedPhoto:
    """code: stable, for machines."""

    photo: Path
    code: str
    reason: str


def find_people(directory: Path) -> list[PersonPhotos]:
    """The people of DIR/REGION/PERSON/photo, by region and name. Raises ImageNotFoundError, OSError."""
    people = [
        PersonPhotos(_text(region), _text(person), photos)
        for region in _folders(directory)
        for person in _folders(region)
        if (photos := tuple(sorted(file for file in person.iterdir() if _is_photo(file))))
    ]
    if not people:
        raise ImageNotFoundError(
            f"{directory} holds no photo to enroll: they are looked for as {directory}/REGION/PERSON/photo.jpg (or jpeg, "
            "png, webp, bmp)."
        )
    return people


@dataclass(slots=True)
class EnrolmentTally:
    """Counts what became of the photos, and keeps what was refused."""

    enrolled: int = 0
    skipped: int = 0
    refused: list[RefusedPhoto] = field(default_factory=list)

    def add(self, result: PhotoResult) -> None:
        if result.status == "refused":
            assert isinstance(result.record.photo, Path)
            self.refused.append(RefusedPhoto(result.record.photo, result.code, result.reason))
        elif result.status == "skipped":
            self.skipped += 1
        else:
            self.enrolled += 1


def records(people: Sequence[PersonPhotos]) -> Iterator[PhotoRecord]:
    """The photos of these people, as an import takes them."""
    for person in people:
        for photo in person.photos:
            yield PhotoRecord(person.region, person.external_id, person.name, photo)


def _folders(directory: Path) -> list[Path]:
    return sorted(each for each in directory.iterdir() if each.is_dir() and not each.name.startswith("."))


def _is_photo(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


def _text(directory: Path) -> str:
    """A folder's name in composed form: macOS hands out the decomposed one of the same name."""
    return unicodedata.normalize("NFC", directory.name)
