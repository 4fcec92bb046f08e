"""Every error that faceward raises on purpose.

FacewardError
├── InputError                 the caller sent something that can't be used
│   ├── InvalidValueError      a text or number outside its limits (names the field and the value)
│   ├── InvalidEmbeddingError  wrong length, type, NaN, or all zeros
│   ├── ImageError
│   │   ├── ImageNotFoundError     no file there, or it can't be opened
│   │   ├── NotAnImageError        bytes of no known image format
│   │   ├── DamagedImageError      an image that ends early, contradicts itself or does not decode
│   │   └── ImageTooLargeError     more bytes or pixels than the limit
│   ├── ImportSourceError      a file to import can't be read, or its layout is unknown
│   ├── InvalidReceiptError    a receipt of an erasure that is none, or was changed
│   ├── BackupFileError        a file to restore is no backup of faceward, or a damaged one
│   ├── RequestFormatError     a request's body or parameters are not what its route takes
│   │   ├── UnsupportedMediaTypeError  a body of another type than the route reads
│   │   ├── RequestTooLargeError       a body or header beyond the limit
│   │   └── RequestTimeoutError        a body that came too slowly
│   ├── NoFaceError            an image to enroll or verify shows no face
│   ├── SeveralFacesError      an image to enroll or verify shows more than one
│   └── LowQualityError        too poor to enroll (gives the reasons)
├── NotFoundError
│   ├── UnknownRegionError     lists the regions that exist for that client
│   ├── UnknownPersonError
│   ├── UnknownClientError
│   ├── UnknownKeyError
│   └── UnknownJobError
├── ConflictError
│   ├── DuplicateFaceError     this photo is enrolled in this region already
│   ├── DuplicatePersonError   this external id is taken in this region
│   ├── LikelyDuplicateError   somebody of this region looks like the one to be enrolled
│   ├── DifferentRegionsError  two persons of different regions are merged only where that is said
│   ├── PersonMergedError      who became another person is erased with that one
│   ├── PersonSuspendedError   a person who is suspended, or has expired, is not compared
│   ├── DuplicateRegionError   a region of this name exists
│   ├── DuplicateClientError   a client of this id exists
│   ├── RegionNotEmptyError    a region with persons can't be deleted
│   ├── TooManyRegionsError    the client has as many regions as it may
│   ├── RequestReusedError     an idempotency key was used for another request
│   ├── SecretShownError       a request made its key before, and a secret is shown once
│   ├── PersonsLeftBehindError  a change of the model would leave persons without a face
│   ├── JobLostError           an import was cancelled, or another worker took it over
│   ├── DatabaseNotEmptyError  a backup would replace what is in the database
│   └── BusyError              another process is doing the same work
├── AccessError
│   ├── UnauthenticatedError   no valid key; says nothing about why
│   ├── RoleNotAllowedError    the key's role may not do this
│   └── RegionNotAllowedError  the key may not work in this region
├── CapacityError
│   ├── OverloadedError        more work is waiting than can be done in time
│   ├── RateLimitedError       one key sends more than it may
│   └── DeadlineExceededError  the time given to a request is over
├── ModelError
│   ├── UnknownPackError       no pack of that name
│   ├── PackUnavailableError   a file could not be fetched from any source
│   ├── PackDamagedError       a file has another SHA-256 than the manifest
│   ├── PackManifestError      a manifest that can't be read or is incomplete
│   ├── RuntimeUnavailableError  no inference runtime is installed, or not the one asked for
│   └── ModelMismatchError     the gallery was made by another model
├── StoreError
│   ├── DatabaseUnavailableError  refused, restarting, or gone in the middle
│   │   └── OutcomeUnknownError  gone while it confirmed a change, which may be stored; or the service ended
│   ├── PoolExhaustedError     no connection came free in time
│   ├── StatementTimeoutError  the database took longer than the deadline
│   ├── DatabaseFullError      no space, memory or connection left on the server
│   ├── ExtensionMissingError  pgvector is absent or too old
│   ├── SchemaMissingError     a table or column is absent: migrations have not run
│   ├── IndexMissingError      an index that a search strategy needs is absent
│   ├── AccessDeniedError      the role may not do this
│   ├── ConstraintViolatedError  a rule of the tables was violated (names the constraint)
│   ├── EmbeddedServerError    the PostgreSQL that ships in a wheel did not start
│   ├── ProgramMissingError    pg_dump, pg_restore or psql is absent, or older than the server
│   ├── BackupFailedError      a backup could not be made, or does not hold what the database holds
│   ├── RestoreFailedError     a backup could not be brought into the database
│   └── UnexpectedDatabaseError  anything else that the driver raised
├── ImageKeyError              a stored photo or upload is encrypted with a key that is absent or another (names its id)
├── SketchTooLargeError        a gallery's sketch needs more memory than it may take
├── ServiceUnreachableError    a client got no answer from the service
└── SettingsError              config.json or an environment variable can't be used

A message says what was wrong, with the value, and what to do. It never holds an image, an embedding or a secret. Where HTTP
answers with it, its words hold for every caller: which command or option helps, the command line adds (`cli/advice.py`).
`code` is stable and made for machines.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar


class FacewardError(Exception):
    """The root of every error that faceward raises on purpose.

    image: of several photos, the place of the one that it is about, from 1.
    """

    code: ClassVar[str] = "faceward_error"
    image: int | None = None


class InputError(FacewardError, ValueError):
    """The caller sent something that can't be used."""

    code = "invalid_input"


