"""Every setting: its name, default and meaning, in this one place. The only reader of the environment.

A setting comes from, in this order: an argument, an environment variable (FACEWARD_DATABASE__URL for database.url),
config.json in the working directory (or the file that FACEWARD_CONFIG names), its default.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_cache_path, user_data_path
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as PydanticSettingsError

from faceward.errors import SettingsError

CONFIG_FILE = "config.json"
EMBEDDED = "embedded"

_PREFIX = "FACEWARD_"
_MISSPELT = 0.9  # how alike two names are, 0..1, for one to be meant by the other
_MAX_KEY_ID = 100
_KEY_BYTES = 32


def _key_bytes(key: SecretStr) -> bytes:
    """Empty where it is no base64."""
    try:
        return base64.b64decode(key.get_secret_value().strip(), validate=True)
    except ValueError:
        return b""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class DatabaseSettings(_Section):
    """Which PostgreSQL, and the pool of connections to it."""

    type: Literal["postgresql"] = Field("postgresql", description="The kind of database; PostgreSQL is the only one.")
    url: str = Field(
        EMBEDDED,
        description="postgresql://user:password@host:5432/face_recognition, or `embedded` for the server that faceward "
        "brings with it.",
    )
    migration_url: str | None = Field(
        None, description="The login that owns the tables and migrates them, where it isn't that of `url`."
    )
    backup_url: str | None = Field(
        None,
        description="The login that backs up, where that of `migration_url` is bound by row-level security: a superuser, or "
        "one with BYPASSRLS.",
    )
    search_url: str | None = Field(
        None,
        description="A hot standby that answers the searches, where that isn't `url`; it answers as of its own moment.",
    )
    pool_size: int = Field(20, ge=1, le=1000, description="Connections kept open.")
    max_overflow: int = Field(40, ge=0, le=1000, description="Connections opened beyond pool_size under load.")
    pool_timeout: float = Field(30.0, gt=0, le=3600, description="Seconds to wait for a free connection.")
    pool_recycle: int = Field(3600, ge=1, description="Seconds after which a connection is replaced.")
    connect_timeout: int = Field(5, ge=1, le=300, description="Seconds to wait for the server to accept a connection.")
    statement_timeout: float = Field(30.0, gt=0, le=3600, description="Seconds that one statement may take.")


class ModelSettings(_Section):
    """The model pack and how it runs."""

    pack: str = Field("faceplugin-0.0.1", description="The model pack, as `faceward models list` names it.")
    runtime: Literal["auto", "openvino", "onnxruntime"] = Field(
        "auto", description="Inference runtime; auto takes OpenVINO where it is installed, else ONNX Runtime."
    )
    threads: int | None = Field(
        None, ge=1, le=256, description="Images worked on at once, each on one core; unset: one for each core."
    )


class ImageSettings(_Section):
    """What an image may cost, and whether it is kept."""

    max_bytes: int = Field(32 * 1024 * 1024, ge=1, description="The most bytes of an encoded image.")
    max_pixels: int = Field(80_000_000, ge=1, description="The most pixels of an image, before any reduction.")
    store: Literal["off", "original", "face"] = Field(
        "off",
        description="What is kept of enrolled photos in the database: nothing, all as it was sent, or the face alone.",
    )
    keys: dict[str, SecretStr] = Field(
        {},
        description="The keys of stored photos: an id, and 32 random bytes in base64. Best set in the environment.",
    )
    key: str | None = Field(
        None, description="The id of the key that new photos are encrypted with; unset: they are not encrypted."
    )

    @field_validator("keys")
    @classmethod
    def _keys_are_keys(cls, keys: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for key_id, key in keys.items():
            if not 0 < len(key_id) <= _MAX_KEY_ID or not key_id.isascii() or not key_id.isprintable():
                raise ValueError(f"a key's id must be 1 to {_MAX_KEY_ID} printable characters of ASCII")
            if len(_key_bytes(key)) != _KEY_BYTES:
                raise ValueError(
                    f"the key {key_id!r} must be {_KEY_BYTES} random bytes in base64, as `openssl rand -base64 32` makes them"
                )
        return keys

    @property
    def key_bytes(self) -> dict[str, bytes]:
        """The keys, by id."""
        return {key_id: _key_bytes(key) for key_id, key in self.keys.items()}


class EnrollSettings(_Section):
    """What a photo must be to be enrolled, and where."""

    min_quality: float = Field(0.3, ge=0, le=1, description="The least quality of a face to enroll, 0..1; 0 takes all.")
    min_face: float = Field(32.0, ge=1, description="The least height of a face to enroll, in pixels.")
    max_regions: int = Field(
        10_000, ge=1, description="The most regions of one client; enrolments make one on its first use."
    )
    duplicates: Literal["off", "report", "refuse"] = Field(
        "report",
        description="Who matches another person of the region at enrolment: not looked for, named in the answer, or refused.",
    )


class SearchSettings(_Section):
    """How people are found."""

    strategy: Literal["auto", "exact", "sketch", "hnsw"] = Field(
        "auto", description="How candidates are found: auto, exact and sketch answer alike; hnsw may miss people."
    )
    threshold: float | None = Field(
        None, ge=-1, le=1, description="The similarity from which on a face is a match; unset: the model pack's."
    )
    margin: float = Field(
        0.02,
        ge=0,
        le=1,
        description="A match is ambiguous where another person is less than this much further from it; 0 turns that off.",
    )
    most_at_once: int | None = Field(
        None, ge=1, description="Searches under way in one process, the others wait; unset: four for each core."
    )
    sketch_from: int = Field(
        2_000, ge=0, description="Faces of a region from which on `auto` searches its sketch in memory, not SQL alone."
    )
    sketch_bytes: int = Field(
        1 << 30, ge=0, description="The most memory for sketches, at 72 bytes a face; the least used regions make room."
    )
    refresh_seconds: float = Field(
        60.0, gt=0, description="How often a sketch in use takes in newer faces in the background, in seconds."
    )
    hnsw_index: bool = Field(
        True,
        description="Whether new tables get the HNSW index; only the strategy hnsw uses it, every enrolment pays for it.",
    )
    hnsw_m: int = Field(16, ge=2, le=100, description="Links of a node of the HNSW index.")
    hnsw_ef_construction: int = Field(64, ge=4, le=1000, description="Candidates while the HNSW index is built.")
    hnsw_halfvec: bool = Field(False, description="Build the HNSW index over 16-bit vectors: half the size.")
    hnsw_rebuild_from: int = Field(
        20_000, ge=0, description="Faces of one import from which on the HNSW index is built once, after it."
    )
    hnsw_ef_search: int = Field(200, ge=1, le=1000, description="pgvector's hnsw.ef_search, for the strategy hnsw.")
    hnsw_iterative_scan: Literal["off", "relaxed_order", "strict_order"] = Field(
        "strict_order", description="pgvector's hnsw.iterative_scan, for the strategy hnsw."
    )


class ApiSettings(_Section):
    """The HTTP service."""

    host: str = Field("127.0.0.1", description="The address that `faceward serve` listens on.")
    port: int = Field(
        8080, ge=0, le=65535, description="The port that `faceward serve` listens on; 0 takes a free one."
    )
    workers: int = Field(1, ge=1, le=256, description="Processes that serve the port; each holds sketches of its own.")
    tls_certificate: Path | None = Field(
        None, description="The certificate's chain, PEM; with tls_key HTTPS is spoken."
    )
    tls_key: Path | None = Field(None, description="The certificate's private key, PEM.")
    first_key: str | None = Field(
        None,
        description="The first admin key, as fw_PREFIX_SECRET; unset: the first start makes one and prints it once.",
    )
    queue: int = Field(128, ge=0, le=100_000, description="Requests that may wait for inference; more get 503 at once.")
    deadline: float = Field(30.0, gt=0, le=3600, description="Seconds for a request, waiting included.")
    long_deadline: float = Field(
        600.0,
        gt=0,
        le=86_400,
        description="Seconds for a request that reads or changes very many rows: a region's new name, a retention for those in "
        "it, the erasure of a person.",
    )
    data_threads: int = Field(
        8,
        ge=1,
        le=256,
        description="Requests at once that ask the database and need no inference; of one client one less.",
    )
    rate_limit: float = Field(
        1000.0,
        ge=0,
        le=1_000_000,
        description="Requests a second of one key, where it has no limit of its own; 0: no limit.",
    )
    max_body: int = Field(64 << 20, ge=1024, description="The most bytes of a request's body.")
    max_import: int = Field(2 << 30, ge=1024, description="The most bytes of an uploaded import.")
    max_held: int = Field(
        512 << 20,
        ge=1024,
        description="The most bytes of all bodies under way together; and as many of answers that nobody took yet.",
    )
    body_seconds: float = Field(
        30.0, gt=0, le=3600, description="Seconds for a body to arrive; for an import, for each MiB."
    )
    header_seconds: float = Field(10.0, gt=0, le=3600, description="Seconds for a request's headers to arrive.")
    idle_seconds: int = Field(75, ge=1, le=3600, description="Seconds that an idle connection is kept open.")
    stop_seconds: int = Field(30, ge=1, le=3600, description="Seconds for requests under way to finish at a shutdown.")
    cors_origins: list[str] = Field(
        [],
        description="Origins of browser pages that may call the service, as https://desk.example.com; none by default.",
    )
    audit_seconds: float = Field(
        0.0, ge=0, description="How often the recall is audited in the background for /metrics, in seconds; 0: never."
    )
    metrics_directory: Path | None = Field(
        None, description="Where worker processes share their metrics; `faceward serve --workers` sets it."
    )


class ImportSettings(_Section):
    """Imports that run in the background of the HTTP service."""

    threads: int = Field(1, ge=0, le=64, description="Imports that one process runs at once; 0: it only takes them in.")
    photo_workers: int = Field(1, ge=1, le=256, description="Photos of one import that are analysed at once.")
    lease_seconds: float = Field(
        60.0, ge=5, le=3600, description="Seconds without a word after which another process takes an import over."
    )
    max_files: int = Field(100_000, ge=1, description="The most files in an archive.")
    max_inflated: int = Field(8 << 30, ge=1024, description="The most bytes that an archive may inflate to.")
    max_waiting: int = Field(100, ge=1, description="The most imports of one client that may wait.")
    max_waiting_bytes: int = Field(
        8 << 30, ge=1024, description="The most bytes of one client's uploads that are kept until they are imported."
    )
    keep_days: int = Field(90, ge=7, le=36_500, description="Days that the report of a finished import is kept.")
    spool: Path | None = Field(
        None, description="Where an import's upload is kept while it runs; unset: the system's temporary directory."
    )


class AuditSettings(_Section):
    """What is kept of what was done, and the proof of erasures."""

    decisions: Literal["off", "on"] = Field(
        "on", description="Keep what each recognition, search and verification decided, without image or embedding."
    )
    decision_days: int = Field(30, ge=1, le=36_500, description="Days that decisions are kept.")
    log_days: int = Field(365, ge=30, le=36_500, description="Days that entries of the audit log are kept.")
    receipt_key: SecretStr | None = Field(
        None,
        description="What signs receipts of erasures: 32 random bytes in base64; unset: a key made on first use, in `home` "
        "where that is set, else in the user's data directory.",
    )


class RetentionSettings(_Section):
    """People whose time is over."""

    purge_seconds: float = Field(
        0.0, ge=0, description="How often `faceward serve` erases people who have expired, in seconds; 0: never."
    )


class Settings(BaseSettings):
    """All settings of a deployment."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # it may be a secret, and a traceback shows the cause
        nested_model_default_partial_update=True,
    )

    home: Path = Field(
        default_factory=lambda: user_cache_path("faceward"),
        description="Where model packs are kept, and the embedded database if this is set; else the user's cache directory.",
    )
    data: Path | None = Field(
        None,
        description="Where the embedded database is kept; unset: in `home` where that is set, else the user's data directory.",
    )
    database: DatabaseSettings = Field(default_factory=DatabaseSettings, description="The database.")
    model: ModelSettings = Field(default_factory=ModelSettings, description="The models.")
    images: ImageSettings = Field(default_factory=ImageSettings, description="Images.")
    enroll: EnrollSettings = Field(default_factory=EnrollSettings, description="Enrolment.")
    search: SearchSettings = Field(default_factory=SearchSettings, description="Search.")
    api: ApiSettings = Field(default_factory=ApiSettings, description="The HTTP service.")
    retention: RetentionSettings = Field(default_factory=RetentionSettings, description="Retention.")
    imports: ImportSettings = Field(default_factory=ImportSettings, description="Imports in the background.")
    audit: AuditSettings = Field(default_factory=AuditSettings, description="Audit log and receipts.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The environment outranks the file, whose values arrive as arguments.
        return env_settings, init_settings

    @property
    def database_directory(self) -> Path:
        """Of the embedded server."""
        if self.data is not None:
            return self.data
        if "home" in self.model_fields_set:
            return self.home / "postgres-18"
        return user_data_path("faceward") / "postgres-18"

    @property
    def receipt_key_file(self) -> Path:
        """Not in a cache, which may be emptied: receipts are verified years later."""
        return (self.home if "home" in self.model_fields_set else user_data_path("faceward")) / "receipt.key"


def load_settings(config: str | os.PathLike[str] | None = None, **overrides: Any) -> Settings:
    """Read the settings. config: a JSON file; None takes FACEWARD_CONFIG or ./config.json where there is one.

    overrides: sections or values that outrank everything else, as in load_settings(database={"url": "embedded"}).
    Raises SettingsError, which names the setting and never shows a value that may hold a password.
    """
    named = config or os.environ.get("FACEWARD_CONFIG")
    path = Path(named or CONFIG_FILE)
    values: dict[str, Any] = {}
    if named or path.exists():
        values = _read(path)
        _refuse_misspelt(values, Settings.model_fields, f"{path} has the section")
    known = [_variable(name) for name, _, _ in described()]
    _refuse_misspelt(_variables(), known, "There is the environment variable")
    try:
        settings = Settings(**values)
        return settings.model_copy(update=_over(settings, overrides))
    except PydanticSettingsError as exc:
        raise SettingsError(
            f"{_no_json()} A section such as FACEWARD_DATABASE takes a JSON object, and so does FACEWARD_IMAGES__KEYS; a "
            "single value has a name of its own, as FACEWARD_DATABASE__URL. docs/settings.md lists every one."
        ) from exc
    except ValidationError as exc:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}"
            for error in exc.errors(include_input=False, include_url=False)
        )
        raise SettingsError(f"The settings can't be used: {problems}. docs/settings.md lists every setting.") from exc


