"""Enrolment at the command line: one person, a folder of people, and what a bad photo gets."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psycopg
import pytest
from command_line import CommandLine


@pytest.fixture
def people(photos: dict[str, Path], tmp_path: Path) -> Path:
    """A folder of three people in two regions, with photos that can't be used among them."""
    root = tmp_path / "people"
    for place, names in {
        "A/Barack_Obama": ["obama.jpg", "obama2.jpg"],
        "B/Joe_Biden": ["biden.jpg"],
        "B/Eileen Collins": ["astronaut.png"],
    }.items():
        folder = root / place
        folder.mkdir(parents=True)
        for name in names:
            shutil.copy(photos[name], folder)
    (root / "B" / "Joe_Biden" / "broken.jpg").write_bytes(photos["biden.jpg"].read_bytes()[:5000])
    (root / "B" / "Joe_Biden" / "notes.txt").write_text("no photo")
    (root / "A" / "Nobody").mkdir()
    return root


def test_enroll_says_who_is_where(faceward: CommandLine, photos: dict[str, Path]) -> None:
    shown = faceward.succeeds("enroll", photos["obama.jpg"], "--name", "Barack Obama", "--region", "A").stdout
    assert "Enrolled Barack Obama as person 1 in region A of client default." in shown


def test_enroll_stores_all_that_was_given(faceward: CommandLine, photos: dict[str, Path]) -> None:
    stored = faceward.succeeds(
        *("enroll", photos["obama.jpg"], photos["obama2.jpg"], "--name", "Barack Obama", "--region", "Zürich"),
        *("--client", "acme", "--description", "44th", "--external-id", "potus-44", "--json"),
    ).json
    person = stored["person"]
    assert (person["name"], person["region"], person["client_id"]) == ("Barack Obama", "Zürich", "acme")
    assert (person["description"], person["external_id"], person["face_count"]) == ("44th", "potus-44", 2)
    assert len(stored["face_ids"]) == len(stored["quality"]) == 2


def test_of_several_faces_the_largest_is_taken_where_asked(faceward: CommandLine, two_faces: Path) -> None:
    who = ("--name", "Joe Biden", "--region", "A")
    line = faceward.fails("enroll", two_faces, *who)
    assert "2 faces were found in" in line
    assert "--largest" in line
    faceward.succeeds("enroll", two_faces, *who, "--largest")


def test_a_photo_of_several_faces_in_a_folder_is_refused_with_what_helps(
    faceward: CommandLine, two_faces: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "people" / "A" / "Joe_Biden"
    folder.mkdir(parents=True)
    shutil.copy(two_faces, folder)
    (refused,) = faceward("import-dir", tmp_path / "people", "--json").json["refused"]
    assert refused["code"] == "several_faces"
    assert refused["reason"].endswith("Here: --largest.")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--region", "x" * 51], "region = "),
        (["--region", " A"], "without white space at its ends"),
        (["--region", ""], "a text that is not empty"),
        (["--name", "x" * 256], "at most 255 characters"),
        (["--name", "a\nb"], "without control characters"),
        (["--client", "x" * 101], "at most 100 characters"),
        (["--external-id", "x" * 256], "external_id = "),
    ],
)
def test_a_text_outside_its_limits_is_refused_by_name(
    faceward: CommandLine, photos: dict[str, Path], options: list[str], said: str
) -> None:
    assert said in faceward.fails("enroll", photos["obama.jpg"], "--name", "N", "--region", "A", *options)
    assert faceward.succeeds("regions", "--json").json["regions"] == []


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda photo, _: photo.with_name("nowhere.jpg"), "no image file at"),
        (lambda photo, _: photo.parent, "Is a directory"),
        (lambda _, save: save("grey.png", np.full((400, 400, 3), 128, np.uint8)), "No face was found in"),
        (
            lambda photo, save: save("small.png", cv2.resize(cv2.imread(str(photo)), None, fx=0.05, fy=0.05)),
            "pixels high",
        ),
    ],
)
def test_a_photo_that_cant_be_enrolled_is_refused_with_the_reason(
    faceward: CommandLine, photos: dict[str, Path], save_photo: Callable[[str, Any], Path], make: Any, said: str
) -> None:
    bad = make(photos["obama.jpg"], save_photo)
    good = photos["obama2.jpg"]
    assert said in faceward.fails("enroll", good, bad, "--name", "Barack Obama", "--region", "A")
    assert faceward.succeeds("people", "list", "--json").json["people"] == []


