"""The regions of a key's client, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

from faceward.client.requests import Requests, given, path_of
from faceward.http_types import answered
from faceward.types import UNCHANGED, Unchanged


class Regions(Requests):
    """The part of the client that keeps regions."""

    def list_regions(self, *, cursor: str | None = None, limit: int = 100) -> answered.RegionPage:
        """A page of regions. cursor: the `next` of the page before."""
        return self._send("GET", "/v1/regions", answered.RegionPage, query={"cursor": cursor, "limit": limit})

    def regions(self) -> Iterator[answered.RegionOut]:
        """All regions, page after page."""
        cursor: str | None = None
        while True:
            page = self.list_regions(cursor=cursor, limit=1000)
            yield from page.items
            cursor = page.next
            if cursor is None:
                return

    def create_region(
        self, name: str, *, threshold: float | None = None, retention_days: int | None = None
    ) -> answered.RegionOut:
        body = {"name": name, "threshold": threshold, "retention_days": retention_days}
        return self._send("POST", "/v1/regions", answered.RegionOut, body=body)

    def get_region(self, name: str) -> answered.RegionOut:
        return self._send("GET", path_of("/v1/regions", name), answered.RegionOut)

    def update_region(
        self,
        region: str,
        *,
        name: str | Unchanged = UNCHANGED,
        threshold: float | Unchanged | None = UNCHANGED,
        retention_days: int | Unchanged | None = UNCHANGED,
        apply_to_existing: bool = False,
    ) -> answered.RegionChanged:
        """Rename a region, or set its threshold or retention; None clears these. A new name, and what is applied to people,
        is not sent again where its answer is lost: it may have been done already.

        apply_to_existing: the people who are there expire by the retention too, counted from their enrolment, and nobody
        later than before; who has by that expired is matched no more, and erased by the next purge.
        """
        return self._send(
            "PATCH",
            path_of("/v1/regions", region),
            answered.RegionChanged,
            body=given(
                name=name,
                threshold=threshold,
                retention_days=retention_days,
                apply_to_existing=apply_to_existing or UNCHANGED,
            ),
            repeatable=isinstance(name, Unchanged) and not apply_to_existing,
        )

    def delete_region(self, name: str) -> None:
        """Delete a region that has no person."""
        self._delete(path_of("/v1/regions", name))
