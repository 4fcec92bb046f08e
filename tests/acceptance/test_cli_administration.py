"""Clients, keys and regions at the command line."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import psycopg
import pytest
from command_line import CommandLine

from faceward.administration import Administration
from faceward.errors import UnauthenticatedError
from faceward.store.api_keys import KeyStore
from faceward.store.clients import ClientStore
from faceward.store.database import Database
from faceward.types import ApiKey

KEY = re.compile(r"fw_[a-z0-9]{12}_[A-Za-z0-9_-]{43}")


@pytest.fixture
def acme(faceward: CommandLine) -> str:
    faceward.succeeds("clients", "create", "acme", "--name", "Acme Ltd")
    return "acme"


def opens(config: Path, secret: str) -> ApiKey | None:
    """The key that the text is of, or None where it is refused."""
    with Database(json.loads(config.read_text())["database"]["url"]) as database:
        try:
            return Administration(ClientStore(database), KeyStore(database)).authenticate(secret)
        except UnauthenticatedError:
            return None


def test_clients_are_made_and_listed(faceward: CommandLine, acme: str) -> None:
    made = faceward.succeeds("clients", "create", "globex", "--threshold", "0.4", "--json").json
    assert (made["client_id"], made["name"], made["threshold"]) == ("globex", "globex", 0.4)
    listed = faceward.succeeds("clients", "list").stdout
    assert "Acme Ltd" in listed
    assert "0.4" in listed
    page = faceward.succeeds("clients", "list", "--limit", "1", "--json").json
    assert [client["client_id"] for client in page["clients"]] == ["acme"]
    rest = faceward.succeeds("clients", "list", "--after", page["next_after"], "--json").json
    assert [client["client_id"] for client in rest["clients"]] == ["globex"]
    assert "the next page with --after acme" in faceward.succeeds("clients", "list", "--limit", "1").stderr
    assert "Client 'acme' exists already" in faceward.fails("clients", "create", "acme")


def test_the_commands_that_are_proposed_hold_for_each_id(faceward: CommandLine) -> None:
    made = faceward.succeeds("clients", "create", "Acme Ltd!").stdout
    assert "`faceward keys create --client 'Acme Ltd!' --role manager` makes its key" in made
    none_yet = faceward.succeeds("keys", "list", "--client", "Acme Ltd!").stderr
    (proposed,) = re.findall("`faceward (.*)`", none_yet)
    faceward.succeeds(*shlex.split(proposed))
    faceward.succeeds("clients", "create", "Beta")
    assert "with --after 'Acme Ltd!'" in faceward.succeeds("clients", "list", "--limit", "1").stderr
    for name in ("Hall 1", "Hall 2"):
        faceward.succeeds("regions", "create", name, "--client", "Beta")
    assert "with --after 'Hall 1'" in faceward.succeeds("regions", "--client", "Beta", "--limit", "1").stderr


def test_no_client_yet(faceward: CommandLine) -> None:
    assert "There is no client yet" in faceward.succeeds("clients", "list").stderr


def test_a_clients_threshold_is_set_and_cleared(faceward: CommandLine, acme: str) -> None:
    def threshold() -> float | None:
        (client,) = faceward.succeeds("clients", "list", "--json").json["clients"]
        value: float | None = client["threshold"]
        return value

    assert "is 0.45 now" in faceward.succeeds("clients", "set-threshold", acme, "0.45").stdout
    assert threshold() == 0.45
    assert "no threshold of its own" in faceward.succeeds("clients", "set-threshold", acme, "--clear").stdout
    assert threshold() is None
    assert "give a threshold, or --clear" in faceward.misused("clients", "set-threshold", acme)
    assert "give a threshold, or --clear" in faceward.misused("clients", "set-threshold", acme, "0.4", "--clear")
    assert "threshold = 1.5" in faceward.fails("clients", "set-threshold", acme, "1.5")
    assert "Client 'nobody' does not exist" in faceward.fails("clients", "set-threshold", "nobody", "0.4")


def test_a_key_is_shown_once_and_works(faceward: CommandLine, config: Path, acme: str) -> None:
    made = faceward.succeeds(
        "keys", "create", "--client", acme, "--role", "recognizer", "--region", "A", "--name", "Gate 3"
    )
    secret = made.stdout.strip()
    assert KEY.fullmatch(secret), "nothing but the key on stdout, so that a script can take it"
    assert "shown this once" in made.stderr
    key = opens(config, secret)
    assert key is not None
    assert (key.client_id, key.role, key.regions, key.name) == (acme, "recognizer", ("A",), "Gate 3")
    listed = faceward.succeeds("keys", "list", "--client", acme).stdout
    assert f"fw_{key.prefix}" in listed
    assert secret not in listed
    assert all(word in listed for word in ("Gate 3", "recognizer", "valid", "never"))
    as_json = faceward.succeeds("keys", "list", "--client", acme, "--json")
    assert secret.rsplit("_", 1)[1] not in as_json.stdout
    assert as_json.json["keys"][0]["regions"] == ["A"]
    assert "no key yet" in faceward.succeeds("keys", "list").stderr


def test_a_key_of_a_region_that_is_not_there_yet_is_made_and_told(faceward: CommandLine, acme: str) -> None:
    faceward.succeeds("regions", "create", "Lobby", "--client", acme)
    call = ("keys", "create", "--client", acme, "--role", "recognizer", "--region")
    told = "has no region 'Loby', 'Roof' yet: until it is made the key opens nothing there. `faceward regions --client acme`"
    made = faceward.succeeds(*call, "Loby", "--region", "Lobby", "--region", "Roof", "--json")
    assert f"Client {acme!r} {told}" in made.stderr
    assert made.json["regions"] == ["Loby", "Lobby", "Roof"]
    assert "has no region" not in faceward.succeeds(*call, "Lobby").stderr


def test_of_a_key_that_has_expired_a_new_text_is_told_to_be_refused_too(
    faceward: CommandLine, acme: str, database_url: str
) -> None:
    key = faceward.succeeds("keys", "create", "--client", acme, "--role", "manager", "--json").json["id"]
    assert "refused" not in faceward.succeeds("keys", "rotate", key, "--client", acme).stderr
    with psycopg.connect(database_url) as owner:
        owner.execute("UPDATE api_keys SET expires_at = '2020-01-01' WHERE id = %s", (key,))
    assert "it expired 2020-01-01" in " ".join(
        faceward.succeeds("keys", "rotate", key, "--client", acme).stderr.split()
    )


def test_a_key_is_rotated_and_revoked(faceward: CommandLine, config: Path, acme: str) -> None:
    made = faceward.succeeds(
        "keys",
        "create",
        "--client",
        acme,
        "--role",
        "manager",
        "--expires",
        "2999-01-31",
        "--rate-limit",
        "5",
        "--json",
    ).json
    assert (made["expires_at"], made["rate_limit"], made["client_id"]) == ("2999-01-31T00:00:00+00:00", 5.0, acme)
    rotated = faceward.succeeds("keys", "rotate", made["id"], "--client", acme).stdout.strip()
    assert opens(config, made["secret"]) is None
    assert opens(config, rotated) is not None
    assert f"Key {made['id']} does not exist for this client" in faceward.fails("keys", "revoke", made["id"])
    assert "is revoked" in faceward.succeeds("keys", "revoke", made["id"], "--client", acme).stdout
    assert opens(config, rotated) is None
    assert "revoked" in faceward.succeeds("keys", "list", "--client", acme).stdout
    assert "can't be rotated" in faceward.fails("keys", "rotate", made["id"], "--client", acme)
    assert faceward.succeeds("keys", "revoke", made["id"], "--client", acme, "--json").json["revoked_at"]


def test_the_last_admin_key_is_revoked_only_when_asked_for(faceward: CommandLine, config: Path, acme: str) -> None:
    def make(*options: str) -> tuple[int, str]:
        made = faceward.succeeds("keys", "create", "--client", acme, "--json", *options).json
        return made["id"], made["secret"]

    (admin, secret), (manager, _) = make("--role", "admin"), make("--role", "manager")
    faceward.succeeds("keys", "revoke", manager, "--client", acme)
    refused = faceward("keys", "revoke", admin, "--client", acme, typed="n\n")
    assert refused.status == 1
    assert f"Key {admin} (fw_{secret[3:15]}) is the last admin key" in refused.stderr
    assert opens(config, secret) is not None
    other, _ = make("--role", "admin")
    faceward.succeeds("keys", "revoke", admin, "--client", acme)
    faceward.succeeds("keys", "revoke", admin, "--client", acme)  # again, of no consequence
    faceward.succeeds("keys", "revoke", other, "--client", acme, "--yes")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--role", "recognizer", "--expires", "2020-01-01"), "in the future"),
        (("--role", "recognizer", "--rate-limit", "0"), "rate_limit = 0"),
        (("--role", "recognizer", "--region", " A"), "region = ' A'"),
        (("--role", "recognizer", "--client", "nobody"), "Client 'nobody' does not exist"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused(
    faceward: CommandLine, acme: str, options: tuple[str, ...], message: str
) -> None:
    assert message in faceward.fails("keys", "create", "--client", acme, *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "Missing option '--role'"),
        (("--role", "root"), "'root' is not one of"),
        (("--role", "admin", "--expires", "soon"), "'soon' is no time; write it as 2030"),
    ],
)
def test_a_wrong_way_to_make_a_key(faceward: CommandLine, options: tuple[str, ...], message: str) -> None:
    assert message in faceward.misused("keys", "create", *options)


def test_regions_are_made_renamed_and_deleted(faceward: CommandLine, acme: str) -> None:
    assert "is there now" in faceward.succeeds("regions", "create", "A", "--client", "acme").stdout
    made = faceward.succeeds("regions", "create", "B", "--client", "acme", "--threshold", "0.4", "--json").json
    assert (made["name"], made["threshold"], made["persons"]) == ("B", 0.4, 0)
    assert "Region 'A' exists already" in faceward.fails("regions", "create", "A", "--client", "acme")
    renamed = faceward.succeeds("regions", "rename", "A", "Z", "--client", "acme")
    assert "Region A is named Z now, with 0 people." in renamed.stdout
    assert "is 0.35 now" in faceward.succeeds("regions", "set-threshold", "Z", "0.35", "--client", "acme").stdout
    assert "0.35" in faceward.succeeds("regions", "--client", "acme").stdout
    assert "next page with --after B" in faceward.succeeds("regions", "--client", "acme", "--limit", "1").stderr
    rest = faceward.succeeds("regions", "--client", "acme", "--after", "B", "--json").json
    assert ([each["name"] for each in rest["regions"]], rest["next_after"]) == (["Z"], None)
    cleared = faceward.succeeds("regions", "set-threshold", "Z", "--clear", "--client", "acme", "--json").json
    assert (cleared["name"], cleared["threshold"]) == ("Z", None)
    assert "Regions that do: B, Z" in faceward.fails("regions", "delete", "A", "--client", "acme")
    assert "Deleted region Z" in faceward.succeeds("regions", "delete", "Z", "--client", "acme").stdout
    assert faceward.succeeds("regions", "delete", "B", "--client", "acme", "--json").json == {"region": "B"}
    assert faceward.succeeds("regions", "--client", "acme", "--json").json == {"regions": [], "next_after": None}


def test_a_region_with_people_is_not_deleted(faceward: CommandLine, enrolled: int) -> None:
    assert "has people in it (1)" in faceward.fails("regions", "delete", "A")
    assert "with 1 people" in faceward.succeeds("regions", "rename", "A", "B").stdout
    assert faceward.succeeds("people", "show", enrolled, "--json").json["region"] == "B"


def test_options_of_a_region_stand_after_its_command(faceward: CommandLine) -> None:
    assert "give --client and --json after create" in faceward.misused("regions", "--client", "acme", "create", "A")


def test_a_retention_is_set_and_cleared(faceward: CommandLine, acme: str) -> None:
    assert "expire after 30 days" in faceward.succeeds("clients", "set-retention", acme, "30").stdout
    assert "30 days" in faceward.succeeds("clients", "list").stdout
    assert "has no retention now" in faceward.succeeds("clients", "set-retention", acme, "--clear").stdout
    faceward.succeeds("regions", "create", "A", "--client", acme)
    assert "after 1 day." in faceward.succeeds("regions", "set-retention", "A", "1", "--client", acme).stdout
    assert faceward.succeeds("regions", "--client", acme, "--json").json["regions"][0]["retention_days"] == 1
    cleared = faceward.succeeds("regions", "set-retention", "A", "--clear", "--client", acme, "--json").json
    assert cleared["retention_days"] is None
    assert "give a number of days, or --clear" in faceward.misused("regions", "set-retention", "A", "--client", acme)


def test_a_retention_for_people_who_are_there_says_whom_it_ends_and_asks(
    faceward: CommandLine, enrolled: int, database_url: str
) -> None:
    with psycopg.connect(database_url) as owner:
        owner.execute("UPDATE persons SET created_at = created_at - interval '40 days'")

    def expires_at() -> str | None:
        expires: str | None = faceward.succeeds("people", "show", enrolled, "--json").json["expires_at"]
        return expires

    change = ("regions", "set-retention", "A", "30")
    faceward.succeeds(*change)
    assert expires_at() is None
    for of in (change, ("clients", "set-retention", "default", "30")):
        refused = faceward(*of, "--existing", typed="n\n")
        assert refused.status == 1
        if of is change:
            assert (
                "1 people who are there get an expiry or a nearer one. 1 of them have expired by it" in refused.stderr
            )
        assert expires_at() is None
        faceward.succeeds("regions", "set-retention", "A", "--clear")
    told = faceward.succeeds(*change, "--existing", typed="y\n")
    assert "1 people who are there got an expiry or a nearer one; 1 of them have expired." in told.stdout
    assert "erased by the next `faceward purge`" in told.stderr
    assert expires_at() is not None
    again = faceward.succeeds("clients", "set-retention", "default", "30", "--existing", "--yes", "--json").json
    assert (again["retention_days"], again["existing"]) == (30, {"people": 0, "expired": 0})
    assert "a number of days" in faceward.misused("regions", "set-retention", "A", "--clear", "--existing")
    assert faceward.succeeds("purge", "--json").json["erased"] == 1
