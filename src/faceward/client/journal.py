"""What was done and decided, over HTTP."""

from __future__ import annotations

import datetime as dt

from faceward.client.requests import Requests
from faceward.http_types import answered


class Journal(Requests):
    """The part of the client that reads what was done."""

    def list_audit(
        self,
        *,
        person_id: int | None = None,
        actor: str | None = None,
        action: str | None = None,
        since: dt.datetime | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> answered.AuditPage:
        """A page of the audit log, the newest first. since: with a time zone."""
        query = {
            "person_id": person_id,
            "actor": actor,
            "action": action,
            "since": None if since is None else since.isoformat(),
            "cursor": cursor,
            "limit": limit,
        }
        return self._send("GET", "/v1/audit", answered.AuditPage, query=query)

    def list_decisions(
        self,
        *,
        person_id: int | None = None,
        decision: str | None = None,
        since: dt.datetime | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> answered.DecisionPage:
        """A page of decisions, the newest first. person_id: that this person was a candidate of."""
        query = {
            "person_id": person_id,
            "decision": decision,
            "since": None if since is None else since.isoformat(),
            "cursor": cursor,
            "limit": limit,
        }
        return self._send("GET", "/v1/decisions", answered.DecisionPage, query=query)
