"""Which region an imported person gets."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from faceward.checks import check_region, composed
from faceward.errors import ImportSourceError, InvalidValueError

_ID_COLUMNS = ("id", "person_id")
_NAME_COLUMNS = ("name", "person_name")


@dataclass(frozen=True, slots=True)
class RegionAssignment:
    """by_id, by_name: the region of a person, by what is in composed form (NFC); the id counts before the name.
    default: of everybody else, None: nobody.
    """

    default: str | None = None
    by_id: Mapping[str, str] = field(default_factory=dict)
    by_name: Mapping[str, str] = field(default_factory=dict)

    def region_of(self, person_id: str, name: str) -> str | None:
        if not (self.by_id or self.by_name):
            return self.default
        return self.by_id.get(composed(person_id)) or self.by_name.get(composed(name)) or self.default

    @classmethod
    def build(
        cls, region: str | None, regions: Path | None, default_region: str | None, *, told: bool = False
    ) -> RegionAssignment:
        """From --region, or --regions with --default-region; neither is needed where the source has regions (told).

        Raises InvalidValueError, ImportSourceError.
        """
        if told and region is None and regions is None:
            return cls(None if default_region is None else check_region(default_region))
        if (region is None) == (regions is None):
            raise ImportSourceError(
                "Say where the people belong: --region A for everybody, or --regions FILE.csv, one of the two."
            )
        if region is not None:
            if default_region is not None:
                raise InvalidValueError("--default-region", default_region, "left out: --region is for everybody")
            return cls(check_region(region))
        assert regions is not None
        default = None if default_region is None else check_region(default_region)
        return _read_csv(regions, default)


def _read_csv(path: Path, default: str | None) -> RegionAssignment:
    by_id: dict[str, str] = {}
    by_name: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream, strict=True, skipinitialspace=True)
            columns = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
            keys = [
                (columns[name], target)
                for names, target in ((_ID_COLUMNS, by_id), (_NAME_COLUMNS, by_name))
                for name in names
                if name in columns
            ]
            if "region" not in columns or not keys:
                raise ImportSourceError(
                    f"{path}: the first line must name the columns: region, and id or name. It has: "
                    f"{', '.join(columns) or 'nothing'}."
                )
            for row in rows:
                _add(row, columns["region"], keys, f"{path}, line {rows.line_num}")
    except OSError as exc:
        raise ImportSourceError(f"{path} can't be read: {exc.strerror}.") from exc
    except UnicodeDecodeError as exc:
        raise ImportSourceError(f"{path} is not UTF-8 text. Save it as CSV in UTF-8.") from exc
    except csv.Error as exc:
        raise ImportSourceError(f"{path} is no CSV file: {exc}.") from exc
    return RegionAssignment(default, by_id, by_name)


def _add(row: Mapping[str, str | None], region_column: str, keys: list[tuple[str, dict[str, str]]], where: str) -> None:
    try:
        region = check_region((row[region_column] or "").strip())
    except InvalidValueError as exc:
        raise ImportSourceError(f"{where}: {exc}") from exc
    for column, target in keys:
        key = composed((row[column] or "").strip())
        if key:
            if target.setdefault(key, region) != region:
                raise ImportSourceError(f"{where}: {key!r} has the region {target[key]!r} above and {region!r} here.")
            return
    raise ImportSourceError(f"{where}: names nobody; fill in the id or the name.")
