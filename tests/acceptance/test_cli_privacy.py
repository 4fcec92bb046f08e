"""What a person may ask for, and what was done, at the command line."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import stat
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from command_line import CommandLine

from faceward.errors import DatabaseUnavailableError
from faceward.store.erasure import Eraser
from rows import waiting


@pytest.fixture(autouse=True)
def _own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Receipts of the tests are not signed by this machine's key."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def test_a_person_is_exported_for_the_eyes_of_whoever_asked(
    faceward: CommandLine, enrolled: int, tmp_path: Path
) -> None:
    out = tmp_path / "person.zip"
    answer = faceward.succeeds("people", "export", enrolled, "--out", out)
    assert f"All that is held of person {enrolled}" in answer.stdout
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with zipfile.ZipFile(out) as archive:
        assert json.loads(archive.read("person.json"))["name"] == "Barack Obama"
    export = ("people", "export", enrolled, "--out", out)
    out.write_bytes(b"somebody else's")
    assert f"{out}: It exists already. Name another file, or say --replace." in faceward.fails(*export)
    assert out.read_bytes() == b"somebody else's"
    assert faceward.succeeds(*export, "--replace", "--json").json["bytes"] == out.stat().st_size
    (entry, _) = faceward.succeeds("audit", "list", "--action", "person.export", "--json").json["entries"]
    assert (entry["person_id"], entry["actor"]) == (enrolled, f"cli:{getpass.getuser()}")


def test_an_export_that_fails_leaves_no_file(faceward: CommandLine, enrolled: int, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    assert "does not exist" in faceward.fails("people", "export", enrolled + 1, "--out", folder / "x.zip")
    assert list(folder.iterdir()) == []
    line = faceward.fails("people", "export", enrolled, "--out", folder / "missing" / "x.zip")
    assert "No such file" in line
    assert "missing" in line
    assert faceward.succeeds("audit", "list", "--action", "person.export", "--json").json["entries"] == []


def test_erasing_asks_first_and_leaves_a_receipt_that_can_be_verified(
    faceward: CommandLine, enrolled: int, tmp_path: Path
) -> None:
    receipt = tmp_path / "receipt.json"
    refused = faceward("people", "erase", enrolled, "--receipt", receipt, typed="n\n")
    assert f"Erase Barack Obama (person {enrolled}, region A, 1 photos) and every trace, for good?" in refused.stderr
    assert refused.status == 1
    assert not receipt.exists()
    faceward.succeeds("people", "show", enrolled)
    done = faceward.succeeds("people", "erase", enrolled, "--receipt", receipt, typed="y\n")
    assert f"Erased person {enrolled}: persons 1, faces 1" in done.stdout
    assert stat.S_IMODE(receipt.stat().st_mode) == 0o600
    assert "does not exist" in faceward.fails("people", "show", enrolled)
    assert "does not exist" in faceward.fails("people", "erase", enrolled, "--yes")
    gone = faceward("people", "erase", enrolled, typed="y\n")
    assert f"Erase what is left of person {enrolled}, who is not enrolled any more, for good?" in gone.stderr
    mistyped = faceward("people", "erase", enrolled, "--client", "acmee", typed="y\n")
    assert "acmee" in mistyped.stderr
    assert "Erase" not in mistyped.stderr

    verified = faceward.succeeds("receipt", "verify", receipt)
    assert "The receipt is genuine." in verified.stdout
    assert faceward.succeeds("receipt", "verify", receipt, "--json").json["removed"]["faces"] == 1
    key = faceward.succeeds("receipt", "public-key").stdout.strip()
    faceward.succeeds("receipt", "verify", receipt, "--public-key", key)
    assert "another service's" in faceward.fails("receipt", "verify", receipt, "--public-key", "A" * 44)
    receipt.write_text(receipt.read_text().replace('"faces": 1', '"faces": 2'))
    assert "was changed" in faceward.fails("receipt", "verify", receipt)
    receipt.write_text("no receipt")
    assert "This is no receipt" in faceward.fails("receipt", "verify", receipt)
    assert "No such file" in faceward.fails("receipt", "verify", tmp_path / "missing.json")


def test_an_older_receipt_is_not_written_over(faceward: CommandLine, enrolled: int, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.json"
    receipt.write_text("another person's")
    erase = ("people", "erase", enrolled, "--yes", "--receipt", receipt)
    assert "It exists already" in faceward.fails(*erase)
    assert receipt.read_text() == "another person's"
    faceward.succeeds("people", "show", enrolled)
    faceward.succeeds(*erase, "--replace")
    faceward.succeeds("receipt", "verify", receipt)


def test_a_receipt_that_can_not_be_written_keeps_the_person(
    faceward: CommandLine, enrolled: int, tmp_path: Path
) -> None:
    line = faceward.fails("people", "erase", enrolled, "--yes", "--receipt", tmp_path / "missing" / "r.json")
    assert "No such file" in line
    faceward.succeeds("people", "show", enrolled)


def test_what_is_no_regular_file_is_neither_replaced_nor_costs_the_person(
    faceward: CommandLine, enrolled: int, tmp_path: Path
) -> None:
    folder = tmp_path / "place"
    (folder / "directory").mkdir(parents=True)
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("pipe")
    for name in ("directory", "pipe", "link"):
        place = folder / name
        for arguments in (("erase", enrolled, "--yes", "--receipt"), ("export", enrolled, "--out")):
            assert f"{place}: It is there and no regular file." in faceward.fails("people", *arguments, place)
    assert stat.S_ISFIFO((folder / "link").stat().st_mode)
    assert sorted(each.name for each in folder.iterdir()) == ["directory", "link", "pipe"]
    faceward.succeeds("people", "show", enrolled)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_receipt_that_can_not_be_written_any_more_is_printed(
    faceward: CommandLine, enrolled: int, tmp_path: Path, database_url: str, as_json: bool
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    receipt = folder / "receipt.json"
    options = ("--yes", "--receipt", receipt, *(("--json",) if as_json else ()))
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database_url) as other:
        other.execute("SELECT 1 FROM persons FOR UPDATE")
        erasing = pool.submit(faceward, "people", "erase", enrolled, *options)
        while not erasing.done() and not waiting(database_url):
            pass
        shutil.rmtree(folder)
        other.commit()
        answer = erasing.result(timeout=60)
    assert answer.status == 1
    assert f"{receipt}: No such file or directory. Person {enrolled} is erased all the same" in answer.stderr
    printed = answer.stdout if as_json else answer.stderr[answer.stderr.index("\n{") :]
    saved = tmp_path / "saved.json"
    saved.write_text(printed)
    assert "The receipt is genuine." in faceward.succeeds("receipt", "verify", saved).stdout
    assert "does not exist" in faceward.fails("people", "show", enrolled)


def test_who_could_have_no_signed_receipt_is_not_erased(
    faceward: CommandLine, enrolled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("FACEWARD_AUDIT__RECEIPT_KEY", "no key")
        assert "audit.receipt_key can't be used" in faceward.fails("people", "erase", enrolled, "--yes")
    faceward.succeeds("people", "show", enrolled)


def test_erasing_names_the_imports_that_may_bring_the_person_again(
    faceward: CommandLine, enrolled: int, database_url: str
) -> None:
    with psycopg.connect(database_url) as owner:
        owner.execute(
            "INSERT INTO jobs (client_id, id, kind, state) VALUES ('default', 7, 'archive', 'queued'), "
            "('default', 8, 'archive', 'succeeded'), ('default', 9, 'archive', 'running'), ('globex', 10, 'archive', 'queued')"
        )
    told = faceward.succeeds("people", "erase", enrolled, "--yes").stderr
    assert "may bring the person again: jobs 7, 9. Cancel those" in " ".join(told.split())


def test_erasing_for_a_program(faceward: CommandLine, enrolled: int) -> None:
    answer = faceward.succeeds("people", "erase", enrolled, "--yes", "--json").json
    assert answer["receipt"]["complete"] is True
    assert set(answer) == {"receipt", "public_key", "signature"}


def test_a_check_that_does_not_finish_costs_no_receipt(
    faceward: CommandLine, enrolled: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> dict[str, int]:
        raise DatabaseUnavailableError("The server went away.")

    monkeypatch.setattr(Eraser, "left", away)
    receipt = tmp_path / "receipt.json"
    answer = faceward("people", "erase", enrolled, "--yes", "--receipt", receipt)
    assert answer.status == 1
    assert "whether anything was left was not found out" in " ".join(answer.stderr.split())
    assert "not known: the check did not finish" in faceward.succeeds("receipt", "verify", receipt).stdout


def test_who_did_what_is_listed_page_by_page(faceward: CommandLine, enrolled: int) -> None:
    faceward.succeeds("people", "move", enrolled, "B")
    shown = faceward.succeeds("audit", "list", "--person", enrolled).stdout
    assert "person.move" in shown
    assert "person.enroll" in shown
    assert f"cli:{getpass.getuser()}" in shown
    first = faceward.succeeds("audit", "list", "--limit", 1, "--json").json
    (newest,) = first["entries"]
    assert newest["action"] == "person.move"
    assert newest["details"] == {"old": "A", "new": "B"}
    second = faceward.succeeds("audit", "list", "--limit", 1, "--before", first["next_before"])
    assert f"the next page with --before {int(first['next_before']) - 1}" in second.stderr
    assert faceward.succeeds("audit", "list", "--since", "2999-01-01", "--json").json["entries"] == []
    faceward.succeeds("clients", "create", "globex")
    (entry,) = faceward.succeeds("audit", "list", "--client", "globex", "--json").json["entries"]
    assert entry["action"] == "client.create"
    assert "no such entry" in faceward.succeeds("audit", "list", "--person", 999).stderr
    assert "one of person.enroll" in faceward.fails("audit", "list", "--action", "person.think")
    assert "is no time" in faceward.misused("audit", "list", "--since", "yesterday")


def test_what_was_decided_is_listed_page_by_page(faceward: CommandLine, enrolled: int, photos: dict[str, Path]) -> None:
    assert "no such decision" in faceward.succeeds("decisions").stderr
    faceward.succeeds("recognize", photos["obama2.jpg"], "--region", "A")
    faceward.succeeds("verify", photos["biden.jpg"], "--person", enrolled)
    first = faceward.succeeds("decisions", "--limit", 1, "--json").json
    (newest,) = first["decisions"]
    assert (newest["kind"], newest["decision"], newest["actor"]) == ("verify", "rejected", f"cli:{getpass.getuser()}")
    second = faceward.succeeds("decisions", "--before", first["next_before"], "--json").json
    assert ([each["decision"] for each in second["decisions"]], second["next_before"]) == (["match"], None)
    assert f"the next page with --before {newest['id']}" in faceward.succeeds("decisions", "--limit", 1).stderr
    shown = faceward.succeeds("decisions", "--person", enrolled, "--decision", "match").stdout
    assert f"{enrolled} at 0." in shown
    assert "rejected" not in shown
    faceward.succeeds("clients", "create", "globex")
    for filters in (("--since", "2999-01-01"), ("--decision", "unknown"), ("--client", "globex"), ("--person", 999)):
        assert faceward.succeeds("decisions", *filters, "--json").json == {"decisions": [], "next_before": None}
    assert "one of match" in faceward.fails("decisions", "--decision", "perhaps")
    assert "is no time" in faceward.misused("decisions", "--since", "yesterday")


def test_what_is_old_enough_goes(faceward: CommandLine, enrolled: int, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE audit_log SET at = at - interval '400 days'")
    assert faceward.succeeds("audit", "expire", "--json").json["audit_entries"] >= 1
    assert "Deleted 0 entries" in faceward.succeeds("audit", "expire").stdout
