"""The regions of a client: made, listed, renamed, deleted, and given thresholds of their own."""

from __future__ import annotations

from faceward.checks import check_client_id, check_region, check_threshold
from faceward.service.thresholds import Thresholds
from faceward.store.gallery import Gallery
from faceward.store.regions import RegionStore
from faceward.types import UNCHANGED, RegionSummary, Unchanged


class Regions:
    """The part of FaceService that keeps regions."""

    def __init__(self, gallery: Gallery, regions: RegionStore, thresholds: Thresholds) -> None:
        self._gallery = gallery
        self._regions = regions
        self._thresholds = thresholds

    def list_regions(self, *, client_id: str | None = None) -> tuple[RegionSummary, ...]:
        """The regions of a client with their counts, by name."""
        return self._gallery.list_regions(check_client_id(client_id))

    def create_region(
        self, name: str, *, threshold: float | None = None, client_id: str | None = None
    ) -> RegionSummary:
        """Make a region before its first person does.

        threshold: its own similarity from which on a face is a match; None takes the client's. Raises
        DuplicateRegionError, InvalidValueError.
        """
        client_id, name = check_client_id(client_id), check_region(name)
        made = self._regions.create(client_id, name, None if threshold is None else check_threshold(threshold))
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
        client_id: str | None = None,
    ) -> RegionSummary:
        """Change what is given and leave the rest; a threshold of None takes the client's again.

        name: its new one, which takes along its persons, their faces and the keys that may work in it. Other processes
        use a new threshold within a few seconds. Raises UnknownRegionError, DuplicateRegionError, InvalidValueError.
        """
        client_id, region = check_client_id(client_id), check_region(region)
        changed = self._regions.update(
            client_id,
            region,
            new_name=name if isinstance(name, Unchanged) else check_region(name),
            threshold=threshold
            if threshold is None or isinstance(threshold, Unchanged)
            else check_threshold(threshold),
        )
        self._thresholds.forget(client_id)
        return changed

    def rename_region(self, region: str, name: str, *, client_id: str | None = None) -> RegionSummary:
        """As `update_region` does."""
        return self.update_region(region, name=name, client_id=client_id)

    def delete_region(self, name: str, *, client_id: str | None = None) -> None:
        """Delete a region without persons. Raises UnknownRegionError, RegionNotEmptyError."""
        client_id = check_client_id(client_id)
        self._regions.delete(client_id, check_region(name))
        self._thresholds.forget(client_id)
