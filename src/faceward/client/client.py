"""`faceward.Client`: the methods of FaceService, over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from faceward.client.administering import Administering
from faceward.client.importing import Importing
from faceward.client.journal import Journal
from faceward.client.people import People
from faceward.client.recognising import Recognising
from faceward.client.regions import Regions
from faceward.client.transport import Transport


class Client(People, Recognising, Regions, Importing, Administering, Journal):
    """One key's view of a service. Safe to share between threads; close it, or use it in a `with`.

    It tries again by itself when the service is full, restarting or out of reach. What creates something carries an
    idempotency key of its own, so that a repetition does nothing twice. Only a rotation of a key is not repeated: where its
    answer is lost ServiceUnreachableError says that it may have been done.

    url: of the service, as https://faces.example.com. key: as the service showed it once, white space at its ends
    aside. timeout: seconds for one try. retries: further tries after 429, 503 and broken connections, with growing waits; a
    service that asks for more than a minute is not waited for, and its error has `retry_after`. verify: False, or a file of
    certificates, for a service whose certificate is not public. sleep: waits some seconds.

    Raises InputError where no header takes the key.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout: float = 60.0,
        retries: int = 5,
        verify: bool | str = True,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(Transport(url, key, timeout=timeout, retries=retries, verify=verify, sleep=sleep))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()
