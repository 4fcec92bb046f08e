"""The model in use, which may change while the service runs: `faceward reembed cut-over` and `roll-back`.

Each call works with the parts of one model from its beginning to its end. Where the gallery turns out to be of another one
(nothing of it was compared, or PostgreSQL refused an embedding), it is asked which; its parts are loaded once and take the
place of the others, and the call is made anew. So nobody has to tell a running service, and no call fails.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from faceward.errors import FacewardError, ModelMismatchError

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", covariant=True)

_ATTEMPTS = 20
_PAUSE = 0.1
_FAILED_SECONDS = 5.0


class LoadedModel(Protocol[S]):
    """The parts of one model. service: what calls run on. close: called once, when no call is running any more."""

    @property
    def model_id(self) -> str: ...
    @property
    def dimension(self) -> int: ...
    @property
    def service(self) -> S: ...
    def close(self) -> None: ...


L = TypeVar("L", bound="LoadedModel[Any]")


class ModelFollower(Generic[L]):
    """Runs calls on the parts of the model that makes the gallery.

    first: loaded. load: loads the parts of a model by its id. active: asks the gallery for the id of its model; None where it
    has none yet. on_change: called with the parts that are in use from now on.
    """

    def __init__(
        self,
        first: L,
        load: Callable[[str], L],
        active: Callable[[], str | None],
        on_change: Callable[[L], None] = lambda _: None,
    ) -> None:
        self._load = load
        self._active = active
        self._on_change = on_change
        self._switching = threading.Lock()
        self._lock = threading.Lock()
        self._current = first
        self._users: dict[int, int] = {}
        self._retired: dict[int, L] = {}
        self._failed: tuple[FacewardError, float] | None = None

    @property
    def current(self) -> L:
        return self._current

    def run(self, work: Callable[[Any], T], *, again: bool = True) -> T:
        """What `work` returns for the service of the model in use.

        again: it is called anew where the model changed under it; else it raises ModelMismatchError, for the next call to go
        right.
        """
        for left in reversed(range(_ATTEMPTS)):
            with self._used() as loaded:
                try:
                    return work(loaded.service)
                except ModelMismatchError:
                    doubted = loaded
                    if not left:
                        raise
                    changed = self.refresh(doubted)
                    if not again:
                        raise
            if not changed:
                # A hot standby that searches may be behind its primary for a moment, or before it.
                time.sleep(_PAUSE)
        raise AssertionError("unreachable")

    def refresh(self, doubted: L | None = None) -> bool:
        """Ask the gallery, and load its model where that is not the one in use (or not the doubted one); True if so."""
        with self._switching:
            current = self._current
            if doubted is not None and current is not doubted:
                return True  # another thread was here first
            active = self._active()
            if active is None or active == current.model_id:
                return False
            loaded = self._loaded(active)
            with self._lock:
                self._current = loaded
                self._retired[id(current)] = current
            self._on_change(loaded)
        self._close_unused()
        return True

    def close(self) -> None:
        """Of all models; calls that are still running meet closed parts."""
        with self._lock:
            left = [*self._retired.values(), self._current]
            self._retired.clear()
        for loaded in left:
            loaded.close()

    def _loaded(self, model_id: str) -> L:
        """Where it can't be loaded, all calls of the next seconds get the same error, instead of trying again each."""
        if self._failed is not None and time.monotonic() < self._failed[1]:
            raise self._failed[0]
        try:
            return self._load(model_id)
        except FacewardError as exc:
            self._failed = exc, time.monotonic() + _FAILED_SECONDS
            raise

    @contextmanager
    def _used(self) -> Iterator[L]:
        with self._lock:
            loaded = self._current
            self._users[id(loaded)] = self._users.get(id(loaded), 0) + 1
        try:
            yield loaded
        finally:
            with self._lock:
                self._users[id(loaded)] -= 1
            if self._retired:
                self._close_unused()

    def _close_unused(self) -> None:
        with self._lock:
            unused = [key for key in self._retired if not self._users.get(key)]
            closing = [self._retired.pop(key) for key in unused]
            for key in unused:
                self._users.pop(key, None)
        for loaded in closing:
            loaded.close()


class OfModel:
    """What has methods that work with the parts of one model."""

    _follower: ModelFollower[Any] | None = None


Self_ = TypeVar("Self_", bound=OfModel)


def by_model(method: Callable[Concatenate[Self_, P], T]) -> Callable[Concatenate[Self_, P], T]:
    """The method runs on the parts of the model in use, and anew where that changes under it.

    Inside it `self` is the service of that one model.
    """

    @wraps(method)
    def call(self: Self_, /, *args: P.args, **kwargs: P.kwargs) -> T:
        follower = self._follower
        if follower is None:
            return method(self, *args, **kwargs)
        files = _Files([*args, *kwargs.values()])

        def work(service: Self_) -> T:
            files.rewind()
            return method(service, *args, **kwargs)

        return follower.run(work)

    return call


class _Files:
    """The open files among the arguments of a call, to be read anew from where they stand now."""

    def __init__(self, arguments: list[Any]) -> None:
        given = [one for each in arguments for one in (each if isinstance(each, (list, tuple)) else (each,))]
        self._places = [(file, file.tell()) for file in given if _can_be_read_anew(file)]

    def rewind(self) -> None:
        for file, place in self._places:
            file.seek(place)


def _can_be_read_anew(value: Any) -> bool:
    return isinstance(value, io.IOBase) and not value.closed and value.seekable()
