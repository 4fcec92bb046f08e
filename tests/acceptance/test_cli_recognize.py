"""Recognition and verification at the command line, and the annotated picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import CommandLine
from PIL import Image

from faceward.cli import annotate


def test_a_man_is_found_in_his_region_only(faceward: CommandLine, photos: dict[str, Path], enrolled: int) -> None:
    faceward.succeeds("enroll", photos["biden.jpg"], "--name", "Joe Biden", "--region", "B")
    faceward.succeeds("enroll", photos["biden.jpg"], "--name", "Joe Biden", "--region", "A", "--client", "globex")
    probe = photos["obama2.jpg"]
    assert "Barack Obama │ A" in faceward.succeeds("recognize", probe, "--region", "A").stdout
    assert "nobody" in faceward.succeeds("recognize", probe, "--region", "B").stdout
    assert "nobody" in faceward.succeeds("recognize", probe, "--region", "A", "--client", "globex").stdout
    both = faceward.succeeds("recognize", probe, "--region", "B", "--region", "A", "--json").json
    assert both[0]["faces"][0]["match"]["person_id"] == enrolled


def test_json_holds_what_was_found_of_each_photo(
    faceward: CommandLine, photos: dict[str, Path], enrolled: int, two_faces: Path
) -> None:
    answer = faceward.succeeds(
        "recognize", photos["obama3.jpg"], two_faces, "--region", "A", "--json", "--top-k", "1"
    ).json
    assert [Path(each["image"]).name for each in answer] == ["obama3.jpg", "two.png"]
    assert (answer[0]["client_id"], answer[0]["regions"], answer[0]["threshold"]) == ("default", ["A"], 0.35)
    (face,) = answer[0]["faces"]
    assert (face["match"]["name"], face["match"]["external_id"]) == ("Barack Obama", "44")
    assert 0.35 < face["match"]["similarity"] <= 1
    assert set(face["box"]) == {"left", "top", "right", "bottom"}
    assert len(face["landmarks"]) == 5
    assert "embedding" not in face
    assert [bool(each["match"]) for each in answer[1]["faces"]] == [False, True]  # the largest first


def test_two_who_look_alike_are_both_named(faceward: CommandLine, photos: dict[str, Path], enrolled: int) -> None:
    faceward.succeeds("enroll", photos["obama.jpg"], "--name", "His Twin", "--region", "B")
    call = ("recognize", photos["obama2.jpg"], "--region", "A", "--region", "B")
    assert "Barack Obama, or else His Twin" in faceward.succeeds(*call).stdout
    (face,) = faceward.succeeds(*call, "--json").json[0]["faces"]
    assert (face["decision"], face["match"]["person_id"], face["rival"]["name"]) == ("ambiguous", enrolled, "His Twin")
    assert face["threshold"]["source"] == "pack"
    assert "too little to tell" in face["reason"]


def test_the_threshold_decides(faceward: CommandLine, photos: dict[str, Path], enrolled: int) -> None:
    def matched(threshold: str) -> bool:
        call = ("recognize", photos["obama2.jpg"], "--region", "A", "--threshold", threshold, "--json")
        return faceward.succeeds(*call).json[0]["faces"][0]["match"] is not None

    assert matched("-1")
    assert not matched("0.99")


def test_a_photo_without_a_face_is_an_answer(
    faceward: CommandLine, enrolled: int, save_photo: Callable[[str, Any], Path]
) -> None:
    grey = save_photo("grey.png", np.full((300, 300, 3), 128, np.uint8))
    assert "no face found" in faceward.succeeds("recognize", grey, "--region", "A").stdout


def test_a_bad_photo_among_good_ones_stops_none_of_them(
    faceward: CommandLine, photos: dict[str, Path], enrolled: int, tmp_path: Path
) -> None:
    answer = faceward("recognize", tmp_path / "nowhere.jpg", photos["obama2.jpg"], "--region", "A", "--json")
    assert answer.status == 1
    assert answer.json[0]["error"]["code"] == "image_not_found"
    assert answer.json[1]["faces"][0]["match"]["person_id"] == enrolled
    assert "Error: " in answer.stderr
    assert "nowhere.jpg" in answer.stderr


def test_an_unknown_region_lists_those_that_exist(
    faceward: CommandLine, photos: dict[str, Path], enrolled: int
) -> None:
    line = faceward.fails("recognize", photos["obama.jpg"], "--region", "Q")
    assert "Region 'Q' does not exist for this client. Regions that do: A." in line


@pytest.mark.parametrize("threshold", ["1.01", "-1.01", "nan", "inf"])
def test_a_threshold_outside_its_range_is_refused(
    faceward: CommandLine, photos: dict[str, Path], enrolled: int, threshold: str
) -> None:
    call = ("recognize", photos["obama.jpg"], "--region", "A", f"--threshold={threshold}")
    assert "must be a number from -1 to 1" in faceward.fails(*call)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_the_annotated_picture_is_the_photo_with_its_faces_marked(
    faceward: CommandLine, photos: dict[str, Path], enrolled: int, tmp_path: Path, suffix: str
) -> None:
    target = tmp_path / "new" / f"out{suffix}"
    target.parent.mkdir()
    photo = photos["obama2.jpg"]
    answer = faceward.succeeds("recognize", photo, "--region", "A", "--annotate", target, "--json")
    box = answer.json[0]["faces"][0]["box"]
    with Image.open(target) as drawn, Image.open(photo) as plain:
        assert drawn.size == plain.size
        frame = drawn.convert("RGB").getpixel((round(box["left"]) + 1, round(box["bottom"]) - 20))
        assert isinstance(frame, tuple)
        assert frame[1] > 100 > frame[0]  # green
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_the_picture_of_a_turned_photo_stands_upright(
    faceward: CommandLine, photos: dict[str, Path], enrolled: int, tmp_path: Path
) -> None:
    lying = tmp_path / "lying.jpg"
    with Image.open(photos["obama2.jpg"]) as photo:
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera was held on its side
        photo.transpose(Image.Transpose.ROTATE_90).save(lying, exif=exif, quality=95)
        upright = photo.size
    target = tmp_path / "out.png"
    answer = faceward.succeeds("recognize", lying, "--region", "A", "--annotate", target, "--json")
    assert answer.json[0]["faces"][0]["match"]["person_id"] == enrolled
    with Image.open(target) as drawn:
        assert drawn.size == upright


@pytest.mark.parametrize("name", ["Ωλίβια", "Ольга", "李小龙", "Zoë Müller", "עדה", "[red]x[/] :smile:"])
def test_names_of_any_script_are_drawn_and_shown(
    faceward: CommandLine, photos: dict[str, Path], tmp_path: Path, name: str
) -> None:
    faceward.succeeds("enroll", photos["obama.jpg"], "--name", name, "--region", "A")
    target = tmp_path / "out.jpg"
    answer = faceward.succeeds("recognize", photos["obama2.jpg"], "--region", "A", "--annotate", target)
    assert name in answer.stdout
    assert target.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("name", "drawn"), [("Zoë Müller", "Zoe Muller"), ("李小龙", "person 7"), ("Ann O'Neil", "Ann O'Neil")]
)
def test_a_name_that_no_font_can_draw_is_made_plain(monkeypatch: pytest.MonkeyPatch, name: str, drawn: str) -> None:
    monkeypatch.setattr(annotate, "_OTHER_FONTS", ())  # a machine without fonts: Pillow's own has English letters only
    assert annotate.drawable_name(name, 7) == drawn


def test_the_picture_needs_one_photo_and_a_known_format(
    faceward: CommandLine, photos: dict[str, Path], enrolled: int, tmp_path: Path
) -> None:
    one, other = photos["obama.jpg"], photos["obama2.jpg"]
    assert "takes one IMAGE, not 2" in faceward.misused("recognize", one, other, "--region", "A", "--annotate", "o.jpg")
    assert "must end in .jpg" in faceward.misused("recognize", one, "--region", "A", "--annotate", "o.gif")
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    call = ("recognize", one, "--region", "A", "--annotate", in_the_way / "out.jpg")
    assert "file: There is no such directory." in faceward.fails(*call)
    assert not list(tmp_path.rglob("out.jpg"))


def test_the_picture_overwrites_nothing_unasked(
    faceward: CommandLine, photos: dict[str, Path], enrolled: int, tmp_path: Path
) -> None:
    photo, target = tmp_path / "photo.jpg", tmp_path / "out.jpg"
    photo.write_bytes(photos["obama.jpg"].read_bytes())
    target.write_text("mine")
    call = ("recognize", photo, "--region", "A", "--annotate")
    assert f"{target}: It exists already." in faceward.fails(*call, target)
    assert target.read_text() == "mine"
    faceward.succeeds(*call, target, "--replace")
    assert target.stat().st_size > 10_000
    (tmp_path / "link.jpg").symlink_to(photo)
    for itself in (photo, tmp_path / "link.jpg"):
        assert "is the photo itself" in faceward.misused(*call, itself, "--replace")
    assert photo.read_bytes() == photos["obama.jpg"].read_bytes()


def test_verify_compares_two_photos(faceward: CommandLine, photos: dict[str, Path]) -> None:
    same = faceward.succeeds("verify", photos["obama.jpg"], photos["obama2.jpg"]).stdout
    assert same.startswith("The same person: similarity ")
    other = faceward.succeeds("verify", photos["obama.jpg"], photos["biden.jpg"], "--json").json
    assert other["verified"] is False
    assert other["similarity"] < other["threshold"] == 0.35


def test_verify_compares_a_photo_with_a_person(faceward: CommandLine, photos: dict[str, Path], enrolled: int) -> None:
    assert faceward.succeeds("verify", photos["obama3.jpg"], "--person", enrolled, "--json").json["verified"] is True
    shown = faceward.succeeds("verify", photos["biden.jpg"], "--person", enrolled).stdout
    assert shown.startswith("Not the same person")


def test_what_verify_refuses(
    faceward: CommandLine, photos: dict[str, Path], enrolled: int, save_photo: Callable[[str, Any], Path]
) -> None:
    photo = photos["obama.jpg"]
    assert "one of the two" in faceward.misused("verify", photo)
    assert "one of the two" in faceward.misused("verify", photo, photo, "--person", enrolled)
    assert "this client. `faceward people list` shows those that do." in faceward.fails("verify", photo, "--person", 99)
    assert "does not exist" in faceward.fails("verify", photo, "--person", enrolled, "--client", "globex")
    grey = save_photo("grey.png", np.full((300, 300, 3), 128, np.uint8))
    assert "No face was found" in faceward.fails("verify", photo, grey)


@pytest.mark.parametrize("command", ["recognize", "verify"])
def test_the_help_says_which_threshold_holds(faceward: CommandLine, command: str) -> None:
    said = " ".join(faceward.succeeds(command, "--help").stdout.replace("│", " ").split())
    assert "left out: the region's own, else the client's, else the settings'" in said
