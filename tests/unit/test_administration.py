"""Clients and keys: a secret is shown once and stored nowhere, and a key that is not valid tells nobody why."""

from __future__ import annotations

import datetime as dt
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faceward.administration import Administration
from faceward.errors import (
    ConflictError,
    DuplicateClientError,
    InvalidValueError,
    RequestReusedError,
    SecretShownError,
    SettingsError,
    UnauthenticatedError,
    UnknownClientError,
    UnknownKeyError,
)
from faceward.store.api_keys import KeyStore
from faceward.store.bulk import BulkWriter, NewPerson
from faceward.store.clients import ClientStore
from faceward.store.database import Database
from faceward.store.gallery import Gallery
from faceward.types import ROLES, ApiKey, NewKey, RequestToken
from synthetic import MODEL, unit

SOON = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
FIRST = "fw_abcdefghij01_" + "S3cret-_" * 5 + "abc"


@pytest.fixture
def administration(database: Database) -> Administration:
    made = Administration(ClientStore(database), KeyStore(database))
    for client in ("acme", "globex"):
        made.create_client(client)
    return made


def everything(url: str) -> str:
    """All that the database holds of keys, as text."""
    with psycopg.connect(url) as connection:
        return str(connection.execute("SELECT k::text, convert_from(prefix::bytea, 'UTF8') FROM api_keys k").fetchall())


def test_the_last_admin_key_is_known(administration: Administration, database_url: str) -> None:
    """Of all clients together: an admin key manages every one of them."""
    first, other = administration.create_key("acme", "admin").key, administration.create_key("globex", "admin").key
    manager = administration.create_key("acme", "manager").key
    assert not administration.is_last_admin_key("acme", first.id)
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("UPDATE api_keys SET expires_at = now() WHERE id = %s", (other.id,))
    assert administration.is_last_admin_key("acme", first.id)
    assert not administration.is_last_admin_key("globex", other.id)
    assert not administration.is_last_admin_key("acme", manager.id)
    administration.revoke_key("acme", first.id)
    assert not administration.is_last_admin_key("acme", first.id)


def test_a_key_opens_its_own_client(administration: Administration) -> None:
    made = administration.create_key(
        "acme", "enroller", regions=["A", "B", "A"], name="Gate 3", expires_at=SOON, rate_limit=2.5
    )
    assert re.fullmatch(r"fw_[a-z0-9]{12}_[A-Za-z0-9_-]{43}", made.secret)
    assert made.secret.split("_")[1] == made.key.prefix
    key = administration.authenticate(made.secret)
    assert key == made.key == administration.get_key("acme", key.id)
    assert (key.client_id, key.role, key.regions, key.name) == ("acme", "enroller", ("A", "B"), "Gate 3")
    assert (key.expires_at, key.rate_limit, key.revoked_at, key.last_used_at) == (SOON, 2.5, None, None)


def test_each_role_includes_those_below_it(administration: Administration) -> None:
    for rank, role in enumerate(ROLES):
        key = administration.create_key("acme", role).key
        assert [key.may(other) for other in ROLES] == [number >= rank for number in range(len(ROLES))]
        assert key.may_enter("anywhere")
    key = administration.create_key("acme", "recognizer", regions=["A"]).key
    assert key.may_enter("A")
    assert not key.may_enter("a")


def test_the_secret_is_nowhere_but_in_the_answer(administration: Administration, database_url: str) -> None:
    made = administration.create_key("acme", "manager")
    secret = made.secret.split("_", 2)[2]
    assert secret not in everything(database_url)
    assert secret not in repr(made)
    assert secret not in repr(administration.authenticate(made.secret))


def refused(administration: Administration, text: str | None) -> str:
    with pytest.raises(UnauthenticatedError) as caught:
        administration.authenticate(text)
    assert type(caught.value) is UnauthenticatedError
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_a_key_that_is_not_valid_does_not_say_why(administration: Administration, database_url: str) -> None:
    good = administration.create_key("acme", "admin").secret
    revoked = administration.create_key("acme", "admin")
    administration.revoke_key("acme", revoked.key.id)
    expired = administration.create_key("acme", "admin", expires_at=SOON)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE api_keys SET expires_at = now() WHERE id = %s", (expired.key.id,))
    wrong = good[:-1] + ("A" if good[-1] != "A" else "B")
    unknown = "fw_" + "0" * 12 + good[15:]
    texts = [
        None,
        "",
        "fw_",
        wrong,
        unknown,
        revoked.secret,
        expired.secret,
        good.upper(),
        good + "\n",
        " " + good,
        "ü\ud800",
    ]
    assert len({refused(administration, text) for text in texts}) == 1
    assert administration.authenticate(good).role == "admin"


