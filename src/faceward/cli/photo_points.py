"""`faceward doctor` on the stored photos: whether each can be opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from faceward.cli.points import Point
from faceward.errors import SettingsError

if TYPE_CHECKING:
    from faceward.settings import Settings
    from faceward.store.database import Database

PHOTO_KEYS = "photo keys"


def photo_keys(settings: Settings, database: Database) -> Point:
    """Whether images.keys has every key that photos, and uploads of imports, are encrypted with. It opens one photo of each."""
    from faceward.factory import photo_vault
    from faceward.store.clients import ClientStore
    from faceward.store.photos import StoredPhotos

    try:
        vault = photo_vault(settings)
    except SettingsError as exc:
        return Point(PHOTO_KEYS, "failed", str(exc), "correct images.key and images.keys")
    photos = StoredPhotos(database, vault)
    in_use: set[str | None] = set()
    of_uploads: set[str] = set()
    wrong: set[str] = set()
    for client_id in ClientStore(database).ids():
        in_use |= photos.key_ids(client_id)
        of_uploads |= photos.uploads(client_id).keys()
        wrong |= photos.wrong_keys(client_id)
    used = sorted(key_id for key_id in in_use if key_id is not None)
    missing = [key_id for key_id in used if key_id not in vault.key_ids]
    named = ", ".join(used) or "none"
    detail = f"in use: {named}; new photos: {vault.current or 'not encrypted'}"
    if of_uploads:
        detail += f"; imports that wait or run: {', '.join(sorted(of_uploads))}"
    mend = []
    if missing:
        detail += f"; missing: {', '.join(missing)}"
        mend.append(f"add to images.keys: {', '.join(missing)}")
    if wrong:
        detail += f"; not the one that the photos are under: {', '.join(sorted(wrong))}"
        mend.append(f"give each id in images.keys the key that it had: {', '.join(sorted(wrong))}")
    return Point(PHOTO_KEYS, "failed" if mend else "ok", detail, "; ".join(mend))
