"""Objects in a bucket of Amazon S3, or of a server with its API.

An object's ETag is its version: different contents have different ones, and writing the same bytes
again keeps it. Preconditions are ``If-None-Match: *`` and ``If-Match``, which the server has to
support, also for completing a multipart upload and for deletes. Nothing checks that it does, and
one that ignores them loses updates.

Servers other than AWS differ. Where it matters, both are accepted:
- Under ``If-Match``, a missing key is 404 at AWS and 412 at SeaweedFS.
- Of two conditional writes at once, one may be 409 at AWS, which is retried. SeaweedFS orders them
  with a lock that it polls every second; of uploads in parts that are completed at once, it lets more
  than one win now and then on a busy machine (8 of 60 times four, with 4.48).
- Completing an upload again, when its response was lost, may be 404 (NoSuchUpload) at AWS; at SeaweedFS
  it succeeds without a condition and is 412 with one.
- A checksum of a whole multipart object is an option that older servers do not have: what they
  return is then verified by its length only.
"""

from __future__ import annotations

import asyncio
import math
import os
import uuid
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import SplitResult, unquote

from shashin.errors import (
    ObjectNotFound,
    ObjectStoreError,
    ObjectStoreUnavailable,
    PreconditionFailed,
)
from shashin.objectstore.keys import check_key, check_prefix
from shashin.objectstore.protocol import ObjectInfo, OnlyIf, OpenedObject, Version
from shashin.objectstore.s3_client import S3Client, error_code
from shashin.objectstore.s3_reader import ObjectReader, base64_crc32
from shashin.runtime.files import open_regular

T = TypeVar("T")

PART_BYTES = 8 * 1024 * 1024
"""A file up to this size is uploaded in one request, a larger one in parts of this size."""
_MAX_PARTS = 10_000
"""The limit of S3: parts of a larger file are larger."""
_PARALLEL_PARTS = 2
"""Each holds one part in memory, and as much in buffers."""
_ABORT_SECONDS = 5.0
_CONTENT_TYPE = "application/octet-stream"


def open_bucket(location: SplitResult) -> S3ObjectStore | None:
    """Return the store of ``s3://BUCKET/FOLDER``; None for a location of another form."""
    return S3ObjectStore(location.netloc, unquote(location.path)) if location.netloc else None


