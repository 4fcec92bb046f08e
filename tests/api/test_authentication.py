"""Keys are found quickly, believed for a second and no longer, and those who try texts that are no keys wait by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest
from companies import Company, RunningServer
from starlette.requests import Request

from faceward.administration import Administration
from faceward.api.admission import WorkPool
from faceward.api.authentication import Authenticator
from faceward.errors import OverloadedError, UnauthenticatedError
from faceward.types import ApiKey


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Counting(Administration):
    """Counts the texts that it is asked for, and holds back its answers about strangers."""

    def __init__(self, administration: Administration) -> None:
        super().__init__(administration._clients, administration._keys)
        self.asked: list[str | None] = []
        self.free = threading.Event()
        self.free.set()

    def authenticate(self, text: str | None) -> ApiKey:
        self.asked.append(text)
        if text is not None and text.startswith("stranger"):
            assert self.free.wait(20)
        return super().authenticate(text)


def request_with(key: str) -> Request:
    return Request({"type": "http", "headers": [(b"x-api-key", key.encode())]})


@pytest.fixture
def administration(running: RunningServer) -> Counting:
    return Counting(running.app.state.parts.administration)


@pytest.fixture
def pools() -> Iterator[tuple[WorkPool, WorkPool]]:
    with (
        contextlib.closing(WorkPool("data", threads=2, queue=2, seconds=20.0)) as data,
        contextlib.closing(WorkPool("strangers", threads=1, queue=2, seconds=20.0)) as strangers,
    ):
        yield data, strangers


def test_a_known_key_does_not_wait_behind_texts_that_are_none(
    administration: Counting, pools: tuple[WorkPool, WorkPool], company: Company
) -> None:
    clock = Clock()

    async def scene() -> None:
        authenticator = Authenticator(administration, *pools, clock)
        known = request_with(company.new_key("recognizer"))
        await authenticator.caller(known)
        administration.free.clear()
        flood = [asyncio.ensure_future(authenticator.caller(request_with(f"stranger {n}"))) for n in range(20)]
        await asyncio.sleep(0.05)
        clock.now += 60.0  # it has to be asked for again, though it was known long ago
        assert (await authenticator.caller(known)).client_id == company.client_id
        authenticator.forget()
        assert (await authenticator.caller(known)).client_id == company.client_id
        administration.free.set()
        refused = await asyncio.gather(*flood, return_exceptions=True)
        assert {type(each) for each in refused} == {UnauthenticatedError, OverloadedError}

    asyncio.run(asyncio.wait_for(scene(), 20))


def test_a_wrong_key_sent_again_and_again_is_asked_for_once_a_second(
    administration: Counting, pools: tuple[WorkPool, WorkPool]
) -> None:
    clock = Clock()

    async def scene() -> None:
        authenticator = Authenticator(administration, *pools, clock)

        async def refused() -> int:
            with pytest.raises(UnauthenticatedError):
                await authenticator._find("wrong")
            return len(administration.asked)

        assert [await refused() for _ in range(3)] == [1, 1, 1]
        clock.now += 1.01
        assert await refused() == 2

    asyncio.run(scene())


@pytest.mark.parametrize("change", ["rotate_key", "revoke_key"])
def test_what_another_process_did_to_a_key_is_seen_within_a_second(
    administration: Counting, pools: tuple[WorkPool, WorkPool], company: Company, change: str
) -> None:
    clock = Clock()

    async def scene() -> None:
        here, there = (Authenticator(administration, *pools, clock) for _ in range(2))
        secret = company.new_key("recognizer")
        for each in (here, there):
            key = await each._find(secret)
        ended: Callable[[str, int], object] = getattr(administration, change)
        ended(key.client_id, key.id)
        here.forget()
        with pytest.raises(UnauthenticatedError):
            await here._find(secret)
        clock.now += 0.99
        assert (await there._find(secret)).id == key.id
        clock.now += 0.02
        with pytest.raises(UnauthenticatedError):
            await there._find(secret)

    asyncio.run(scene())
