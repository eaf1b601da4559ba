"""Objects in a Google Cloud Storage bucket.

An object's generation is its version. CRC32C is verified on reads and writes, except for streams.
Authentication uses application default credentials; the emulator at ``STORAGE_EMULATOR_HOST``
(http://HOST:PORT) needs none.

What fake-gcs-server 1.56 does differently from the cloud, as far as it was met here:

- the precondition of a delete is ignored, so the generation is compared before it as well;
- a resumable upload appends whatever comes, and publishes what it has when it is asked for its state,
  so an upload that was cut cannot be continued there;
- the checksum that is declared for an upload is not compared, so the uploaded object's is compared
  here;
- a generation that was overwritten is gone at once, as in a bucket without soft delete;
- credentials are neither needed nor checked.
"""

from __future__ import annotations

import asyncio
import base64
import os
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import SplitResult, unquote

import google_crc32c
import requests
from google.api_core.exceptions import (
    Forbidden,
    GoogleAPIError,
    NotFound,
    TooManyRequests,
    Unauthorized,
)
from google.api_core.exceptions import PreconditionFailed as GooglePreconditionFailed
from google.api_core.exceptions import ServerError as GoogleServerError
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError, TransportError
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption
from google.cloud.storage.retry import DEFAULT_RETRY

from shashin.errors import (
    ObjectNotFound,
    ObjectStoreError,
    ObjectStoreUnavailable,
    PreconditionFailed,
)
from shashin.objectstore.gcs_upload import CHUNK_BYTES, ResumableUpload
from shashin.objectstore.keys import check_key, check_prefix
from shashin.objectstore.protocol import (
    STREAM_CHUNK_BYTES,
    ObjectInfo,
    OnlyIf,
    OpenedObject,
    Version,
)
from shashin.runtime.files import open_regular

T = TypeVar("T")

EMULATOR_VARIABLE = "STORAGE_EMULATOR_HOST"
CHECKSUM = "crc32c"

_THREADS = 8
_CONTENT_TYPE = "application/octet-stream"
_STREAM_REQUEST_BYTES = 8 * STREAM_CHUNK_BYTES
"""Bytes per request of a stream: a request's latency equals the transfer of a few MiB."""
_TIMEOUT_SECONDS = (5.0, 60.0)
"""Connect timeout, read timeout."""

_RETRY = DEFAULT_RETRY.with_timeout(10.0)
"""Longer outages are left to the caller, which logs its own retries."""


def open_bucket(location: SplitResult) -> GcsObjectStore | None:
    """Return the store of ``gs://BUCKET/FOLDER``; None for a location of another form."""
    return GcsObjectStore(location.netloc, unquote(location.path)) if location.netloc else None


