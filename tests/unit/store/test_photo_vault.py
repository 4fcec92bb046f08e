"""What is sealed opens with its key where it belongs, and nowhere else."""

from __future__ import annotations

import os

import pytest

from faceward.errors import ImageKeyError, SettingsError
from faceward.store.photo_vault import PhotoVault, Sealed, photo_binding, upload_binding
from faceward.types import NewFace
from synthetic import unit

OLD, NEW = os.urandom(32), os.urandom(32)
PHOTO = b"\xff\xd8 a photo " + bytes(1000)
HERE = photo_binding("acme", bytes(32))


def test_what_is_sealed_is_opened_by_its_key() -> None:
    old = PhotoVault({"2025": OLD}, "2025")
    sealed = old.seal(PHOTO, HERE)
    assert sealed.key_id == "2025"
    assert len(sealed.data) == len(PHOTO) + 12 + 16
    assert PHOTO[:16] not in sealed.data
    assert old.seal(PHOTO, HERE).data != sealed.data
    both = PhotoVault({"2025": OLD, "2026": NEW}, "2026")
    assert both.open(sealed, HERE) == PHOTO
    assert both.seal(PHOTO, HERE).key_id == "2026"
    assert both.key_ids == {"2025", "2026"}


def test_without_a_current_key_photos_stay_as_they_are() -> None:
    assert PhotoVault().seal(PHOTO, HERE) == Sealed(PHOTO, None)
    assert PhotoVault({"2025": OLD}).open(Sealed(PHOTO, None), HERE) == PHOTO


@pytest.mark.parametrize(
    "elsewhere",
    [
        photo_binding("Acme", bytes(32)),
        photo_binding("acme", b"1" * 32),
        photo_binding("acme", None),
        upload_binding("acme", 1, 0),
    ],
)
def test_what_is_copied_elsewhere_does_not_open_there(elsewhere: bytes) -> None:
    vault = PhotoVault({"k": OLD}, "k")
    with pytest.raises(ImageKeyError, match="'k'"):
        vault.open(vault.seal(PHOTO, HERE), elsewhere)


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-1], lambda d: d[:20], lambda d: b"", lambda d: d[:50] + b"x" + d[51:]]
)
def test_a_missing_key_another_one_and_damage_are_told_by_the_keys_id(damage: object) -> None:
    sealed = PhotoVault({"k": OLD}, "k").seal(PHOTO, HERE)
    for vault, said in ((PhotoVault(), "does not have"), (PhotoVault({"k": NEW}), "another key under that id")):
        with pytest.raises(ImageKeyError, match=said) as caught:
            vault.open(sealed, HERE)
        assert caught.value.key_id == "k"
    assert callable(damage)
    with pytest.raises(ImageKeyError):
        PhotoVault({"k": OLD}).open(Sealed(damage(sealed.data), "k"), HERE)


def test_a_face_without_a_photo_has_nothing_to_seal() -> None:
    vault = PhotoVault({"k": OLD}, "k")
    assert vault.seal_photo("acme", NewFace(unit(1))) is None
    sealed = vault.seal_photo("acme", NewFace(unit(1), image_data=PHOTO, image_sha256=bytes(32)))
    assert sealed is not None
    assert vault.open_photo("acme", bytes(32), sealed.key_id, sealed.data) == PHOTO


def test_keys_that_can_not_be_used_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"'short' of images\.keys has 5 bytes"):
        PhotoVault({"short": b"short"})
    with pytest.raises(SettingsError, match=r"images\.key is '2027'"):
        PhotoVault({"2025": OLD}, "2027")


def test_the_bindings_of_two_tenants_never_meet() -> None:
    assert photo_binding("a", b"b" + bytes(31)) != photo_binding("ab", bytes(31))
