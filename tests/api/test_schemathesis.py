"""Requests made up from the OpenAPI document, with a key of each role: no 5xx, and no answer that it does not describe."""

from __future__ import annotations

import base64
import io
import itertools
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import httpx
import pytest
import requests
import schemathesis
from companies import Company, RunningServer
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode, checks
from schemathesis.core.failures import Failure, FailureGroup

FITTING, BROKEN = 6, 3
"""Requests for each operation and role: that fit the document, and that do not."""
EMPTY = "Empty"
"""A region without persons, which can be deleted."""
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
STEADY = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@dataclass(frozen=True)
class Caller:
    """A company's key of one role. known: what fits the company, in paths and bodies: what is made up hits nothing.

    going: persons who are not there any more after the operation that a path ends with.
    succeeded: the operations that did what was asked, at least once.
    """

    url: str
    session: requests.Session
    key: str
    known: dict[str, Any]
    photo: bytes
    going: dict[str, int]
    succeeded: set[str] = field(default_factory=set)
    photos: Iterator[int] = field(default_factory=itertools.count)

    def fit(self, case: Case) -> None:
        """Put what is known in place of what was made up."""
        for name in case.path_parameters or {}:
            if name in self.known:
                case.path_parameters[name] = self.known[name]
                if (case.method, name) == ("DELETE", "region"):
                    case.path_parameters[name] = EMPTY
        if (last := case.operation.path.rpartition("/")[2]) in self.going and case.path_parameters:
            case.path_parameters["person_id"] = self.going[last]
        if isinstance(case.body, dict):
            file = self.photo + b"%d" % next(self.photos)  # each another one: none is enrolled twice
            photo = base64.b64encode(file).decode() if case.media_type == "application/json" else file
            for name, value in {**self.known, "image": photo, "images": [photo]}.items():
                if name in case.body:
                    case.body[name] = value


@pytest.fixture(scope="module")
def photo(photos: dict[str, Path]) -> bytes:
    """A small one, of a person in another photo."""
    pixels = cv2.imread(str(photos["obama2.jpg"]))
    assert pixels is not None
    return cv2.imencode(".jpg", cv2.resize(pixels, None, fx=0.5, fy=0.5))[1].tobytes()


@pytest.fixture(scope="module")
def schema(running: RunningServer, photo: bytes) -> Any:
    """The document of the running server; what is an image in it becomes a photo half of the time."""
    images = st.sampled_from([photo, photo, photo[:2000], b"no image"])
    schemathesis.openapi.format("binary", images)
    schemathesis.openapi.format("byte", images.map(lambda image: base64.b64encode(image).decode()))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("A/Alice/1.jpg", photo)
    archives = st.sampled_from([archive.getvalue(), archive.getvalue()[:200], b""])
    for kind in ("application/zip", "application/gzip", "application/x-tar"):
        schemathesis.openapi.media_type(kind, archives)
    lines = st.sampled_from([b'{"external_id": "1"}\n', b"\xff\n", b"[]\n" * 20, b""])
    schemathesis.openapi.media_type("application/x-ndjson", lines)
    document = httpx.get(f"{running.url}/openapi.json").json()
    for operations in document["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)  # with it, most keys would be made up
    return schemathesis.openapi.from_dict(document)


@pytest.fixture
def caller(new_company: Callable[[], Company], role: str, photo: bytes) -> Iterator[Caller]:
    company = new_company()
    person = company.enroll("obama.jpg", "A")
    job = company.http("enroller").post(
        "/v1/imports", content=b'{"external_id": "1"}\n', headers={"content-type": "application/x-ndjson"}
    )
    assert company.http("manager").post("/v1/regions", json={"name": EMPTY}).status_code == 201
    going = {
        last: company.enroll(other, "A", last)["person"]["id"]
        for last, other in (("merge", "biden.jpg"), ("erase", "astronaut.png"))
    }
    known = {
        "person_id": person["person"]["id"],
        "face_id": person["faces"][0]["id"],
        "region": "A",
        "job_id": job.json()["id"],
        "client_id": company.client_id,
        "key_id": company.http("manager").post("/v1/keys", json={"role": "recognizer"}).json()["key"]["id"],
        "embedding": [0.1] * 512,
        "into": person["person"]["id"],
        "other": None,
    }
    with requests.Session() as session:
        yield Caller(company.url, session, company.keys[role], known, photo, going)


@pytest.mark.parametrize("role", ["recognizer", "enroller", "manager", "admin"])
def test_every_answer_is_as_the_document_says(schema: Any, caller: Caller, role: str) -> None:
    operations = [found.ok() for found in schema.get_all_operations()]
    # Deletions last and the innermost first: the others need what is there.
    operations.sort(key=lambda each: 1000 - len(each.path) if each.method == "delete" else 0)
    failures = []
    for operation in operations:
        for mode, examples in ((GenerationMode.POSITIVE, FITTING), (GenerationMode.NEGATIVE, BROKEN)):
            try:
                ask(operation.as_strategy(generation_mode=mode), caller, examples)
            except Unsatisfiable:  # where there is no parameter there is none to break
                assert mode is GenerationMode.NEGATIVE
                assert not list(operation.iter_parameters())
                assert not operation.body
            except (FailureGroup, Failure) as exc:
                failures.append(f"{operation.label}: {exc}: {getattr(exc, 'exceptions', ())}")
    assert not failures, "\n\n".join(failures)
    if role == "admin":
        assert {operation.label for operation in operations} - caller.succeeded == set()


def ask(cases: st.SearchStrategy[Case], caller: Caller, examples: int) -> None:
    @settings(STEADY, max_examples=examples)
    @given(case=cases, fitting=st.booleans())
    def send(case: Case, fitting: bool) -> None:
        # A made-up id of a key might be that of the key in use, which must not end before the test does.
        if fitting or "key_id" in (case.path_parameters or {}):
            caller.fit(case)
        answer = case.call_and_validate(caller.url, caller.session, {"x-api-key": caller.key}, CHECKS)
        if answer.status_code < 300:
            caller.succeeded.add(case.operation.label)

    send()