@pytest.mark.parametrize("ahead", [dt.timedelta(days=-2), dt.timedelta(days=2)])
def test_keys_expire_by_the_database_s_clock(
    database_url: str, administration: Administration, monkeypatch: pytest.MonkeyPatch, ahead: dt.timedelta
) -> None:
    lasting = administration.create_key("acme", "admin", expires_at=SOON)
    expired = administration.create_key("acme", "admin", expires_at=SOON)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE api_keys SET expires_at = now() WHERE id = %s", (expired.key.id,))

    class OtherClock(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return dt.datetime.now(tz) + ahead

    monkeypatch.setattr("faceward.administration.dt", SimpleNamespace(datetime=OtherClock, UTC=dt.UTC))
    assert administration.authenticate(lasting.secret) == lasting.key
    with pytest.raises(UnauthenticatedError):
        administration.authenticate(expired.secret)


@given(text=st.text() | st.from_regex(r"fw_[a-z0-9]{12}_[A-Za-z0-9_-]{43}", fullmatch=True))
def test_no_text_is_a_key_by_chance(shared_administration: Administration, text: str) -> None:
    refused(shared_administration, text)


@pytest.fixture(scope="module")
def shared_administration(server: Any) -> Any:
    with psycopg.connect(server.url_of("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE keys TEMPLATE faceward_template")
        with Database(server.url_of("keys")) as database:
            yield Administration(ClientStore(database), KeyStore(database))
        admin.execute("DROP DATABASE keys WITH (FORCE)")


def test_a_rotated_key_has_one_secret_at_a_time(administration: Administration) -> None:
    old = administration.create_key("acme", "manager", regions=["A"])
    new = administration.rotate_key("acme", old.key.id)
    assert new.secret != old.secret
    assert (new.key.id, new.key.role, new.key.regions) == (old.key.id, "manager", ("A",))
    refused(administration, old.secret)
    assert administration.authenticate(new.secret).id == old.key.id


def test_a_revoked_key_stays_revoked(administration: Administration) -> None:
    made = administration.create_key("acme", "manager")
    first = administration.revoke_key("acme", made.key.id)
    assert first.revoked_at is not None
    assert administration.revoke_key("acme", made.key.id).revoked_at == first.revoked_at
    with pytest.raises(ConflictError, match=rf"Key {made.key.id} is revoked.*Create a new key"):
        administration.rotate_key("acme", made.key.id)
    refused(administration, made.secret)


def test_another_clients_key_is_not_there(administration: Administration) -> None:
    made = administration.create_key("acme", "manager")
    for call in (administration.get_key, administration.revoke_key, administration.rotate_key):
        with pytest.raises(UnknownKeyError, match=f"Key {made.key.id} does not exist for this client"):
            call("globex", made.key.id)
    assert administration.list_keys("globex").keys == ()
    assert administration.authenticate(made.secret) == made.key


def test_a_repeated_request_makes_no_second_client(administration: Administration) -> None:
    request = RequestToken(7, "make the client", b"1")
    made = administration.create_client("initech", name="Initech", request=request)
    administration.update_client("initech", name="Initech Ltd")
    assert administration.create_client("initech", name="Initech", request=request).name == "Initech Ltd"
    with pytest.raises(RequestReusedError, match="'make the client' was used for another request"):
        administration.create_client("initech", request=RequestToken(7, "make the client", b"2"))
    again = RequestToken(8, "make it again", b"1")
    for _ in range(2):  # what was refused has used up nothing
        with pytest.raises(DuplicateClientError):
            administration.create_client("initech", request=again)
    assert made.created_at == administration.get_client("initech").created_at


def test_keys_are_listed_in_pages(administration: Administration) -> None:
    made = [administration.create_key("acme", "recognizer", name=f"door {i}").key for i in range(5)]
    administration.create_key("globex", "recognizer")
    listed: list[ApiKey] = []
    after: int | None = 0
    while after is not None:
        page = administration.list_keys("acme", after=after, limit=2)
        listed += page.keys
        after = page.next_after
    assert listed == made


def test_the_last_use_is_written_once_a_minute(administration: Administration, database_url: str) -> None:
    made = administration.create_key("acme", "recognizer")
    key = administration.authenticate(made.secret)
    administration.record_use(key)
    used = administration.get_key("acme", key.id).last_used_at
    assert used is not None
    administration.record_use(key)
    assert administration.get_key("acme", key.id).last_used_at == used
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE api_keys SET last_used_at = last_used_at - interval '2 minutes'")
    administration.record_use(key)
    after = administration.get_key("acme", key.id).last_used_at
    assert after is not None
    assert after > used


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"role": "root"}, "role = 'root'.*one of admin, manager, enroller, recognizer"),
        ({"regions": []}, "regions = .*1 to 100"),
        ({"regions": "A"}, "regions = 'A'.*a list"),
        ({"regions": ["A", "x" * 51]}, "region = .*at most 50"),
        ({"name": ""}, "name = ''"),
        ({"expires_at": dt.datetime(2020, 1, 1, tzinfo=dt.UTC)}, "expires_at = '2020.*in the future"),
        ({"expires_at": dt.datetime.fromisoformat("2999-01-01")}, "expires_at = .*time zone"),
        ({"expires_at": dt.datetime.fromisoformat("9999-12-31T23:59:59-12:00")}, "expires_at = .*year"),
        ({"rate_limit": 0}, "rate_limit = 0"),
        ({"rate_limit": float("nan")}, "rate_limit = nan"),
        ({"request": RequestToken(1, "é", b"")}, "idempotency key = 'é'"),
        ({"client_id": "x" * 101}, "client_id = "),
    ],
)
def test_a_key_that_makes_no_sense_is_refused(
    administration: Administration, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidValueError, match=message):
        administration.create_key(**{"client_id": "acme", "role": "manager", **given})


