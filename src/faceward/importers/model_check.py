"""Whether stored embeddings are of the model in use: some of their images are embedded anew and compared."""

from __future__ import annotations

import os
from pathlib import Path

from faceward.checks import unit_embedding
from faceward.errors import ImportSourceError, InputError, ModelMismatchError
from faceward.importers.accounts import RowProblem
from faceward.importers.decoding import EmbeddingDecoder
from faceward.importers.rows import FaceRow, Source
from faceward.service import FaceService

_SAMPLE = 12
_TRIED = 40
_AGREE = 0.6  # embeddings of one image by one model, from other crops; those of two models are near 0
_ENOUGH = 0.7  # of the compared: an old photo may have been replaced since


class Photos:
    """Finds the images of faces. folder: where relative paths begin; None: where the source says, if it does."""

    def __init__(self, source: Source, folder: Path | None) -> None:
        self._source = source
        self._folder = folder or source.folder

    def of(self, face: FaceRow) -> bytes | Path | None:
        """The image's bytes, or the path to it."""
        data = self._source.image(face)
        if data is not None:
            return data
        path = face.image_path
        if self._folder is None or not isinstance(path, str) or not path or "\x00" in path:
            return None
        if "\\" in path and not os.path.lexists(self._folder / path):
            path = path.replace("\\", "/")  # as Windows writes it
        return self._folder / path


def require_folder(images: Path | None) -> None:
    """Raises ImportSourceError where there is no folder of images that is one."""
    if images is not None and not images.is_dir():
        raise ImportSourceError(f"--images {images}: there is no such folder.")


def require_model(model_id: str, in_use: str) -> None:
    """Raises ModelMismatchError where embeddings of the one can't be compared with those of the other."""
    if model_id != in_use:
        raise ModelMismatchError(
            f"The embeddings were made by the model {model_id}; the one in use is {in_use}. They can't be compared: make them "
            "anew from the photos, with --re-embed."
        )


class SampleCheck:
    """compared, agreed: how many stored embeddings were held against their image, and how many of them agree. tried: the
    compared, and those whose image can't be used. disagreeing: the rows of the others.
    """

    def __init__(self, source: Source, service: FaceService, photos: Photos) -> None:
        self._source = source
        self._service = service
        self._photos = photos
        self.tried = 0
        self.compared = 0
        self.agreed = 0
        self.disagreeing: list[RowProblem] = []
        self._obstacle = ""

    def require(self) -> None:
        """Raises ModelMismatchError where too few agree. Without a usable image nothing can be said: see `warning`."""
        decoder = EmbeddingDecoder(self._service.dimension)
        for face in self._source.sample_with_images(_TRIED):
            if self.compared == _SAMPLE:
                break
            self.tried += 1
            image = self._photos.of(face)
            if image is None:
                self._uncompared(face, "Its image is not in the source, or larger than images.max_bytes.")
                continue
            try:
                stored = unit_embedding(decoder.decode(face.embedding)[1], self._service.dimension)
                (made,) = self._service.faces_to_store(image, several_faces="error")
            except InputError as exc:  # this one can't be compared; the import itself says what is wrong with it
                self._uncompared(face, str(exc))
                continue
            self.compared += 1
            similarity = float(stored @ made.embedding)
            if similarity >= _AGREE:
                self.agreed += 1
            else:
                self._disagrees(face, similarity)
        if self.agreed < _ENOUGH * self.compared:
            raise ModelMismatchError(
                f"The embeddings are not of the model in use: of {self.compared} that were compared with their image, "
                f"{self.agreed} agree with what {self._service.model_id} makes of it. Nothing was imported. Make them anew "
                "with --re-embed."
            )

    def warning(self, images: int) -> str | None:
        """What is to be said where no embedding could be compared, though there are `images` of them."""
        if self.compared or not images:
            return None
        first = f" The first: {self._obstacle}" if self._obstacle else ""
        return (
            f"Whether {self._service.model_id} made the embeddings was not checked: none of the {self.tried} images that "
            f"were tried could be compared with theirs.{first} If another model made them, everybody is a stranger: try a "
            "photo of somebody who was imported."
        )

    def _uncompared(self, face: FaceRow, reason: str) -> None:
        if not self._obstacle:
            advice = " --images DIR says where paths of images begin." if isinstance(face.image_path, str) else ""
            self._obstacle = reason + advice

    def _disagrees(self, face: FaceRow, similarity: float) -> None:
        reason = (
            f"The embedding does not agree with its image (similarity {similarity:.2f}): the image may have been replaced "
            "since, or be another person's."
        )
        self.disagreeing.append(RowProblem(self._source.faces_table, face.row, "image_disagrees", reason))
