"""CSV files as people export them, with their faults, into a real gallery."""

from __future__ import annotations

import base64
import json
import resource
import unicodedata
from pathlib import Path

import pytest
from importing import Importing, faces, persons

from faceward import bulk_import
from faceward.errors import ImportSourceError
from faceward.importers import CsvSource, RegionAssignment
from faceward.service import FaceService
from synthetic import unit


def encoded(seed: int) -> str:
    return base64.b64encode(unit(seed).tobytes()).decode()


@pytest.fixture
def importing(service: FaceService, client: str) -> Importing:
    return Importing(service, client)


def test_lines_are_brought_together_by_person_and_found_in_their_region(tmp_path: Path, importing: Importing) -> None:
    file = tmp_path / "people.csv"
    lines = [
        "Number of staff;Full name;Site;Notes;Encoding",
        f'7;"Lovelace; Ada";A;"first\nsecond";{encoded(1)}',
        f"8;Grace Hopper;B;;{json.dumps(unit(2).tolist())}",
        f'7;"Lovelace; Ada";A;;{encoded(3)}',
        "",
        f"7;Ada Lovelace;B;;{encoded(4)}",  # the same number at another site
        f" 9 ; Alan Turing ;;;{encoded(5)}",
    ]
    file.write_text("\n".join(lines), encoding="utf-8-sig")
    elsewhere = RegionAssignment("C")
    with CsvSource(file, {"external_id": "Number of staff"}) as source:
        for account in (importing.plan(source, elsewhere), importing.run(source, elsewhere)):
            assert (persons(account), faces(account)) == ((4, 4, 0), (5, 5, 0))
            assert account.regions == {"A": 1, "B": 2, "C": 1}
            assert account.encodings == {"base64 of float32": 4, "json": 1}
        again = importing.run(source, elsewhere)
        assert (persons(again), faces(again)) == ((4, 0, 4), (5, 0, 5))
    for seed, region, external_id in ((1, "A", "7"), (3, "A", "7"), (4, "B", "7"), (2, "B", "8"), (5, "C", "9")):
        assert importing.found(unit(seed), region) == external_id
    page = importing.service.list_persons(region="A", client_id=importing.client)
    assert [(each.name, each.description, each.face_count) for each in page.persons] == [
        ("Lovelace; Ada", "first\nsecond", 2)
    ]


def test_every_line_that_cant_be_used_is_told_by_its_number(tmp_path: Path, importing: Importing) -> None:
    file = tmp_path / "people.csv"
    rows: dict[int, tuple[bytes, str]] = {
        3: (b"1,Ada,B", "not_csv"),
        4: (b"1,Ada,A,%s,more" % encoded(1).encode(), "not_csv"),
        5: (b"2,Jos\xe9,A," + encoded(2).encode(), "not_text"),
        6: (b",Nobody,A," + encoded(3).encode(), "no_id"),
        7: (b"3,Unread,A,no base64!", "unreadable"),
        8: (b"3,Unread,A,", "unreadable"),
        9: (b"4,Short,A," + base64.b64encode(unit(4)[:128].tobytes()), "other_length"),
        10: (b"1,Ada,A," + encoded(1).encode(), "duplicate"),
        11: (b"5,One name,A," + encoded(5).encode(), "person_refused"),
        12: (b"5,Another,A," + encoded(6).encode(), "person_refused"),
        13: (b"6,Unplaced,," + encoded(7).encode(), "person_refused"),
        14: (b'7,"ill"quoted,A,' + encoded(8).encode(), "not_csv"),
        15: (b"8," + b"x" * 200_000 + b",A,", "not_csv"),
        16: (b"9,Bad place," + b"y" * 60 + b"," + encoded(9).encode(), "person_refused"),
    }
    good = b"1,Ada,A," + encoded(1).encode()
    file.write_bytes(b"id,name,region,embedding\n" + b"\n".join([good, *(line for line, _ in rows.values())]) + b"\n")
    nowhere = RegionAssignment()
    with CsvSource(file) as source:
        for account in (importing.plan(source, nowhere), importing.run(source, nowhere)):
            assert (persons(account), faces(account)) == ((6, 1, 0), (15, 1, 0))
            told = {each.row: each.code for each in account.problems if each.table == "people.csv"}
            assert told == {number: code for number, (_, code) in rows.items()}
            assert account.persons.refused == {"no_face": 2, "names_differ": 1, "no_region": 1, "invalid": 1}
    with CsvSource(file, encoding="cp1252") as source:
        assert persons(importing.run(source, nowhere)) == (7, 1, 1)


