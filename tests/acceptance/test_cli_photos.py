"""Photos, their keys, and people whose time is over, at the command line; docs/privacy.md."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from command_line import CommandLine
from sqlalchemy.engine import make_url

from faceward.vision import FaceAnalyzer

KEYS = {name: base64.b64encode(os.urandom(32)).decode() for name in ("2025", "2026")}
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "privacy.md").read_text(encoding="utf-8")


@pytest.fixture
def images(config: Path) -> Callable[..., None]:
    """Sets images.* in config.json."""

    def write(**images: object) -> None:
        config.write_text(json.dumps({**json.loads(config.read_text()), "images": images}))

    return write


@pytest.fixture
def stored(faceward: CommandLine, photos: dict[str, Path], images: Callable[..., None]) -> int:
    """Two people of acme, one whole photo under the key 2025 and one face that is not encrypted; the first one's number."""
    images(store="original", keys=KEYS, key="2025")
    first = faceward.succeeds(
        "enroll", photos["obama.jpg"], "--name", "Barack", "--region", "A", "--client", "acme", "--json"
    )
    images(store="face")
    faceward.succeeds("enroll", photos["biden.jpg"], "--name", "Joe", "--region", "A", "--client", "acme")
    return int(first.json["person"]["id"])


def kinds(faceward: CommandLine) -> list[tuple[str | None, int, int]]:
    (client,) = faceward("photos", "status", "--json").json["clients"]
    return [(each["key_id"], each["photos"], each["crops"]) for each in client["photos"]]


def test_keys_are_changed_and_the_old_one_is_needed_no_more(
    faceward: CommandLine, stored: int, images: Callable[..., None]
) -> None:
    assert kinds(faceward) == [(None, 1, 1), ("2025", 1, 0)]
    images(keys={"2026": KEYS["2026"]}, key="2026")
    missing = faceward("photos", "status")
    assert missing.status == 1
    assert "missing in images.keys: 2025" in missing.stderr
    assert any(
        each["name"] == "photo keys" and each["state"] == "failed" and "missing: 2025" in each["detail"]
        for each in faceward("doctor", "--json").json
    )
    left = faceward("photos", "rotate")
    assert left.status == 1
    assert "1 under 2025" in left.stderr
    images(keys=KEYS, key="2026")
    assert "1 photos were brought under the key 2026" in faceward.succeeds("photos", "rotate").stdout
    assert kinds(faceward) == [("2026", 2, 1)]
    images(keys={"2026": KEYS["2026"]}, key="2026")
    assert "2026" in faceward.succeeds("photos", "status").stdout
    assert "images.key is set" in faceward.misused("photos", "rotate", "--decrypt")
    images(keys={"2026": KEYS["2026"]})
    assert "is not set" in faceward.misused("photos", "rotate")
    assert "2 photos were brought without" in faceward.succeeds("photos", "rotate", "--decrypt").stdout
    images(keys=KEYS, key="2027")
    assert "images.key is '2027'" in faceward.fails("photos", "status")


@pytest.mark.parametrize("command", ["import-dir", "import-sqlite --same-model", "import-sqlite --re-embed"])
def test_imported_photos_are_sealed_and_come_back_on_export(
    faceward: CommandLine,
    photos: dict[str, Path],
    images: Callable[..., None],
    analyzer: FaceAnalyzer,
    database_url: str,
    tmp_path: Path,
    command: str,
) -> None:
    images(store="original", keys=KEYS, key="2026")
    photo = photos["obama.jpg"].read_bytes()
    if command == "import-dir":
        (tmp_path / "people" / "A" / "Barack").mkdir(parents=True)
        shutil.copy(photos["obama.jpg"], tmp_path / "people" / "A" / "Barack")
        faceward.succeeds("import-dir", tmp_path / "people")
    else:
        (face,) = analyzer.analyze(photo)
        with closing(sqlite3.connect(tmp_path / "old.db")) as old, old:
            old.execute("CREATE TABLE persons (id INTEGER PRIMARY KEY, name TEXT)")
            old.execute("CREATE TABLE faces (person_id INTEGER, embedding BLOB, image BLOB)")
            old.execute("INSERT INTO persons VALUES (1, 'Barack')")
            old.execute("INSERT INTO faces VALUES (1, ?, ?)", (face.embedding.tobytes(), photo))
        faceward.succeeds(*command.split(), tmp_path / "old.db", "--region", "A")
    with psycopg.connect(database_url) as connection:
        ((key_id, stored),) = connection.execute("SELECT image_key_id, image_data FROM face_encodings").fetchall()
    assert key_id == "2026"
    assert len(stored) >= len(photo)
    assert photo[:64] not in stored
    assert photo[1000:1064] not in stored
    faceward.succeeds("people", "export", 1, "--out", tmp_path / "held.zip")
    with zipfile.ZipFile(tmp_path / "held.zip") as held:
        (name,) = (name for name in held.namelist() if name.startswith("photos/"))
        assert held.read(name) == photo


