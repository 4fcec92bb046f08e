"""Runs an import in this process, as a plan and for real, and checks that both account for every row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from faceward.importers import ImportAccount, RegionAssignment, Source, SourceImport, plan_import, run_import
from faceward.service import FaceService


@dataclass(frozen=True)
class Importing:
    """client: the tenant that all of it goes to."""

    service: FaceService
    client: str

    def plan(self, source: Source, regions: RegionAssignment | None = None, **options: Any) -> ImportAccount:
        return checked(plan_import(self._wanted(source, regions, options), source, self.service.dimension))

    def run(self, source: Source, regions: RegionAssignment | None = None, **options: Any) -> ImportAccount:
        return checked(run_import(self._wanted(source, regions, options), source, self.service))

    def found(self, embedding: Any, region: str) -> str | None:
        """The external id of the person found there."""
        matches = self.service.search(embedding, region=region, client_id=self.client)
        return matches[0].external_id if matches else None

    def _wanted(self, source: Source, regions: RegionAssignment | None, options: dict[str, Any]) -> SourceImport:
        options = {"same_model": source.has_embeddings and not options.get("reembed"), **options}
        options.setdefault("reembed", not source.has_embeddings)
        return SourceImport(regions or RegionAssignment("A"), client_id=self.client, **options)


def checked(account: ImportAccount) -> ImportAccount:
    for each in (account.persons, account.faces):
        assert each.read == each.imported + each.present + sum(each.refused.values())
    return account


def persons(account: ImportAccount) -> tuple[int, int, int]:
    return account.persons.read, account.persons.imported, account.persons.present


def faces(account: ImportAccount) -> tuple[int, int, int]:
    return account.faces.read, account.faces.imported, account.faces.present