class GcsObjectStore:
    """An ObjectStore of one bucket, its keys below ``prefix``."""

    def __init__(self, bucket: str, prefix: str = "") -> None:
        folder = prefix.strip("/")
        self._prefix = f"{folder}/" if folder else ""
        self._name = f"gs://{bucket}/{self._prefix}".rstrip("/")
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="gcs")
        self._bucket_name = bucket
        self._cached_bucket: storage.Bucket | None = None
        self._bucket_verified = False

    def __repr__(self) -> str:
        return f"GcsObjectStore({self._name})"

    async def stat(self, key: str) -> ObjectInfo:
        """Return an object's size and version."""
        return await self._run(key, lambda: self._info(self._newest(key)))

    async def read(self, key: str) -> tuple[bytes, Version]:
        """Return an object's bytes and version."""
        return await self._run(key, lambda: self._read(key))

    @asynccontextmanager
    async def opened(
        self, key: str, *, unless: Version | None = None
    ) -> AsyncIterator[OpenedObject | None]:
        """Open an object for reading, unless it has a generation."""
        newest = await self._run(key, lambda: self._newest(key))
        info = self._info(newest)
        if info.version == unless:
            yield None
            return
        async with aclosing(self._chunks(key, newest)) as chunks:
            yield OpenedObject(info, chunks)

    async def _chunks(self, key: str, newest: storage.Blob) -> AsyncGenerator[bytes]:
        for start in range(0, newest.size, _STREAM_REQUEST_BYTES):
            try:
                data = await self._run(key, partial(self._read_range, newest, start))
            except ObjectNotFound as error:
                raise PreconditionFailed(
                    f"object {key} in {self._name} was overwritten or deleted while being read: "
                    "read it again"
                ) from error
            for at in range(0, len(data), STREAM_CHUNK_BYTES):
                yield data[at : at + STREAM_CHUNK_BYTES]

    async def stream(self, key: str) -> AsyncGenerator[bytes]:
        """Return the bytes of the current generation, in chunks."""
        async with self.opened(key) as found:
            assert found is not None
            async for chunk in found.chunks:
                yield chunk

    async def download(self, key: str, path: Path) -> None:
        """Copy an object to ``path``."""
        await self._run(key, lambda: self._download(key, path))

    async def write(self, key: str, data: bytes, *, only_if: OnlyIf | None = None) -> Version:
        """Write an object, if the condition holds."""
        return await self._run(
            key, lambda: self._write(key, data, only_if), not_found_means_bucket=True
        )

    async def upload(self, key: str, path: Path, *, only_if: OnlyIf | None = None) -> Version:
        """Write an object from a file, if the condition holds."""
        return await self._run(
            key, lambda: self._upload(key, path, only_if), not_found_means_bucket=True
        )

    async def delete(self, key: str, *, only_if: OnlyIf | None = None) -> None:
        """Delete an object, if the condition holds."""
        try:
            if only_if is not None:
                # For emulators, which ignore the precondition of a delete. The store checks it
                # again atomically below.
                found = await self.stat(key)
                if not only_if.holds(found.version):
                    raise self._version_mismatch(key)
            await self._run(key, lambda: self._delete(key, only_if))
        except ObjectNotFound as error:
            if only_if is not None and not only_if.holds(None):
                raise self._version_mismatch(key) from error

    async def list_objects(self, prefix: str) -> list[ObjectInfo]:
        """Return the objects below ``prefix``, sorted by key."""
        return await self._run(prefix, lambda: self._list(prefix), not_found_means_bucket=True)

    async def close(self) -> None:
        """Close all connections and end the threads; no operation may follow."""
        await asyncio.to_thread(self._threads.shutdown)
        if self._cached_bucket is not None:
            self._cached_bucket.client.close()

    async def _run(
        self, key: str, do: Callable[[], T], *, not_found_means_bucket: bool = False
    ) -> T:
        where = f"object {key} in {self._name}"
        attempt = do if not_found_means_bucket else lambda: self._require_bucket_if_not_found(do)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, attempt)
        except NotFound as error:
            if not_found_means_bucket:
                raise self._no_bucket() from error
            raise ObjectNotFound(f"no {where}") from error
        except GooglePreconditionFailed as error:
            raise self._version_mismatch(key) from error
        except (Forbidden, Unauthorized) as error:
            raise ObjectStoreError(f"{where} may not be accessed: {error.message}") from error
        except (GoogleServerError, TooManyRequests, TransportError, DataCorruption) as error:
            raise ObjectStoreUnavailable(f"{where}: {error}") from error
        except (requests.RequestException, ConnectionError, TimeoutError) as error:
            raise ObjectStoreUnavailable(f"{where}: {error}") from error
        except GoogleAuthError as error:
            raise ObjectStoreError(
                f"{self._name} cannot be used without credentials ({error}): log in with "
                "application default credentials, or give the pod a service account"
            ) from error
        except GoogleAPIError as error:
            # The library's own retries are exhausted.
            raise ObjectStoreUnavailable(f"{where}: {error}") from error
        except OSError as error:
            raise ObjectStoreUnavailable(f"{where}: {error.strerror or error}") from error

    def _bucket(self) -> storage.Bucket:
        # Created lazily: looking up credentials may call a metadata server.
        if self._cached_bucket is None:
            emulator = os.environ.get(EMULATOR_VARIABLE)
            client = (
                storage.Client(project="emulated", credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]
                if emulator
                else storage.Client()
            )
            self._cached_bucket = client.bucket(self._bucket_name)
        return self._cached_bucket

    def _require_bucket_if_not_found(self, do: Callable[[], T]) -> T:
        """Call ``do``, distinguishing a missing bucket from a missing object."""
        try:
            return do()
        except NotFound:
            self._require_bucket()
            raise

    def _require_bucket(self) -> None:
        """Check once that the bucket exists, so that a mistyped name does not look empty."""
        if self._bucket_verified:
            return
        try:
            # A reader of objects may list them, but may lack permission to get the bucket.
            listing = self._bucket().list_blobs(
                prefix=self._prefix,
                max_results=1,
                fields="items(name)",
                timeout=_TIMEOUT_SECONDS,
                retry=_RETRY,
            )
            next(iter(listing), None)
        except NotFound as error:
            raise self._no_bucket() from error
        except Forbidden:
            return
        self._bucket_verified = True

    def _no_bucket(self) -> ObjectStoreError:
        return ObjectStoreError(
            f"there is no bucket {self._bucket_name}: create it, or configure another"
        )

    def _version_mismatch(self, key: str) -> PreconditionFailed:
        return PreconditionFailed(
            f"object {key} in {self._name} has a different version than expected: read it again"
        )

    def _blob(self, key: str, generation: int | None = None) -> storage.Blob:
        check_key(key)
        return self._bucket().blob(self._prefix + key, generation=generation)

    def _newest(self, key: str) -> storage.Blob:
        """Return an object's metadata, which include the current generation."""
        blob = self._blob(key)
        blob.reload(timeout=_TIMEOUT_SECONDS, retry=_RETRY)
        return blob

    def _info(self, blob: storage.Blob) -> ObjectInfo:
        key = blob.name[len(self._prefix) :]
        return ObjectInfo(key, int(blob.size), _version(blob))

    def _read(self, key: str) -> tuple[bytes, Version]:
        while True:
            newest = self._newest(key)
            try:
                data = self._blob(key, newest.generation).download_as_bytes(
                    checksum=CHECKSUM, timeout=_TIMEOUT_SECONDS, retry=_RETRY
                )
            except NotFound:
                # It was overwritten in between, or deleted: then the next reload raises NotFound.
                continue
            return data, _version(newest)

    def _read_range(self, newest: storage.Blob, start: int) -> bytes:
        blob = self._bucket().blob(newest.name, generation=newest.generation)
        data: bytes = blob.download_as_bytes(
            start=start,
            end=start + _STREAM_REQUEST_BYTES - 1,
            checksum=None,  # the store only has a checksum of the whole object
            timeout=_TIMEOUT_SECONDS,
            retry=_RETRY,
        )
        return data

    def _download(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            while not self._downloaded(key, scratch):
                pass
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)

    def _downloaded(self, key: str, scratch: Path) -> bool:
        """Copy the newest generation; returns False if it was overwritten in the meantime.

        After a broken connection, the library continues from where it was, with the generation that
        it began with.
        """
        try:
            self._blob(key).download_to_filename(
                str(scratch), checksum=CHECKSUM, timeout=_TIMEOUT_SECONDS, retry=_RETRY
            )
        except NotFound:
            self._newest(key)  # raises NotFound if there is no such object
            return False
        return True

    def _write(self, key: str, data: bytes, only_if: OnlyIf | None) -> Version:
        blob = self._blob(key)
        blob.upload_from_string(
            data,
            content_type=_CONTENT_TYPE,
            if_generation_match=_generation_match(only_if),
            checksum=CHECKSUM,
            timeout=_TIMEOUT_SECONDS,
            retry=_RETRY,
        )
        return _version(blob)

    def _upload(self, key: str, path: Path, only_if: OnlyIf | None) -> Version:
        blob = self._blob(key)
        try:
            file = open_regular(path)
        except OSError as error:
            raise ObjectStoreError(
                f"there is no file {path} to upload as object {key}: {error.strerror}"
            ) from error
        with file:
            size = os.fstat(file.fileno()).st_size
            if size <= CHUNK_BYTES:
                return self._write(key, file.read(), only_if)
            # Declared in advance, so that the store never publishes anything else.
            blob.crc32c = _crc32c(file)
            session = blob.create_resumable_upload_session(
                content_type=_CONTENT_TYPE,
                size=size,
                if_generation_match=_generation_match(only_if),
                checksum=None,
                timeout=_TIMEOUT_SECONDS,
                retry=_RETRY,
            )
            upload = ResumableUpload(session, file, size, timeout=_TIMEOUT_SECONDS)
            uploaded = upload.run(_RETRY)
        version = Version(str(uploaded["generation"]))
        if uploaded.get("crc32c") != blob.crc32c:
            # An emulator that ignores the declared checksum.
            self._delete(key, OnlyIf.unchanged(version))
            raise ObjectStoreUnavailable(
                f"object {key} in {self._name}: checksum mismatch: it was damaged on its way"
            )
        return version

    def _delete(self, key: str, only_if: OnlyIf | None) -> None:
        self._blob(key).delete(
            if_generation_match=_generation_match(only_if),
            timeout=_TIMEOUT_SECONDS,
            retry=_RETRY,
        )

    def _list(self, prefix: str) -> list[ObjectInfo]:
        check_prefix(prefix)
        found = self._bucket().list_blobs(
            prefix=self._prefix + prefix,
            fields="items(name,size,generation),nextPageToken",
            timeout=_TIMEOUT_SECONDS,
            retry=_RETRY,
        )
        return sorted(self._info(blob) for blob in found)


def _version(blob: storage.Blob) -> Version:
    return Version(str(blob.generation))


def _crc32c(file: BinaryIO) -> str:
    """Return the CRC32C of a file as the API has it; leaves its position at the end."""
    crc32c = 0
    while chunk := file.read(STREAM_CHUNK_BYTES):
        crc32c = google_crc32c.extend(crc32c, chunk)
    return base64.b64encode(crc32c.to_bytes(4, "big")).decode("ascii")


def _generation_match(only_if: OnlyIf | None) -> int | None:
    """Convert the precondition for the API, where 0 means that no object exists."""
    if only_if is None:
        return None
    return 0 if only_if.version is None else int(only_if.version)
