"""Names are found in reports however they are spelt there, and ordinary words are no names."""

from __future__ import annotations

import pytest

from faceward.store.former_names import Identity
from faceward.store.naming import Naming


def naming(name: str, external_id: str | None = None) -> Naming:
    return Naming(Identity((12,), (name,), () if external_id is None else (external_id,)))


@pytest.mark.parametrize(
    ("name", "external_id", "item"),
    [
        ("Ann", None, "EE/ann/1.jpg"),
        ("Ann", None, "EE/Ann (old)/1.jpg"),
        ("A", None, "EE\\a\\1.jpg"),
        ("Bo Win", "Bo_Win", "EE/bo-win.png"),
        ("Straße", None, "EE/STRASSE/1.jpg"),
        ("Ｗｉｄｅ", None, "EE/wide/1.jpg"),
        ("李", None, "EE/李/1.jpg"),
        ("Ann\xa0Lee", None, "EE/Ann\ufffdLee/1.jpg"),
        ("-", "44", "EE/44.jpg"),
        ("-", "44", "photos/EE/44/1.jpg"),
        ("-", "E-1", "EE/E-1 (2).jpg"),
        ("👩", None, "EE/👩/1.jpg"),
        ("Bob", None, "EE/person 12/1.jpg"),
    ],
)
def test_an_item_that_names_the_person(name: str, external_id: str | None, item: str) -> None:
    assert naming(name, external_id).in_item(item)


@pytest.mark.parametrize(
    ("name", "external_id", "item"),
    [
        ("Ann", None, "EE/Anna/1.jpg"),
        ("A", None, "A/Bob/1.jpg"),
        ("Al", None, "AL/Bob/1.jpg"),
        ("Line", "3", "line 3"),
        ("Al", "44", "EE/Bob/44.jpg"),
        ("Al", "44", "EE/Bob 44/1.jpg"),
        ("Al", "E-1", "EE/E-11/1.jpg"),
        ("Al", None, "EE/person 120/1.jpg"),
    ],
)
def test_an_item_that_names_somebody_else(name: str, external_id: str | None, item: str) -> None:
    assert not naming(name, external_id).in_item(item)


@pytest.mark.parametrize(
    ("name", "external_id", "text"),
    [
        ("Alice", None, "It is enrolled for Alice already."),
        ("Alice", None, "It ended at EE/alice/1.jpg."),
        ("Bob", None, "The name 'bob' is taken."),
        ("Ann Lee", None, "It looks like ann lee."),
        ("Al", "7", "It ended at EE/7/1.jpg."),
        ("Al", "E-7", "The external id E-7 is taken."),
        ("Al", None, "It is enrolled for person 12."),
    ],
)
def test_a_sentence_that_names_the_person(name: str, external_id: str | None, text: str) -> None:
    assert naming(name, external_id).in_sentence(text)


@pytest.mark.parametrize(
    ("name", "external_id", "text"),
    [
        ("A", None, "Send a JPEG. A photo is needed."),
        ("A", None, "The key may not work in region 'A'."),
        ("No", None, "No face was found."),
        ("Will", None, "It will be tried again."),
        ("Al", "7", "At most 7 pixels."),
        ("Al", "12", "It is enrolled for person 120."),
    ],
)
def test_a_sentence_of_ordinary_words(name: str, external_id: str | None, text: str) -> None:
    assert not naming(name, external_id).in_sentence(text)
