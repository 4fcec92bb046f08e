"""Something that is cheaper built once than kept up row by row, as the HNSW index, set aside during a large import."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Self, TypeAlias

LargeImport: TypeAlias = Callable[[int], AbstractContextManager[None] | None]
"""Asked with the faces that come; returns what to enter for the time of the import, or None where it is not worth it, or
can't be done now.
"""


class SetAside:
    """Of one import, from its first batch that shows it to be large to the end of the block.

    large_from: faces. What is there already does not count: an import that is repeated leaves the index alone.
    """

    def __init__(self, large_import: LargeImport | None, large_from: int) -> None:
        self._ask = large_import
        self._large_from = large_from
        self._after = 0  # items read: what could not be done may be possible later
        self._entered = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._entered.close()

    def consider(self, *, read: int, stored: int, left: int) -> None:
        """After a batch. read, stored: items read and faces stored so far; left: items that are still to be read."""
        coming = stored + left * stored // max(1, read)
        if self._ask is None or coming < self._large_from or read < self._after:
            return
        aside = self._ask(coming)
        if aside is None:
            self._after = 2 * read
        else:
            self._ask = None
            self._entered.enter_context(aside)
