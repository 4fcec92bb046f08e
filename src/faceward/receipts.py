"""Signed receipts of erasures: what was removed, when, by whom, and whether anything was left. They name no person.

Signed with Ed25519 (RFC 8032) over the content as JSON with sorted keys and no white space, in ASCII.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from faceward.errors import InvalidReceiptError, SettingsError

FORMAT = "faceward erasure 1"
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Receipt:
    """content: plain JSON values. public_key, signature: base64."""

    content: Mapping[str, Any]
    public_key: str
    signature: str

    def as_json(self) -> dict[str, Any]:
        return {"receipt": dict(self.content), "public_key": self.public_key, "signature": self.signature}

    @classmethod
    def parse(cls, text: str) -> Receipt:
        """Raises InvalidReceiptError where the text is no receipt; whether it is genuine `verify` tells."""
        try:
            given = json.loads(text)
            found = cls(given["receipt"], given["public_key"], given["signature"])
            if found.content["format"] != FORMAT:
                raise ValueError("another format")
            if not isinstance(found.public_key, str) or not isinstance(found.signature, str):
                raise TypeError("not text")
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            raise InvalidReceiptError(
                f"This is no receipt of faceward: JSON with receipt, public_key and signature, of the format {FORMAT!r}."
            ) from exc
        return found

    def verify(self, public_key: str) -> None:
        """Raise InvalidReceiptError unless the holder of that key (base64) signed exactly this content.

        The key in the receipt itself proves nothing: anybody could have put it there.
        """
        if self.public_key != public_key:
            raise InvalidReceiptError(
                f"The receipt was signed with the key {self.public_key[:60]}, not with {public_key[:60]}: another service's, "
                "or a key that was replaced. Give the public key of the service that issued it."
            )
        try:
            key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True))
            key.verify(base64.b64decode(self.signature, validate=True), _signed(self.content))
        except (InvalidSignature, ValueError, binascii.Error) as exc:
            raise InvalidReceiptError(
                "The receipt was changed after it was signed, or never was: don't trust it."
            ) from exc


class ReceiptSigner:
    """Signs receipts with one key, which is made when it is first needed.

    path: of the file that holds it, for its owner's eyes only. given: the key itself, 32 random bytes in base64, where
    several machines serve one deployment.
    """

    def __init__(self, path: Path, given: str | None = None) -> None:
        self._path = path
        self._given = given
        self._key: Ed25519PrivateKey | None = None

    def ensure_key(self) -> None:
        """Raises SettingsError where the key can't be used, OSError: before the work whose receipt is to be signed."""
        self._private()

    def sign(self, content: Mapping[str, Any]) -> Receipt:
        """content: without the format, which is added. Raises as `ensure_key` does."""
        whole = {"format": FORMAT, **content}
        return Receipt(whole, self.public_key, base64.b64encode(self._private().sign(_signed(whole))).decode("ascii"))

    @property
    def public_key(self) -> str:
        """Base64; to be kept where receipts are verified later."""
        return base64.b64encode(self._private().public_key().public_bytes_raw()).decode("ascii")

    def _private(self) -> Ed25519PrivateKey:
        if self._key is None:
            if self._given is not None:
                self._key = _key_of(self._given, "The setting audit.receipt_key")
            else:
                if not self._path.exists():
                    _make(self._path)
                self._key = _key_of(self._path.read_text(encoding="ascii", errors="replace"), f"The file {self._path}")
        return self._key


def _key_of(text: str, where: str) -> Ed25519PrivateKey:
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    if len(raw) != _KEY_BYTES:
        raise SettingsError(
            f"{where} can't be used to sign receipts: it must hold {_KEY_BYTES} random bytes in base64, as "
            "`openssl rand -base64 32` prints them."
        )
    return Ed25519PrivateKey.from_private_bytes(raw)


def _make(path: Path) -> None:
    """Whole or not at all; of two processes that make it at once, one key is kept by both."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64encode(os.urandom(_KEY_BYTES)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return
    finally:
        temporary.unlink(missing_ok=True)


def _signed(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode(
        "ascii"
    )
