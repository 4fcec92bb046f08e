"""Reads what was done and decided in a client, and forgets what is old enough."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from faceward.actors import MAX_ACTOR
from faceward.checks import check_client_id, check_count, check_id, check_moment, check_text
from faceward.errors import InvalidValueError
from faceward.store.audit_log import ACTIONS, AuditLog, AuditPage, Expired
from faceward.store.clients import ClientStore
from faceward.store.decision_log import OUTCOMES, DecisionPage, DecisionStore


class Journal:
    """What was done and decided, of all clients. It checks what is asked for, not who asks.

    log_days, decision_days: how long entries and decisions are kept.
    """

    def __init__(
        self, log: AuditLog, decisions: DecisionStore, clients: ClientStore, *, log_days: int, decision_days: int
    ) -> None:
        self._log = log
        self._decisions = decisions
        self._clients = clients
        self._log_days = log_days
        self._decision_days = decision_days

    def list_audit(
        self,
        *,
        client_id: str | None = None,
        person_id: int | None = None,
        actor: str | None = None,
        action: str | None = None,
        since: dt.datetime | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> AuditPage:
        """A page of the audit log, the newest first. since: with a time zone. before: the `next_before` of the page before.

        Raises InvalidValueError, StoreError.
        """
        check_count("limit", limit, 1000)
        if action is not None and action not in ACTIONS:
            raise InvalidValueError("action", action, f"one of {', '.join(ACTIONS)}")
        return self._log.list(
            check_client_id(client_id),
            person_id=None if person_id is None else check_id("person_id", person_id),
            actor=None if actor is None else check_text("actor", actor, MAX_ACTOR),
            action=action,
            since=check_moment("since", since),
            before=None if before is None else check_id("before", before),
            limit=limit,
        )

    def list_decisions(
        self,
        *,
        client_id: str | None = None,
        person_id: int | None = None,
        decision: str | None = None,
        since: dt.datetime | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> DecisionPage:
        """A page of decisions, the newest first. person_id: that this person was a candidate of. As list_audit else."""
        check_count("limit", limit, 1000)
        if decision is not None and decision not in OUTCOMES:
            raise InvalidValueError("decision", decision, f"one of {', '.join(OUTCOMES)}")
        return self._decisions.list(
            check_client_id(client_id),
            person_id=None if person_id is None else check_id("person_id", person_id),
            decision=decision,
            since=check_moment("since", since),
            before=None if before is None else check_id("before", before),
            limit=limit,
        )

    def expire(self, stop: Callable[[], bool] = lambda: False) -> Expired:
        """Delete what is older than it is to be kept, of all clients, in small steps. stop: asked after each step.

        Raises StoreError.
        """
        gone = Expired()
        after = ""
        while True:
            page = self._clients.list(after, 1000)
            for client in page.clients:
                if stop():
                    return gone
                gone += self._log.expire(client.client_id, self._log_days, self._decision_days, stop)
            if page.next_after is None:
                return gone
            after = page.next_after