def test_an_old_key_is_needed_while_an_upload_waits_under_it(
    faceward: CommandLine, stored: int, images: Callable[..., None], database_url: str
) -> None:
    with psycopg.connect(database_url) as owner:
        owner.execute(
            "INSERT INTO jobs (client_id, id, kind, state) SELECT 'acme', n, 'archive', 'queued' FROM generate_series(1, 3) n"
        )
        owner.execute(
            "INSERT INTO job_chunks (client_id, job_id, position, data, key_id) VALUES "
            "('acme', 1, 0, '', '2025'), ('acme', 1, 1, '', '2025'), ('acme', 2, 0, '', '2025'), ('acme', 2, 1, '', '2026'), "
            "('acme', 3, 0, '', NULL)"
        )
    images(keys=KEYS, key="2026")
    told = faceward.succeeds("photos", "rotate").stderr
    assert "not brought along: 2 under 2025. Keep these keys" in " ".join(told.split())
    again = faceward.succeeds("photos", "rotate", "--json").json
    assert again == {"key": "2026", "changed": 0, "unopened": {}, "uploads": {"2025": 2}}
    assert "2 under 2025, 1 under 2026" in faceward.succeeds("photos", "status").stderr
    (client,) = faceward.succeeds("photos", "status", "--json").json["clients"]
    assert client["uploads"] == {"2025": 2, "2026": 1}
    assert any("imports that wait or run: 2025, 2026" in each["detail"] for each in faceward("doctor", "--json").json)
    images(keys={"2026": KEYS["2026"]}, key="2026")
    assert faceward("photos", "status").status == 1
    with psycopg.connect(database_url) as owner:
        owner.execute("DELETE FROM job_chunks")
    assert "under" not in faceward.succeeds("photos", "rotate").stderr
    assert "Uploads" not in faceward.succeeds("photos", "status").stderr


def test_photos_that_stay_whole_or_do_not_open_are_told(
    faceward: CommandLine, stored: int, images: Callable[..., None], database_url: str, tmp_path: Path
) -> None:
    cut = ("photos", "crop", "--client", "acme", "--yes")
    images(keys={"2026": KEYS["2026"]}, key="2026")
    export = faceward("people", "export", stored, "--client", "acme", "--out", tmp_path / "held.zip")
    assert (export.status, "did not open" in export.stderr) == (1, True)
    with zipfile.ZipFile(tmp_path / "held.zip") as held:
        (face,) = json.loads(held.read("faces.json"))
        assert json.loads(held.read("unopened_photos.json")) == [{"face_id": face["id"]}]
    missing = faceward(*cut)
    assert (missing.status, "0 photos were cut" in missing.stdout, "1 under 2025" in missing.stderr) == (1, True, True)
    images(keys={"2025": KEYS["2026"]}, key="2025")
    for command in (cut, ("photos", "status"), ("photos", "rotate")):
        wrong = faceward(*command)
        assert wrong.status == 1, command
        assert "2025" in wrong.stderr
    assert faceward("photos", "status", "--json").json["wrong_keys"] == ["2025"]
    (point,) = (each for each in faceward("doctor", "--json").json if each["name"] == "photo keys")
    assert (point["state"], "not the one that the photos are under: 2025" in point["detail"]) == ("failed", True)
    images(keys=KEYS, key="2026")
    with psycopg.connect(database_url) as owner:
        owner.execute("UPDATE face_encodings SET face_bbox = NULL WHERE image_box IS NULL")
    whole = faceward(*cut, "--json")
    assert whole.json == {"changed": 0, "unopened": {}, "unchanged": 1}
    assert whole.status == 1
    assert "1 photos stay whole" in whole.stderr


