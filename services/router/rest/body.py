"""Reads the body of a search: JSON, or a form with files and the query as JSON. Limits come first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from services.router.queries import MAX_PARTS
from services.router.rest.problems import HttpError, detail_of
from services.router.rest.schema import FieldProblem, SearchQuery

MAX_BODY_BYTES = 32 * 1024 * 1024
BODY_SECONDS = 10.0
"""For how long a body may take to arrive."""

_JSON, _FORM = "application/json", "multipart/form-data"
_QUERY, _PHOTO = "query", "photo"


@dataclass(frozen=True)
class SearchBody:
    """What a search asks for."""

    query: SearchQuery
    uploads: Mapping[str, bytes] = field(default_factory=dict)
    """The files of a form by name."""


class _InMemory(MultiPartParser):
    spool_max_size = MAX_BODY_BYTES
    """Files never reach the disk: the whole body is in memory already."""


async def search_body(request: Request) -> SearchBody:
    """Read the body of a request.

    Raises:
        HttpError: when it is too large or too slow, of another type, or does not follow the schema.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in {_JSON, _FORM}:
        raise HttpError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            f"the body is {media_type or 'of no type'}; expected {_JSON}, or {_FORM} with a file",
        )
    body = await _read(request)
    if media_type == _JSON:
        return SearchBody(query_in(body))
    return await _form(request.headers, body)


async def _read(request: Request) -> bytes:
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise _too_large(f"{length} bytes")
    chunks, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > MAX_BODY_BYTES:
                    raise _too_large("more")
                chunks.append(chunk)
    except TimeoutError:
        raise HttpError(
            HTTPStatus.REQUEST_TIMEOUT,
            "RequestTimeout",
            f"the body did not arrive within {BODY_SECONDS:.0f} seconds",
        ) from None
    return b"".join(chunks)


def _too_large(size: str) -> HttpError:
    return HttpError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "RequestTooLarge",
        f"the body has {size}; expected at most {MAX_BODY_BYTES}: send smaller photos, 256 pixels on the "
        "short side are enough",
    )


async def _form(headers: Headers, body: bytes) -> SearchBody:
    async def stream() -> AsyncGenerator[bytes]:
        yield body

    parser = _InMemory(
        headers, stream(), max_files=MAX_PARTS, max_fields=MAX_PARTS, max_part_size=MAX_BODY_BYTES
    )
    try:
        form: FormData = await parser.parse()
    except (MultiPartException, UnicodeDecodeError, KeyError) as error:
        raise HttpError(
            HTTPStatus.BAD_REQUEST, "InvalidQuery", f"the form is malformed: {error}"
        ) from None
    uploads: dict[str, bytes] = {}
    text = "{}"
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            uploads[name] = await value.read()
        elif name == _QUERY:
            text = value
        else:
            raise HttpError(
                HTTPStatus.BAD_REQUEST,
                "InvalidQuery",
                f"the form has a field {name[:100]!r}; expected {_QUERY}, in JSON, and files",
            )
    query = query_in(text.encode())
    wanted = {part.upload for part in query.parts if part.upload is not None}
    if unknown := wanted - uploads.keys():
        raise HttpError(
            HTTPStatus.BAD_REQUEST,
            "InvalidQuery",
            f"the form has no file {min(unknown)!r}, which is the upload of one of parts",
        )
    if unused := uploads.keys() - wanted - {_PHOTO}:
        raise HttpError(
            HTTPStatus.BAD_REQUEST,
            "InvalidQuery",
            f"the form has a file {min(unused)[:100]!r} that no part names as its upload; a file to search "
            f"for by itself is called {_PHOTO}",
        )
    return SearchBody(query, uploads)


def query_in(text: bytes) -> SearchQuery:
    """Read a query in JSON.

    Raises:
        HttpError: when it does not follow the schema.
    """
    try:
        return SearchQuery.model_validate_json(text)
    except ValidationError as invalid:
        errors = [
            FieldProblem(field=".".join(map(str, one["loc"])), message=one["msg"])
            for one in invalid.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise HttpError(
            HTTPStatus.BAD_REQUEST, "InvalidQuery", detail_of(errors), errors=errors
        ) from None
