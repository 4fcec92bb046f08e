"""Erases people who have expired."""

from __future__ import annotations

from faceward.administration import Administration
from faceward.api.observation import LogLine
from faceward.api.periodic import Stop
from faceward.errors import FacewardError
from faceward.service.privacy import Privacy

_TOLD = 100


class PurgeWatch:
    """Several processes may do so at once: each person is erased by one of them. log: told of what was erased."""

    def __init__(self, privacy: Privacy, administration: Administration, log: LogLine) -> None:
        self._privacy = privacy
        self._administration = administration
        self._log = log

    def look(self, stop: Stop) -> None:
        """Look through all clients; what is being erased ends before a stop. Who can't be erased now keeps nobody else.

        Raises StoreError.
        """
        after: str | None = None
        while not stop():
            page = self._administration.list_clients(after=after, limit=1000)
            for client in page.clients:
                if stop():
                    return
                left: list[int] = []

                def leave(person_id: int, _: FacewardError, left: list[int] = left) -> None:
                    left.append(person_id)

                erased = self._privacy.purge_expired(client_id=client.client_id, on_left=leave, stop=stop)
                if erased or left:
                    # The numbers of who was left: somebody has to see what holds them.
                    told = {"left": len(left), "persons": left[:_TOLD]} if left else {}
                    self._log("purge", client_id=client.client_id, erased=erased, **told)
            after = page.next_after
            if after is None:
                return
