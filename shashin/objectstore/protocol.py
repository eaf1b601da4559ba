"""The interface of an object store."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NewType, Protocol

STREAM_CHUNK_BYTES = 1024 * 1024
"""Maximum size of a stream's chunk."""

Version = NewType("Version", str)
"""Identifies the current content of a key: a generation, an ETag.

Opaque: only the store that issued it can interpret it, others compare it for equality. Different
contents of a key never have the same version. Writing the same bytes again may or may not create a
new version.
"""


@dataclass(frozen=True)
class OnlyIf:
    """The precondition of a write or delete; created by ``absent`` or ``unchanged``."""

    version: Version | None
    """The version that the object must have; None: no object may have the key."""

    @classmethod
    def absent(cls) -> OnlyIf:
        """Only if no object has the key."""
        return cls(None)

    @classmethod
    def unchanged(cls, version: Version) -> OnlyIf:
        """Only if the object still has the version that was read."""
        return cls(version)

    def holds(self, current: Version | None) -> bool:
        """Return whether it holds for the current version; None: no object has the key."""
        return current == self.version

    def __str__(self) -> str:
        return "no object" if self.version is None else f"version {self.version}"


@dataclass(frozen=True, order=True)
class ObjectInfo:
    """The metadata of one object."""

    key: str
    size: int
    """Bytes."""
    version: Version


@dataclass(frozen=True)
class OpenedObject:
    """One version of an object that is being read."""

    info: ObjectInfo
    chunks: AsyncGenerator[bytes]
    """Its bytes, in chunks of at most ``STREAM_CHUNK_BYTES``; raises as ``ObjectStore.stream``."""


class ObjectStore(Protocol):
    """Objects under keys (``a/b/c``), written atomically, optionally with a precondition.

    Keys that ``check_key`` rejects raise UserError. No key may be the folder of another (``a`` and
    ``a/b``), since not every store supports both.

    All operations raise ObjectStoreUnavailable when the store does not respond, and
    ObjectStoreError when it refuses. A write or delete that was retried because its response was
    lost can raise PreconditionFailed because of its own first attempt: check the current content.
    """

    async def stat(self, key: str) -> ObjectInfo:
        """Return an object's size and version.

        Raises:
            ObjectNotFound: when no object has this key.
        """
        ...

    async def read(self, key: str) -> tuple[bytes, Version]:
        """Return an object's bytes and version; for small documents, as all is read into memory.

        Raises:
            ObjectNotFound: when no object has this key.
        """
        ...

    def opened(
        self, key: str, *, unless: Version | None = None
    ) -> AbstractAsyncContextManager[OpenedObject | None]:
        """Open an object for reading, in one request where the store allows it.

        Gives its size and version before any byte is read; None if it still has the version
        ``unless``. What was not read at the end of the context is not transferred.

        Raises:
            ObjectNotFound: when no object has this key.
        """
        ...

    def stream(self, key: str) -> AsyncGenerator[bytes]:
        """Return the bytes of one version, in chunks of at most ``STREAM_CHUNK_BYTES``.

        The store verifies no checksum, unlike for ``read`` and ``download``: compare a hash of your
        own. Close it (``contextlib.aclosing``) unless it is read to the end.

        Raises:
            ObjectNotFound: when no object has this key.
            PreconditionFailed: when the object was overwritten or deleted meanwhile, and the
                store does not keep the old version.
        """
        ...

    async def download(self, key: str, path: Path) -> None:
        """Write an object's bytes to a file, which appears only once it is complete.

        Raises:
            ObjectNotFound: when no object has this key.
            ObjectStoreUnavailable: also when the disk is full.
        """
        ...

    async def write(self, key: str, data: bytes, *, only_if: OnlyIf | None = None) -> Version:
        """Write an object; returns its new version.

        Raises:
            PreconditionFailed: when ``only_if`` does not hold.
            ObjectStoreUnavailable: also when the store's disk is full.
        """
        ...

    async def upload(self, key: str, path: Path, *, only_if: OnlyIf | None = None) -> Version:
        """Write an object from a file, in chunks; returns its new version.

        Raises:
            PreconditionFailed: as ``write``.
            ObjectStoreError: also when there is no such file.
            ObjectStoreUnavailable: as ``write``.
        """
        ...

    async def delete(self, key: str, *, only_if: OnlyIf | None = None) -> None:
        """Delete an object; a missing one is not an error unless ``only_if`` requires it.

        Raises:
            PreconditionFailed: when ``only_if`` does not hold.
        """
        ...

    async def list_objects(self, prefix: str) -> list[ObjectInfo]:
        """Return the objects whose key starts with ``prefix``, sorted by key."""
        ...

    async def close(self) -> None:
        """Release connections and threads; no operation may follow.

        A store belongs to the event loop of its first operation.
        """
        ...
