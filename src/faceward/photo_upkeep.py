"""What is done to the photos that are stored: brought under the current key, cut to the face, dropped.

Each in batches of one transaction: whoever is stopped begins again, and what is done is left alone. Where the model is
changed meanwhile the tables are gone through again, until they are at the end what they were at the beginning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from faceward.errors import ImageError
from faceward.store.photos import FaceTable, PhotoBatch, StoredPhoto, StoredPhotos
from faceward.types import Crop
from faceward.vision import ImageLimits, crop_around, decode_image

Step = Callable[[FaceTable, int], PhotoBatch]
"""A batch of the photos of a table, those after an id."""


@dataclass(slots=True)
class PhotoTally:
    """done: photos changed. unopened: photos that did not open, by the id of their key. unchanged: of photos that were to be
    cut, those that stay whole since the face's place in them is not known, or they can't be read.

    Each photo counts once, though a change of the model has it in two tables.
    """

    done: int = 0
    unopened: Counter[str] = field(default_factory=Counter)
    unchanged: int = 0


class PhotoUpkeep:
    """Works on the photos of one client at a time. limits: of an image that is cut."""

    def __init__(self, photos: StoredPhotos, limits: ImageLimits | None = None) -> None:
        self._photos = photos
        self._limits = limits or ImageLimits()

    @property
    def photos(self) -> StoredPhotos:
        return self._photos

    def rotate(self, client_id: str, progress: Callable[[int], None] = lambda _: None) -> PhotoTally:
        """Bring every photo under the current key; without a current key, decrypt it. progress: told of photos looked at.

        Those whose own key is not there stay as they are, and are counted.
        """
        tally = PhotoTally()
        for table in self._tables(client_id, tally):
            for key_id in self._photos.keys_to_leave(client_id, table):

                def step(table: FaceTable, after: int, key_id: str | None = key_id) -> PhotoBatch:
                    return self._photos.rotate(client_id, table, key_id, after=after)

                _run(step, table, tally, progress)
        return tally

    def crop(
        self, client_id: str, region: str | None = None, progress: Callable[[int], None] = lambda _: None
    ) -> PhotoTally:
        """Keep of every whole photo the face alone. One whose face's place is not known, or that can't be read or opened,
        stays, and is counted.
        """
        tally = PhotoTally()
        for table in self._tables(client_id, tally):

            def step(table: FaceTable, after: int) -> PhotoBatch:
                return self._photos.change(client_id, table, self._cut, region=region, after=after)

            _run(step, table, tally, progress)
        return tally

    def drop(
        self, client_id: str, region: str | None = None, progress: Callable[[int], None] = lambda _: None
    ) -> PhotoTally:
        """Forget every photo; faces and their embeddings stay."""
        tally = PhotoTally()
        for table in self._tables(client_id, tally):

            def step(table: FaceTable, after: int) -> PhotoBatch:
                return self._photos.drop(client_id, table, region=region, after=after)

            _run(step, table, tally, progress)
        return tally

    def _tables(self, client_id: str, tally: PhotoTally) -> Iterator[FaceTable]:
        """Those to work on, one after the other; and again where a change of the model came between: it may have copied a
        photo from one that was not done yet to one that was.
        """
        tables: list[FaceTable] | None = None
        while (found := self._photos.tables(client_id)) != tables:
            tables = found
            tally.unopened.clear()
            tally.unchanged = 0
            yield from tables

    def _cut(self, photo: StoredPhoto) -> tuple[bytes, Crop | None] | None:
        if photo.box is None:
            return None
        try:
            image = decode_image(photo.data, self._limits)
        except ImageError:
            return None
        width, height = image.size
        inside = photo.box.left < width and photo.box.top < height and photo.box.right > 0 and photo.box.bottom > 0
        return crop_around(image, photo.box) if inside and photo.box.area > 0 else None


def _run(step: Step, table: FaceTable, tally: PhotoTally, progress: Callable[[int], None]) -> None:
    after: int | None = 0
    while after is not None:
        batch = step(table, after)
        tally.done += batch.done
        tally.unopened.update(batch.unopened)
        tally.unchanged += batch.unchanged
        progress(batch.looked)
        after = batch.next_after