@pytest.mark.parametrize(("content", "said"), [(b"no image", "no known image format"), (None, "ends"), (b"", "empty")])
def test_a_file_that_is_no_whole_image_is_refused(
    faceward: CommandLine, photos: dict[str, Path], tmp_path: Path, content: bytes | None, said: str
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(photos["obama.jpg"].read_bytes()[:100_000] if content is None else content)
    for given in ([bad], [photos["obama2.jpg"], bad]):
        line = faceward.fails("enroll", *given, "--name", "N", "--region", "A")
        assert said in line
        assert line.count(str(bad)) == 1


def test_the_same_photo_twice_is_refused(faceward: CommandLine, photos: dict[str, Path], enrolled: int) -> None:
    line = faceward.fails("enroll", photos["obama.jpg"], "--name", "Again", "--region", "A")
    assert f"enrolled in region 'A' already, for person {enrolled}" in line


def test_an_external_id_twice_is_refused(faceward: CommandLine, photos: dict[str, Path], enrolled: int) -> None:
    line = faceward.fails("enroll", photos["biden.jpg"], "--name", "Joe", "--region", "A", "--external-id", "44")
    assert "external id '44' is taken" in line


def test_a_folder_is_enrolled_by_region_and_person(faceward: CommandLine, people: Path) -> None:
    answer = faceward("enroll-dir", people, "--json")
    assert answer.status == 1
    assert (answer.json["enrolled"], answer.json["skipped"]) == (4, 0)
    (refused,) = answer.json["refused"]
    assert refused["photo"].endswith("broken.jpg")
    assert refused["code"] == "damaged_image"
    listed = faceward.succeeds("people", "list", "--json").json["people"]
    assert {(each["region"], each["name"], each["external_id"], each["face_count"]) for each in listed} == {
        ("A", "Barack Obama", "Barack_Obama", 2),
        ("B", "Joe Biden", "Joe_Biden", 1),
        ("B", "Eileen Collins", "Eileen Collins", 1),
    }


def test_a_folder_enrolled_again_adds_what_is_new_only(
    faceward: CommandLine, people: Path, photos: dict[str, Path]
) -> None:
    (people / "B" / "Joe_Biden" / "broken.jpg").unlink()
    assert faceward.succeeds("enroll-dir", people, "--client", "acme", "--workers", "1", "--json").json["enrolled"] == 4
    shutil.copy(photos["obama3.jpg"], people / "A" / "Barack_Obama")
    answer = faceward.succeeds("enroll-dir", people, "--client", "acme")
    assert "1 photos enrolled, 4 were enrolled already, 0 refused." in answer.stdout
    people_of_a = faceward.succeeds("people", "list", "--client", "acme", "--region", "A", "--json").json["people"]
    assert [person["face_count"] for person in people_of_a] == [3]


def test_a_photo_that_another_person_has_is_refused(faceward: CommandLine, people: Path, enrolled: int) -> None:
    answer = faceward("enroll-dir", people / "..", "--json")  # regions are the folders one level too high
    assert answer.status == 1
    answer = faceward("enroll-dir", people, "--json")
    assert {(refused["code"], Path(refused["photo"]).name) for refused in answer.json["refused"]} == {
        ("damaged_image", "broken.jpg"),
        ("duplicate_face", "obama.jpg"),
    }


def test_refused_photos_are_listed_with_the_reason(faceward: CommandLine, people: Path) -> None:
    answer = faceward("enroll-dir", people)
    assert answer.status == 1
    assert "B/Joe_Biden/broken.jpg" in answer.stdout
    assert "The image ends" in " ".join(answer.stdout.replace("│", " ").split()), "the table breaks it where it must"
    assert "4 photos enrolled, 0 were enrolled already, 1 refused." in answer.stdout


def test_a_folder_without_photos_is_refused(faceward: CommandLine, tmp_path: Path, photos: dict[str, Path]) -> None:
    assert "REGION/PERSON/photo.jpg" in faceward.fails("enroll-dir", tmp_path)
    assert "nowhere: No such file" in faceward.fails("enroll-dir", tmp_path / "nowhere")
    assert "obama.jpg: Not a directory" in faceward.fails("enroll-dir", photos["obama.jpg"])


def test_ctrl_c_keeps_what_is_done_and_the_next_run_goes_on(
    faceward: CommandLine, save_photo: Callable[[str, Any], Path], photos: dict[str, Path], database_url: str
) -> None:
    small = cv2.resize(cv2.imread(str(photos["obama.jpg"])), None, fx=0.3, fy=0.3)
    for number in range(40):
        small[-1] = number  # the same face in a file of other bytes
        people = save_photo(f"people/A/Barack_Obama/{number}.bmp", small).parents[2]
    running = faceward.program("enroll-dir", people, "--workers", "1")
    with psycopg.connect(database_url, autocommit=True) as connection:
        while not connection.execute("SELECT 1 FROM face_encodings LIMIT 1").fetchone():
            assert running.poll() is None
            time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "of 40 photos were enrolled" in said
    assert "the same command goes on from there" in said
    assert "Traceback" not in said
    (person,) = faceward.succeeds("people", "list", "--json").json["people"]
    assert 0 < person["face_count"] < 40
    again = faceward.succeeds("enroll-dir", people, "--json").json
    assert (again["skipped"], again["enrolled"]) == (person["face_count"], 40 - person["face_count"])


def test_killed_and_run_again_a_folder_is_enrolled_once(
    faceward: CommandLine, save_photo: Callable[[str, Any], Path], photos: dict[str, Path], database_url: str
) -> None:
    small = cv2.resize(cv2.imread(str(photos["obama.jpg"])), None, fx=0.3, fy=0.3)
    for number in range(60):
        small[-1] = number
        people = save_photo(f"people/A/Person_{number % 4}/{number}.bmp", small).parents[2]
    with psycopg.connect(database_url, autocommit=True) as connection:
        for target in (1, 9):  # in the first batch that is there, and in one after
            with faceward.program(
                "enroll-dir", people, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as running:
                while len(connection.execute("SELECT 1 FROM face_encodings").fetchall()) < target:
                    assert running.poll() is None
                    time.sleep(0.001)
                running.kill()
        (there,) = connection.execute("SELECT count(*) FROM face_encodings").fetchone() or (None,)
    again = faceward.succeeds("enroll-dir", people, "--json").json
    assert (again["skipped"], again["enrolled"]) == (there, 60 - there)
    listed = faceward.succeeds("people", "list", "--json").json["people"]
    assert {(each["external_id"], each["face_count"]) for each in listed} == {(f"Person_{n}", 15) for n in range(4)}


def test_photos_of_formats_that_are_not_read_are_told(faceward: CommandLine, people: Path) -> None:
    heic = ["A/Barack_Obama/IMG_1.HEIC", "A/Nobody/IMG_2.heic", "B/scan.tiff", "animated.gif"]
    for each in heic:
        (people / each).write_bytes(b"a photo")
    (people / "A" / "Barack_Obama" / "._IMG_1.HEIC").write_bytes(b"what macOS leaves beside it")
    account = faceward("import-dir", people, "--dry-run", "--json")
    assert account.status == 1
    told = {each["row"]: each["code"] for each in account.json["problems"]}
    assert told == dict.fromkeys(heic, "not_an_image")
    assert (account.json["faces"]["read"], account.json["faces"]["imported"]) == (9, 5)
    assert account.json["persons"] == {"read": 4, "imported": 3, "present": 0, "refused": {"no_face": 1}}


def test_a_folder_with_the_id_of_somebody_else_is_another_person(
    faceward: CommandLine, tmp_path: Path, photos: dict[str, Path]
) -> None:
    """A file that counts people from 1, and folders that do."""
    known = ("--region", "A", "--external-id", "1", "--name")
    faceward.succeeds("enroll", photos["astronaut.png"], *known, "Ada Lovelace")
    folder = tmp_path / "people"
    (folder / "A" / "1").mkdir(parents=True)
    shutil.copy(photos["obama.jpg"], folder / "A" / "1")
    refused = faceward("import-dir", folder, "--json")
    assert refused.status == 1
    assert refused.json["persons"] == {"read": 1, "imported": 0, "present": 0, "refused": {"no_face": 1}}
    (problem,) = refused.json["problems"]
    assert problem["code"] == "other_person"
    assert (
        "never called '1' in the gallery: another person, it seems. If so, import this source again with --source"
        in (problem["reason"])
    )
    for imported, present in ((1, 0), (0, 1)):
        account = faceward.succeeds("import-dir", folder, "--source", "folders", "--json").json
        assert (account["persons"]["imported"], account["persons"]["present"]) == (imported, present)
        shutil.copy(photos["obama2.jpg"], folder / "A" / "1")
    listed = faceward.succeeds("people", "list", "--json").json["people"]
    assert {each["external_id"]: each["face_count"] for each in listed} == {"1": 1, "folders:1": 2}
    assert "without a colon" in faceward.fails("import-dir", folder, "--source", "a:b")


def test_folders_of_one_name_in_two_unicode_forms_are_one_persons(
    faceward: CommandLine, tmp_path: Path, photos: dict[str, Path]
) -> None:
    for name, photo in (("Jos\u00e9", "obama.jpg"), ("Jose\u0301", "obama2.jpg")):
        (tmp_path / "people" / "A" / name).mkdir(parents=True)
        shutil.copy(photos[photo], tmp_path / "people" / "A" / name)
    account = faceward.succeeds("import-dir", tmp_path / "people", "--json").json
    assert account["persons"] == {"read": 1, "imported": 1, "present": 0, "refused": {}}


def test_a_folder_is_planned_and_imported_with_the_report_of_any_import(
    faceward: CommandLine, people: Path, photos: dict[str, Path]
) -> None:
    shutil.copy(photos["obama.jpg"], people / "A" / "loose.jpg")
    (people / "A" / "Barack_Obama" / "more").mkdir()
    shutil.copy(photos["obama.jpg"], people / "A" / "Barack_Obama" / "more" / "deep.jpg")
    (people / "B" / " Odd ").mkdir()
    shutil.copy(photos["obama.jpg"], people / "B" / " Odd ")
    plan = faceward("import-dir", people, "--dry-run", "--json")
    assert (plan.status, plan.json["dry_run"]) == (1, True)
    assert faceward.succeeds("people", "list", "--json").json["people"] == []
    for given in (plan, faceward("import-dir", people, "--json"), faceward("import-dir", people, "--json")):
        account = given.json
        for each in (account["persons"], account["faces"]):
            assert each["read"] == each["imported"] + each["present"] + sum(each["refused"].values())
        assert (account["persons"]["read"], account["faces"]["read"]) == (4, 8)
        assert account["regions"] == {"A": 1, "B": 2}
        told = {(each["row"], each["code"]) for each in account["problems"]}
        assert told >= {("A/loose.jpg", "misplaced"), ("A/Barack_Obama/more/deep.jpg", "misplaced")}
        assert ("B/ Odd /obama.jpg", "invalid_value") in told
    assert (account["persons"]["present"], account["faces"]["present"]) == (3, 4)
    shown = faceward("import-dir", people).stdout
    assert "misplaced" in shown
