"""The manifest of a model pack: `faceward-pack.json` in its directory, read into a checked value."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from faceward.errors import PackManifestError
from faceward.vision.alignment import ARCFACE_TEMPLATE
from faceward.vision.embedding import EmbeddingConvention
from faceward.vision.tensors import ColourOrder, InputConvention, Layout

MANIFEST_NAME: Final = "faceward-pack.json"
MAX_DIMENSION: Final = 1_664
"""A row with such an embedding, its code and the longest names of client and region fits a page of the database."""

_MAX_MANIFEST_BYTES: Final = 1024 * 1024

PackName: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
FileName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")]
Sha256: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text: TypeAlias = Annotated[str, Field(min_length=1, max_length=2000)]
_Point: TypeAlias = tuple[float, float]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Licence(_Part):
    """name: as in MIT. allows: one line on what may be done with the models. file: the full text, one of the files."""

    name: Text
    allows: Text
    file: FileName | None = None


class EmbeddingModel(_Part):
    """The embedding model and what it takes: (pixel - mean) / scale, of crops aligned to the template.

    min_norm: length of the raw embedding below which the crop shows no face; 0 where that is not known.
    """

    file: FileName
    # Whole bytes of sign bits.
    dimension: int = Field(ge=8, le=MAX_DIMENSION, multiple_of=8)
    width: int = Field(default=112, ge=16, le=1024)
    height: int = Field(default=112, ge=16, le=1024)
    colour: ColourOrder
    mean: float = Field(ge=-255, le=255)
    scale: float = Field(gt=0, le=1000)
    layout: Layout = "nchw"
    min_norm: float = Field(default=0.0, ge=0)
    template: Literal["arcface"] | tuple[_Point, _Point, _Point, _Point, _Point] = "arcface"

    @property
    def convention(self) -> EmbeddingConvention:
        """The convention, with the ArcFace template brought to the model's input size."""
        points: tuple[_Point, ...]
        if self.template == "arcface":
            points = tuple((x * self.width / 112, y * self.height / 112) for x, y in ARCFACE_TEMPLATE)
        else:
            points = self.template
        given = InputConvention(self.width, self.height, self.colour, self.mean, self.scale, self.layout)
        return EmbeddingConvention(given, points, self.dimension, self.min_norm)


class PackManifest(_Part):
    """A model pack.

    files: name to SHA-256. detector, landmarks: files of the pack, or None for those of the default pack. threshold: the
    similarity recommended for identification.
    """

    name: PackName
    description: str = Field(default="", max_length=2000)
    licence: Licence
    files: dict[FileName, Sha256] = Field(min_length=1, max_length=100)
    detector: FileName | None = None
    landmarks: FileName | None = None
    embedding: EmbeddingModel
    threshold: float = Field(ge=-1, le=1)

    @model_validator(mode="after")
    def _names_its_files(self) -> Self:
        named = (self.detector, self.landmarks, self.embedding.file, self.licence.file)
        for name in named:
            if name is not None and name not in self.files:
                raise ValueError(f"{name} is not among the files")
        return self

    @property
    def model_id(self) -> str:
        """Names the embedding model, as a gallery records it: the pack's name and 12 hex digits of its SHA-256."""
        return f"{self.name}:{self.files[self.embedding.file][:12]}"


def read_manifest(directory: Path) -> PackManifest:
    """Read the manifest of a directory. Raises PackManifestError, which lists everything that is wrong with it."""
    path = directory / MANIFEST_NAME
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_MANIFEST_BYTES + 1)
    except FileNotFoundError as exc:
        raise PackManifestError(f"{directory} holds no model pack: there is no {MANIFEST_NAME} in it.") from exc
    except OSError as exc:
        raise PackManifestError(f"{path} can't be read: {exc.strerror}.") from exc
    if len(data) > _MAX_MANIFEST_BYTES:
        raise PackManifestError(f"{path} is larger than {_MAX_MANIFEST_BYTES:,} bytes, too large for a manifest.")
    try:
        return PackManifest.model_validate_json(data)
    except ValidationError as exc:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in error['loc']) or 'manifest'}: {error['msg']}" for error in exc.errors()
        )
        raise PackManifestError(f"{path} can't be used: {wrong}.") from exc
