"""What the law asks of those who keep faces: to tell a person what is held, and to erase it for good, with proof."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import IO

from faceward.actors import PURGE, acting_as, current_actor
from faceward.checks import check_client_id, check_id, check_regions, check_request_token
from faceward.errors import (
    BusyError,
    ConstraintViolatedError,
    FacewardError,
    StatementTimeoutError,
    UnknownPersonError,
)
from faceward.receipts import Receipt, ReceiptSigner
from faceward.service.exporting import write_export
from faceward.store.erasure import Erased, Eraser
from faceward.store.personal_data import PersonalDataStore
from faceward.types import RequestToken

_OF_SOME = (BusyError, ConstraintViolatedError, StatementTimeoutError)
"""What keeps one person from being erased, and not the next."""


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

    def export_person(
        self,
        person_id: int,
        file: IO[bytes],
        *,
        regions: Sequence[str] | None = None,
        client_id: str | None = None,
    ) -> tuple[int, ...]:
        """Write all that is held of a person into a file, as a zip: record, faces with embeddings, photos, entries of the
        audit log, decisions. The audit log tells of it. regions: only one who is enrolled in any of these,
        without reports, entries and decisions that are of other regions, and the record says so. Returns the ids of the faces
        whose photo does not open, as for a key that is lost: the zip has their numbers instead.

        Raises UnknownPersonError, StoreError, OSError.
        """
        client_id, person_id = check_client_id(client_id), check_id("person_id", person_id)
        regions = None if regions is None else check_regions(regions)
        with self._data.open(client_id, person_id, regions=regions) as held:
            return write_export(held, file)

    def erase_person(
        self,
        person_id: int,
        *,
        regions: Sequence[str] | None = None,
        client_id: str | None = None,
        request: RequestToken | None = None,
    ) -> Receipt:
        """Erase a person: faces, photos, what requests, imports, decisions and the audit log hold, and the codes in memory.

        Also one who was deleted before, of whom only traces are left. Returns a signed receipt with counts, which does not
        name the person, and whether anything was left, or that this was not found out. Other processes' memory follows with
        their next refresh. regions: only one who is enrolled in any of these. request: where it came before, its receipt
        again.

        Raises UnknownPersonError where there is no trace of such a person, PersonMergedError where the person was merged into
        another, who is to be erased instead, RequestReusedError, StoreError; SettingsError or OSError where there is no key to
        sign with, and then nothing was erased.
        """
        client_id, person_id = check_client_id(client_id), check_id("person_id", person_id)
        if request is not None:
            check_request_token(request)
        self._signer.ensure_key()  # while the person is there: an erasure has but one receipt
        erased = self._eraser.erase(
            client_id, person_id, request, regions=None if regions is None else check_regions(regions)
        )
        self._forget_faces(client_id, erased.faces)
        left: dict[str, int] | None = None
        with contextlib.suppress(FacewardError):  # the person is gone: what hinders the check must not cost the receipt
            left = self._eraser.left(erased, person_id)
        return self._receipt(erased, left)

    def count_expired(self, *, client_id: str | None = None) -> int:
        """How many persons `purge_expired` would erase."""
        return self._eraser.count_expired(check_client_id(client_id))

    def purge_held_until(self) -> dt.datetime | None:
        """Until when `purge_expired` erases nobody, as a backup was restored; None where it does."""
        return self._eraser.held_until()

    def purge_expired(
        self,
        *,
        client_id: str | None = None,
        on_erased: Callable[[], None] = lambda: None,
        on_left: Callable[[int, FacewardError], None] | None = None,
        stop: Callable[[], bool] = lambda: False,
        after_restore: bool = False,
    ) -> int:
        """Erase the persons whose time is over, as `erase_person` does, without receipts; returns how many.

        Each in a transaction of its own: who is stopped is simply called again. One whose time is extended meanwhile stays.
        on_erased: called after each. on_left: told the number of each who could not be erased, as for another transaction
        that holds the person, and why; the others are erased all the same. Without it the first one is raised. stop: asked
        before each. after_restore: also within seven days of a restore, in which nobody is erased otherwise: expiries that were
        extended since the backup are as before. Raises StoreError.
        """
        client_id = check_client_id(client_id)
        if not after_restore and self._eraser.held_until() is not None:
            return 0
        erased, after = 0, 0
        with acting_as(PURGE):
            while not stop() and (expired := self._eraser.expired(client_id, after=after)):
                after = expired[-1]
                try:
                    surveyed = self._eraser.survey(client_id, expired)
                except _OF_SOME as exc:
                    for person_id in expired:
                        _leave(on_left, person_id, exc)
                    continue
                faces: list[int] = []  # forgotten page by page: a large region's sketch takes seconds to load anew
                try:
                    for person_id in expired:
                        if stop():
                            break
                        try:
                            erasure = self._eraser.erase_expired(
                                client_id, person_id, surveyed, after_restore=after_restore
                            )
                        except UnknownPersonError:
                            continue
                        except _OF_SOME as exc:
                            _leave(on_left, person_id, exc)
                            continue
                        faces += erasure.faces
                        erased += 1
                        on_erased()
                finally:
                    self._forget_faces(client_id, faces)
        return erased

    def _forget_faces(self, client_id: str, face_ids: Sequence[int]) -> None:
        if self._forget is not None and face_ids:
            self._forget(client_id, face_ids)

    def _receipt(self, erased: Erased, left: dict[str, int] | None) -> Receipt:
        """left: None where the check did not finish."""
        return self._signer.sign(
            {
                "id": erased.receipt_id,
                "client_id": erased.client_id,
                "erased_at": erased.at.isoformat(),
                "actor": current_actor(),
                "removed": asdict(erased.removed),
                "imports_under_way": erased.imports_under_way,
                "jobs_under_way": list(erased.jobs_under_way),
                "checked": left is not None,
                "left": left or {},
                "complete": left == {},
            }
        )


def _leave(on_left: Callable[[int, FacewardError], None] | None, person_id: int, why: FacewardError) -> None:
    if on_left is None:
        raise why
    on_left(person_id, why)
