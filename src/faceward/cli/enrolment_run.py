"""Enrols a folder of people, several at once; can be stopped at any moment and run again."""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from faceward.errors import ConflictError, DuplicateFaceError, DuplicatePersonError, ImageNotFoundError, InputError
from faceward.service import FaceService
from faceward.vision import read_image_file

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
class PhotoResult:
    """What became of a photo. code, reason: of a refusal."""

    photo: Path
    status: Literal["enrolled", "skipped", "refused"]
    code: str = ""
    reason: str = ""


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


class EnrolmentRun:
    """One run over a folder. Each person's photos are taken one after the other, several persons at once."""

    def __init__(
        self,
        service: FaceService,
        *,
        client_id: str | None,
        several_faces: Literal["error", "largest"],
        max_bytes: int,
    ) -> None:
        self._service = service
        self._client_id = client_id
        self._several_faces = several_faces
        self._max_bytes = max_bytes
        self._stopped = threading.Event()
        self.results: list[PhotoResult] = []

    def count(self, status: str) -> int:
        return sum(result.status == status for result in self.results)

    def run(self, people: Sequence[PersonPhotos], workers: int, on_photo: Callable[[PhotoResult], None]) -> None:
        """Raises what is no fault of a photo (StoreError, KeyboardInterrupt) once the photos under way are done."""
        with ThreadPoolExecutor(workers, thread_name_prefix="faceward-enroll") as pool:
            try:
                for done in as_completed([pool.submit(self._enroll_person, person, on_photo) for person in people]):
                    done.result()
            except BaseException:
                self._stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _enroll_person(self, person: PersonPhotos, on_photo: Callable[[PhotoResult], None]) -> None:
        for photo in person.photos:
            if self._stopped.is_set():
                return
            result = self._enroll_photo(person, photo)
            self.results.append(result)
            on_photo(result)

    def _enroll_photo(self, person: PersonPhotos, photo: Path) -> PhotoResult:
        try:
            known = self._person_of(person)
            data = read_image_file(photo, self._max_bytes)
            owner = self._service.person_of_photo(data, region=person.region, client_id=self._client_id)
            if owner is not None and owner == known:
                return PhotoResult(photo, "skipped")
            self._store(person, photo, known)
        except DuplicateFaceError as exc:
            if exc.person_id is not None and exc.person_id == self._person_of(person):
                return PhotoResult(photo, "skipped")  # another process was first
            return PhotoResult(photo, "refused", exc.code, str(exc))
        except (InputError, ConflictError) as exc:
            return PhotoResult(photo, "refused", exc.code, str(exc))
        return PhotoResult(photo, "enrolled")

    def _store(self, person: PersonPhotos, photo: Path, known: int | None) -> None:
        if known is None:
            try:
                self._service.enroll(
                    photo,
                    name=person.name,
                    region=person.region,
                    client_id=self._client_id,
                    external_id=person.external_id,
                    several_faces=self._several_faces,
                )
                return
            except DuplicatePersonError:  # another process was first
                known = self._person_of(person)
                if known is None:
                    raise
        self._service.add_face(known, photo, client_id=self._client_id, several_faces=self._several_faces)

    def _person_of(self, person: PersonPhotos) -> int | None:
        page = self._service.list_persons(
            region=person.region, external_id=person.external_id, client_id=self._client_id, limit=1
        )
        return page.persons[0].id if page.persons else None


def _folders(directory: Path) -> list[Path]:
    return sorted(each for each in directory.iterdir() if each.is_dir() and not each.name.startswith("."))


def _is_photo(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


def _text(directory: Path) -> str:
    """A folder's name in composed form: macOS hands out the decomposed one of the same name."""
    return unicodedata.normalize("NFC", directory.name)