class InvalidValueError(InputError):
    """A value is outside its limits."""

    code = "invalid_value"

    def __init__(self, field: str, value: object, expected: str) -> None:
        shown = repr(value)
        if len(shown) > 80:
            shown = f"{shown[:60]}… ({len(shown)} characters)"
        super().__init__(f"{field} = {shown} can't be used: it must be {expected}.")
        self.field = field
        self.expected = expected


class InvalidEmbeddingError(InputError):
    """An embedding has a wrong shape or type, or is not finite."""

    code = "invalid_embedding"


class ImageError(InputError):
    """An image can't be read."""

    code = "invalid_image"


class ImageNotFoundError(ImageError):
    """The image file does not exist or can't be opened."""

    code = "image_not_found"


class NotAnImageError(ImageError):
    """The data is of no image format that faceward reads."""

    code = "not_an_image"


class DamagedImageError(ImageError):
    """The image ends early, contradicts itself, is an animation, or does not decode."""

    code = "damaged_image"


class ImageTooLargeError(ImageError):
    """The image has more bytes or pixels than the limit."""

    code = "image_too_large"


class ImportSourceError(InputError):
    """A file to import can't be read, or its layout is unknown."""

    code = "import_source"


class InvalidReceiptError(InputError):
    """A receipt of an erasure that is none, or was changed after it was signed."""

    code = "invalid_receipt"


class BackupFileError(InputError):
    """A file to restore is no backup of faceward, or a damaged one."""

    code = "backup_file"


class RequestFormatError(InputError):
    """A request's body or parameters are not what its route takes."""

    code = "invalid_request"


class UnsupportedMediaTypeError(RequestFormatError):
    """A body of another media type than the route reads."""

    code = "unsupported_media_type"


class RequestTooLargeError(RequestFormatError):
    """A body beyond the limit."""

    code = "request_too_large"


class RequestTimeoutError(RequestFormatError):
    """A body that came too slowly."""

    code = "request_timeout"


class NoFaceError(InputError):
    """No face was found where one is needed."""

    code = "no_face"


class SeveralFacesError(InputError):
    """More than one face was found where one is needed."""

    code = "several_faces"

    def __init__(self, message: str, boxes: Sequence[tuple[float, float, float, float]] = ()) -> None:
        super().__init__(message)
        self.boxes = tuple(boxes)