def test_lines_without_a_region_join_the_person_of_the_region_that_they_get(
    tmp_path: Path, importing: Importing
) -> None:
    file = tmp_path / "people.csv"
    lines = [
        f"1,Ada,A,{encoded(1)}",
        f"1,Ada,,{encoded(2)}",
        f"2,Grace,B,{encoded(3)}",
        f"2,Grace,,{encoded(4)}",
        f"3,Alan,,{encoded(5)}",
        f"4,Joan,A,{encoded(6)}",
        f"4,Jean,,{encoded(7)}",
    ]
    file.write_text("id,name,region,embedding\n" + "\n".join(lines) + "\n")
    with CsvSource(file) as source:
        by_id = RegionAssignment(by_id={"1": "A", "2": "A", "3": "A"})
        account = importing.plan(source, by_id)
        assert (persons(account), account.persons.refused) == ((6, 5, 0), {"no_region": 1})
        default = RegionAssignment("A")
        for account in (importing.plan(source, default), importing.run(source, default)):
            assert (persons(account), faces(account)) == ((5, 4, 0), (7, 5, 0))
            assert account.persons.refused == {"names_differ": 1}
            assert account.faces.refused == {"person_refused": 2}
            assert account.regions == {"A": 3, "B": 1}
        again = importing.run(source, default)
        assert (persons(again), faces(again)) == ((5, 0, 4), (7, 0, 5))
    for seed, region, external_id in ((1, "A", "1"), (2, "A", "1"), (3, "B", "2"), (4, "A", "2"), (5, "A", "3")):
        assert importing.found(unit(seed), region) == external_id


def test_lines_with_the_id_or_name_in_two_unicode_forms_are_one_persons(tmp_path: Path, importing: Importing) -> None:
    """As the gallery takes ids and regions; a name is kept as one of the lines has it."""
    file = tmp_path / "people.csv"
    forms = [unicodedata.normalize(form, f"É1,José,Zürich,{encoded(n)}\n") for n, form in enumerate(("NFC", "NFD"))]
    file.write_text("id,name,region,embedding\n" + "".join(forms))
    with CsvSource(file) as source:
        for account in (importing.plan(source), importing.run(source)):
            assert (persons(account), faces(account)) == ((1, 1, 0), (2, 2, 0))


def test_what_the_gallery_alone_refuses_is_told(
    tmp_path: Path, importing: Importing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_import, "_MOST_REFUSALS", 1)
    monkeypatch.setattr(CsvSource, "assign_regions", lambda *_: None)  # so that the same person comes twice
    file = tmp_path / "people.csv"
    lines = [f"{n},P{n},{region},{encoded(2 * n + bool(region))}\n" for n in range(3) for region in ("A", "")]
    file.write_text("id,name,region,embedding\n" + "".join(lines))
    with CsvSource(file) as source:
        account = importing.run(source, RegionAssignment("A"))
    assert (persons(account), faces(account)) == ((6, 3, 0), (6, 3, 0))
    assert (account.persons.refused, account.faces.refused) == ({"refused": 3}, {"person_refused": 3})
    (told,) = account.problems
    assert (told.table, told.code, told.row) == ("persons", "refused", 2)
    assert told.reason.startswith("external_id = '0' can't be used")


def test_a_name_that_is_empty_is_said_to_be(tmp_path: Path, importing: Importing) -> None:
    file = tmp_path / "people.csv"
    file.write_bytes(b"id,name,region,embedding\n1, ,A," + encoded(1).encode() + b"\n")
    with CsvSource(file) as source:
        problem = importing.plan(source, RegionAssignment()).problems[0]
    assert (problem.code, problem.reason) == (
        "invalid",
        "name = '' can't be used: it must be a text that is not empty.",
    )


@pytest.mark.parametrize(
    "bad",
    [
        '10,"P10,A,,{}',
        '10,P10,"A,,{}',
        '10,P10,A,"a note,{}',
        '10,P10,A,,"{}',
        '10,"P10"",A,,{}',
        '"10,P10,A,,{}',
        '10,P10,A,"first\nsecond"third,{}',
    ],
)
@pytest.mark.parametrize("after", [190, 3], ids=["and many lines", "and the end"])
def test_a_quote_that_is_not_closed_costs_its_own_line_only(
    tmp_path: Path, importing: Importing, bad: str, after: int
) -> None:
    file = tmp_path / "people.csv"
    people = [f"{n},P{n},A,,{encoded(n)}" for n in range(10 + after)]
    people[10] = bad.format(encoded(10))
    people[11] = f'11,P11,A,"first\n{encoded(1)}\nthird",{encoded(11)}'
    file.write_text("id,name,region,description,embedding\n" + "\n".join(people) + "\n")
    wrong = {12, 13} if "\n" in bad else {12}
    with CsvSource(file) as source:
        account = importing.plan(source)
    assert faces(account) == (9 + after + len(wrong), 9 + after, 0)
    assert {each.row: each.code for each in account.problems} == dict.fromkeys(wrong, "not_csv")