def test_photos_are_cut_and_dropped(faceward: CommandLine, stored: int, images: Callable[..., None]) -> None:
    images(keys=KEYS, key="2026")
    assert faceward("photos", "crop", typed="n\n").status == 1
    assert "1 photos were cut" in faceward.succeeds("photos", "crop", "--client", "acme", "--yes").stdout
    assert kinds(faceward) == [(None, 1, 1), ("2026", 1, 1)]
    assert faceward("photos", "drop", typed="n\n").status == 1
    faceward.succeeds("regions", "create", "B", "--client", "acme")
    assert faceward.succeeds("photos", "drop", "--region", "B", "--yes", "--json").json == {"changed": 0}
    asked = faceward("photos", "drop", "--region", "A", typed="y\n")
    assert "Drop the stored photos of region A of all clients, for good?" in asked.stderr
    assert asked.stdout.endswith("2 photos were dropped.\n")
    assert faceward.succeeds("photos", "status", "--json").json["clients"] == []
    assert faceward.succeeds("people", "show", stored, "--client", "acme", "--json").json["face_count"] == 1


@pytest.mark.parametrize("command", ["crop", "drop"])
def test_a_region_that_is_not_there_is_told_before_photos_are_touched(
    faceward: CommandLine, enrolled: int, command: str
) -> None:
    faceward.succeeds("clients", "create", "acme")
    faceward.succeeds("regions", "create", "Lobby", "--client", "acme")
    call = ("photos", command, "--region")
    assert "Region 'ZZ' does not exist for this client. Regions that do: A." in faceward.fails(
        *call, "ZZ", "--client", "default"
    )
    assert "No client has a region 'ZZ'." in faceward.fails(*call, "ZZ", "--yes")
    assert faceward.succeeds(*call, "Lobby", "--yes", "--json").json["changed"] == 0


def test_who_has_expired_is_purged(
    faceward: CommandLine, photos: dict[str, Path], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for photo in ("obama.jpg", "biden.jpg"):
        call = ("--name", photo, "--region", "A", "--client", "acme", "--expires", "2099-01-01")
        faceward.succeeds("enroll", photos[photo], *call)
    faceward.succeeds("people", "expire", 1, "--client", "acme", "--expires", "2020-01-01", "--yes")
    assert "acme: 1 would be erased" in faceward.succeeds("purge", "--dry-run").stdout
    assert "how many of each client would be erased" in " ".join(faceward.succeeds("purge", "--help").stdout.split())
    assert faceward.succeeds("purge", "--client", "default", "--json").json == {"expired": {}, "erased": 0, "left": {}}
    faceward.succeeds("enroll", photos["astronaut.png"], "--name", "E", "--region", "A")
    with psycopg.connect(database_url) as owner:
        owner.execute(
            "WITH p AS (UPDATE persons SET expires_at = '2020-01-01' WHERE client_id = 'default') "
            "UPDATE face_encodings SET matchable_until = '2020-01-01' WHERE client_id = 'default'"
        )
    monkeypatch.setenv("FACEWARD_DATABASE__STATEMENT_TIMEOUT", "1")
    with psycopg.connect(database_url) as holding:
        ((held,),) = holding.execute("SELECT id FROM persons WHERE name = 'obama.jpg' FOR UPDATE").fetchall()
        busy = faceward("purge", "--json")
    assert (busy.status, busy.json) == (
        1,
        {"expired": {"acme": 1, "default": 1}, "erased": 1, "left": {"acme": [held]}},
    )
    assert f"Not erased of acme: person {held}." in busy.stderr
    assert faceward.succeeds("purge", "--json").json == {"expired": {"acme": 1}, "erased": 1, "left": {}}
    listed = faceward.succeeds("people", "list", "--client", "acme", "--json").json["people"]
    assert [person["name"] for person in listed] == ["biden.jpg"]
    with psycopg.connect(database_url) as owner:
        actors = owner.execute("SELECT actor FROM audit_log WHERE action = 'person.erase'").fetchall()
    assert actors == [("purge",)] * 2
    again = "".join(faceward.succeeds("purge").stdout.split())
    assert "Erased0people" in again
    assert f"/{make_url(database_url).database}" in again, "which database it was"


@pytest.mark.parametrize(
    "command", [("purge",), ("audit", "expire"), ("photos", "drop", "--yes"), ("photos", "status")]
)
def test_what_keeps_house_makes_no_database(
    command: tuple[str, ...], faceward: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from cron, in another working directory than that of config.json."""
    monkeypatch.setenv("FACEWARD_DATABASE__URL", "embedded")
    monkeypatch.setenv("FACEWARD_DATA", str(tmp_path / "data"))
    assert "Is another one meant?" in faceward.fails(*command)
    assert not (tmp_path / "data").exists()


def test_every_command_of_the_page_runs(
    faceward: CommandLine, photos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(photos["obama.jpg"], tmp_path / "alice.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))  # receipts are not signed by this machine's own key
    lines = [line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.S | re.M) for line in block.splitlines()]
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == ".venv/bin/faceward"
        faceward.succeeds(*arguments)
    assert len(lines) >= 12
