"""Reads one version of an object in S3, across broken connections, and verifies its checksum."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from botocore.exceptions import FlexibleChecksumError

from shashin.errors import (
    ObjectNotFound,
    ObjectStoreError,
    ObjectStoreUnavailable,
    PreconditionFailed,
)
from shashin.objectstore.protocol import STREAM_CHUNK_BYTES, Version
from shashin.objectstore.s3_client import (
    BROKEN_CONNECTION,
    S3Client,
    is_not_modified,
    patience,
    translated,
)

_MD5 = re.compile(r'"[0-9a-f]{32}"')


class ObjectReader:
    """Reads the version of an object that was current when it was opened."""

    def __init__(self, client: S3Client, bucket: str, name: str, where: str) -> None:
        self._client = client
        self._bucket = bucket
        self._name = name
        """The object's key in the bucket."""
        self._where = where
        self._response: Mapping[str, Any] = {}

    @property
    def version(self) -> Version:
        """The version that is read."""
        return Version(self._response["ETag"])

    @property
    def size(self) -> int:
        """The object's size in bytes."""
        return int(self._response["ContentLength"])

    async def open(self, unless: Version | None = None) -> bool:
        """Request the current version; returns False if it is still ``unless``.

        Raises:
            ObjectNotFound: when no object has this key.
        """
        try:
            self._response = await self._request(**({"IfNoneMatch": unless} if unless else {}))
        except ObjectStoreError as error:
            if unless and is_not_modified(error.__cause__):
                return False
            raise
        return True

    def close(self) -> None:
        """Drop what was not read; needed unless all chunks were."""
        if self._response:
            self._response["Body"].close()

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Yield all bytes in chunks of at most ``STREAM_CHUNK_BYTES``; then verify the checksum.

        A connection that breaks is replaced, from the first missing byte on.

        Raises:
            PreconditionFailed: when the object was overwritten or deleted meanwhile.
            ObjectStoreUnavailable: also when the bytes do not match the object's checksum.
        """
        body, size = self._response["Body"], self.size
        checksum = _Checksum(self._response)
        retries = patience()
        position = 0
        while True:
            try:
                async with body:
                    while chunk := await body.read(STREAM_CHUNK_BYTES):
                        position += len(chunk)
                        checksum.update(chunk)
                        yield chunk
                        # Here, so that the time that the reader of the chunks takes is not counted.
                        retries.progress()
            except FlexibleChecksumError as error:
                raise self._damaged() from error
            except BROKEN_CONNECTION as error:
                if position < size:
                    await retries.pause(translated(error, where=self._where, bucket=self._bucket))
            if position >= size:
                break
            body = await self._reopened(position)
        if not checksum.matches():
            raise self._damaged()

    async def _request(self, **parameters: str) -> Mapping[str, Any]:
        def get(client: Any) -> Any:
            return client.get_object(
                Bucket=self._bucket, Key=self._name, ChecksumMode="ENABLED", **parameters
            )

        response: Mapping[str, Any] = await self._client.call(
            get, bucket=self._bucket, where=self._where
        )
        return response

    async def _reopened(self, position: int) -> Any:
        """Return the body of the same version from ``position`` on."""
        try:
            response = await self._request(Range=f"bytes={position}-", IfMatch=self.version)
        except (ObjectNotFound, PreconditionFailed) as error:
            raise PreconditionFailed(
                f"{self._where} was overwritten or deleted while being read: read it again"
            ) from error
        if not response.get("ContentRange", "").startswith(f"bytes {position}-"):
            raise ObjectStoreError(
                f"{self._where}: the server does not support ranged reads, which continue a broken "
                "one: use another server"
            )
        return response["Body"]

    def _damaged(self) -> ObjectStoreUnavailable:
        return ObjectStoreUnavailable(
            f"{self._where}: checksum mismatch: it was damaged on its way, or in the store"
        )


class _Checksum:
    """The checksum of a whole object, compared with the one that the store reports, if any.

    Preferably CRC32, which this adapter has the store keep; else the ETag, which is the MD5 of an
    object that was uploaded in one piece and is not encrypted with a key of KMS or of a client.
    """

    def __init__(self, response: Mapping[str, Any]) -> None:
        crc32: str | None = response.get("ChecksumCRC32")
        composite = response.get("ChecksumType") == "COMPOSITE" or "-" in (crc32 or "")
        self._crc32 = None if composite else crc32
        self._running_crc32 = 0
        encrypted = "kms" in response.get("ServerSideEncryption", "") or response.get(
            "SSECustomerAlgorithm"
        )
        etag: str = response["ETag"]
        self._md5 = etag.strip('"') if _MD5.fullmatch(etag) and not encrypted else None
        self._running_md5 = hashlib.md5(usedforsecurity=False)

    def update(self, chunk: bytes) -> None:
        if self._crc32 is not None:
            self._running_crc32 = zlib.crc32(chunk, self._running_crc32)
        elif self._md5 is not None:
            self._running_md5.update(chunk)

    def matches(self) -> bool:
        if self._crc32 is not None:
            return base64_crc32(self._running_crc32) == self._crc32
        return self._md5 is None or self._running_md5.hexdigest() == self._md5


def base64_crc32(crc32: int) -> str:
    """Return a CRC32 as S3 has it in headers."""
    return base64.b64encode(crc32.to_bytes(4, "big")).decode("ascii")
