"""Photos in buckets: ``s3://BUCKET/KEY`` and ``gs://BUCKET/OBJECT``, behind the one Protocol of
object stores.

A key is taken as it is, as by the clouds' own tools: nothing in it is percent-encoded.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Self

from shashin.errors import (
    ObjectNotFound,
    ObjectStoreError,
    ObjectStoreUnavailable,
    PhotoEmpty,
    PhotoForbidden,
    PhotoMissing,
    PhotoTooLarge,
    PhotoUnavailable,
    PreconditionFailed,
    UserError,
)
from shashin.objectstore.open import open_object_store
from shashin.objectstore.protocol import ObjectStore, Version
from shashin.originals import SourceVersion
from shashin.photo_sources.byte_budget import Lease
from shashin.photo_sources.request_limits import RequestLimits
from shashin.photo_sources.source import SourcePhoto
from shashin.photo_sources.time_limit import TimeLimit


class ObjectStoreSource:
    """Reads the photos of the allowed buckets (``s3://BUCKET``) of any kind of object store.

    An async context manager, which closes the stores that it opened.
    """

    def __init__(
        self,
        buckets: Collection[str],
        requests: RequestLimits,
        *,
        max_bytes: int,
        total_seconds: float,
        open_store: Callable[[str], ObjectStore] = open_object_store,
    ) -> None:
        self._buckets = buckets
        self._requests = requests
        self._max_bytes = max_bytes
        self._total_seconds = total_seconds
        self._open_store = open_store
        self._stores: dict[str, ObjectStore] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.gather(*(store.close() for store in self._stores.values()))

    async def fetch(
        self, uri: str, lease: Lease, known: SourceVersion | None = None
    ) -> SourcePhoto | None:
        """Return an object's bytes; its version is the object's."""
        bucket, key = self._allowed(uri)
        time_limit = TimeLimit(self._total_seconds)
        async with self._requests.request(bucket):
            try:
                async with time_limit.counted():
                    found = await self._fetch(
                        self._store(bucket), key, uri, lease, known, time_limit
                    )
            except TimeoutError:
                self._requests.unanswered(bucket)
                raise PhotoUnavailable(
                    f"{uri} was not complete after {self._total_seconds:.0f} s"
                ) from None
            except (ObjectStoreError, UserError) as error:
                raise self._named(error, bucket, uri) from error
            self._requests.answered(bucket)
        return found

    def _allowed(self, uri: str) -> tuple[str, str]:
        scheme, _, path = uri.partition("://")
        name, _, key = path.partition("/")
        bucket = f"{scheme}://{name}"
        if bucket not in self._buckets:
            raise PhotoForbidden(f"{uri} is in {bucket}, which is not in SHASHIN_PHOTO_BUCKETS")
        if not key:
            raise PhotoForbidden(f"{uri} names no object: expected {bucket}/KEY")
        return bucket, key

    def _store(self, bucket: str) -> ObjectStore:
        if bucket not in self._stores:
            self._stores[bucket] = self._open_store(bucket)
        return self._stores[bucket]

    async def _fetch(
        self,
        store: ObjectStore,
        key: str,
        uri: str,
        lease: Lease,
        known: SourceVersion | None,
        time_limit: TimeLimit,
    ) -> SourcePhoto | None:
        async with store.opened(key, unless=_version(known)) as found:
            if found is None:
                return None
            size = found.info.size
            if size > self._max_bytes:
                raise PhotoTooLarge(
                    f"{uri} has {size} bytes; at most {self._max_bytes} are allowed"
                )
            if not size:
                raise PhotoEmpty(f"the object at {uri} has no bytes: upload it again")
            await time_limit.uncounted(lease.hold(size))
            # BytesIO hands its buffer over without a copy.
            data = io.BytesIO()
            async for chunk in found.chunks:
                data.write(chunk)
                if data.tell() > size:
                    break
        if data.tell() != size:
            raise PhotoUnavailable(f"{uri} changed while it was read: it had {size} bytes")
        return SourcePhoto(data.getvalue(), SourceVersion(etag=found.info.version))

    def _named(
        self, error: ObjectStoreError | UserError, bucket: str, uri: str
    ) -> PhotoMissing | PhotoForbidden | PhotoUnavailable:
        if isinstance(error, ObjectNotFound):
            return PhotoMissing(f"there is no photo at {uri}: {error.message}")
        if isinstance(error, ObjectStoreUnavailable):
            self._requests.pause(bucket, None)
            return PhotoUnavailable(f"{uri} is not available at the moment: {error.message}")
        if isinstance(error, PreconditionFailed):
            return PhotoUnavailable(f"{uri} changed while it was read: {error.message}")
        return PhotoForbidden(f"{uri} cannot be read: {error.message}")


def _version(known: SourceVersion | None) -> Version | None:
    return Version(known.etag) if known is not None and known.etag else None
