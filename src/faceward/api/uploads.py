"""Reads the body of a request into the model of its route: JSON, or a form whose files are the images.

A dependency of the routes instead of FastAPI's own parameters, so that the key, the rate and the queue are looked at before
a byte is read, and so that every body has the same limits and the same errors.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from faceward.api.admission import ClientGoneError
from faceward.errors import FacewardError, InputError, RequestFormatError, UnsupportedMediaTypeError
from faceward.http_types.fields import MAX_IMAGES, MAX_REGIONS
from faceward.types import NamedImage

Body = TypeVar("Body", bound=BaseModel)

JSON, FORM = "application/json", "multipart/form-data"
MOST_PROBLEMS = 20
"""Named in one answer; the rest is of the same kind."""
_LONGEST_FILE_NAME = 100
_MOST_FIELDS = MAX_REGIONS + 20
_MOST_FIELD_BYTES = 64 * 1024
_MOST_JSON_PARTS = 50_000
"""Several times what any route takes; each costs some 80 bytes of memory once it is read, and may be 3 in the body."""


class InvalidBodyError(InputError):
    """A body or parameters that do not fit the route, field by field."""

    code = "invalid_value"

    def __init__(self, problems: list[dict[str, str]]) -> None:
        first = problems[0]
        super().__init__(f"The request can't be used: {first['field']}: {first['message']}.")
        self.problems = problems


def body_of(model: type[Body], *, images: bool = False) -> Callable[[Request], Awaitable[Body]]:
    """A dependency that reads `model`. images: a form may be sent as well as JSON."""
    lists = frozenset(
        name
        for name, field in model.model_fields.items()
        if name in ("images", "region") and _takes_a_list(field.annotation)
    )

    async def read(request: Request) -> Body:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == JSON:
            given = await _json(request)
        elif images and kind == FORM:
            given = await _form(request, lists)
        else:
            taken = f"{JSON} or {FORM}" if images else JSON
            raise UnsupportedMediaTypeError(f"A body of type {kind or '(none)'!r} can't be read here: send {taken}.")
        try:
            return model.model_validate(given)
        except ValidationError as exc:
            raise InvalidBodyError(
                [described(error) for error in exc.errors(include_url=False)[:MOST_PROBLEMS]]
            ) from None

    return read


def images_of(request: Request, field: str, images: Sequence[bytes]) -> list[bytes | NamedImage]:
    """The images of a field with the names of their files, where a form gave them some: for errors, never for the log."""
    names: Mapping[str, Sequence[str]] = getattr(request.state, "file_names", {})
    given = names.get(field) or [""] * len(images)
    return [NamedImage(image, name) if name else image for image, name in zip(images, given, strict=True)]


def request_body(model: type[BaseModel], *, images: bool = False) -> dict[str, Any]:
    """What OpenAPI says of such a body."""
    content: dict[str, Any] = {JSON: {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}
    if images:
        content[FORM] = {"schema": form_schema(model)}
    return {"requestBody": {"required": True, "content": content}}


def form_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The model's schema as a form has it: its images are files, and nothing is null."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    for name, each in schema["properties"].items():
        if each.get("default", ...) is None:
            del each["default"]
        match each.get("anyOf"):
            case [only, {"type": "null"}]:
                del each["anyOf"]
                each |= only
        if each.get("format") == "byte":
            schema["properties"][name] = {"type": "string", "format": "binary"}
        elif each.get("items", {}).get("format") == "byte":
            each["items"] = {"type": "string", "format": "binary"}
    return schema


def described(error: ErrorDetails) -> dict[str, str]:
    """A problem of one field. Never the value: it may be an image or an embedding."""
    message = str(error["ctx"]["error"]) if error["type"] == "value_error" and "ctx" in error else error["msg"]
    field = ".".join(str(part)[:100] for part in error["loc"][:8]) or "body"
    return {"field": field, "message": message[:300]}


async def _json(request: Request) -> Any:
    content = await _whole(request)
    if sum(content.count(mark) for mark in (b",", b"[", b"{")) > _MOST_JSON_PARTS:
        raise RequestFormatError(f"The body is JSON of more than {_MOST_JSON_PARTS} values; no route takes as many.")
    try:
        return from_json(content, allow_inf_nan=False)
    except ValueError as exc:
        raise RequestFormatError(f"The body is not JSON: {str(exc)[:200]}.") from None
    except RecursionError as exc:
        raise RequestFormatError("The body is JSON nested too deeply.") from exc


async def _whole(request: Request) -> bytes:
    try:
        return await request.body()
    except ClientDisconnect as exc:
        raise ClientGoneError from exc


async def _form(request: Request, lists: frozenset[str]) -> dict[str, Any]:
    """Fields as text, files as bytes; those of `lists` may come several times. The files' names are kept beside the request."""
    given: dict[str, Any] = {}
    names: dict[str, list[str]] = defaultdict(list)
    request.state.file_names = names
    charset = parse_options_header(request.headers["content-type"])[1].get(b"charset", b"utf-8")
    if charset.lower() not in (b"utf-8", b"utf8"):  # any of Python's codecs would be had by its name, and some are slow
        raise RequestFormatError("The form can't be read: its names and texts must be UTF-8, without another charset.")
    try:
        async with request.form(max_files=MAX_IMAGES, max_fields=_MOST_FIELDS, max_part_size=_MOST_FIELD_BYTES) as form:
            for name, value in form.multi_items():
                part = await value.read() if isinstance(value, UploadFile) else value
                file_name = value.filename if isinstance(value, UploadFile) else None
                names[name].append((file_name or "")[:_LONGEST_FILE_NAME])
                if name in lists:
                    given.setdefault(name, []).append(part)
                elif name in given:
                    raise RequestFormatError(f"The field {name[:100]!r} was sent more than once.")
                else:
                    given[name] = part
    except ClientDisconnect as exc:
        raise ClientGoneError from exc
    except HTTPException as exc:
        raise RequestFormatError(f"The form can't be read: {exc.detail}") from exc
    except FacewardError:
        raise
    except (UnicodeDecodeError, LookupError) as exc:
        raise RequestFormatError("The form can't be read: its names or texts are not UTF-8.") from exc
    return given


def _takes_a_list(annotation: Any) -> bool:
    return "list" in str(annotation)
