"""Errors as problem documents (RFC 9457), with the statuses of the error tree."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from services.router.rest.schema import FieldProblem, Problem
from shashin.errors import ShashinError
from shashin.runtime.logging import get_logger

MEDIA_TYPE = "application/problem+json"
_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])")

log = get_logger(__name__)


class HttpError(Exception):
    """A request that cannot be read, before it is known what it asks for."""

    def __init__(
        self,
        status: HTTPStatus,
        reason: str,
        detail: str,
        *,
        errors: list[FieldProblem] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.errors = errors or []


def problem(
    status: int,
    reason: str,
    detail: str,
    *,
    retryable: bool = False,
    errors: list[FieldProblem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Return a problem document."""
    body = Problem(
        type=f"urn:shashin:problem:{reason}",
        title=_WORDS.sub(" ", reason).capitalize(),
        status=status,
        detail=detail,
        reason=reason,
        retryable=retryable,
        errors=errors or [],
    )
    return JSONResponse(
        body.model_dump(), status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {})
    )


def of_error(error: ShashinError) -> JSONResponse:
    """Return the problem document of an error."""
    headers = {}
    if error.retryable:
        headers["Retry-After"] = str(max(1, round(getattr(error, "retry_after_seconds", 1.0))))
    if error.http_status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return problem(
        error.http_status, error.reason, error.message, retryable=error.retryable, headers=headers
    )


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what the OpenAPI document says of these statuses of a route."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def add_problems(app: FastAPI) -> None:
    """Answer every error of an app with a problem document."""

    async def shashin_error(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ShashinError)
        return of_error(error)

    async def http_error(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HttpError)
        return problem(error.status, error.reason, error.detail, errors=error.errors)

    async def of_starlette(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        status = HTTPStatus(error.status_code)
        detail = {
            HTTPStatus.NOT_FOUND: f"nothing is at {request.url.path}; /v1/openapi.json has every path",
            HTTPStatus.METHOD_NOT_ALLOWED: f"{request.url.path} does not take {request.method}",
        }.get(status, str(error.detail))
        reason = status.phrase.title().replace(" ", "")
        return problem(status, reason, detail, headers=error.headers)

    async def invalid(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        errors = [
            FieldProblem(field=".".join(map(str, one["loc"][1:])), message=one["msg"])
            for one in error.errors()
        ]
        return invalid_fields(errors)

    async def unexpected(_request: Request, error: Exception) -> JSONResponse:
        log.error("a request failed unexpectedly", exc_info=error)
        return problem(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "UnexpectedFailure",
            "the router failed unexpectedly; its log has the reason",
        )

    app.add_exception_handler(ShashinError, shashin_error)
    app.add_exception_handler(HttpError, http_error)
    app.add_exception_handler(HTTPException, of_starlette)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, unexpected)


def invalid_fields(errors: list[FieldProblem]) -> JSONResponse:
    """Return the problem document of a request whose fields do not follow the schema."""
    return problem(HTTPStatus.BAD_REQUEST, "InvalidQuery", detail_of(errors), errors=errors)


def detail_of(errors: list[FieldProblem]) -> str:
    """Return the errors of fields in one line."""
    return "; ".join(f"{one.field or 'the query'}: {one.message}" for one in errors)
