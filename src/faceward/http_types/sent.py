"""Bodies of requests."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from faceward.http_types.fields import (
    MAX_DIMENSION,
    MAX_IMAGES,
    MAX_REGIONS,
    ClientId,
    Description,
    ExpiresAt,
    ExternalId,
    Image,
    KeyExpiry,
    Name,
    NewName,
    NewRegion,
    NewState,
    Region,
    Regions,
    RetentionDays,
    RoleName,
    RowId,
    Share,
    Similarity,
    StrategyName,
)


class Sent(BaseModel):
    """A request's body. A field that the route does not know is refused: a misspelt threshold must not pass unseen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PersonCreate(Sent):
    """A person with one or more photos: all of them are stored, or none.

    expires_at: in the future; left out, by the retention of the region, else of the client.
    """

    name: Name
    region: Region
    images: Annotated[list[Image], Field(min_length=1, max_length=MAX_IMAGES)]
    description: Description | None = None
    external_id: ExternalId | None = None
    expires_at: ExpiresAt | None = None
    several_faces: Literal["error", "largest"] = "error"
    allow_duplicate: bool = False


class PersonPatch(Sent):
    """What is given is changed; null clears a description, an external id or an expiry."""

    name: NewName = None
    description: Description | None = None
    external_id: ExternalId | None = None
    state: NewState = None
    expires_at: ExpiresAt | None = None


class PersonMove(Sent):
    region: Region


class PersonMerge(Sent):
    """into: the person that stays. across_regions: the two may be of different regions."""

    into: RowId
    across_regions: bool = False


class FacesCreate(Sent):
    """More photos of a person: all of them are stored, or none."""

    images: Annotated[list[Image], Field(min_length=1, max_length=MAX_IMAGES)]
    several_faces: Literal["error", "largest"] = "error"
    allow_duplicate: bool = False


class RegionCreate(Sent):
    name: Region
    threshold: Similarity | None = None
    retention_days: RetentionDays | None = None


class RegionPatch(Sent):
    """name: its new name. threshold, retention_days: null takes the client's again.

    apply_to_existing: with retention_days; people who are there expire so many days after they were enrolled, where they
    would later or never. Who has by that expired is matched no more, and erased by the next purge.
    """

    name: NewRegion = None
    threshold: Similarity | None = None
    retention_days: RetentionDays | None = None
    apply_to_existing: bool = False


class RecognizeRequest(Sent):
    """Who of the regions is in the image. min_quality: faces below it are left out."""

    image: Image
    region: Regions
    threshold: Similarity | None = None
    top_k: Annotated[int, Field(ge=1, le=100)] = 5
    max_faces: Annotated[int, Field(ge=1, le=1000)] = 100
    min_quality: Share = 0.0
    strategy: StrategyName | None = None


class SearchRequest(Sent):
    """Who of the regions is nearest to an embedding of the model pack in use."""

    embedding: Annotated[
        list[Annotated[float, Field(strict=True, allow_inf_nan=False)]], Field(min_length=1, max_length=MAX_DIMENSION)
    ]
    region: Regions
    threshold: Similarity | None = None
    top_k: Annotated[int, Field(ge=1, le=100)] = 5
    strategy: StrategyName | None = None


class VerifyRequest(Sent):
    """Whether the image shows the same person as `other`, or as the enrolled person: one of the two."""

    image: Image
    other: Image | None = None
    person_id: RowId | None = None
    threshold: Similarity | None = None


class DetectRequest(Sent):
    image: Image
    max_faces: Annotated[int, Field(ge=1, le=1000)] = 100


class ClientCreate(Sent):
    client_id: ClientId
    name: Name | None = None
    threshold: Similarity | None = None
    retention_days: RetentionDays | None = None


class ClientPatch(Sent):
    """What is given is changed; a threshold of null takes the model pack's again, a retention of null none.

    apply_to_existing: as of a region, in the regions that have no retention of their own.
    """

    name: NewName = None
    threshold: Similarity | None = None
    retention_days: RetentionDays | None = None
    apply_to_existing: bool = False


class KeyCreate(Sent):
    """client_id: of another client, for admins. regions: the only ones that the key may work in; left out: all.

    rate_limit: requests a second, where not the deployment's.
    """

    role: RoleName
    client_id: ClientId | None = None
    regions: Annotated[list[Region], Field(min_length=1, max_length=MAX_REGIONS)] | None = None
    name: Name | None = None
    expires_at: KeyExpiry | None = None
    rate_limit: Annotated[float, Field(ge=0.001, le=1_000_000, allow_inf_nan=False)] | None = None