class S3ObjectStore:
    """An ObjectStore of one bucket, its keys below ``prefix``."""

    def __init__(self, bucket: str, prefix: str = "") -> None:
        folder = prefix.strip("/")
        self._prefix = f"{folder}/" if folder else ""
        self._bucket = bucket
        self._name = f"s3://{bucket}/{self._prefix}".rstrip("/")
        self._client = S3Client()
        self._bucket_verified = False

    def __repr__(self) -> str:
        return f"S3ObjectStore({self._name})"

    async def stat(self, key: str) -> ObjectInfo:
        """Return an object's size and version."""
        name = self._object_name(key)
        try:
            found = await self._call(key, lambda s3: s3.head_object(Bucket=self._bucket, Key=name))
        except ObjectNotFound:
            await self._require_bucket(key)
            raise
        except ObjectStoreUnavailable:
            raise
        except ObjectStoreError:
            # A response to HEAD has no body, so its status is all that is known: a listing is
            # refused for the same reason, and says it.
            await self._first_listed(key, name)
            raise
        return ObjectInfo(key, int(found["ContentLength"]), Version(found["ETag"]))

    async def read(self, key: str) -> tuple[bytes, Version]:
        """Return an object's bytes and version."""
        while True:
            reader = await self._reader(key)
            try:
                return b"".join([chunk async for chunk in reader.chunks()]), reader.version
            except PreconditionFailed:
                continue  # overwritten or deleted meanwhile

    @asynccontextmanager
    async def opened(
        self, key: str, *, unless: Version | None = None
    ) -> AsyncIterator[OpenedObject | None]:
        """Open an object for reading, unless it has an ETag."""
        reader = self._new_reader(key)
        if not await reader.open(unless):
            yield None
            return
        try:
            async with aclosing(reader.chunks()) as chunks:
                yield OpenedObject(ObjectInfo(key, reader.size, reader.version), chunks)
        finally:
            reader.close()

    async def stream(self, key: str) -> AsyncGenerator[bytes]:
        """Return the bytes of the current version, in chunks."""
        async with self.opened(key) as found:
            assert found is not None
            async for chunk in found.chunks:
                yield chunk

    async def download(self, key: str, path: Path) -> None:
        """Copy an object to ``path``."""
        while True:
            reader = await self._reader(key)
            try:
                return await self._save(key, reader, path)
            except PreconditionFailed:
                continue  # overwritten or deleted meanwhile

    async def write(self, key: str, data: bytes, *, only_if: OnlyIf | None = None) -> Version:
        """Write an object, if the condition holds."""
        name = self._object_name(key)
        written = await self._conditionally(
            key,
            only_if,
            lambda s3: s3.put_object(
                Bucket=self._bucket,
                Key=name,
                Body=data,
                ContentType=_CONTENT_TYPE,
                **_condition(only_if),
            ),
        )
        return Version(written["ETag"])

    async def upload(self, key: str, path: Path, *, only_if: OnlyIf | None = None) -> Version:
        """Write an object from a file, if the condition holds."""
        self._object_name(key)
        try:
            file = await asyncio.to_thread(open_regular, path)
        except OSError as error:
            raise ObjectStoreError(
                f"there is no file {path} to upload as object {key}: {error.strerror}"
            ) from error
        try:
            size = os.fstat(file.fileno()).st_size
            if size <= PART_BYTES:
                return await self.write(key, await asyncio.to_thread(file.read), only_if=only_if)
            return await self._upload_in_parts(key, _Parts(file, size), only_if)
        except OSError as error:
            raise ObjectStoreUnavailable(f"{path} cannot be read: {error.strerror}") from error
        finally:
            await asyncio.to_thread(file.close)

    async def delete(self, key: str, *, only_if: OnlyIf | None = None) -> None:
        """Delete an object, if the condition holds."""
        name = self._object_name(key)
        if only_if == OnlyIf.absent():
            # S3 has no such condition, and there is nothing to delete if it holds.
            with suppress(ObjectNotFound):
                found = await self.stat(key)
                raise PreconditionFailed(
                    f"{self._where(key)} has version {found.version}, expected {only_if}: read it "
                    "again"
                )
            return
        try:
            await self._call(
                key,
                lambda s3: s3.delete_object(Bucket=self._bucket, Key=name, **_condition(only_if)),
            )
        except ObjectNotFound as error:
            if only_if is not None:
                raise self._missing(key, only_if) from error

    async def list_objects(self, prefix: str) -> list[ObjectInfo]:
        """Return the objects below ``prefix``, sorted by key."""
        check_prefix(prefix)
        found: list[ObjectInfo] = []
        after: dict[str, str] = {}
        while True:
            page = await self._listed(prefix, Prefix=self._prefix + prefix, **after)
            found += [
                ObjectInfo(
                    entry["Key"][len(self._prefix) :], int(entry["Size"]), Version(entry["ETag"])
                )
                for entry in page.get("Contents", ())
                # Consoles store an empty object for a folder.
                if not entry["Key"].endswith("/")
            ]
            if not page.get("IsTruncated"):
                return sorted(found)
            after = {"ContinuationToken": page["NextContinuationToken"]}

    async def close(self) -> None:
        """Close all connections; no operation may follow."""
        await self._client.close()

    def _object_name(self, key: str) -> str:
        check_key(key)
        return self._prefix + key

    def _where(self, key: str) -> str:
        return f"object {key} in {self._name}"

    async def _call(
        self, key: str, request: Callable[[Any], Awaitable[T]], *, retry: bool = True
    ) -> T:
        return await self._client.call(
            request, bucket=self._bucket, where=self._where(key), retry=retry
        )

    async def _conditionally(
        self, key: str, only_if: OnlyIf | None, request: Callable[[Any], Awaitable[T]]
    ) -> T:
        try:
            return await self._call(key, request)
        except ObjectNotFound as error:
            if only_if is None:
                raise
            raise self._missing(key, only_if) from error

    def _missing(self, key: str, only_if: OnlyIf) -> PreconditionFailed:
        return PreconditionFailed(
            f"{self._where(key)} does not exist, expected {only_if}: read it again"
        )

    async def _reader(self, key: str) -> ObjectReader:
        reader = self._new_reader(key)
        await reader.open()
        return reader

    def _new_reader(self, key: str) -> ObjectReader:
        return ObjectReader(self._client, self._bucket, self._object_name(key), self._where(key))

    async def _save(self, key: str, reader: ObjectReader, path: Path) -> None:
        scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
            file = await asyncio.to_thread(scratch.open, "wb")
            try:
                async with aclosing(reader.chunks()) as chunks:
                    async for chunk in chunks:
                        await asyncio.to_thread(file.write, chunk)
            finally:
                await asyncio.to_thread(file.close)
            await asyncio.to_thread(scratch.replace, path)
        except OSError as error:
            raise ObjectStoreUnavailable(
                f"{self._where(key)} cannot be saved as {path}: {error.strerror or error}"
            ) from error
        finally:
            await asyncio.to_thread(scratch.unlink, missing_ok=True)

    async def _upload_in_parts(self, key: str, parts: _Parts, only_if: OnlyIf | None) -> Version:
        name = self._object_name(key)
        started = await self._call(
            key,
            lambda s3: s3.create_multipart_upload(
                Bucket=self._bucket,
                Key=name,
                ContentType=_CONTENT_TYPE,
                ChecksumAlgorithm="CRC32",
                ChecksumType="FULL_OBJECT",
            ),
        )
        upload = {"Bucket": self._bucket, "Key": name, "UploadId": started["UploadId"]}
        try:
            uploaded = await self._upload_all(key, parts, upload)
            completed = await self._conditionally(
                key,
                only_if,
                lambda s3: s3.complete_multipart_upload(
                    **upload,
                    MultipartUpload={"Parts": uploaded},
                    ChecksumCRC32=base64_crc32(parts.crc32),
                    ChecksumType="FULL_OBJECT",
                    **_condition(only_if),
                ),
            )
        except BaseException:
            await self._abort(key, upload)
            raise
        return Version(completed["ETag"])

    async def _upload_all(
        self, key: str, parts: _Parts, upload: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        """Upload every part, some at once; returns what completes the upload."""
        uploaded: dict[int, dict[str, Any]] = {}

        async def upload_next() -> bool:
            part = await parts.next()
            if part is None:
                return False
            uploaded[part.number] = await self._upload_part(key, part, upload)
            return True

        async def upload_some() -> None:
            # A function of its own uploads each part, so that none is kept while the next is read.
            while await upload_next():
                pass

        workers = [asyncio.ensure_future(upload_some()) for _ in range(_PARALLEL_PARTS)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return [uploaded[number] for number in sorted(uploaded)]

    async def _upload_part(
        self, key: str, part: _Part, upload: Mapping[str, str]
    ) -> dict[str, Any]:
        named = {"PartNumber": part.number, "ChecksumCRC32": part.crc32}
        response = await self._call(
            key, lambda s3: s3.upload_part(**upload, **named, Body=part.data)
        )
        return {**named, "ETag": response["ETag"]}

    async def _abort(self, key: str, upload: Mapping[str, str]) -> None:
        """Discard the parts, as far as possible: the bucket's lifecycle deletes what is left."""
        with suppress(ObjectStoreError, TimeoutError):
            async with asyncio.timeout(_ABORT_SECONDS):
                await self._call(key, lambda s3: s3.abort_multipart_upload(**upload), retry=False)

    async def _require_bucket(self, key: str) -> None:
        """Check once that the bucket exists, so that a mistyped name does not look empty."""
        if self._bucket_verified:
            return
        try:
            await self._first_listed(key, self._prefix)
        except ObjectStoreError as error:
            # A reader of objects may lack permission to list them.
            if error_code(error.__cause__) != "AccessDenied":
                raise
        else:
            self._bucket_verified = True

    async def _first_listed(self, key: str, prefix: str) -> None:
        await self._listed(key, Prefix=prefix, MaxKeys=1)

    async def _listed(self, key: str, **parameters: Any) -> Mapping[str, Any]:
        page: Mapping[str, Any] = await self._call(
            key, lambda s3: s3.list_objects_v2(Bucket=self._bucket, **parameters)
        )
        return page


@dataclass(frozen=True)
class _Part:
    number: int
    """From 1 on."""
    data: bytes
    crc32: str


class _Parts:
    """The parts of a file, read one after the other by several uploads."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._bytes = part_bytes(size)
        self._reading = asyncio.Lock()
        self._count = 0
        self.crc32 = 0
        """Of everything that was read."""

    async def next(self) -> _Part | None:
        """Read the next part; None at the end of the file."""
        async with self._reading:
            return await asyncio.to_thread(self._next)

    def _next(self) -> _Part | None:
        data = self._file.read(self._bytes)
        if not data:
            return None
        self._count += 1
        self.crc32 = zlib.crc32(data, self.crc32)
        return _Part(self._count, data, base64_crc32(zlib.crc32(data)))


def part_bytes(size: int) -> int:
    """Return the size of the parts in which a file of ``size`` bytes is uploaded."""
    return max(PART_BYTES, math.ceil(size / _MAX_PARTS))


def _condition(only_if: OnlyIf | None) -> dict[str, str]:
    if only_if is None:
        return {}
    if only_if.version is None:
        return {"IfNoneMatch": "*"}
    return {"IfMatch": only_if.version}
