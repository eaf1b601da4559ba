"""A client of S3 for many requests: opened when it is needed, with retries and translated errors.

Credentials, region, profile and endpoint come from boto's standard chain: environment variables
(``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL`` for a server other than AWS), the shared
configuration files, web identity, the container's or the machine's role.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from http import HTTPStatus
from typing import Any, TypeVar

import aioboto3
import aiohttp
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from shashin.errors import (
    ObjectNotFound,
    ObjectStoreError,
    ObjectStoreUnavailable,
    PreconditionFailed,
)
from shashin.runtime.backoff import Patience

T = TypeVar("T")

RETRY_SECONDS = 10.0
"""Longer outages are left to the caller, which logs its own retries."""

ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")

_DEFAULT_REGION = "us-east-1"
_CONNECT_TIMEOUT_SECONDS = 5.0
_READ_TIMEOUT_SECONDS = 60.0
_CONNECTIONS = 16
_LONGEST_PAUSE_SECONDS = 2.0

BROKEN_CONNECTION = (
    HTTPClientError,
    ConnectionError,
    IncompleteReadError,
    aiohttp.ClientError,
    TimeoutError,
)
"""No response, or one that ended early."""

_NO_CREDENTIALS = (
    CredentialRetrievalError,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

_WRONG_CREDENTIALS = {
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}

_TRANSIENT = {
    "BadDigest",  # damaged on its way to the store
    "ConditionalRequestConflict",  # a concurrent write: the next attempt finds it completed
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "XAmzContentChecksumMismatch",
}
_TRANSIENT_STATUSES = {408, 429, 500, 502, 503, 504}


class S3Client:
    """Requests to S3 as one process makes them, to any bucket.

    The connections belong to the event loop of the first request; ``close`` closes them.
    """

    def __init__(self) -> None:
        self._opened = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._client: Any = None

    async def call(
        self, request: Callable[[Any], Awaitable[T]], *, bucket: str, where: str, retry: bool = True
    ) -> T:
        """Return the result of ``request``, which gets boto's client; retried if that may help.

        ``where`` names the object or prefix in errors.

        Raises:
            ObjectNotFound: when the object does not exist.
            PreconditionFailed: when the request's condition does not hold.
            ObjectStoreUnavailable: when the store does not respond, is overloaded, or the
                connection breaks, after retries of up to ``RETRY_SECONDS``.
            ObjectStoreError: when the store refuses the request.
        """
        try:
            client = await self._open()
        except BotoCoreError as error:
            raise translated(error, bucket=bucket, where=where) from error
        retries = patience()
        while True:
            try:
                return await request(client)
            except (ClientError, BotoCoreError, aiohttp.ClientError, TimeoutError) as error:
                failure = translated(error, bucket=bucket, where=where)
                if not (retry and is_transient(error)):
                    raise failure from error
                await retries.pause(failure)

    async def close(self) -> None:
        """Close all connections; no request may follow."""
        await self._opened.aclose()
        self._client = None

    async def _open(self) -> Any:
        # Opened lazily: it loads the description of the API, and looking up credentials may call a
        # metadata server.
        async with self._opening:
            if self._client is None:
                session = aioboto3.Session()
                self._client = await self._opened.enter_async_context(
                    session.client(
                        "s3",
                        # boto alone does not read AWS_REGION, which Kubernetes sets on AWS.
                        region_name=session.region_name
                        or os.environ.get("AWS_REGION")
                        or _DEFAULT_REGION,
                        config=_config(),
                    )
                )
        return self._client


def patience() -> Patience:
    """Return what bounds the retries of one operation."""
    return Patience(RETRY_SECONDS, longest_pause=_LONGEST_PAUSE_SECONDS)


def is_transient(error: Exception) -> bool:
    """Return whether the same request may succeed a moment later."""
    if isinstance(error, ClientError):
        return error_code(error) in _TRANSIENT or _status(error) in _TRANSIENT_STATUSES
    return isinstance(error, BROKEN_CONNECTION)


def is_not_modified(error: BaseException | None) -> bool:
    """Return whether a conditional read was answered with "not modified"."""
    return isinstance(error, ClientError) and _status(error) == HTTPStatus.NOT_MODIFIED


def translated(error: Exception, *, bucket: str, where: str) -> ObjectStoreError:
    """Return the error of this project for an error of boto; ``where`` names the object."""
    if isinstance(error, ClientError):
        return _refusal(error, bucket, where)
    if isinstance(error, _NO_CREDENTIALS):
        return ObjectStoreError(
            f"bucket {bucket} cannot be used without credentials ({error}): set AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or give the pod or machine a role"
        )
    if isinstance(error, (*BROKEN_CONNECTION, FlexibleChecksumError)):
        return ObjectStoreUnavailable(f"{where}: {error or type(error).__name__}")
    return ObjectStoreError(f"{where} cannot be requested: {error}")


def _refusal(error: ClientError, bucket: str, where: str) -> ObjectStoreError:
    code, status = error_code(error), _status(error)
    says = f"{code}: {error.response.get('Error', {}).get('Message', '')}".rstrip(": ")
    if code == "NoSuchBucket":
        return ObjectStoreError(f"there is no bucket {bucket}: create it, or configure another")
    if is_transient(error) or code == "NoSuchUpload":  # the upload has to be started again
        return ObjectStoreUnavailable(f"{where}: {says}")
    if status == HTTPStatus.PRECONDITION_FAILED:
        return PreconditionFailed(f"{where} has a different version than expected: read it again")
    if status == HTTPStatus.NOT_FOUND:
        return ObjectNotFound(f"no {where}")
    remedy = _remedy(code, status)
    if remedy is not None:
        return ObjectStoreError(f"{where} may not be accessed ({says}): {remedy}")
    return ObjectStoreError(f"{where} was refused ({says}, status {status})")


def _remedy(code: str, status: int) -> str | None:
    """Return what to do about denied access; None for another error."""
    if code in _WRONG_CREDENTIALS:
        return "the credentials are wrong or have expired: renew them, or configure others"
    if code == "RequestTimeTooSkewed":
        return "set this machine's clock"
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return (
            "allow these credentials to get, put, delete and list objects (without permission to "
            "list, a missing object is also refused)"
        )
    return None


def error_code(error: BaseException | None) -> str:
    """Return the code of an error response of S3, such as ``AccessDenied``; else nothing."""
    if not isinstance(error, ClientError):
        return ""
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    metadata: Mapping[str, Any] = error.response.get("ResponseMetadata", {})
    return int(metadata.get("HTTPStatusCode", 0))


def _config() -> Config:
    # A server other than AWS is reached by its own name: its buckets have no subdomains.
    own_server = any(os.environ.get(name) for name in ENDPOINT_VARIABLES)
    return Config(
        connect_timeout=_CONNECT_TIMEOUT_SECONDS,
        read_timeout=_READ_TIMEOUT_SECONDS,
        max_pool_connections=_CONNECTIONS,
        # This module retries: boto's own retries have no limit in time.
        retries={"total_max_attempts": 1},
        s3={"addressing_style": "path"} if own_server else None,
    )
