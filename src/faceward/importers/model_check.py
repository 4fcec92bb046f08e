"""Whether stored embeddings are of the model in use: some of their images are embedded anew and compared."""

from __future__ import annotations

from pathlib import Path

from faceward.checks import unit_embedding
from faceward.errors import InputError, ModelMismatchError
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
        return self._folder / path


class SampleCheck:
    """compared, agreed: how many stored embeddings were held against their image, and how many of them agree."""

    def __init__(self, source: Source, service: FaceService, photos: Photos) -> None:
        self._source = source
        self._service = service
        self._photos = photos
        self.compared = 0
        self.agreed = 0

    def require(self) -> None:
        """Raises ModelMismatchError where too few agree. Without a usable image nothing can be said, and nothing is."""
        decoder = EmbeddingDecoder(self._service.dimension)
        for face in self._source.sample_with_images(_TRIED):
            if self.compared == _SAMPLE:
                break
            image = self._photos.of(face)
            if image is None:
                continue
            try:
                stored = unit_embedding(decoder.decode(face.embedding)[1], self._service.dimension)
                (made,) = self._service.faces_to_store(image, several_faces="error")
            except InputError:  # this one can't be compared; the import itself says what is wrong with it
                continue
            self.compared += 1
            self.agreed += float(stored @ made.embedding) >= _AGREE
        if self.agreed < _ENOUGH * self.compared:
            raise ModelMismatchError(
                f"The embeddings are not of the model in use: of {self.compared} that were compared with their image, "
                f"{self.agreed} agree with what {self._service.model_id} makes of it. Nothing was imported. Make them anew "
                "with --re-embed."
            )