def test_a_key_needs_its_client(administration: Administration) -> None:
    with pytest.raises(UnknownClientError, match=r"Client 'initech' does not exist"):
        administration.create_key("initech", "manager")
    assert administration.list_keys("initech").keys == ()


def test_a_repeated_request_makes_no_second_key(administration: Administration) -> None:
    request = RequestToken(7, "make the key", b"1")
    made = administration.create_key("acme", "manager", request=request)
    with pytest.raises(SecretShownError, match=rf"created key {made.key.id} before.*Rotate") as shown:
        administration.create_key("acme", "manager", request=request)
    assert shown.value.key_id == made.key.id
    with pytest.raises(RequestReusedError, match="'make the key' was used for another request"):
        administration.create_key("acme", "admin", request=RequestToken(7, "make the key", b"2"))
    assert administration.list_keys("acme").keys == (made.key,)
    administration.create_key("acme", "manager", request=RequestToken(8, "make the key", b"1"))
    administration.create_key("globex", "manager", request=request)


def test_the_first_key_is_made_once(administration: Administration, database: Database) -> None:
    administration.create_key("acme", "manager")
    start = threading.Barrier(4)

    def begin() -> NewKey | None:
        start.wait()
        return administration.ensure_first_key()

    with ThreadPoolExecutor(4) as pool:
        made = [key for key in pool.map(lambda _: begin(), range(4)) if key]
    assert len(made) == 1
    key = administration.authenticate(made[0].secret)
    assert (key.client_id, key.role, key.regions) == ("default", "admin", None)
    administration.revoke_key("default", key.id)
    assert administration.ensure_first_key(FIRST) is None, "a withdrawn secret must not come back"
    assert [each.id for each in administration.list_keys("default").keys] == [key.id]


def test_the_first_key_may_be_chosen(administration: Administration) -> None:
    for text in ("", "secret", FIRST[:-1], FIRST.upper(), FIRST + "\n"):
        with pytest.raises(SettingsError, match="must read fw_") as caught:
            administration.ensure_first_key(text)
        assert "S3cret" not in str(caught.value)
    made = administration.ensure_first_key(FIRST)
    assert made is not None
    assert made.secret == FIRST
    assert administration.authenticate(FIRST) == made.key


def test_clients_are_made_listed_and_changed(administration: Administration) -> None:
    made = administration.create_client("initech", name="Initech Ltd", threshold=0.5)
    assert (made.client_id, made.name, made.threshold) == ("initech", "Initech Ltd", 0.5)
    assert administration.get_client("initech") == made
    with pytest.raises(DuplicateClientError, match="Client 'initech' exists already"):
        administration.create_client("initech")
    first = administration.list_clients(limit=2)
    assert [client.client_id for client in first.clients] == ["acme", "globex"]
    rest = administration.list_clients(after=first.next_after, limit=2)
    assert (rest.clients, rest.next_after) == ((made,), None)
    changed = administration.update_client("initech", name="Initech")
    assert (changed.name, changed.threshold) == ("Initech", 0.5)
    assert administration.update_client("initech", threshold=None).threshold is None
    assert administration.update_client("initech").name == "Initech"
    with pytest.raises(InvalidValueError, match=r"threshold = 1\.5"):
        administration.update_client("initech", threshold=1.5)
    for call in (administration.get_client, administration.update_client):
        with pytest.raises(UnknownClientError):
            call("nobody")
    with pytest.raises(UnknownClientError):
        administration.update_client("nobody", name="x")


def test_a_client_comes_with_its_first_region(administration: Administration, gallery: Gallery) -> None:
    gallery.create_person("hooli", "A", "Alice", [])
    gallery.create_person("hooli", "B", "Bob", [])
    client = administration.get_client("hooli")
    assert (client.name, client.threshold) == ("hooli", None)
    administration.create_key("hooli", "manager")


def test_a_client_comes_with_its_first_import(
    administration: Administration, database: Database, gallery: Gallery
) -> None:
    writer = BulkWriter(database, gallery, MODEL)
    for external_id in ("1", "2"):
        written = writer.write("hooli", [NewPerson(external_id, f"region {external_id}", "Alice", (unit(1),))])
        assert (written.persons, written.faces) == (1, 1)
    assert administration.get_client("hooli").name == "hooli"
