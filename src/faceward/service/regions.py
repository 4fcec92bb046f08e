"""The regions of a client: made, listed, renamed, deleted, and given thresholds of their own."""

from __future__ import annotations

from collections.abc import Sequence

from faceward.checks import (
    MAX_REGION,
    MAX_RETENTION_DAYS,
    check_client_id,
    check_count,
    check_existing,
    check_region,
    check_regions,
    check_request_token,
    check_retention,
    check_text,
    check_threshold,
)
from faceward.service.thresholds import Thresholds
from faceward.store.regions import RegionPage, RegionStore
from faceward.types import UNCHANGED, RegionChange, RegionSummary, RequestToken, RetentionEffect, Unchanged


class Regions:
    """The part of FaceService that keeps regions."""

    def __init__(self, regions: RegionStore, thresholds: Thresholds) -> None:
        self._regions = regions
        self._thresholds = thresholds

    def list_regions(
        self,
        *,
        regions: Sequence[str] | None = None,
        client_id: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> RegionPage:
        """A page of a client's regions with their counts, by name. after: the `next_after` of the page before. limit:
        1..1000. regions: of these only.
        """
        return self._regions.list(
            check_client_id(client_id),
            names=None if regions is None else check_regions(regions),
            after="" if after is None else check_text("after", after, MAX_REGION),
            limit=check_count("limit", limit, 1000),
        )

    def create_region(
        self,
        name: str,
        *,
        threshold: float | None = None,
        retention_days: int | None = None,
        client_id: str | None = None,
        request: RequestToken | None = None,
    ) -> RegionSummary:
        """Make a region before its first person does.

        threshold: its own similarity from which on a face is a match; retention_days: days after which its people
        expire; None takes the client's. request: names this call, so that the same call again gets the same region.

        Raises DuplicateRegionError, TooManyRegionsError, InvalidValueError; with a request also RequestReusedError, and
        UnknownRegionError where what it made is deleted or has another name.
        """
        client_id, name = check_client_id(client_id), check_region(name)
        made = self._regions.create(
            client_id,
            name,
            None if threshold is None else check_threshold(threshold),
            None if request is None else check_request_token(request),
            retention_days=check_retention(retention_days),
        )
        self._thresholds.forget(client_id)
        return made

    def get_region(self, name: str, *, client_id: str | None = None) -> RegionSummary:
        """Raises UnknownRegionError."""
        return self._regions.get(check_client_id(client_id), check_region(name))

    def update_region(
        self,
        region: str,
        *,
        name: str | Unchanged = UNCHANGED,
        threshold: float | Unchanged | None = UNCHANGED,
        retention_days: int | Unchanged | None = UNCHANGED,
        apply_to_existing: bool = False,
        client_id: str | None = None,
    ) -> RegionChange:
        """Change what is given and leave the rest; a threshold or retention of None takes the client's again.

        retention_days: of people enrolled from now on; who is there keeps the expiry they have, unless apply_to_existing:
        then they expire so many days after they were enrolled, where they would later or never. Who has by that expired is
        matched no more, and erased by the next purge; `count_existing` says beforehand how many these are.
        name: its new one, which takes along its persons, their faces and the keys that may work in it. Other processes
        go by a higher threshold at once, by a lower one within a few seconds. Raises UnknownRegionError,
        DuplicateRegionError, InvalidValueError, DeadlineExceededError.
        """
        client_id, region = check_client_id(client_id), check_region(region)
        changed = self._regions.update(
            client_id,
            region,
            new_name=name if isinstance(name, Unchanged) else check_region(name),
            threshold=threshold
            if threshold is None or isinstance(threshold, Unchanged)
            else check_threshold(threshold),
            retention_days=retention_days if isinstance(retention_days, Unchanged) else check_retention(retention_days),
            existing=check_existing(apply_to_existing, retention_days),
        )
        self._thresholds.forget(client_id)
        return changed

    def count_existing(self, region: str, retention_days: int, *, client_id: str | None = None) -> RetentionEffect:
        """Whom `update_region` would change by this retention with apply_to_existing. Raises UnknownRegionError."""
        days = check_count("retention_days", retention_days, MAX_RETENTION_DAYS)
        return self._regions.count_existing(check_client_id(client_id), check_region(region), days)

    def rename_region(self, region: str, name: str, *, client_id: str | None = None) -> RegionChange:
        """As `update_region` does."""
        return self.update_region(region, name=name, client_id=client_id)

    def delete_region(self, name: str, *, client_id: str | None = None) -> None:
        """Delete a region without persons. Raises UnknownRegionError, RegionNotEmptyError."""
        client_id = check_client_id(client_id)
        self._regions.delete(client_id, check_region(name))
        self._thresholds.forget(client_id)
