"""Erases people who have expired."""

from __future__ import annotations

from faceward.administration import Administration
from faceward.api.observation import LogLine
from faceward.api.periodic import Stop
from faceward.service.privacy import Privacy

_AT_ONCE = 100


class PurgeWatch:
    """Several processes may do so at once: each person is erased by one of them. log: told of what was erased."""

    def __init__(self, privacy: Privacy, administration: Administration, log: LogLine) -> None:
        self._privacy = privacy
        self._administration = administration
        self._log = log

    def look(self, stop: Stop) -> None:
        """Look through all clients; what is being erased ends before a stop. Raises StoreError."""
        after: str | None = None
        while not stop():
            page = self._administration.list_clients(after=after, limit=1000)
            for client in page.clients:
                erased = _AT_ONCE
                while erased == _AT_ONCE and not stop():
                    erased = self._privacy.purge_expired(client_id=client.client_id, most=_AT_ONCE)
                    if erased:
                        self._log("purge", client_id=client.client_id, erased=erased)
            after = page.next_after
            if after is None:
                return
