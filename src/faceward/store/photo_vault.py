"""Encryption of stored photos at rest: AES-256-GCM, each photo under a random nonce, with the key's id in its row.

What is sealed is bound to where it belongs, so that a photo that was copied into another tenant's row, or another person's,
does not open there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from faceward.errors import ImageKeyError, SettingsError
from faceward.types import NewFace

KEY_BYTES = 32
_NONCE_BYTES = 12
"""Random, so one key may seal 2**32 photos before two nonces are likely to meet (NIST SP 800-38D, 8.3)."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """key_id: of the key that opens it; None: the data is not encrypted. Encrypted: nonce, ciphertext, tag."""

    data: bytes = field(repr=False)
    key_id: str | None


class PhotoVault:
    """Seals what is stored under the current key, and opens what any of its keys has sealed.

    keys: 32 bytes each, by id. current: the id of the one that seals; None stores photos as they are. Safe to share between
    threads. Raises SettingsError where a key has another length, or there is no current one of that id.
    """

    def __init__(self, keys: Mapping[str, bytes] | None = None, current: str | None = None) -> None:
        keys = keys or {}
        for key_id, key in keys.items():
            if len(key) != KEY_BYTES:
                raise SettingsError(
                    f"The key {key_id!r} of images.keys has {len(key)} bytes; it must have {KEY_BYTES}."
                )
        if current is not None and current not in keys:
            raise SettingsError(f"images.key is {current!r}, and images.keys has no key of that id.")
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self.current = current

    @property
    def key_ids(self) -> frozenset[str]:
        """Of the keys that it has."""
        return frozenset(self._ciphers)

    def seal(self, data: bytes, bound_to: bytes) -> Sealed:
        """bound_to: must be given again to open it."""
        if self.current is None:
            return Sealed(data, None)
        nonce = os.urandom(_NONCE_BYTES)
        return Sealed(nonce + self._ciphers[self.current].encrypt(nonce, data, bound_to), self.current)

    def seal_photo(self, client_id: str, face: NewFace) -> Sealed | None:
        """What is to be kept of a new face's photo; None where that is nothing."""
        if face.image_data is None:
            return None
        return self.seal(face.image_data, photo_binding(client_id, face.image_sha256))

    def open_photo(self, client_id: str, image_sha256: bytes | None, key_id: str | None, data: bytes) -> bytes:
        """Of a row of face_encodings. Raises ImageKeyError."""
        return self.open(Sealed(data, key_id), photo_binding(client_id, image_sha256))

    def open(self, sealed: Sealed, bound_to: bytes) -> bytes:
        """Raises ImageKeyError, which names the key's id and nothing else."""
        if sealed.key_id is None:
            return sealed.data
        cipher = self._ciphers.get(sealed.key_id)
        if cipher is None:
            raise ImageKeyError(
                f"What is stored is encrypted with the key {sealed.key_id!r}, which images.keys does not have. Add that key "
                "again; `faceward photos rotate` brings photos to the current key.",
                sealed.key_id,
            )
        try:
            return cipher.decrypt(sealed.data[:_NONCE_BYTES], sealed.data[_NONCE_BYTES:], bound_to)
        except (InvalidTag, ValueError) as exc:  # ValueError: shorter than a nonce and a tag
            raise ImageKeyError(
                f"What is stored does not open with the key {sealed.key_id!r}: images.keys has another key under that id, or "
                "the row was changed in the database. Restore the key that sealed it.",
                sealed.key_id,
            ) from exc


def photo_binding(client_id: str, image_sha256: bytes | None) -> bytes:
    """Of a photo: what of its row never changes, though the person may move, be merged or renamed."""
    return _binding(b"photo", client_id) + (image_sha256 or b"")


def upload_binding(client_id: str, job_id: int, position: int) -> bytes:
    """Of a piece of an import's upload."""
    return _binding(b"upload", client_id) + f"{job_id}/{position}".encode()


def _binding(kind: bytes, client_id: str) -> bytes:
    tenant = client_id.encode()
    return b"faceward " + kind + len(tenant).to_bytes(2, "big") + tenant
