"""A receipt is genuine where the service's own key signed just this content, and nowhere else."""

from __future__ import annotations

import base64
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from faceward.errors import InvalidReceiptError, SettingsError
from faceward.receipts import Receipt, ReceiptSigner

CONTENT = {"id": "1", "removed": {"persons": 1, "faces": 3}, "complete": True, "client_id": "Ä \u2028"}


def test_a_receipt_outlasts_its_way_through_a_file(tmp_path: Path) -> None:
    signer = ReceiptSigner(tmp_path / "home" / "receipt.key")
    text = json.dumps(signer.sign(CONTENT).as_json(), indent=4)
    receipt = Receipt.parse(text)
    receipt.verify(signer.public_key)
    assert receipt.content == {**CONTENT, "format": "faceward erasure 1"}
    ReceiptSigner(tmp_path / "home" / "receipt.key").sign({"id": "2"}).verify(signer.public_key)


def test_the_key_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "receipt.key"
    ReceiptSigner(path).sign(CONTENT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["receipt.key"]


def test_processes_that_make_the_key_at_once_keep_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: ReceiptSigner(tmp_path / "receipt.key").public_key, range(32)))
    assert len(keys) == 1


@pytest.mark.parametrize("path", ["removed.faces", "complete", "id", "format", "new"])
def test_a_changed_receipt_is_refused(tmp_path: Path, path: str) -> None:
    signer = ReceiptSigner(tmp_path / "receipt.key")
    given = signer.sign(CONTENT).as_json()
    inside = given["receipt"]
    for part in path.split(".")[:-1]:
        inside = inside[part]
    inside[path.split(".")[-1]] = "other"
    with pytest.raises(InvalidReceiptError):
        Receipt.parse(json.dumps(given)).verify(signer.public_key)


def test_a_receipt_of_another_key_is_refused_though_it_brings_that_key(tmp_path: Path) -> None:
    own, other = (ReceiptSigner(tmp_path / name) for name in ("own", "other"))
    with pytest.raises(InvalidReceiptError, match="another service's"):
        other.sign(CONTENT).verify(own.public_key)
    forged = {**other.sign(CONTENT).as_json(), "public_key": own.public_key}
    with pytest.raises(InvalidReceiptError, match="was changed"):
        Receipt.parse(json.dumps(forged)).verify(own.public_key)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", "[" * 100_000, '{"receipt": {}}', '{"receipt": [], "public_key": "", "signature": ""}',
     '{"receipt": {"format": "faceward erasure 1"}, "public_key": 1, "signature": "x"}'],
)  # fmt: skip
def test_what_is_no_receipt_is_told_so(text: str) -> None:
    with pytest.raises(InvalidReceiptError, match="no receipt"):
        Receipt.parse(text)


@pytest.mark.parametrize(
    "signature", ["", "x", "ä", base64.b64encode(bytes(64)).decode(), base64.b64encode(bytes(3)).decode()]
)
def test_a_signature_that_is_none_is_refused(tmp_path: Path, signature: str) -> None:
    signer = ReceiptSigner(tmp_path / "receipt.key")
    receipt = Receipt.parse(json.dumps({**signer.sign(CONTENT).as_json(), "signature": signature}))
    with pytest.raises(InvalidReceiptError):
        receipt.verify(signer.public_key)
    with pytest.raises(InvalidReceiptError):
        Receipt(CONTENT, signature, signature).verify(signature)


def test_a_key_can_be_given(tmp_path: Path) -> None:
    given = base64.b64encode(os.urandom(32)).decode()
    signer = ReceiptSigner(tmp_path / "receipt.key", given)
    signer.sign(CONTENT).verify(ReceiptSigner(tmp_path / "elsewhere", given).public_key)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", ["", "secret", base64.b64encode(bytes(31)).decode(), "ä" * 44])
def test_a_key_that_is_none_is_refused_and_not_shown(tmp_path: Path, given: str) -> None:
    with pytest.raises(SettingsError, match=r"audit\.receipt_key .* 32 random bytes") as caught:
        ReceiptSigner(tmp_path / "key", given).sign(CONTENT)
    assert given == "" or given not in str(caught.value)
    (tmp_path / "key").write_text(given)
    with pytest.raises(SettingsError, match="32 random bytes"):
        ReceiptSigner(tmp_path / "key").sign(CONTENT)
