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
        # In longer words of file names, with digits, in one word, in another order, in scripts without spaces.
        ("Alice", None, "Alice2.jpg"),
        ("Alice", None, "AlicePortrait.jpg"),
        ("Alice", None, "EE/Bob/withAlice.jpg"),
        ("Alice", None, "EE/Bob/withalice.jpg"),
        ("Alice", None, "aliceportrait.jpg"),
        ("Alice", None, "EE/ALICESmith/1.jpg"),
        ("Ann", None, "EE/x/Ann2.jpg"),
        ("Alice Smith", None, "EE/x/AliceSmith2.jpg"),
        ("Alice Smith", None, "EE/bob/Alice_Smith2.jpg"),
        ("Alice Smith", None, "EE/bob/alicesmith2.jpg"),
        ("Alice Smith", None, "EE/alicesmithold/1.jpg"),
        ("Alice Smith", None, "Smith_Alice.jpg"),
        ("Alice Smith", None, "smithalice.jpg"),
        ("Alice Smith", None, "Smith/Alice.jpg"),
        ("Alice Mary Ann Smith", None, "Smith, Alice Mary Ann.jpg"),
        ("McDonald", None, "EE/mcdonald2/1.jpg"),
        ("José Ángel", None, "JoseAngel.jpg"),
        ("李娜", None, "李娜2.jpg"),
        ("李娜", None, "EE/x/李娜的照片.jpg"),
        ("李娜", None, "EE/x/李 娜.jpg"),
        ("김민수", None, "EE/x/김민수의.jpg"),
        ("ジョン・スミス", None, "EE/x/ジョンスミス.jpg"),
        ("Bob", "E1", "EE/E1_2.jpg"),
        ("Bob", "4711", "EE/x/4711a.jpg"),
        ("Bob", "EMP12", "EE/x/emp-12b.jpg"),
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
        ("Alice", None, "EE/Malice/1.jpg"),
        ("Anna", None, "EE/Johanna/1.jpg"),
        ("Anna", None, "EE/Johanna/johanna2.jpg"),
        ("Li Na", None, "EE/Carolina/1.jpg"),
        ("Alice Smith", None, "EE/Alice Jones/2.jpg"),
        ("Bob", "P1", "EE/Ann/p1.jpg"),
        ("Bob", "E1", "EE/E12/1.jpg"),
        ("Bob", "EE44", "EE/44/1.jpg"),
        ("Bob", "4711", "EE/Ann/14711.jpg"),
        ("李", None, "EE/李娜/1.jpg"),
        ("\ufffd", None, "EE/Ann/1.jpg"),
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
        ("Alice", None, "It ended at EE/bob/withAlice2.jpg."),
        ("Alice Smith", None, "SmithAlice.jpg does not open."),
        ("李娜", None, "It is enrolled for 李娜的."),
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
        ("Anna", None, "The name 'Johanna' is taken."),
    ],
)
def test_a_sentence_of_ordinary_words(name: str, external_id: str | None, text: str) -> None:
    assert not naming(name, external_id).in_sentence(text)
