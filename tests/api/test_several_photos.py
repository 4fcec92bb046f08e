"""What is wrong with one of several photos is said of that one: by its place, and by its file's name if it had one.

That no name of a file gets into the log is among the tests of serving.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from companies import Company

from faceward import Client
from faceward.errors import NoFaceError


def nobody(_: Company) -> bytes:
    return cv2.imencode(".jpg", np.full((300, 300, 3), 127, np.uint8))[1].tobytes()


def two_people(company: Company) -> bytes:
    sides = [cv2.imdecode(np.frombuffer(company.photo(name), np.uint8), 1) for name in ("obama.jpg", "biden.jpg")]
    both = np.hstack([cv2.resize(side, (700, 900)) for side in sides if side is not None])
    return cv2.imencode(".jpg", both)[1].tobytes()


def small(company: Company) -> bytes:
    pixels = cv2.imdecode(np.frombuffer(company.photo("obama.jpg"), np.uint8), 1)
    assert pixels is not None
    return cv2.imencode(".png", cv2.resize(pixels, None, fx=0.05, fy=0.05))[1].tobytes()


def problem_of(answer: httpx.Response, code: str) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert problem["code"] == code, answer.text
    return problem


BAD = [
    (nobody, "no_face", "No face was found in {}. "),
    (two_people, "several_faces", "2 faces were found in {}: "),
    (small, "low_quality", "The face in {} is "),
    (lambda _: b"no image", "not_an_image", "In {}: The data (8 bytes) is of no known image format. "),
    (lambda company: company.photo("obama.jpg")[:9000], "damaged_image", "In {}: The "),
]


@pytest.mark.parametrize(("bad", "code", "said"), BAD, ids=[code for _, code, _ in BAD])
def test_an_error_names_the_one_of_several_photos(
    company: Company, bad: Callable[[Company], bytes], code: str, said: str
) -> None:
    form = {"name": "N", "region": "A"}
    photos = [("a.jpg", company.photo("obama.jpg")), ("Alice's 2nd.jpg", bad(company))]
    http = company.http()
    problem = problem_of(http.post("/v1/persons", data=form, files=[("images", photo) for photo in photos]), code)
    assert problem["image"] == 2
    assert problem["detail"].startswith(said.format("photo 2 (Alice's 2nd.jpg)"))

    unnamed = [base64.b64encode(data).decode() for _, data in photos]
    problem = problem_of(http.post("/v1/persons", json={**form, "images": unnamed}), code)
    assert problem["image"] == 2
    assert problem["detail"].startswith(said.format("photo 2"))

    # Of a single one nobody has to be told which.
    problem = problem_of(http.post("/v1/persons", data=form, files={"images": photos[1]}), code)
    assert "image" not in problem
    assert problem["detail"].startswith(said.format("the photo").removeprefix("In the photo: "))


def test_an_error_names_the_one_of_the_photos_of_a_person_and_of_a_verification(company: Company) -> None:
    person, http = company.enroll()["person"]["id"], company.http()
    files = [("images", ("1.jpg", nobody(company))), ("images", ("2.jpg", company.photo("obama2.jpg")))]
    problem = problem_of(http.post(f"/v1/persons/{person}/faces", files=files), "no_face")
    assert (problem["image"], "photo 1 (1.jpg)" in problem["detail"]) == (1, True)
    pair = {"image": ("1.jpg", company.photo("obama.jpg")), "other": ("2.jpg", nobody(company))}
    problem = problem_of(http.post("/v1/verify", files=pair), "no_face")
    assert (problem["image"], "photo 2 (2.jpg)" in problem["detail"]) == (2, True)


def test_a_photo_that_is_enrolled_already_is_named_among_several(company: Company) -> None:
    company.enroll("obama.jpg")
    photos = [("images", company.photo(name)) for name in ("obama2.jpg", "obama.jpg")]
    answer = company.http().post("/v1/persons", data={"name": "N", "region": "A"}, files=photos)
    problem = problem_of(answer, "duplicate_face")
    assert problem["image"] == 2
    assert problem["detail"].startswith("Photo 2 is enrolled in region 'A' already")


def test_the_client_tells_the_place(company: Company) -> None:
    with Client(company.url, company.keys["enroller"]) as client:
        photos = [company.photo("obama.jpg"), nobody(company)]
        with pytest.raises(NoFaceError, match=r"photo 2 \(images-2\)") as caught:
            client.enroll(photos, name="N", region="A")
    assert caught.value.image == 2
