"""Objects in a Google Cloud Storage bucket.

The client library checks CRC32C both ways. Credentials are the application default ones;
``STORAGE_EMULATOR_HOST`` (http://HOST:PORT) names an emulator, which needs none.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

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
from shashin.objectstore.keys import check_key, check_prefix
from shashin.objectstore.protocol import ObjectInfo

T = TypeVar("T")

EMULATOR_VARIABLE = "STORAGE_EMULATOR_HOST"
CHECKSUM = "crc32c"

_THREADS = 8
_TIMEOUT_SECONDS = (5.0, 60.0)
"""To connect; without a byte."""

_RETRY = DEFAULT_RETRY.with_timeout(10.0)
"""What goes on longer is for the caller to wait for, who says so in its log."""


class GcsObjectStore:
    """An ObjectStore of one bucket, its keys below ``prefix``.

    A write that is repeated by the client library after a lost answer can meet its own result and
    raise PreconditionFailed: whoever writes under a condition has to look at what is there then.
    """

    def __init__(self, bucket: str, prefix: str = "") -> None:
        folder = prefix.strip("/")
        self._prefix = f"{folder}/" if folder else ""
        self._name = f"gs://{bucket}/{self._prefix}".rstrip("/")
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="gcs")
        self._bucket_name = bucket
        self._bucket_made: storage.Bucket | None = None
        self._bucket_seen = False

    def __repr__(self) -> str:
        return f"GcsObjectStore({self._name})"

    async def read(self, key: str) -> tuple[bytes, int]:
        """Return an object's bytes and generation."""
        return await self._run(key, lambda: self._read(key))

    async def download(self, key: str, path: Path) -> None:
        """Copy an object to ``path``."""
        await self._run(key, lambda: self._download(key, path))

    async def write(self, key: str, data: bytes, *, if_generation_match: int | None = None) -> int:
        """Write an object, if the condition holds."""

        def put(blob: storage.Blob) -> None:
            blob.upload_from_string(
                data,
                content_type="application/octet-stream",
                if_generation_match=if_generation_match,
                checksum=CHECKSUM,
                timeout=_TIMEOUT_SECONDS,
                retry=_RETRY,
            )

        return await self._run(key, lambda: self._put(key, put), needs_only_the_bucket=True)

    async def upload(self, key: str, path: Path, *, if_generation_match: int | None = None) -> int:
        """Write an object from a file, if the condition holds."""

        def put(blob: storage.Blob) -> None:
            if not path.is_file():
                raise ObjectStoreError(f"there is no file {path} to be object {key}")
            blob.upload_from_filename(
                str(path),
                content_type="application/octet-stream",
                if_generation_match=if_generation_match,
                checksum=CHECKSUM,
                timeout=_TIMEOUT_SECONDS,
                retry=_RETRY,
            )

        return await self._run(key, lambda: self._put(key, put), needs_only_the_bucket=True)

    async def list_objects(self, prefix: str) -> list[ObjectInfo]:
        """Return the objects below ``prefix``, sorted by key."""
        return await self._run(prefix, lambda: self._list(prefix), needs_only_the_bucket=True)

    async def _run(
        self, key: str, do: Callable[[], T], *, needs_only_the_bucket: bool = False
    ) -> T:
        where = f"object {key} in {self._name}"
        attempt = do if needs_only_the_bucket else lambda: self._in_the_bucket(do)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, attempt)
        except NotFound as error:
            if needs_only_the_bucket:
                raise self._no_bucket() from error
            raise ObjectNotFound(f"no {where}") from error
        except GooglePreconditionFailed as error:
            raise PreconditionFailed(f"{where} has another generation than expected") from error
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
            # The library's own retries came to their end.
            raise ObjectStoreUnavailable(f"{where}: {error}") from error
        except OSError as error:
            raise ObjectStoreUnavailable(f"{where}: {error.strerror or error}") from error

    def _bucket(self) -> storage.Bucket:
        # Made at the first call: looking for credentials may ask a metadata server.
        if self._bucket_made is None:
            emulator = os.environ.get(EMULATOR_VARIABLE)
            client = (
                storage.Client(project="emulated", credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]
                if emulator
                else storage.Client()
            )
            self._bucket_made = client.bucket(self._bucket_name)
        return self._bucket_made

    def _in_the_bucket(self, do: Callable[[], T]) -> T:
        """Do it, and tell a bucket that is missing from an object that is."""
        try:
            return do()
        except NotFound:
            self._require_bucket()
            raise

    def _require_bucket(self) -> None:
        """Look once for the bucket, so that a mistyped one is not taken for an empty one."""
        if self._bucket_seen:
            return
        try:
            # Whoever reads objects may list them, but need not be allowed to ask for the bucket.
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
        self._bucket_seen = True

    def _no_bucket(self) -> ObjectStoreError:
        return ObjectStoreError(
            f"there is no bucket {self._bucket_name}: create it, or name another"
        )

    def _blob(self, key: str, generation: int | None = None) -> storage.Blob:
        check_key(key)
        return self._bucket().blob(self._prefix + key, generation=generation)

    def _read(self, key: str) -> tuple[bytes, int]:
        while True:
            newest = self._blob(key)
            newest.reload(timeout=_TIMEOUT_SECONDS, retry=_RETRY)
            generation = int(newest.generation)
            try:
                data = self._blob(key, generation).download_as_bytes(
                    checksum=CHECKSUM, timeout=_TIMEOUT_SECONDS, retry=_RETRY
                )
            except NotFound:
                # It was written anew in between; when it was deleted, the reload says so.
                continue
            return data, generation

    def _download(self, key: str, path: Path) -> None:
        blob = self._blob(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            blob.download_to_filename(
                str(scratch), checksum=CHECKSUM, timeout=_TIMEOUT_SECONDS, retry=_RETRY
            )
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)

    def _put(self, key: str, put: Callable[[storage.Blob], None]) -> int:
        blob = self._blob(key)
        put(blob)
        return int(blob.generation)

    def _list(self, prefix: str) -> list[ObjectInfo]:
        check_prefix(prefix)
        found = self._bucket().list_blobs(
            prefix=self._prefix + prefix,
            fields="items(name,size,generation),nextPageToken",
            timeout=_TIMEOUT_SECONDS,
            retry=_RETRY,
        )
        cut = len(self._prefix)
        return sorted(
            ObjectInfo(blob.name[cut:], int(blob.size), int(blob.generation)) for blob in found
        )
