"""Who has expired is erased, person by person; who is extended meanwhile stays."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Sequence
from pathlib import Path

import psycopg
import pytest

from faceward.administration import Administration
from faceward.api.purge_watch import PurgeWatch
from faceward.errors import DeadlineExceededError, StatementTimeoutError
from faceward.receipts import ReceiptSigner
from faceward.service.privacy import Privacy
from faceward.store.api_keys import KeyStore
from faceward.store.clients import ClientStore
from faceward.store.database import Database
from faceward.store.erasure import Eraser
from faceward.store.gallery import Gallery
from faceward.store.personal_data import PersonalDataStore
from faceward.store.reports import Survey
from synthetic import new_face

PAST = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
FUTURE = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def forgotten() -> list[int]:
    """Faces that memory was told to drop."""
    return []


@pytest.fixture
def privacy(database: Database, tmp_path: Path, forgotten: list[int]) -> Privacy:
    def forget(_: str, faces: Sequence[int]) -> None:
        forgotten.extend(faces)

    signer = ReceiptSigner(tmp_path / "receipt.key")
    return Privacy(Eraser(database), signer, PersonalDataStore(database), forget)


def enroll(gallery: Gallery, expiries: Sequence[dt.datetime | None], client: str = "acme") -> list[int]:
    return [
        gallery.create_person(client, "A", f"person {n}", [new_face(n)], expires_at=when)[0].id
        for n, when in enumerate(expiries)
    ]


def left(gallery: Gallery, client: str = "acme") -> list[int]:
    return [person.id for person in gallery.list_persons(client).persons]


def test_those_whose_time_is_over_are_erased_and_nobody_else(
    gallery: Gallery, privacy: Privacy, forgotten: list[int], database_url: str
) -> None:
    ids = enroll(gallery, [PAST, None, PAST, FUTURE, PAST])
    enroll(gallery, [PAST], "globex")
    assert privacy.count_expired(client_id="acme") == 3
    told: list[None] = []
    first_two = {"on_erased": lambda: told.append(None), "stop": lambda: len(told) == 2}
    assert privacy.purge_expired(client_id="acme", **first_two) == 2
    assert left(gallery) == [ids[1], ids[3], ids[4]]
    assert privacy.purge_expired(client_id="acme", on_erased=lambda: told.append(None)) == 1
    assert privacy.purge_expired(client_id="acme") == 0
    assert left(gallery) == [ids[1], ids[3]]
    assert len(left(gallery, "globex")) == len(told) - 2 == 1
    assert len(forgotten) == 3
    with psycopg.connect(database_url) as owner:
        entries = owner.execute("SELECT actor, person_id FROM audit_log WHERE action = 'person.erase'").fetchall()
    assert entries == [("purge", None)] * 3


def test_reports_are_read_once_for_many(gallery: Gallery, privacy: Privacy, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = enroll(gallery, [PAST, PAST, PAST])
    surveyed: list[Sequence[int]] = []
    survey = Eraser.survey

    def counted(eraser: Eraser, client_id: str, person_ids: Sequence[int]) -> Survey:
        surveyed.append(person_ids)
        return survey(eraser, client_id, person_ids)

    monkeypatch.setattr(Eraser, "survey", counted)
    assert privacy.purge_expired(client_id="acme") == 3
    assert surveyed == [ids]


def test_an_erasure_whose_check_fails_has_its_receipt(
    gallery: Gallery, privacy: Privacy, monkeypatch: pytest.MonkeyPatch
) -> None:
    (person,) = enroll(gallery, [None])

    def late(*_: object) -> dict[str, int]:
        raise DeadlineExceededError("The time given to this request is over.")

    monkeypatch.setattr(Eraser, "left", late)
    content = privacy.erase_person(person, client_id="acme").content
    assert (content["removed"]["persons"], content["checked"], content["complete"], content["left"]) == (
        1, False, False, {}
    )  # fmt: skip


def test_who_is_extended_at_that_moment_stays(gallery: Gallery, privacy: Privacy, database_url: str) -> None:
    first, second = enroll(gallery, [PAST, PAST])
    with psycopg.connect(database_url) as extending:
        extending.execute(
            "WITH p AS (UPDATE persons SET expires_at = NULL WHERE id = %(id)s) "
            "UPDATE face_encodings SET matchable_until = 'infinity' WHERE person_id = %(id)s",
            {"id": first},
        )
        purging = threading.Thread(target=privacy.purge_expired, kwargs={"client_id": "acme"})
        purging.start()
        purging.join(0.3)
        assert purging.is_alive()
    purging.join(10)
    assert left(gallery) == [first]
    assert second not in left(gallery)


def test_whom_somebody_holds_keeps_nobody_else_from_being_erased(
    database: Database, gallery: Gallery, privacy: Privacy, database_url: str
) -> None:
    held, _ = enroll(gallery, [PAST, PAST])
    enroll(gallery, [PAST], "globex")
    lines: list[dict[str, object]] = []
    administration = Administration(ClientStore(database), KeyStore(database))
    with Database(database_url, statement_timeout=0.1) as hasty, psycopg.connect(database_url) as holding:
        holding.execute("SELECT FROM persons WHERE id = %s FOR UPDATE", (held,))
        impatient = Privacy(Eraser(hasty), ReceiptSigner(Path("receipt.key")), PersonalDataStore(hasty))
        with pytest.raises(StatementTimeoutError):
            impatient.purge_expired(client_id="acme")
        PurgeWatch(impatient, administration, lambda event, **fields: lines.append(fields)).look(lambda: False)
        assert lines == [
            {"client_id": "acme", "erased": 1, "left": 1, "persons": [held]},
            {"client_id": "globex", "erased": 1},
        ]
    assert (left(gallery), left(gallery, "globex")) == ([held], [])
    assert privacy.purge_expired(client_id="acme") == 1


def test_the_service_looks_through_all_clients_unless_it_ends(
    database: Database, gallery: Gallery, privacy: Privacy
) -> None:
    for client in ("acme", "globex"):
        enroll(gallery, [PAST, None], client)
    lines: list[dict[str, object]] = []

    def log(event: str, **fields: object) -> None:
        lines.append({"event": event, **fields})

    administration = Administration(ClientStore(database), KeyStore(database))
    PurgeWatch(privacy, administration, log).look(lambda: True)
    assert lines == []
    PurgeWatch(privacy, administration, log).look(lambda: False)
    assert lines == [{"event": "purge", "client_id": client, "erased": 1} for client in ("acme", "globex")]
    assert [len(left(gallery, client)) for client in ("acme", "globex")] == [1, 1]
