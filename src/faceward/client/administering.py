"""Clients and keys, over HTTP."""

from __future__ import annotations

from typing import Any

from faceward.client.requests import Requests, given, path_of
from faceward.errors import SecretShownError
from faceward.http_types import answered, fields, sent
from faceward.types import UNCHANGED, Unchanged


class Administering(Requests):
    """The part of the client that keeps clients and keys."""

    def me(self) -> answered.Me:
        """What this key is and may do."""
        return self._send("GET", "/v1/me", answered.Me)

    def create_client(
        self,
        client_id: str,
        *,
        name: str | None = None,
        threshold: float | None = None,
        retention_days: int | None = None,
    ) -> answered.ClientOut:
        body = {"client_id": client_id, "name": name, "threshold": threshold, "retention_days": retention_days}
        return self._send("POST", "/v1/clients", answered.ClientOut, body=body)

    def list_clients(self, *, cursor: str | None = None, limit: int = 100) -> answered.ClientPage:
        return self._send("GET", "/v1/clients", answered.ClientPage, query={"cursor": cursor, "limit": limit})

    def get_client(self, client_id: str) -> answered.ClientOut:
        return self._send("GET", path_of("/v1/clients", client_id), answered.ClientOut)

    def update_client(
        self,
        client_id: str,
        *,
        name: str | Unchanged = UNCHANGED,
        threshold: float | Unchanged | None = UNCHANGED,
        retention_days: int | Unchanged | None = UNCHANGED,
        apply_to_existing: bool = False,
    ) -> answered.ClientChanged:
        """apply_to_existing: as in update_region, in the regions that have no retention of their own."""
        body = given(
            name=name,
            threshold=threshold,
            retention_days=retention_days,
            apply_to_existing=apply_to_existing or UNCHANGED,
        )
        path = path_of("/v1/clients", client_id)
        return self._send("PATCH", path, answered.ClientChanged, body=body, repeatable=not apply_to_existing)

    def create_key(self, role: fields.RoleName, **options: Any) -> answered.NewKeyOut:
        """options: client_id, regions, name, expires_at, rate_limit, as POST /v1/keys takes them."""
        body = sent.KeyCreate(role=role, **options).model_dump(mode="json", exclude_none=True)
        try:
            return self._send("POST", "/v1/keys", answered.NewKeyOut, body=body)
        except SecretShownError as exc:
            # To a try whose answer was lost: nobody has that secret, so the key gets another one.
            return self.rotate_key(exc.key_id, client_id=options.get("client_id"))

    def list_keys(
        self, *, client_id: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> answered.KeyPage:
        query = {"client_id": client_id, "cursor": cursor, "limit": limit}
        return self._send("GET", "/v1/keys", answered.KeyPage, query=query)

    def get_key(self, key_id: int, *, client_id: str | None = None) -> answered.KeyOut:
        return self._send("GET", f"/v1/keys/{key_id}", answered.KeyOut, query={"client_id": client_id})

    def rotate_key(self, key_id: int, *, client_id: str | None = None) -> answered.NewKeyOut:
        """A new secret; the old one ends at once. Not tried again by itself: a second try would end the first's secret."""
        return self._send(
            "POST",
            f"/v1/keys/{key_id}/rotate",
            answered.NewKeyOut,
            query={"client_id": client_id},
            repeatable=False,
        )

    def revoke_key(self, key_id: int, *, client_id: str | None = None) -> answered.KeyOut:
        return self._send("DELETE", f"/v1/keys/{key_id}", answered.KeyOut, query={"client_id": client_id})
