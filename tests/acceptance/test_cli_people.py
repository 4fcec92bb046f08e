"""People and regions at the command line."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from command_line import CommandLine


@pytest.fixture
def three(faceward: CommandLine, photos: dict[str, Path]) -> list[int]:
    """Three people of the client acme: two in region A, one in B."""
    return [
        faceward.succeeds(
            "enroll", photos[photo], "--name", name, "--region", region, "--client", "acme", "--json"
        ).json["person"]["id"]
        for photo, name, region in (
            ("obama.jpg", "Barack Obama", "A"),
            ("biden.jpg", "Joe Biden", "A"),
            ("astronaut.png", "Eileen Collins", "B"),
        )
    ]


def test_people_are_listed_page_by_page(faceward: CommandLine, three: list[int]) -> None:
    first = faceward.succeeds("people", "list", "--client", "acme", "--limit", "2")
    assert "Barack Obama" in first.stdout
    assert "Eileen Collins" not in first.stdout
    assert f"the next page with --after {three[1]}" in first.stderr
    second = faceward.succeeds("people", "list", "--client", "acme", "--limit", "2", "--after", three[1], "--json").json
    assert [person["name"] for person in second["people"]] == ["Eileen Collins"]
    assert second["next_after"] is None


def test_people_are_listed_by_region_and_prefix(faceward: CommandLine, three: list[int]) -> None:
    def names(*options: str) -> list[str]:
        listed = faceward.succeeds("people", "list", "--client", "acme", "--json", *options).json
        return [person["name"] for person in listed["people"]]

    assert names("--region", "B") == ["Eileen Collins"]
    assert names("--prefix", "J") == ["Joe Biden"]
    assert names("--prefix", "%") == []
    assert names("--region", "Q") == []


def test_another_client_sees_nobody(faceward: CommandLine, three: list[int]) -> None:
    faceward.succeeds("clients", "create", "globex")
    answer = faceward.succeeds("people", "list", "--client", "globex")
    assert (answer.stdout, answer.stderr.strip()) == ("", "Nobody is enrolled here.")
    assert "does not exist for this client" in faceward.fails("people", "show", three[0], "--client", "globex")
    assert "does not exist" in faceward.fails("people", "delete", three[0], "--client", "globex", "--yes")
    assert "does not exist" in faceward.fails("people", "move", three[0], "B", "--client", "globex")


def test_a_person_is_shown_with_the_photos(faceward: CommandLine, photos: dict[str, Path], three: list[int]) -> None:
    shown = faceward.succeeds("people", "show", three[0], "--client", "acme").stdout
    assert "Barack Obama" in shown
    assert "obama.jpg" in shown
    person = faceward.succeeds("people", "show", three[0], "--client", "acme", "--json").json
    assert (person["name"], person["face_count"]) == ("Barack Obama", 1)
    assert person["faces"][0]["image_path"] == str(photos["obama.jpg"])


def test_photos_are_added_to_a_person(faceward: CommandLine, photos: dict[str, Path], three: list[int]) -> None:
    add = ("people", "add-photo", three[0], photos["obama2.jpg"], photos["obama3.jpg"], "--client", "acme")
    assert "has 3 photos now" in faceward.succeeds(*add).stdout
    assert "enrolled" in faceward.fails(*add)


def test_a_moved_person_is_found_in_the_new_region_only(
    faceward: CommandLine, photos: dict[str, Path], three: list[int]
) -> None:
    assert "is in region C now" in faceward.succeeds("people", "move", three[0], "C", "--client", "acme").stdout

    def found(region: str) -> bool:
        call = ("recognize", photos["obama2.jpg"], "--region", region, "--client", "acme", "--json")
        return faceward.succeeds(*call).json[0]["faces"][0]["match"] is not None

    assert found("C")
    assert not found("A")


def test_deleting_asks_first(faceward: CommandLine, three: list[int]) -> None:
    call = ("people", "delete", three[0], "--client", "acme")
    refused = faceward(*call, typed="n\n")
    assert refused.status == 1
    assert "Deleted" not in refused.stdout
    assert "Delete Barack Obama (person 1, region A) and 1 photos?" in refused.stderr
    unanswered = faceward(*call)
    assert unanswered.status == 1
    assert faceward.succeeds("people", "show", three[0], "--client", "acme", "--json").json["id"] == three[0]
    assert "Deleted person 1 and 1 photos." in faceward.succeeds(*call, typed="y\n").stdout
    assert "Person 1 does not exist" in faceward.fails(*call, "--yes")


def test_deleting_for_a_program_asks_nothing(faceward: CommandLine, three: list[int]) -> None:
    answer = faceward.succeeds("people", "delete", three[1], "--client", "acme", "--yes", "--json")
    assert answer.json == {"person_id": three[1], "faces_deleted": 1}


def test_a_photo_that_may_be_somebody_else_s_is_told(
    faceward: CommandLine, photos: dict[str, Path], three: list[int]
) -> None:
    def told(*call: object) -> str:
        (line,) = [each for each in faceward.succeeds(*call).stderr.splitlines() if "Barack" in each]
        assert line.startswith(f"This may be Barack Obama (person {three[0]}), at "), line
        return line.partition("If they are one person: ")[2]

    merge = told("people", "add-photo", three[1], photos["obama2.jpg"], "--client", "acme")
    assert merge == f"faceward people merge {three[1]} {three[0]} --client acme"
    merge = told("enroll", photos["obama3.jpg"], "--name", "B. Obama", "--region", "A", "--client", "acme")
    program, *words = shlex.split(merge)
    assert program == "faceward"
    assert "who has 2 photos now" in faceward.succeeds(*words, "--yes").stdout


def test_merging_asks_first_and_tells_what_is_gone(
    faceward: CommandLine, photos: dict[str, Path], three: list[int]
) -> None:
    options = ("--region", "A", "--external-id", "44b", "--client", "acme", "--json")
    twice = faceward.succeeds("enroll", photos["obama2.jpg"], "--name", "B. Obama", *options).json["person"]["id"]
    call = ("people", "merge", twice, three[0], "--client", "acme")
    refused = faceward(*call, typed="n\n")
    assert refused.status == 1
    assert (
        f"Give the 1 photos of B. Obama (person {twice}, region A) to Barack Obama (person {three[0]}" in refused.stderr
    )
    assert "who has 2 photos now" in faceward.succeeds(*call, typed="y\n").stdout
    shown = faceward.succeeds("people", "show", three[0], "--client", "acme", "--json").json
    assert (shown["face_count"], shown["external_id"]) == (2, "44b")
    assert f"Person {twice} does not exist" in faceward.fails(*call, "--yes")
    assert "another person" in faceward.fails("people", "merge", three[0], three[0], "--client", "acme", "--yes")
    other = ("people", "merge", three[2], three[0], "--client", "acme", "--yes", "--json")
    assert "--across-regions" in faceward.fails(*other)
    answer = faceward.succeeds(*other, "--across-regions").json
    assert (answer["person"]["region"], answer["faces_moved"], answer["faces_dropped"]) == ("A", 1, 0)


def test_regions_are_counted(faceward: CommandLine, three: list[int]) -> None:
    counted = faceward.succeeds("regions", "--client", "acme", "--json").json["regions"]
    assert [(each["name"], each["persons"], each["faces"]) for each in counted] == [("A", 2, 2), ("B", 1, 1)]
    assert "A" in faceward.succeeds("regions", "--client", "acme").stdout
    faceward.succeeds("clients", "create", "globex")
    answer = faceward.succeeds("regions", "--client", "globex")
    assert (answer.stdout, answer.stderr.strip()) == (
        "",
        "This client has no region yet; enrolling a person makes one.",
    )


def test_a_person_is_suspended_and_resumed(faceward: CommandLine, photos: dict[str, Path], three: list[int]) -> None:
    def found() -> bool:
        call = ("recognize", photos["obama2.jpg"], "--region", "A", "--client", "acme", "--json")
        return faceward.succeeds(*call).json[0]["faces"][0]["match"] is not None

    call = (three[0], "--client", "acme")
    assert "is suspended: kept" in faceward.succeeds("people", "suspend", *call).stdout
    assert not found()
    assert "suspended" in faceward.succeeds("people", "list", "--client", "acme").stdout
    refused = faceward.fails("verify", photos["obama2.jpg"], "--person", *call)
    assert "is suspended" in refused
    assert f"`faceward people resume {call[0]} --client acme`" in refused
    assert faceward.succeeds("people", "resume", *call, "--json").json["state"] == "active"
    assert found()


def test_a_person_expires(faceward: CommandLine, three: list[int]) -> None:
    call = ("people", "expire", three[0], "--client", "acme")
    assert "expires 2099-" in faceward.succeeds(*call, "--expires", "2099-06-01").stdout
    past = faceward.succeeds(*call, "--expires", "2020-06-01", "--yes", "--json").json
    assert past["expires_at"].startswith("2020-06-01T00:00")
    assert "expired 2020" in faceward.succeeds("people", "show", three[0], "--client", "acme").stdout
    assert "kept for good" in faceward.succeeds(*call, "--never").stdout
    assert "give --expires TIME, or --never" in faceward.misused(*call)
    assert "is no time" in faceward.misused(*call, "--expires", "tomorrow")
    assert "is no time" in faceward.misused(*call, "--expires", "2099123112345")


def test_an_expiry_in_the_past_is_asked_about_and_of_nobody_new(
    faceward: CommandLine, three: list[int], photos: dict[str, Path]
) -> None:
    """The next purge erases who has it: a wrong year must not."""
    who = faceward.succeeds("people", "show", three[0], "--client", "acme", "--json").json["name"]
    call = ("people", "expire", three[0], "--client", "acme", "--expires", "2020-06-01")
    refused = faceward(*call, typed="n\n")
    assert refused.status == 1
    told = " ".join(refused.stderr.split())
    assert f"2020-06-01 00:00 is past: {who} (person {three[0]}) is matched no more, and the next purge erases" in told
    assert "expired" not in faceward.succeeds("people", "show", three[0], "--client", "acme").stdout
    assert "expires 2020" in faceward.succeeds(*call, typed="y\n").stdout
    assert "Person 999 does not exist" in faceward.fails(*call[:2], 999, *call[3:])
    anew = ("--name", "Joe", "--region", "Z", "--client", "late", "--expires", "2020-06-01")
    assert "it must be in the future" in faceward.fails("enroll", photos["biden.jpg"], *anew)
    assert "Client 'late' does not exist" in faceward.fails("people", "list", "--client", "late")
