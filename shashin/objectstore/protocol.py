"""What Shashin asks of an object store."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import NewType, Protocol

STREAM_CHUNK_BYTES = 1024 * 1024
"""Max size of one chunk of a stream."""

Version = NewType("Version", str)
"""What a store calls the present content of a key: a generation, an ETag.

Opaque: only the store that issued it can read it, anybody else compares it for equality. Two
contents of a key never have the same version. Writing the same bytes again may or may not make a
new one.
"""


@dataclass(frozen=True)
class OnlyIf:
    """The precondition of a write or a delete; made by ``absent`` or ``unchanged``."""

    version: Version | None
    """The version that the object has to have; None: no object may have the key."""

    @classmethod
    def absent(cls) -> OnlyIf:
        """Only if no object has the key."""
        return cls(None)

    @classmethod
    def unchanged(cls, version: Version) -> OnlyIf:
        """Only if the object still has the version that was read."""
        return cls(version)

    def holds(self, current: Version | None) -> bool:
        """Return whether it holds for the version that is there; None: no object has the key."""
        return current == self.version

    def __str__(self) -> str:
        return "no object" if self.version is None else f"version {self.version}"


@dataclass(frozen=True, order=True)
class ObjectInfo:
    """One object, as a store describes it without its bytes."""

    key: str
    size: int
    """Bytes."""
    version: Version


class ObjectStore(Protocol):
    """Objects under keys (``a/b/c``), written whole, under a precondition where asked for.

    A key that ``check_key`` refuses is a UserError. No key may be the folder of another (``a``
    beside ``a/b``), since not every store can hold both.

    Whatever asks the store raises ObjectStoreUnavailable when it does not answer, and
    ObjectStoreError when it refuses. A write or delete that was repeated because its answer was
    lost can meet its own result and raise PreconditionFailed: look at what is there then.
    """

    async def stat(self, key: str) -> ObjectInfo:
        """Return an object's size and version.

        Raises:
            ObjectNotFound: when no object has this key.
        """
        ...

    async def read(self, key: str) -> tuple[bytes, Version]:
        """Return an object's bytes and their version; for small documents, since it holds all.

        Raises:
            ObjectNotFound: when no object has this key.
        """
        ...

    def stream(self, key: str) -> AsyncGenerator[bytes]:
        """Return the bytes of one version, in chunks of at most ``STREAM_CHUNK_BYTES``.

        Stores have no checksum of a piece, as they have of what is read or downloaded: compare a
        hash of your own. Close it (``contextlib.aclosing``) when it may not be read to its end.

        Raises:
            ObjectNotFound: when no object has this key.
            PreconditionFailed: when the object was overwritten or deleted meanwhile, and the
                store does not keep what it was.
        """
        ...

    async def download(self, key: str, path: Path) -> None:
        """Write an object's bytes to a file, which appears only when it is complete.

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
        """Write an object from a file, piece by piece; returns its new version.

        Raises:
            PreconditionFailed: as ``write``.
            ObjectStoreError: also when there is no such file.
            ObjectStoreUnavailable: as ``write``.
        """
        ...

    async def delete(self, key: str, *, only_if: OnlyIf | None = None) -> None:
        """Delete an object; it is no error when none has this key, unless ``only_if`` says so.

        Raises:
            PreconditionFailed: when ``only_if`` does not hold.
        """
        ...

    async def list_objects(self, prefix: str) -> list[ObjectInfo]:
        """Return the objects whose key begins with ``prefix``, sorted by key."""
        ...
