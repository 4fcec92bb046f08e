"""What bad input gets: an error of its own class that names the value, and a database that is as it was."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from faceward import FaceService, errors
from rows import count_rows


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is that large, with almost nothing in it: a decompression bomb."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def read(photos: dict[str, Path], name: str, height: int = 600) -> np.ndarray:
    image = cv2.imread(str(photos[name]))
    return cv2.resize(image, (image.shape[1] * height // image.shape[0], height), interpolation=cv2.INTER_AREA)


def framed(image: np.ndarray, height: int) -> np.ndarray:
    """The image reduced, in the middle of a grey one."""
    small = cv2.resize(image, (image.shape[1] * height // image.shape[0], height), interpolation=cv2.INTER_AREA)
    border = 2 * height
    return cv2.copyMakeBorder(small, border, border, border, border, cv2.BORDER_CONSTANT, value=(120, 120, 120))


@pytest.fixture(scope="module")
def person_id(service: FaceService, photos: dict[str, Path]) -> int:
    return service.enroll(photos["obama.jpg"], name="Barack", region="A", client_id="bad input").person.id


@pytest.fixture
def changes_something() -> None:
    """For a test that also does what is allowed, and takes it back: that stays in the audit log."""


@pytest.fixture(autouse=True)
def unchanged(service_url: str, person_id: int, request: pytest.FixtureRequest) -> Iterator[None]:
    before = count_rows(service_url)
    yield
    after = count_rows(service_url)
    if "changes_something" in request.fixturenames:
        del before["audit_log"], after["audit_log"]
    assert after == before


# Images

IMAGES: list[tuple[str, Callable[[dict[str, Path], Path], Any], type[errors.FacewardError], str]] = [
    ("no file", lambda _, here: here / "absent.jpg", errors.ImageNotFoundError, "absent.jpg"),
    ("a directory", lambda _, here: here, errors.ImageNotFoundError, "directory|is not a file"),
    ("a path with a null byte", lambda *_: "a\x00b.jpg", errors.ImageNotFoundError, "null"),
    ("no image at all", lambda *_: b"GIF? no, a text", errors.NotAnImageError, "JPEG, PNG, WebP"),
    ("nothing", lambda *_: b"", errors.NotAnImageError, "empty|0 bytes|no image"),
    ("None", lambda *_: None, errors.NotAnImageError, "NoneType"),
    ("a number", lambda *_: 5, errors.NotAnImageError, "int"),
    (
        "a half",
        lambda photos, _: photos["obama.jpg"].read_bytes()[:60_000],
        errors.DamagedImageError,
        "ends early|damaged",
    ),
    ("a bomb", lambda *_: png_header(60_000, 60_000), errors.ImageTooLargeError, "60000 x 60000"),
    ("too many bytes", lambda *_: b"\xff\xd8\xff" + bytes(33 * 2**20), errors.ImageTooLargeError, "33,554,432 bytes"),
    ("floats", lambda *_: np.zeros((90, 90, 3)), errors.NotAnImageError, "float64.*uint8"),
    ("16 bits", lambda *_: np.zeros((90, 90, 3), np.uint16), errors.NotAnImageError, "uint16.*uint8"),
    ("two channels", lambda *_: np.zeros((90, 90, 2), np.uint8), errors.NotAnImageError, r"\(90, 90, 2\)"),
    ("an empty array", lambda *_: np.zeros((0, 90, 3), np.uint8), errors.NotAnImageError, r"\(0, 90, 3\)"),
]


@pytest.mark.parametrize(("make", "kind", "told"), [row[1:] for row in IMAGES], ids=[row[0] for row in IMAGES])
def test_what_is_no_usable_image(
    service: FaceService,
    photos: dict[str, Path],
    tmp_path: Path,
    person_id: int,
    make: Callable[[dict[str, Path], Path], Any],
    kind: type[errors.FacewardError],
    told: str,
) -> None:
    image = make(photos, tmp_path)
    client = "bad input"
    for attempt in (
        lambda: service.enroll(image, name="B", region="A", client_id=client),
        lambda: service.enroll([photos["obama2.jpg"], image], name="B", region="A", client_id=client),
        lambda: service.add_face(person_id, image, client_id=client),
        lambda: service.recognize(image, region="A", client_id=client),
        lambda: (
            service.verify(photos["obama2.jpg"], image, client_id=client)
            if image is not None
            else service.verify(image, photos["obama2.jpg"], client_id=client)
        ),
    ):
        with pytest.raises(kind, match=told):
            attempt()


def test_an_image_with_no_face(service: FaceService, photos: dict[str, Path], person_id: int) -> None:
    nobody = np.full((400, 400, 3), 90, np.uint8)
    good = photos["obama.jpg"]
    for name, place, attempt in (
        ("the photo", None, lambda: service.enroll(nobody, name="B", region="new", client_id="bad input")),
        ("the photo", None, lambda: service.add_face(person_id, nobody, client_id="bad input")),
        ("photo 2", 2, lambda: service.enroll([good, nobody], name="B", region="new", client_id="bad input")),
        ("photo 1", 1, lambda: service.verify(nobody, good)),
        ("photo 2", 2, lambda: service.verify(good, nobody)),
    ):
        with pytest.raises(errors.NoFaceError, match=rf"No face was found in {name}\. Send") as caught:
            attempt()
        assert caught.value.image == place
    assert service.recognize(nobody, region="A", client_id="bad input").faces == ()


@pytest.mark.usefixtures("changes_something")
def test_several_faces_at_enrolment_are_listed(service: FaceService, photos: dict[str, Path], tmp_path: Path) -> None:
    small, large = read(photos, "obama.jpg", 250), read(photos, "biden.jpg", 700)
    both = np.hstack([cv2.copyMakeBorder(small, 0, 450, 0, 0, cv2.BORDER_CONSTANT), large])
    path = tmp_path / "both.png"
    cv2.imwrite(str(path), both)
    with pytest.raises(
        errors.SeveralFacesError, match=r"2 faces were found in .*both\.png: left \d+, top \d+.*largest"
    ) as caught:
        service.enroll(path, name="B", region="A", client_id="bad input")
    (first, second) = caught.value.boxes
    assert first[0] > small.shape[1] > second[0]
    with pytest.raises(errors.InvalidValueError, match="several_faces = 'all'"):
        service.enroll(path, name="B", region="A", client_id="bad input", several_faces="all")  # type: ignore[arg-type]
    stored = service.enroll(path, name="Joe", region="A", client_id="bad input", several_faces="largest")
    assert service.verify(photos["biden.jpg"], person_id=stored.person.id, client_id="bad input").verified
    service.delete_person(stored.person.id, client_id="bad input")


def test_a_face_that_is_too_small_to_enroll(service: FaceService, photos: dict[str, Path]) -> None:
    tiny = framed(read(photos, "obama.jpg"), 80)
    with pytest.raises(
        errors.LowQualityError, match=r"is \d+ pixels high; enrolment needs 32.*enroll\.min_face"
    ) as caught:
        service.enroll(tiny, name="B", region="A", client_id="bad input")
    assert "small" in caught.value.reasons


def test_a_face_that_is_too_blurred_to_enroll(service: FaceService, photos: dict[str, Path]) -> None:
    blurred = cv2.GaussianBlur(read(photos, "obama2.jpg"), (0, 0), 8)
    with pytest.raises(errors.LowQualityError, match=r"quality of 0\.\d+; enrolment needs 0\.30.*blurred") as caught:
        service.enroll(blurred, name="B", region="A", client_id="bad input")
    assert "blurred" in caught.value.reasons


# Texts and numbers

TEXTS = {
    "nothing": "",
    "spaces": "  ",
    "a space at the end": "A ",
    "a null byte": "A\x00",
    "a line break": "A\nB",
    "a lone surrogate": "A\ud800",
    "a number": 5,
    "bytes": b"A",
    "a list": ["A"],
}


@pytest.mark.parametrize("field", ["name", "region", "client_id", "external_id"])
@pytest.mark.parametrize("value", [*TEXTS.values(), "too long"], ids=[*TEXTS, "too long"])
def test_a_bad_text_is_named(
    service: FaceService, photos: dict[str, Path], person_id: int, field: str, value: object
) -> None:
    longest = {"name": 255, "region": 50, "client_id": 100, "external_id": 255}[field]
    told = rf"{field} = "
    if value == "too long":
        value, told = "x" * (longest + 1), rf"{field} = 'xxx.*at most {longest} characters"
    given: dict[str, Any] = {"name": "B", "region": "A", "client_id": "bad input", field: value}
    with pytest.raises(errors.InvalidValueError, match=told) as caught:
        service.enroll(photos["obama2.jpg"], **given)
    assert caught.value.field == field
    attempts: dict[str, list[Callable[[], Any]]] = {
        "name": [lambda: service.update_person(person_id, name=value, client_id="bad input")],  # type: ignore[arg-type]
        "region": [lambda: service.move_region(person_id, value, client_id="bad input")],  # type: ignore[arg-type]
        "client_id": [
            lambda: service.recognize(photos["obama2.jpg"], region="A", client_id=value),  # type: ignore[arg-type]
            lambda: service.delete_person(person_id, client_id=value),  # type: ignore[arg-type]
            lambda: service.list_regions(client_id=value),  # type: ignore[arg-type]
        ],
        "external_id": [
            lambda: service.update_person(person_id, external_id=value, client_id="bad input")  # type: ignore[arg-type]
        ],
    }
    if field == "region" and value != ["A"]:  # a list of regions is what a recognition may take
        attempts["region"].append(
            lambda: service.recognize(photos["obama2.jpg"], region=value, client_id="bad input")  # type: ignore[arg-type]
        )
    for attempt in attempts[field]:
        with pytest.raises(errors.InvalidValueError, match=field):
            attempt()


def test_a_region_is_never_missing(service: FaceService, photos: dict[str, Path]) -> None:
    photo: Any = photos["obama2.jpg"]
    for attempt in (
        lambda: service.enroll(photo, name="B", client_id="bad input"),  # type: ignore[call-arg]
        lambda: service.recognize(photo, client_id="bad input"),  # type: ignore[call-arg]
        lambda: service.search(np.ones(512), client_id="bad input"),  # type: ignore[call-arg]
    ):
        with pytest.raises(TypeError, match="region"):
            attempt()
    missing: list[Any] = [None, (), [], {}, 5, [None], ["A", ""], [["A"]]]
    for region in missing:
        with pytest.raises(errors.InvalidValueError, match="region"):
            service.recognize(photo, region=region, client_id="bad input")
        with pytest.raises(errors.InvalidValueError, match="region"):
            service.search(np.ones(512), region=region, client_id="bad input")


@pytest.mark.parametrize("threshold", [1.01, -1.01, 35, math.nan, math.inf, -math.inf, "0.35", True])
def test_a_threshold_that_is_no_similarity(
    service: FaceService, photos: dict[str, Path], person_id: int, threshold: Any
) -> None:
    for attempt in (
        lambda: service.recognize(photos["obama2.jpg"], region="A", client_id="bad input", threshold=threshold),
        lambda: service.search(np.ones(512), region="A", client_id="bad input", threshold=threshold),
        lambda: service.verify(photos["obama2.jpg"], photos["obama2.jpg"], threshold=threshold),
        lambda: service.verify(photos["obama2.jpg"], person_id=person_id, client_id="bad input", threshold=threshold),
    ):
        with pytest.raises(errors.InvalidValueError, match=r"threshold = .*from -1 to 1"):
            attempt()


@pytest.mark.parametrize(
    ("embedding", "told"),
    [
        (np.ones(511), r"512 numbers.*\(511,\)"),
        (np.ones(513), r"512 numbers.*\(513,\)"),
        (np.ones((512, 1)), r"\(512, 1\)"),
        ([], r"\(0,\)"),
        (None, "other values"),
        ("0.1, 0.2", "other values"),
        ([math.nan] * 512, "NaN"),
        ([math.inf] * 512, "NaN or infinity"),
        (np.zeros(512), "all zeros"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_an_embedding_that_is_none(service: FaceService, embedding: object, told: str) -> None:
    with pytest.raises(errors.InvalidEmbeddingError, match=told):
        service.search(embedding, region="A", client_id="bad input")


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("top_k", lambda s, p: s.recognize(p, region="A", client_id="bad input", top_k=0)),
        ("top_k", lambda s, p: s.search(np.ones(512), region="A", client_id="bad input", top_k=101)),
        ("max_faces", lambda s, p: s.recognize(p, region="A", client_id="bad input", max_faces=0)),
        ("min_quality", lambda s, p: s.recognize(p, region="A", client_id="bad input", min_quality=math.nan)),
        ("strategy", lambda s, p: s.recognize(p, region="A", client_id="bad input", strategy="fast")),
        ("person_id", lambda s, p: s.get_person(0)),
        ("person_id", lambda s, p: s.get_person("1")),
        ("person_id", lambda s, p: s.delete_person(2**63)),
        ("person_id", lambda s, p: s.add_face(-1, p)),
        ("face_id", lambda s, p: s.delete_face(1, 0)),
        ("limit", lambda s, p: s.list_persons(limit=0)),
        ("limit", lambda s, p: s.list_persons(limit=1001)),
        ("after", lambda s, p: s.list_persons(after=-1)),
        ("images", lambda s, p: s.enroll([], name="B", region="A")),
        ("the number of photos", lambda s, p: s.enroll([p] * 1001, name="B", region="A")),
        ("description", lambda s, p: s.enroll(p, name="B", region="A", description="x" * 10_001)),
        ("description", lambda s, p: s.enroll(p, name="B", region="A", description="a\x00b")),
        ("other", lambda s, p: s.verify(p)),
        ("other", lambda s, p: s.verify(p, p, person_id=1)),
    ],
)
def test_a_number_or_choice_outside_its_limits(
    service: FaceService, photos: dict[str, Path], field: str, call: Callable[[FaceService, Path], object]
) -> None:
    with pytest.raises(errors.InvalidValueError, match=f"^{field} = ") as caught:
        call(service, photos["obama2.jpg"])
    assert caught.value.field == field


@pytest.mark.usefixtures("changes_something")
def test_a_description_may_have_lines(service: FaceService, photos: dict[str, Path], person_id: int) -> None:
    changed = service.update_person(person_id, description="Office\n\tA", client_id="bad input")
    assert changed.description == "Office\n\tA"
