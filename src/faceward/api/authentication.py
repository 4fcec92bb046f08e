"""Who calls: the key of a request, its client, role and regions.

The client is the key's, never something that a request says. A key that is missing, wrong, expired or revoked gets the same
answer after the same time.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import Request

from faceward.administration import Administration
from faceward.api.admission import WorkPool
from faceward.errors import (
    CapacityError,
    InvalidValueError,
    RegionNotAllowedError,
    RoleNotAllowedError,
    StoreError,
    UnauthenticatedError,
    UnknownPersonError,
    UnknownRegionError,
)
from faceward.types import ApiKey, Person, Role

K = TypeVar("K")
V = TypeVar("V")

_BELIEVED_SECONDS = 1.0
_REFUSAL_SECONDS = 0.05
_TOUCH_SECONDS = 60.0
_MOST_KEYS = 10_000
_LONGEST_KEY = 200


@dataclass(frozen=True, slots=True)
class Caller:
    """A key at work."""

    key: ApiKey

    @property
    def client_id(self) -> str:
        return self.key.client_id

    @property
    def actor(self) -> str:
        """As the audit log names it."""
        return f"key:{self.key.prefix}"

    def require(self, role: Role) -> None:
        if not self.key.may(role):
            raise RoleNotAllowedError(
                f"This key has the role {self.key.role!r}; this takes the role {role!r} or one above it."
            )

    def enter(self, regions: Iterable[str]) -> None:
        """Raise RegionNotAllowedError unless the key may work in all of the regions."""
        for region in regions:
            if not self.key.may_enter(region):
                raise RegionNotAllowedError(
                    f"This key may not work in region {region!r}; it may in: {', '.join(self.key.regions or ())}."
                )

    def require_all_regions(self) -> None:
        """For what concerns a client as a whole."""
        if self.key.regions is not None:
            raise RegionNotAllowedError(
                f"This key may work in some regions only: {', '.join(self.key.regions)}. This concerns the whole client."
            )

    def reach(self, person: Person) -> Person:
        """The person, or UnknownPersonError where the key does not see the region: it hears nothing of others."""
        if not self.key.may_enter(person.region):
            raise UnknownPersonError(person.id)
        return person

    def narrowed(self, error: UnknownRegionError) -> UnknownRegionError:
        """The error without regions that this key does not see."""
        return error if self.key.regions is None else error.among(self.key.regions)


@dataclass(frozen=True, slots=True)
class _Known:
    """until: when to ask again. changes: how many there had been when it was asked for."""

    key: ApiKey
    until: float
    changes: int


class Authenticator:
    """Finds the key of a request. What the database said of a text is believed for a second: a revoked key ends within it.

    pool: for what was a key when it was last asked for. strangers: for all else, so that whoever tries texts that are no
    keys, however many, waits with his like, and no known key behind him.
    """

    def __init__(
        self, administration: Administration, pool: WorkPool, strangers: WorkPool, clock: Callable[[], float]
    ) -> None:
        self._administration = administration
        self._pool = pool
        self._strangers = strangers
        self._clock = clock
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._refused: OrderedDict[bytes, float] = OrderedDict()
        self._asked: dict[bytes, asyncio.Future[ApiKey]] = {}
        self._touched: OrderedDict[tuple[str, int], float] = OrderedDict()
        self._touching: set[asyncio.Task[None]] = set()
        self._changes = 0

    async def caller(self, request: Request) -> Caller:
        """Raises UnauthenticatedError, StoreError."""
        started = self._clock()
        try:
            key = await self._find(_sent_key(request))
        except UnauthenticatedError:
            # The same time for each of the reasons: how far a key was looked into is not to be measured.
            await asyncio.sleep(max(0.0, started + _REFUSAL_SECONDS - self._clock()))
            raise
        self._touch(key)
        return Caller(key)

    def forget(self) -> None:
        """Ask the database anew: a key was changed by this process."""
        # Nor believe what is on its way: it may have been read before the change.
        self._asked.clear()
        self._changes += 1

    async def _find(self, text: str) -> ApiKey:
        # Kept by digest: no secret stays in memory, and a look-up by it tells nothing of how much was right.
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
        known, now = self._known.get(digest), self._clock()
        if known is not None and now < known.until and known.changes == self._changes:
            return known.key
        if now < self._refused.get(digest, now):
            raise UnauthenticatedError
        changes = self._changes
        asked = self._asked.get(digest)
        if asked is None:
            pool = self._strangers if known is None else self._pool
            asked = asyncio.ensure_future(pool.run(lambda: self._administration.authenticate(text)))
            self._asked[digest] = asked
            asked.add_done_callback(lambda done: self._answered(digest, done))
        # Shielded: one caller that leaves must not take the answer from the others that wait for it.
        try:
            key = await asyncio.shield(asked)
        except UnauthenticatedError:
            self._known.pop(digest, None)
            _put(self._refused, digest, self._clock() + _BELIEVED_SECONDS)
            raise
        _put(self._known, digest, _Known(key, self._clock() + _BELIEVED_SECONDS, changes))
        return key

    def _answered(self, digest: bytes, done: asyncio.Future[ApiKey]) -> None:
        if self._asked.get(digest) is done:
            del self._asked[digest]
        if not done.cancelled():
            done.exception()  # all who asked may have left: then nobody else takes it

    def _touch(self, key: ApiKey) -> None:
        """Record the use, once a minute for each key, beside the request."""
        name, now = (key.client_id, key.id), self._clock()
        if now < self._touched.get(name, 0.0):
            return
        _put(self._touched, name, now + _TOUCH_SECONDS)
        task = asyncio.ensure_future(self._record_use(key))
        self._touching.add(task)
        task.add_done_callback(self._touching.discard)

    async def _record_use(self, key: ApiKey) -> None:
        try:
            await self._pool.run(lambda: self._administration.record_use(key))
        except (StoreError, CapacityError):
            # The request itself meets the same database, and reports it; the time of use is tried again with the next one.
            self._touched.pop((key.client_id, key.id), None)


def _put(entries: OrderedDict[K, V], name: K, value: V) -> None:
    """As the newest entry; the oldest makes room."""
    entries[name] = value
    entries.move_to_end(name)
    if len(entries) > _MOST_KEYS:
        entries.popitem(last=False)


def _sent_key(request: Request) -> str:
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    text = text.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "").strip()
    return text if len(text) <= _LONGEST_KEY else ""


def parse_cursor(cursor: str | None) -> int:
    """The id behind which a page begins. Raises InvalidValueError."""
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 19 and 0 < int(cursor) < 2**63):
        raise InvalidValueError("cursor", cursor, "the `next` of the page before")
    return int(cursor)
