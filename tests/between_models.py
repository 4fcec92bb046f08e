"""A gallery that is between two models, for tests that need no images: their photos are a number each."""

from __future__ import annotations

import itertools
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import psycopg

from faceward.reembedding import ModelChange, PhotoEmbedder
from faceward.store.database import Database
from faceward.store.gallery import Gallery
from faceward.store.graph_index import GraphSettings
from faceward.store.photo_vault import PhotoVault
from faceward.store.reembedded_faces import StoredPhoto, Unmade
from faceward.store.schema import Schema
from faceward.types import Box, Embedding, NewFace
from synthetic import MODEL, unit

OTHER = "another-model"
UNSEEN = {0, 1}
"""Photos of which the other model makes nothing."""


def narrow(photo: int) -> Embedding:
    row = unit(photo)[:128]
    return np.asarray(row / np.linalg.norm(row), np.float32)


class ByNumber(PhotoEmbedder):
    """Embeds photos that are a number each, as one of the two models."""

    def __init__(self, model_id: str) -> None:
        self._model_id = model_id

    @property
    def model_id(self) -> str:
        return self._model_id

    def embed(self, client_id: str, photo: StoredPhoto) -> Embedding | Unmade:
        number = int(photo.image)
        if self._model_id == MODEL:
            return unit(number)
        if number in UNSEEN:
            return Unmade(client_id, photo.face_id, photo.person_id, "no_face", "None.")
        return narrow(number)


def new_face(photo: int, model_id: str, *, stored: bool) -> NewFace:
    return NewFace(
        (unit if model_id == MODEL else narrow)(photo),
        box=Box(0, 0, 9, 9),
        image_data=b"%d" % photo if stored else None,
        image_sha256=b"%d" % photo,
    )


@dataclass(frozen=True)
class Row:
    id: int
    person: int
    region: str
    photo: int
    kept: bool
    embedding: list[float] = field(repr=False)


class Deployment:
    """A gallery between two models: first filled for the other one, then exchanged there and back."""

    def __init__(self, url: str, database: Database) -> None:
        self.url = url
        self.database = database
        self.numbers = itertools.count()
        self.change = self.change_by(database)
        Gallery(database, MODEL).create_person("first", "A", "First", [new_face(9, MODEL, stored=True)])
        self.change.begin(OTHER, 128)
        self.change.fill()

    def change_by(self, database: Database) -> ModelChange:
        def opened(model_id: str) -> AbstractContextManager[PhotoEmbedder]:
            return nullcontext(ByNumber(model_id))

        return ModelChange(database, Schema(self.url), PhotoVault(), opened, GraphSettings())

    def rows(self, client_id: str) -> list[Row]:
        with psycopg.connect(self.url) as connection:
            found = connection.execute(
                "SELECT id, person_id, region, convert_from(image_sha256, 'utf8')::integer, image_data IS NOT NULL, "
                "embedding::real[] FROM face_encodings WHERE client_id = %s ORDER BY id",
                (client_id,),
            )
            return [Row(*row) for row in found]

    def places(self, client_id: str) -> dict[int, str]:
        """Where each person is."""
        with psycopg.connect(self.url) as connection:
            found = connection.execute("SELECT id, region FROM persons WHERE client_id = %s", (client_id,))
            return dict(found.fetchall())