class LowQualityError(InputError):
    """The face is too poor to enroll."""

    code = "low_quality"

    def __init__(self, message: str, reasons: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.reasons = tuple(reasons)


class NotFoundError(FacewardError, LookupError):
    """What was asked for does not exist for this client."""

    code = "not_found"


class UnknownRegionError(NotFoundError):
    """The client has no region of that name.

    regions: those that it has, by name, of which `known` are the first hundred.
    """

    code = "unknown_region"
    _MOST_NAMED: ClassVar[int] = 100

    def __init__(self, region: str, regions: Sequence[str]) -> None:
        self.region = region
        self.known = tuple(regions[: self._MOST_NAMED])
        self._regions = regions
        named = [*self.known, "and more"] if len(regions) > self._MOST_NAMED else self.known
        listed = ", ".join(named) if named else "none yet; enroll a person to create one"
        super().__init__(f"Region {region!r} does not exist for this client. Regions that do: {listed}.")

    def among(self, seen: Collection[str]) -> UnknownRegionError:
        """The same for somebody who sees no other regions than these."""
        return UnknownRegionError(self.region, [region for region in self._regions if region in seen])


class UnknownPersonError(NotFoundError):
    """The client has no person with that id."""

    code = "unknown_person"

    def __init__(self, person_id: int) -> None:
        super().__init__(f"Person {person_id} does not exist for this client.")
        self.person_id = person_id


class UnknownClientError(NotFoundError):
    """There is no client of that id."""

    code = "unknown_client"

    def __init__(self, client_id: str) -> None:
        super().__init__(f"Client {client_id!r} does not exist.")
        self.client_id = client_id


class UnknownKeyError(NotFoundError):
    """The client has no key with that id."""

    code = "unknown_key"

    def __init__(self, key_id: int) -> None:
        super().__init__(f"Key {key_id} does not exist for this client.")
        self.key_id = key_id


class UnknownJobError(NotFoundError):
    """The client has no job with that id."""

    code = "unknown_job"

    def __init__(self, job_id: int) -> None:
        super().__init__(f"Job {job_id} does not exist for this client. The list of imports shows those that do.")
        self.job_id = job_id


class ConflictError(FacewardError):
    """The change contradicts what is stored."""

    code = "conflict"


class DuplicateFaceError(ConflictError):
    """This photo is enrolled in this region already."""

    code = "duplicate_face"

    def __init__(self, message: str, person_id: int | None = None) -> None:
        super().__init__(message)
        self.person_id = person_id


class DuplicatePersonError(ConflictError):
    """A person with this external id is in this region already."""

    code = "duplicate_person"


class LikelyDuplicateError(ConflictError):
    """Somebody of this region looks like the one to be enrolled."""

    code = "likely_duplicate"

    def __init__(self, persons: Sequence[tuple[int, float]]) -> None:
        listed = ", ".join(f"person {person_id} at {similarity:.3f}" for person_id, similarity in persons)
        super().__init__(
            f"Enrolled in this region already, it seems: {listed}. Nothing was stored. Add the photo to that person; or, if "
            "it is somebody else, allow the duplicate (allow_duplicate)."
        )
        self.likely_duplicates = tuple(
            {"person_id": person_id, "similarity": similarity} for person_id, similarity in persons
        )


class DifferentRegionsError(ConflictError):
    """Two persons of different regions are merged only where the request says so."""

    code = "different_regions"


class PersonMergedError(ConflictError):
    """Who was merged into another person is erased with that one, not alone."""

    code = "person_merged"

    def __init__(self, number: int, person_id: int) -> None:
        super().__init__(
            f"Person {number} was merged into person {person_id}, who has the faces and everything else. Nothing was erased. "
            f"To erase this person, erase person {person_id}."
        )
        self.person_id = person_id


class PersonSuspendedError(ConflictError):
    """A person who is suspended, or has expired, is kept and not compared."""

    code = "person_suspended"

    def __init__(self, person_id: int, client_id: str, *, expired: bool) -> None:
        why = "has expired" if expired else "is suspended"
        mend = "Set a later expires_at" if expired else "Set the state to active"
        super().__init__(f"Person {person_id} {why}: the record is kept, and nobody is compared with it. {mend} first.")
        self.person_id = person_id
        self.client_id = client_id
        self.expired = expired


class DuplicateRegionError(ConflictError):
    """A region of this name exists for this client."""

    code = "duplicate_region"


class DuplicateClientError(ConflictError):
    """A client of this id exists."""

    code = "duplicate_client"


class RegionNotEmptyError(ConflictError):
    """A region that has persons can't be deleted."""

    code = "region_not_empty"


class TooManyRegionsError(ConflictError):
    """The client has as many regions as it may."""

    code = "too_many_regions"


class RequestReusedError(ConflictError):
    """An idempotency key was used for another request before."""

    code = "idempotency_key_reused"


class SecretShownError(ConflictError):
    """A request that is sent again made its key before, whose secret was shown then."""

    code = "secret_shown"

    def __init__(self, key_id: int) -> None:
        super().__init__(
            f"This request created key {key_id} before, and its secret was shown then. Rotate that key to get a new secret, "
            "or send another idempotency key to create one more."
        )
        self.key_id = key_id


class PersonsLeftBehindError(ConflictError):
    """A change of the model would leave persons without a face."""

    code = "persons_left_behind"

    def __init__(self, count: int, left: Sequence[tuple[str, int]], model_id: str) -> None:
        shown = ", ".join(f"{person} of client {client!r}" for client, person in left[:10])
        super().__init__(
            f"Persons would be left without a face ({count}), since {model_id} has none of theirs: {shown}"
            f"{', …' if count > 10 else ''}. `faceward reembed status --faces` says why. Add photos of them, or say "
            "--leave-behind: they stay, and nobody finds them until they have a new photo."
        )
        self.count = count
        self.left = tuple(left)


class JobLostError(ConflictError):
    """A job was cancelled, or another worker took it over."""

    code = "job_lost"

    def __init__(self, job_id: int) -> None:
        super().__init__(f"Job {job_id} was cancelled, or another worker took it over: it is not this one's any more.")
        self.job_id = job_id


class DatabaseNotEmptyError(ConflictError):
    """A backup would replace what is in the database."""

    code = "database_not_empty"


class BusyError(ConflictError):
    """Another process is doing the same work."""

    code = "busy"


class AccessError(FacewardError):
    """The caller may not do this."""

    code = "access_error"


class UnauthenticatedError(AccessError):
    """No valid key was sent. The message is the same whether it is missing, wrong, expired or revoked."""

    code = "unauthenticated"

    def __init__(self) -> None:
        super().__init__("No valid key was sent. Send one as `Authorization: Bearer KEY` or `x-api-key: KEY`.")


class RoleNotAllowedError(AccessError):
    """The key's role may not do this."""

    code = "role_not_allowed"


class RegionNotAllowedError(AccessError):
    """The key may not work in this region."""

    code = "region_not_allowed"


class CapacityError(FacewardError):
    """The service can't take this on now. retry_after: seconds after which to try again."""

    code = "capacity"

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OverloadedError(CapacityError):
    """More work is waiting than can be done in time."""

    code = "overloaded"


class RateLimitedError(CapacityError):
    """One key sends more requests than it may."""

    code = "rate_limited"


class DeadlineExceededError(CapacityError):
    """The time given to a request is over."""

    code = "deadline_exceeded"


class ModelError(FacewardError):
    """A model pack or inference runtime can't be used."""

    code = "model_error"


class UnknownPackError(ModelError):
    """There is no model pack of that name."""

    code = "unknown_pack"


class PackUnavailableError(ModelError):
    """A file of a model pack could not be fetched from any source."""

    code = "pack_unavailable"


class PackDamagedError(ModelError):
    """A file has another SHA-256 than its manifest says."""

    code = "pack_damaged"


class PackManifestError(ModelError):
    """A model pack's manifest can't be read or is incomplete."""

    code = "pack_manifest"


class RuntimeUnavailableError(ModelError):
    """The inference runtime is not installed."""

    code = "runtime_unavailable"


class ModelMismatchError(ModelError):
    """The gallery was made by another model than the one in use."""

    code = "model_mismatch"


class StoreError(FacewardError):
    """The database could not do what was asked."""

    code = "store_error"


class DatabaseUnavailableError(StoreError):
    """The database refused the connection or went away."""

    code = "database_unavailable"


class OutcomeUnknownError(DatabaseUnavailableError):
    """The database went away while it confirmed a change, or the service ended first: it may be stored, or not."""

    code = "outcome_unknown"


class PoolExhaustedError(StoreError):
    """No pooled connection came free in time."""

    code = "pool_exhausted"


class StatementTimeoutError(StoreError):
    """The database took longer than the deadline."""

    code = "statement_timeout"


class DatabaseFullError(StoreError):
    """The database server is out of space, memory or connections."""

    code = "database_full"


class ExtensionMissingError(StoreError):
    """The pgvector extension is absent or too old."""

    code = "extension_missing"


class SchemaMissingError(StoreError):
    """A table or column is absent: the migrations have not run."""

    code = "schema_missing"


class IndexMissingError(StoreError):
    """An index that the search strategy needs is absent."""

    code = "index_missing"


class AccessDeniedError(StoreError):
    """The database role may not do this."""

    code = "access_denied"


class ConstraintViolatedError(StoreError):
    """A rule of the tables was violated."""

    code = "constraint_violated"

    def __init__(self, message: str, constraint: str | None = None) -> None:
        super().__init__(message)
        self.constraint = constraint


class EmbeddedServerError(StoreError):
    """The embedded PostgreSQL did not start."""

    code = "embedded_server"


class ProgramMissingError(StoreError):
    """A program of PostgreSQL is absent, or older than the server."""

    code = "program_missing"


class BackupFailedError(StoreError):
    """A backup could not be made, or does not hold what the database holds."""

    code = "backup_failed"


class RestoreFailedError(StoreError):
    """A backup could not be brought into the database."""

    code = "restore_failed"


class UnexpectedDatabaseError(StoreError):
    """The database driver raised something that has no name of its own here."""

    code = "unexpected_database_error"


class ImageKeyError(FacewardError):
    """What is stored is encrypted with a key that is not there, or is another one of that id."""

    code = "image_key"

    def __init__(self, message: str, key_id: str) -> None:
        super().__init__(message)
        self.key_id = key_id


class SketchTooLargeError(FacewardError):
    """A gallery's sketch needs more memory than it may take."""

    code = "sketch_too_large"

    def __init__(self, faces: int, needed: int, allowed: int) -> None:
        super().__init__(
            f"The sketch of {faces} faces needs {needed} bytes and may take {allowed}: raise the memory for sketches."
        )
        self.faces = faces
        self.needed = needed
        self.allowed = allowed


class ServiceUnreachableError(FacewardError):
    """A client got no answer from the service."""

    code = "service_unreachable"


class SettingsError(FacewardError):
    """config.json or an environment variable can't be used."""

    code = "settings_error"
