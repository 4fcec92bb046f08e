"""A folder of people as a stream of photos, and what became of them."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from faceward.checks import check_external_id, check_name, check_region
from faceward.cli.advice import advised_words
from faceward.errors import ImageNotFoundError, InputError
from faceward.importers import Account, ImportAccount, RowProblem
from faceward.photo_import import PhotoRecord, PhotoResult

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp"))
NOT_READ = frozenset(
    (
        ".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".jpe", ".jfif", ".tif", ".tiff", ".gif",
        ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf",
    )
)  # fmt: skip
_MOST_PROBLEMS = 1_000


@dataclass(frozen=True, slots=True)
class PersonPhotos:
    """A person's folder, or several whose names differ in the form of Unicode only. external_id: its name, behind that of the
    source where there is one.
    """

    region: str
    folder: str
    photos: tuple[Path, ...]
    source: str | None = None

    @property
    def external_id(self) -> str:
        return self.folder if self.source is None else f"{self.source}:{self.folder}"

    @property
    def name(self) -> str:
        return self.folder.replace("_", " ").strip()


@dataclass(frozen=True, slots=True)
class PhotoFolder:
    """people: of DIR/REGION/PERSON/photo, by region and name. misplaced: photos that lie higher or deeper. not_read: those of
    other formats, wherever they lie.
    """

    directory: Path
    people: tuple[PersonPhotos, ...]
    misplaced: tuple[Path, ...]
    not_read: tuple[Path, ...]

    @property
    def photos(self) -> int:
        return sum(len(person.photos) for person in self.people)

    @classmethod
    def find(cls, directory: Path, source: str | None = None) -> PhotoFolder:
        """source: tells these folders from others with the same names. Raises ImageNotFoundError, OSError."""
        people: dict[tuple[str, str], list[Path]] = {}
        misplaced = photos_in(directory)
        not_read = photos_in(directory, NOT_READ)
        for region in folders_in(directory):
            misplaced += photos_in(region)
            not_read += photos_in(region, NOT_READ)
            for person in folders_in(region):
                photos, others = photos_in(person), photos_in(person, NOT_READ)
                if photos or others:
                    people.setdefault((_text(region), _text(person)), []).extend(photos)
                not_read += others
                for deeper in folders_in(person):
                    misplaced += photos_in(deeper)
                    not_read += photos_in(deeper, NOT_READ)
        if not people:
            raise ImageNotFoundError(
                f"{directory} holds no photo to enroll: they are looked for as {directory}/REGION/PERSON/photo.jpg (or jpeg, "
                "png, webp, bmp)."
            )
        found = (PersonPhotos(*names, tuple(photos), source) for names, photos in people.items())
        return cls(directory, tuple(found), tuple(misplaced), tuple(not_read))

    def records(self) -> Iterator[PhotoRecord]:
        """The photos, as an import takes them."""
        for person in self.people:
            for photo in person.photos:
                yield PhotoRecord(person.region, person.external_id, person.name, photo)


@dataclass(frozen=True, slots=True)
class RefusedPhoto:
    """code: stable, for machines."""

    photo: Path
    code: str
    reason: str


@dataclass(slots=True)
class FolderTally:
    """What became of each photo of a folder, and of each person."""

    folder: PhotoFolder
    enrolled: int = 0
    skipped: int = 0
    refused: list[RefusedPhoto] = field(default_factory=list)
    _persons: dict[tuple[str, str], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for photo in self.folder.misplaced:
            reason = "It does not lie in DIR/REGION/PERSON/, two folders deep."
            self.refused.append(RefusedPhoto(photo, "misplaced", reason))
        for photo in self.folder.not_read:
            reason = "Photos of its format are not read: make a JPEG, PNG, WebP or BMP of it."
            self.refused.append(RefusedPhoto(photo, "not_an_image", reason))

    def add(self, result: PhotoResult) -> None:
        record = result.record
        assert isinstance(record.photo, Path)
        if result.status == "refused":
            self.refused.append(RefusedPhoto(record.photo, result.code, advised_words(result.code, result.reason)))
            return
        person = record.region, record.external_id
        if result.status == "skipped":
            self.skipped += 1
        else:
            self.enrolled += 1
        if result.new_person:
            self._persons[person] = "imported"
        else:
            self._persons.setdefault(person, "present")

    def plan(self) -> None:
        """What would be, as far as names tell: no photo is read."""
        for record in self.folder.records():
            try:
                check_region(record.region)
                check_external_id(record.external_id)
                check_name(record.name)
            except InputError as exc:
                self.add(PhotoResult(record, "refused", code=exc.code, reason=str(exc)))
            else:
                self.add(PhotoResult(record, "enrolled", new_person=True))

    def so_far(self) -> str:
        """What is stored, of an import that ends early; empty where nothing is."""
        if not self.enrolled and not self.skipped:
            return ""
        return f"{self.enrolled} of {self.folder.photos} photos were enrolled, {self.skipped} had been already."

    def account(self, *, dry_run: bool) -> ImportAccount:
        """The report of any import: persons are those of the folders, faces the photos."""
        persons = Counter(self._persons.values())
        nobody = len(self.folder.people) - persons.total()
        photos = self.folder.photos + len(self.folder.misplaced) + len(self.folder.not_read)
        problems = sorted(self.refused, key=lambda each: each.photo)[:_MOST_PROBLEMS]
        return ImportAccount(
            layout={"faces.image_path": "REGION/PERSON/photo"},
            dry_run=dry_run,
            persons=Account(
                len(self.folder.people), persons["imported"], persons["present"], {"no_face": nobody} if nobody else {}
            ),
            faces=Account(photos, self.enrolled, self.skipped, dict(Counter(each.code for each in self.refused))),
            dimensions={},
            encodings={},
            regions=dict(Counter(region for region, _ in self._persons)),
            unmapped=(),
            same_name={},
            images=photos,
            compared=0,
            agreed=0,
            problems=tuple(RowProblem("photo", self._shown(each.photo), each.code, each.reason) for each in problems),
        )

    def _shown(self, photo: Path) -> str:
        return str(photo.relative_to(self.folder.directory)).encode("utf-8", "replace").decode("utf-8")


def folders_in(directory: Path) -> list[Path]:
    return sorted(each for each in directory.iterdir() if each.is_dir() and not each.name.startswith("."))


def photos_in(directory: Path, suffixes: frozenset[str] = SUFFIXES) -> list[Path]:
    return sorted(file for file in directory.iterdir() if _is_photo(file, suffixes))


def _is_photo(file: Path, suffixes: frozenset[str]) -> bool:
    return file.suffix.lower() in suffixes and not file.name.startswith(".") and not file.is_dir()


def _text(directory: Path) -> str:
    """A folder's name in composed form: macOS hands out the decomposed one of the same name."""
    return unicodedata.normalize("NFC", directory.name)
