"""Who belongs where, as a table says it."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from faceward.errors import ImportSourceError
from faceward.importers import RegionAssignment

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "José Ångström") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("written", [COMPOSED, DECOMPOSED])
@pytest.mark.parametrize("asked", [COMPOSED, DECOMPOSED])
def test_a_name_is_found_in_whatever_form_it_is_written(tmp_path: Path, written: str, asked: str) -> None:
    regions = tmp_path / "regions.csv"
    for column, person_id, name in (("id", asked, "Somebody"), ("name", "1", asked)):
        regions.write_text(f"{column},region\n{written},B\n")
        assert RegionAssignment.build(None, regions, "A").region_of(person_id, name) == "B"


def test_a_name_in_two_forms_has_one_region(tmp_path: Path) -> None:
    regions = tmp_path / "regions.csv"
    regions.write_text(f"name,region\n{COMPOSED},A\n{DECOMPOSED},B\n")
    with pytest.raises(ImportSourceError, match=r"line 3: .* has the region 'A' above and 'B' here"):
        RegionAssignment.build(None, regions, None)