def _refuse_misspelt(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """A name that is none of ours but nearly so was meant to be: it would silently change nothing."""
    known = list(known)
    for name in given:
        likely = [] if name in known else get_close_matches(name, known, 1, _MISSPELT)
        if likely:
            raise SettingsError(
                f"{what} {name}, which faceward does not know. Is {likely[0]} meant? docs/settings.md lists every setting."
            )


def _variable(name: str) -> str:
    """The environment variable of a setting or a section."""
    return _PREFIX + name.replace(".", "__").upper()


def _no_json() -> str:
    """Which variable should be JSON, and where it is none; its value may be a secret."""
    rows = described()
    of_json = {_variable(name.partition(".")[0]) for name, _, _ in rows if "." in name}
    of_json.update(_variable(name) for name, default, _ in rows if default[0] in "[{")
    for name, value in os.environ.items():
        if name.upper() in of_json:
            try:
                json.loads(value)
            except json.JSONDecodeError as exc:
                return f"The environment variable {name.upper()} is not JSON, at character {exc.pos + 1}: {exc.msg}."
    return "An environment variable of faceward can't be used."


def _variables() -> list[str]:
    """Those of the environment that are no section's: a section knows its own names."""
    sections = [_PREFIX + name.upper() for name in Settings.model_fields]
    parts = tuple(f"{section}__" for section in sections)
    names = [name.upper() for name in os.environ]
    return [n for n in names if n.startswith(_PREFIX) and n not in sections and not n.startswith(parts)]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise SettingsError(f"The settings file {path} can't be read: {exc.strerror}.") from exc
    except ValueError as exc:
        raise SettingsError(f"The settings file {path} is not JSON: {exc}.") from exc
    if not isinstance(content, dict):
        raise SettingsError(f'The settings file {path} must hold a JSON object, as in {{"database": {{...}}}}.')
    return content


def _over(settings: Settings, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The sections and values that overrides change, checked as those of a file are."""
    changed: dict[str, Any] = {}
    for name, value in overrides.items():
        standing = getattr(settings, name, None)
        if isinstance(standing, _Section) and isinstance(value, Mapping):
            changed[name] = type(standing).model_validate({**standing.model_dump(), **value})
        elif name in ("home", "data") and value is not None:
            changed[name] = Path(value)
        elif name in type(settings).model_fields:
            changed[name] = value
        else:
            raise SettingsError(f"There is no setting {name!r}. docs/settings.md lists every setting.")
    return changed


def described() -> list[tuple[str, str, str]]:
    """Every setting as (name, default, description), for the documentation."""
    rows = []
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, _Section):
            rows += [
                (f"{name}.{inner}", json.dumps(part.default), part.description or "")
                for inner, part in section.model_fields.items()
            ]
        else:
            rows.append((name, "null" if field.default_factory else json.dumps(field.default), field.description or ""))
    return rows
