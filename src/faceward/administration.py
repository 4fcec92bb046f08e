"""Administration: the clients of a deployment and the keys by which their systems call it.

A key's text is `fw_PREFIX_SECRET`: 12 of a-z and 0-9 by which it is found and shown, and 43 characters that hold 256 random
bits. Only the SHA-256 of the whole text is stored, which is enough for a secret that nobody could guess.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import re
import secrets
import string
from collections.abc import Sequence

from faceward.checks import (
    DEFAULT_CLIENT,
    MAX_CLIENT_ID,
    MAX_KEY_REGIONS,
    MAX_NAME,
    MAX_RETENTION_DAYS,
    check_client_id,
    check_count,
    check_existing,
    check_expires_at,
    check_future,
    check_id,
    check_name,
    check_new_client_id,
    check_optional_text,
    check_region,
    check_request_token,
    check_retention,
    check_text,
    check_threshold,
)
from faceward.errors import ConflictError, InvalidValueError, SettingsError, UnauthenticatedError
from faceward.store.api_keys import KeyPage, KeyStore
from faceward.store.clients import ClientPage, ClientStore
from faceward.types import (
    ROLES,
    UNCHANGED,
    ApiKey,
    Client,
    ClientChange,
    NewKey,
    RequestToken,
    RetentionEffect,
    Role,
    Unchanged,
)

_KEY = re.compile(r"fw_([a-z0-9]{12})_([A-Za-z0-9_-]{43})", re.ASCII)
_PREFIX_ALPHABET = string.ascii_lowercase + string.digits
_NO_PREFIX = "-"
"""No key has it: what is no key at all is looked up like a wrong one."""

_LEAST_RATE = 0.001
_MOST_RATE = 1_000_000.0


class Administration:
    """Clients and keys. Safe to share between threads.

    It checks what a key is, not who asks: which role may call which method is the caller's to say.
    """

    def __init__(self, clients: ClientStore, keys: KeyStore) -> None:
        self._clients = clients
        self._keys = keys

    # Clients

    def create_client(
        self,
        client_id: str,
        *,
        name: str | None = None,
        threshold: float | None = None,
        retention_days: int | None = None,
        request: RequestToken | None = None,
    ) -> Client:
        """name: what people call it; left out, its id. retention_days: after which its people expire; None: never.
        request: a repetition of a request that made the client gets it.

        Raises DuplicateClientError, InvalidValueError; with a request also RequestReusedError.
        """
        client_id = check_new_client_id(client_id)
        return self._clients.create(
            client_id,
            client_id if name is None else check_name(name),
            None if threshold is None else check_threshold(threshold),
            None if request is None else check_request_token(request),
            retention_days=check_retention(retention_days),
        )

    def list_clients(self, *, after: str | None = None, limit: int = 100) -> ClientPage:
        """A page of all clients by ascending id. after: the `next_after` of the page before. limit: 1..1000."""
        after = "" if after is None else check_text("after", after, MAX_CLIENT_ID)
        return self._clients.list(after, check_count("limit", limit, 1000))

    def get_client(self, client_id: str) -> Client:
        """Raises UnknownClientError."""
        return self._clients.get(check_client_id(client_id))

    def update_client(
        self,
        client_id: str,
        *,
        name: str | Unchanged = UNCHANGED,
        threshold: float | Unchanged | None = UNCHANGED,
        retention_days: int | Unchanged | None = UNCHANGED,
        apply_to_existing: bool = False,
    ) -> ClientChange:
        """Change what is given; a threshold or retention of None is cleared. Who is enrolled keeps the expiry they have,
        unless apply_to_existing: as in FaceService.update_region, in the regions that have no retention of their own.

        Raises UnknownClientError, InvalidValueError, DeadlineExceededError.
        """
        return self._clients.update(
            check_client_id(client_id),
            name=name if isinstance(name, Unchanged) else check_name(name),
            threshold=threshold
            if threshold is None or isinstance(threshold, Unchanged)
            else check_threshold(threshold),
            retention_days=retention_days if isinstance(retention_days, Unchanged) else check_retention(retention_days),
            existing=check_existing(apply_to_existing, retention_days),
        )

    def count_existing(self, client_id: str, retention_days: int) -> RetentionEffect:
        """Whom `update_client` would change by this retention with apply_to_existing. Raises UnknownClientError."""
        days = check_count("retention_days", retention_days, MAX_RETENTION_DAYS)
        return self._clients.count_existing(check_client_id(client_id), days)

    # Keys

    def create_key(
        self,
        client_id: str,
        role: Role,
        *,
        regions: Sequence[str] | None = None,
        name: str | None = None,
        expires_at: dt.datetime | None = None,
        rate_limit: float | None = None,
        request: RequestToken | None = None,
    ) -> NewKey:
        """A new key of a client; its text is shown this once.

        regions: those it may work in, which may be made later; None is all of them. expires_at: in the future, with a time
        zone. rate_limit: requests a second. request: a repetition of a request that made a key raises SecretShownError, which
        names the key: its secret can't be shown again.

        Raises UnknownClientError, InvalidValueError; with a request also RequestReusedError.
        """
        client_id = check_client_id(client_id)
        name = check_optional_text("name", name, MAX_NAME)
        if request is not None:
            check_request_token(request)
        secret, prefix = _new_text()
        key = self._keys.create(
            client_id,
            check_role(role),
            prefix=prefix,
            secret_hash=_hash(secret),
            regions=_check_regions(regions),
            name=name,
            expires_at=_check_expiry(expires_at),
            rate_limit=_check_rate(rate_limit),
            request=request,
        )
        return NewKey(key, secret)

    def rotate_key(self, client_id: str, key_id: int) -> NewKey:
        """A new text for the key; the old one is refused from this moment on.

        Raises UnknownKeyError; ConflictError where the key is revoked.
        """
        secret, prefix = _new_text()
        client_id, key_id = check_client_id(client_id), check_id("key_id", key_id)
        key = self._keys.replace_secret(client_id, key_id, prefix=prefix, secret_hash=_hash(secret))
        if key is None:
            raise ConflictError(f"Key {key_id} is revoked and can't be rotated. Create a new key.")
        return NewKey(key, secret)

    def revoke_key(self, client_id: str, key_id: int) -> ApiKey:
        """Refuse the key from this moment on, for good, and cancel its imports that are not finished; what these stored until
        then stays. Raises UnknownKeyError.
        """
        return self._keys.revoke(check_client_id(client_id), check_id("key_id", key_id))

    def is_last_admin_key(self, client_id: str, key_id: int) -> bool:
        """Whether no admin key that opens anything is left, of any client, once this one is revoked."""
        return self._keys.is_last_admin(check_client_id(client_id), check_id("key_id", key_id))

    def list_keys(self, client_id: str, *, after: int = 0, limit: int = 100) -> KeyPage:
        """A page of a client's keys by ascending id, revoked ones too. limit: 1..1000."""
        if after != 0:
            check_id("after", after)
        return self._keys.list(check_client_id(client_id), after, check_count("limit", limit, 1000))

    def get_key(self, client_id: str, key_id: int) -> ApiKey:
        """Raises UnknownKeyError."""
        return self._keys.get(check_client_id(client_id), check_id("key_id", key_id))

    def authenticate(self, text: str | None) -> ApiKey:
        """The key that this is the text of.

        Raises UnauthenticatedError, the same after the same work whether the key is missing, malformed, unknown, wrong,
        expired or revoked.
        """
        given = text or ""
        parsed = _KEY.fullmatch(given)
        found = self._keys.find(parsed[1] if parsed else _NO_PREFIX)
        stored = bytes(hashlib.sha256().digest_size) if found is None else found.secret_hash
        right = hmac.compare_digest(_hash(given), stored)
        if found is None or not right or not found.valid:
            raise UnauthenticatedError
        return found.key

    def record_use(self, key: ApiKey) -> None:
        """Note that the key was used now; written at most once a minute, however often this is called."""
        self._keys.touch(key.client_id, key.id)

    def ensure_first_key(self, text: str | None = None) -> NewKey | None:
        """An admin key of the client `default` for a deployment that never had one; None where it had.

        text: the key to store, chosen beforehand; None draws one. Raises SettingsError where it is no key.
        """
        if text is None:
            text, prefix = _new_text()
        else:
            parsed = _KEY.fullmatch(text)
            if parsed is None:
                raise SettingsError(
                    "The first key can't be used: it must read fw_, 12 of a-z and 0-9, _, and 43 of A-Z, a-z, 0-9, - and _ "
                    "that nobody can guess (32 random bytes as base64url)."
                )
            prefix = parsed[1]
        key = self._keys.create_first(DEFAULT_CLIENT, prefix=prefix, secret_hash=_hash(text), name="first key")
        return None if key is None else NewKey(key, text)


def check_role(value: object) -> Role:
    for role in ROLES:
        if role == value:
            return role
    raise InvalidValueError("role", value, f"one of {', '.join(ROLES)}")


def _new_text() -> tuple[str, str]:
    """A key's text and the prefix in it."""
    prefix = "".join(secrets.choice(_PREFIX_ALPHABET) for _ in range(12))
    secret = base64.urlsafe_b64encode(secrets.token_bytes(32)).rstrip(b"=").decode("ascii")
    return f"fw_{prefix}_{secret}", prefix


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _check_regions(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Sequence) or not 1 <= len(value) <= MAX_KEY_REGIONS:
        raise InvalidValueError(
            "regions", value, f"a list of 1 to {MAX_KEY_REGIONS} names of regions, or nothing for all"
        )
    return tuple(dict.fromkeys(check_region(name) for name in value))


def _check_expiry(value: object) -> dt.datetime | None:
    moment = check_expires_at(value)
    check_future("expires_at", moment)
    return moment


def _check_rate(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not _LEAST_RATE <= value <= _MOST_RATE:
        raise InvalidValueError(
            "rate_limit", value, f"requests a second, {_LEAST_RATE} to {_MOST_RATE}, or nothing for the default"
        )
    return float(value)
