"""What the law asks of those who keep faces: to tell a person what is held, and to erase it for good, with proof."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import IO

from faceward.actors import current_actor
from faceward.checks import check_client_id, check_id, check_request_token
from faceward.errors import UnknownPersonError
from faceward.receipts import Receipt, ReceiptSigner
from faceward.service.exporting import write_export
from faceward.store.erasure import Erased, Eraser
from faceward.store.personal_data import PersonalDataStore
from faceward.types import RequestToken


class Privacy:
    """The part of FaceService that gives people their due.

    forget: told the client and the ids of faces that were erased, to drop what memory holds of them; None holds nothing.
    """

    def __init__(
        self,
        eraser: Eraser,
        signer: ReceiptSigner,
        data: PersonalDataStore,
        forget: Callable[[str, Sequence[int]], None] | None = None,
    ) -> None:
        self._eraser = eraser
        self._signer = signer
        self._data = data
        self._forget = forget

    def export_person(self, person_id: int, file: IO[bytes], *, client_id: str | None = None) -> None:
        """Write all that is held of a person into a file, as a zip: record, faces with embeddings, photos, entries of the
        audit log, decisions. The audit log tells of it. Raises UnknownPersonError, StoreError, OSError.
        """
        client_id, person_id = check_client_id(client_id), check_id("person_id", person_id)
        with self._data.open(client_id, person_id) as held:
            write_export(held, file)

    def erase_person(
        self, person_id: int, *, client_id: str | None = None, request: RequestToken | None = None
    ) -> Receipt:
        """Erase a person: faces, photos, what requests, imports, decisions and the audit log hold, and the codes in memory.

        Also one who was deleted before, of whom only traces are left. Returns a signed receipt with counts, which does not
        name the person, and whether anything was left. Other processes' memory follows with their next refresh. request:
        where it came before, its receipt again.

        Raises UnknownPersonError where there is no trace of such a person, RequestReusedError, StoreError.
        """
        client_id, person_id = check_client_id(client_id), check_id("person_id", person_id)
        if request is not None:
            check_request_token(request)
        erased = self._eraser.erase(client_id, person_id, request)
        self._forget_faces(client_id, erased.faces)
        return self._receipt(erased, self._eraser.left(erased, person_id))

    def erase_persons(self, person_ids: Iterable[int], *, client_id: str | None = None) -> tuple[Erased, ...]:
        """Erase several persons, each as `erase_person` does and in a transaction of its own, without receipts.

        One who isn't there is passed over: an interrupted call is simply made again. Raises StoreError.
        """
        client_id = check_client_id(client_id)
        done: list[Erased] = []
        try:
            for person_id in person_ids:
                try:
                    done.append(self._eraser.erase(client_id, check_id("person_id", person_id)))
                except UnknownPersonError:
                    continue
        finally:
            self._forget_faces(client_id, [face for erased in done for face in erased.faces])
        return tuple(done)

    def _forget_faces(self, client_id: str, face_ids: Sequence[int]) -> None:
        if self._forget is not None and face_ids:
            self._forget(client_id, face_ids)

    def _receipt(self, erased: Erased, left: dict[str, int]) -> Receipt:
        return self._signer.sign(
            {
                "id": erased.receipt_id,
                "client_id": erased.client_id,
                "erased_at": erased.at.isoformat(),
                "actor": current_actor(),
                "removed": asdict(erased.removed),
                "imports_under_way": erased.imports_under_way,
                "left": left,
                "complete": not left,
            }
        )
