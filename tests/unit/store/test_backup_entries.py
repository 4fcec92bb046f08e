"""Of a backup's table of contents faceward's own is taken, and what hangs on it."""

from __future__ import annotations

import pytest

from faceward.store.backup_entries import chosen, granted, lacking, parsed

LISTING = """;
; Archive created at 2026-11-26 14:30:46 UTC
;     Format: CUSTOM
;
10; 0 0 ENCODING - ENCODING
11; 2615 17167 SCHEMA - app postgres
12; 3079 16385 EXTENSION - vector
13; 1255 17036 FUNCTION public faceward_forget_person(bigint) an owner
14; 0 0 ACL public FUNCTION faceward_forget_person(person bigint, OUT named_in bigint) an owner
;	depends on: 13
15; 1255 17165 FUNCTION public foo() postgres
20; 1259 16714 TABLE public alembic_version an owner
21; 1259 16744 TABLE public persons an owner
22; 0 0 ACL public COLUMN persons.id an owner
;	depends on: 21
23; 1259 16743 SEQUENCE public persons_id_seq an owner
;	depends on: 21
24; 1259 16773 TABLE public face_encodings an owner
;	depends on: 12 12
25; 1259 17150 TABLE public badge_log postgres
26; 1259 17149 SEQUENCE public badge_log_id_seq postgres
;	depends on: 25
27; 1259 17168 TABLE app persons postgres
;	depends on: 11
30; 0 16744 TABLE DATA public persons an owner
;	depends on: 21
31; 0 17150 TABLE DATA public badge_log postgres
;	depends on: 25
32; 0 0 SEQUENCE SET public persons_id_seq an owner
;	depends on: 23
40; 1259 17159 INDEX public bi postgres
;	depends on: 25
41; 1259 16848 INDEX public idx_embedding_hnsw an owner
;	depends on: 12 24
42; 1259 16804 INDEX public idx_face_person an owner
;	depends on: 24 24
43; 2620 17166 TRIGGER public persons tr postgres
;	depends on: 15 21
44; 2606 17166 FK CONSTRAINT public persons persons_badge_fkey postgres
;	depends on: 21 25
45; 3256 16883 POLICY public persons tenant an owner
;	depends on: 21 21
46; 3256 16884 POLICY public persons all readers postgres
;	depends on: 21
47; 6106 17192 PUBLICATION TABLE public pub persons postgres
;	depends on: 21
"""


def test_what_is_faceward_s_is_kept_and_the_rest_is_named() -> None:
    entries = parsed(LISTING)
    found = chosen(entries)
    assert lacking(entries) == []
    assert [entry.number for entry in found.kept] == ["13", "20", "21", "23", "24", "30", "32", "42", "45"]
    assert [entry.number for entry in found.privileges] == ["14", "22"]
    assert (found.schema, found.tables) == ("public", {"alembic_version", "persons", "face_encodings"})
    assert found.left_out == [
        "FUNCTION public foo()",
        "TABLE public badge_log",
        "TABLE app persons",
        "TRIGGER public persons tr",
        "FK CONSTRAINT public persons persons_badge_fkey",
        "POLICY public persons all readers",
        "PUBLICATION TABLE public pub persons",
    ]


def test_a_line_is_given_back_as_it_was_read() -> None:
    assert all(entry.line in LISTING.splitlines() for entry in parsed(LISTING))


def test_a_backup_of_something_else_lacks_what_faceward_has() -> None:
    assert lacking(parsed("25; 1259 17150 TABLE public persons postgres\n")) == ["alembic_version", "face_encodings"]


@pytest.mark.parametrize(
    ("line", "role"),
    [
        ("GRANT SELECT ON TABLE public.decisions TO reporting;", "reporting"),
        ('GRANT SELECT(id),UPDATE(region) ON TABLE public.persons TO "Re ""1""" WITH GRANT OPTION;', 'Re "1"'),
        ("REVOKE ALL ON TABLE public.persons FROM reporting;", "reporting"),
    ],
)
def test_a_grant_is_for_a_role_that_there_is(line: str, role: str) -> None:
    script = f"SET client_encoding = 'UTF8';\n--\n{line}\n"
    assert granted(script, {role}) == ([line], [])
    assert granted(script, {"faceward_app"}) == ([], [role])


def test_everybody_is_no_role() -> None:
    line = "REVOKE ALL ON FUNCTION public.faceward_forget_person(person bigint, OUT named_in bigint) FROM PUBLIC;"
    assert granted(line, ()) == ([line], [])
