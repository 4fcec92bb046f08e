"""Requests on their way: tried again where that does nothing twice, and answered by values or by faceward's own errors."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO, TypeVar

import httpx
from pydantic import BaseModel

from faceward import errors
from faceward.errors import (
    CapacityError,
    FacewardError,
    InputError,
    NotFoundError,
    OutcomeUnknownError,
    RequestFormatError,
    ServiceUnreachableError,
)

Answer = TypeVar("Answer", bound=BaseModel)

_AGAIN = (429, 503)
_LONGEST_WAIT = 60.0
_FIELDS = {
    "field": "field",
    "expected": "expected",
    "reasons": "reasons",
    "known_regions": "known",
    "person_id": "person_id",
    "key_id": "key_id",
    "image": "image",
    "likely_duplicates": "likely_duplicates",
    "problems": "problems",
    "request_id": "request_id",
    "status": "status",
}
"""Of a problem, and the attributes of errors that they are."""


class Transport:
    """One key's connections to a service. retries: further tries. sleep: waits some seconds.

    Raises InputError where the key is none that a header takes.
    """

    def __init__(
        self, url: str, key: str, *, timeout: float, retries: int, verify: bool | str, sleep: Callable[[float], None]
    ) -> None:
        self._http = httpx.Client(
            base_url=url,
            headers={"authorization": f"Bearer {_sendable(key)}"},
            timeout=timeout,
            verify=verify,
            follow_redirects=False,
        )
        self._retries = retries
        self._jitter = random.Random()
        self.sleep = sleep

    def close(self) -> None:
        self._http.close()

    def value(self, method: str, path: str, answer: type[Answer], **sent: Any) -> Answer:
        """The answer's body. sent: as `ask` takes it."""
        return answer.model_validate_json(self.ask(method, path, **sent).content)

    def ask(
        self,
        method: str,
        path: str,
        *,
        repeatable: bool = True,
        headers: Mapping[str, str] | None = None,
        **sent: Any,
    ) -> httpx.Response:
        """The answer after as many tries as it takes and as are allowed.

        repeatable: whether a request whose answer was lost may be sent again; one that was refused with 429 or 503 was not
        done, unless the service says that it may have been, and is sent again in any case. Every POST carries an idempotency
        key of its own. Raises the error that the service names, ServiceUnreachableError, or RequestFormatError where
        nothing can be sent.
        """
        named = {**(headers or {}), **({"idempotency-key": uuid.uuid4().hex} if method == "POST" else {})}
        lost = False
        for number in range(self._retries + 1):
            last = number == self._retries
            try:
                answer = self._try(method, path, headers=named, **sent)
            except httpx.TransportError as exc:
                never_sent = isinstance(exc, (httpx.ConnectError, httpx.ConnectTimeout))
                if last or not (repeatable or never_sent):
                    raise self._unreachable(exc, perhaps_done=not never_sent and method != "GET") from exc
                lost = lost or not never_sent
                self._wait(number, 0.0)
                continue
            unknown = answer.status_code == 503 and isinstance(error_of(answer), OutcomeUnknownError)
            lost = lost or unknown
            if answer.status_code in _AGAIN and not last and (repeatable or not unknown):
                asked = seconds_of(answer.headers.get("retry-after"))
                if asked <= _LONGEST_WAIT:  # for longer the caller has to say whether it waits; sooner is of no use
                    self._wait(number, asked)
                    continue
            if answer.is_success or (method == "DELETE" and lost and answer.status_code == 404):
                return answer  # such a 404: the try whose answer was lost had deleted it
            raise error_of(answer)
        raise AssertionError("the last try returns or raises")

    def _try(self, method: str, path: str, **sent: Any) -> httpx.Response:
        with contextlib.suppress(httpx.LocalProtocolError):  # its text may be the header that holds the key
            return self._http.request(method, path, **sent)
        raise RequestFormatError(
            "The request can't be sent: a header, or the length of its body, is not as HTTP has it."
        )

    def _unreachable(self, exc: httpx.TransportError, *, perhaps_done: bool) -> ServiceUnreachableError:
        more = " The request may have been done: look before you send it again." if perhaps_done else ""
        return ServiceUnreachableError(
            f"The service at {self._http.base_url} can't be reached: {type(exc).__name__}: {exc}.{more}"
        )

    def _wait(self, number: int, asked: float) -> None:
        """At least the seconds that the service asks for, growing with the tries, never in step with other clients."""
        seconds = max(asked, min(_LONGEST_WAIT, 0.2 * 2**number))
        self.sleep(seconds * self._jitter.uniform(1.0, 1.3))


def _sendable(key: str) -> str:
    """The key without the white space that a file has at its end. An error tells what is wrong with it, and never shows it."""
    text = key.strip() if isinstance(key, str) else None
    if not text:
        wrong = "it is no text" if text is None else "it is empty"
        raise InputError(f"The key can't be used: {wrong}. Give it as the service showed it once.")
    for place, char in enumerate(text, start=1):
        if not "!" <= char <= "~":
            kind = "white space" if char == " " else "a control character" if char.isascii() else "not ASCII"
            raise InputError(
                f"The key can't be used: character {place} of its {len(text)} is {kind}. Give it as the service showed it once."
            )
    return text


class Replayed:
    """A file as a body that begins anew with each try."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        while chunk := self._file.read(1 << 16):
            yield chunk


def seconds_of(retry_after: str | None) -> float:
    """Of a Retry-After header: seconds or a date (RFC 9110); 0 where there is none, or none that can be read."""
    if retry_after is None:
        return 0.0
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return max(0.0, moment.timestamp() - time.time())


def error_of(answer: httpx.Response) -> FacewardError:
    """The error of faceward that a problem names, with the fields that came with it."""
    try:
        problem = json.loads(answer.content)
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or not isinstance(problem.get("code"), str):
        kind: type[FacewardError] = NotFoundError if answer.status_code == 404 else FacewardError
        return kind(f"The service answered {answer.status_code} without saying why.")
    found = _kinds().get(problem["code"], FacewardError)
    error = found.__new__(found)  # what a constructor would put into words, the service has
    Exception.__init__(error, problem.get("detail", ""))
    for name, attribute in _FIELDS.items():
        value = problem.get(name)
        if value is not None:
            setattr(error, attribute, tuple(value) if isinstance(value, list) else value)
    if isinstance(error, CapacityError):
        error.retry_after = seconds_of(answer.headers.get("retry-after"))
    return error


def _kinds() -> dict[str, type[FacewardError]]:
    return {
        kind.code: kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, FacewardError) and kind is not FacewardError
    }