@pytest.mark.parametrize(
    ("first", "last"),
    [('10,"P10,A,{}', '14,P14",A,{}'), ('10,P10,A,"{}', '14,P14,A,{}"'), ('10,P10,"A,{}', '14,P14,A",{}')],
)
def test_lines_between_two_stray_quotes_are_accounted_for(
    tmp_path: Path, importing: Importing, first: str, last: str
) -> None:
    """Together they are a record of as many columns as the header has."""
    file = tmp_path / "people.csv"
    people = [f"{n},P{n},A,{encoded(n)}" for n in range(20)]
    people[10], people[14] = first.format(encoded(10)), last.format(encoded(14))
    file.write_text("id,name,region,embedding\n" + "\n".join(people) + "\n")
    with CsvSource(file) as source:
        account = importing.plan(source)
    assert account.faces.read == 20
    assert {each.row for each in account.problems if each.table == "people.csv"} <= {12, 16}
    assert {12} <= {each.row for each in account.problems}


def test_each_line_of_a_record_without_an_end_is_accounted_for(tmp_path: Path) -> None:
    """Each line closes a quote and opens another."""
    file = tmp_path / "people.csv"
    file.write_text("id,name,region,embedding\n" + '",b","\n' * 4_000)
    with CsvSource(file) as source:
        assert source.count() == 4_000


def test_an_embedding_may_be_written_over_several_lines(tmp_path: Path, importing: Importing) -> None:
    file = tmp_path / "people.csv"
    numbers = json.dumps(unit(1).tolist(), indent=1)
    wrapped = base64.encodebytes(unit(2).tobytes()).decode()
    file.write_text(f'id,name,embedding\n1,Ada,"{numbers}"\n2,Grace,"{wrapped}"\n3,Alan,{encoded(3)}\n')
    with CsvSource(file) as source:
        assert faces(importing.plan(source)) == (3, 3, 0)


def test_without_embeddings_they_are_made_of_the_photos(
    tmp_path: Path, importing: Importing, photos: dict[str, Path]
) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("obama.jpg", "biden.jpg"):
        (tmp_path / "photos" / name).write_bytes(photos[name].read_bytes())
    file = tmp_path / "people.tsv"
    file.write_text(
        "id\tname\tphoto\n44\tBarack Obama\tphotos/obama.jpg\n46\tJoe Biden\tphotos/biden.jpg\n0\tNobody\tphotos/none.jpg\n",
        encoding="utf-16",
    )
    with CsvSource(file) as source:
        assert persons(importing.plan(source)) == (3, 3, 0)  # no photo is looked at
        for imported, present in ((2, 0), (0, 2)):
            account = importing.run(source)
            assert faces(account) == (3, imported, present)
            assert account.faces.refused == {"image_not_found": 1}
    (face,) = importing.service.faces_to_store(photos["obama.jpg"])
    assert importing.found(face.embedding, "A") == "44"


@pytest.mark.parametrize(
    ("content", "columns", "encoding", "message"),
    [
        (None, {}, None, "can't be read: No such file"),
        (b"", {}, None, "is empty. Its first line must name the columns"),
        (b"who,where\n1,A\n", {}, None, "no column is known for external_id, name, embedding or photo"),
        (b"id,name\n1,A\n", {}, None, "no column is known for embedding or photo"),
        (b"id,name,photo\n", {"name": "nome"}, None, "--map name=nome can't be used"),
        (b'id,name,photo,"notes\n1,Ada,a.jpg,\n', {}, None, 'it has id,name,photo,"notes.'),
        (b"id,name,photo\n", {}, "klingon", "--encoding klingon: there is no such encoding"),
        (b"id,name,photo\n", {}, "utf-16", "is no text in utf-16: UTF-16 stream does not start with BOM"),
        (b"id,name,photo\n", {}, "idna", "is no text in idna"),
        (b"id,name,photo\n", {}, "undefined", "is no text in undefined"),
        (b"id,name,photo\n1,\\ud800,a.jpg\n", {}, "unicode_escape", "is no text in unicode_escape"),
        (b"SQLite format 3\x00" + bytes(range(256)), {}, None, "no column is known for"),
    ],
)
def test_a_wrong_file_is_refused(
    tmp_path: Path, content: bytes | None, columns: dict[str, str], encoding: str | None, message: str
) -> None:
    file = tmp_path / "people.csv"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ImportSourceError) as refused:
        CsvSource(file, columns, encoding=encoding)
    assert message in str(refused.value)


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """The temporary file may grow no further than the process lets it."""
    file = tmp_path / "people.csv"
    line = f"Ada,{encoded(1)}\n"
    file.write_text("id,name,embedding\n" + "".join(f"{n},{line}" for n in range(10_000)))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(ImportSourceError, match="could not be put in order in a temporary file"):
            CsvSource(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_an_interrupt_while_the_lines_are_put_in_order_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> str:
        raise KeyboardInterrupt

    file = tmp_path / "people.csv"
    file.write_text(f"id,name,region,embedding\n1,Ada,,{encoded(1)}\n")
    monkeypatch.setattr(RegionAssignment, "region_of", interrupted)
    with CsvSource(file) as source, pytest.raises(KeyboardInterrupt):
        source.assign_regions(RegionAssignment("A"))
