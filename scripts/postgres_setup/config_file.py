"""config.json: which passwords it holds, and putting the URLs of a server into it.

Needs nothing but the standard library, since the script may run before anything is installed.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit

OWNER = "faceward_owner"
APP = "faceward_app"
KEYS = {OWNER: "migration_url", APP: "url"}
VARIABLES = {OWNER: "FACEWARD_OWNER_PASSWORD", APP: "FACEWARD_APP_PASSWORD"}
DEFAULTS = {
    "type": "postgresql",
    "url": "embedded",
    "pool_size": 20,
    "max_overflow": 40,
    "pool_timeout": 30,
    "pool_recycle": 3600,
}


class SetupError(Exception):
    """What the user must mend; the further arguments are lines that say how."""

    def __str__(self) -> str:
        return "\n  ".join(str(line) for line in self.args)


@dataclass(frozen=True, slots=True)
class Address:
    """Where the service finds the database."""

    host: str
    port: int
    database: str

    def url(self, role: str, password: str) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"postgresql://{role}:{quote(password, safe='')}@{host}:{self.port}/{quote(self.database, safe='')}"


@dataclass(frozen=True, slots=True)
class Credential:
    """A role's password and where it comes from."""

    role: str
    password: str
    source: Literal["environment", "config", "generated"]


def read_config(path: Path) -> dict[str, Any]:
    """The whole file, or an empty dict where there is none. Raises SetupError where it is not a config."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        raise SetupError(f"{path} can't be read: {exc}") from exc
    except json.JSONDecodeError as exc:
        raise SetupError(f"{path} is not JSON: {exc}. Mend or remove it; nothing was changed.") from exc
    if not isinstance(config, dict) or not isinstance(config.get("database", {}), dict):
        raise SetupError(f'{path} must be an object whose "database" is an object. Mend it; nothing was changed.')
    return config


def check_writable(path: Path) -> None:
    """Raise SetupError early where the file could not be written: a password that is lost helps nobody."""
    folder = path.resolve().parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SetupError(f"{path.name} can't be written in {folder}. Nothing was changed.")


def find_credential(
    role: str, config: Mapping[str, Any], environment: Mapping[str, str], address: Address, *, reset: bool
) -> Credential:
    """The password given by the environment, else the one that stands in the config, else a new one.

    reset: a password of the config is not taken.
    """
    given = environment.get(VARIABLES[role])
    if given:
        # PostgreSQL normalises other characters before it hashes them, so they are left out of it.
        if not given.isascii() or not given.isprintable():
            raise SetupError(f"{VARIABLES[role]} must be printable ASCII characters; another one is in it.")
        return Credential(role, given, "environment")
    stored = None if reset else _stored_password(role, config, address)
    if stored:
        return Credential(role, stored, "config")
    return Credential(role, secrets.token_urlsafe(24), "generated")


def _stored_password(role: str, config: Mapping[str, Any], address: Address) -> str | None:
    url = config.get("database", {}).get(KEYS[role])
    if not isinstance(url, str):
        return None
    try:
        parts = urlsplit(url)
        place = (unquote(parts.username or ""), parts.hostname, parts.port or 5432)
    except ValueError:
        return None
    if place != (role, address.host.lower(), address.port) or not parts.password:
        return None
    return unquote(parts.password)


def merged(config: Mapping[str, Any], address: Address, credentials: tuple[Credential, ...]) -> dict[str, Any]:
    """The config with the URLs of this database; every other key as it was."""
    section = {**DEFAULTS, **config.get("database", {}), "type": "postgresql"}
    for credential in credentials:
        section[KEYS[credential.role]] = address.url(credential.role, credential.password)
    return {**config, "database": section}


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """Replace the file in one step. Only its owner may read it, who stays the same when root writes it."""
    target = path.resolve()
    owner = target.stat() if target.exists() else target.parent.stat()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")  # its mode is 600
    scratch = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        if os.geteuid() == 0:
            os.chown(scratch, owner.st_uid, owner.st_gid)
        scratch.replace(target)
    except OSError as exc:
        scratch.unlink(missing_ok=True)
        raise SetupError(f"{path} can't be written: {exc}") from exc


def without_password(url: str) -> str:
    before, at, after = url.rpartition("@")
    scheme, _, user = before.partition("://")
    return f"{scheme}://{user.partition(':')[0]}@{after}" if at else url
