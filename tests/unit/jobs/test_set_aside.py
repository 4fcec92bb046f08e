"""When an import counts as large."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from faceward.jobs.set_aside import SetAside


class Index:
    def __init__(self, worth_it: bool = True) -> None:
        self.asked: list[int] = []
        self.aside = False
        self._worth_it = worth_it

    def __call__(self, coming: int) -> contextlib.AbstractContextManager[None] | None:
        self.asked.append(coming)
        return self._without() if self._worth_it else None

    @contextlib.contextmanager
    def _without(self) -> Iterator[None]:
        self.aside = True
        yield
        self.aside = False


def test_what_is_to_come_is_told_from_what_was_new_so_far() -> None:
    index = Index()
    with SetAside(index, 1000) as aside:
        aside.consider(read=100, stored=10, left=9_800)
        assert not index.aside
        aside.consider(read=200, stored=110, left=9_700)
        assert (index.asked, index.aside) == ([5445], True)
        aside.consider(read=300, stored=210, left=9_600)
    assert (index.asked, index.aside) == ([5445], False)


def test_where_it_could_not_be_done_it_is_asked_again_once_twice_as_much_is_read() -> None:
    index = Index(worth_it=False)
    with SetAside(index, 1) as aside:
        for read in range(1, 10):
            aside.consider(read=read, stored=read, left=10 - read)
    assert index.asked == [10] * 4


def test_nothing_read_or_nothing_to_set_aside() -> None:
    index = Index()
    with SetAside(index, 1) as aside, SetAside(None, 1) as nothing:
        aside.consider(read=0, stored=0, left=100)
        nothing.consider(read=1, stored=1, left=100)
    assert index.asked == []
