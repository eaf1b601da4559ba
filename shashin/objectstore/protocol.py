"""What Shashin asks of an object store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, order=True)
class ObjectInfo:
    """One object as a listing shows it."""

    key: str
    size: int
    """Bytes."""
    generation: int
    """Changes with every write of the key; 0 stands for an object that does not exist."""


class ObjectStore(Protocol):
    """Objects under keys (``a/b/c``), read and written whole, with conditions on the generation.

    A key that ``check_key`` refuses is a UserError. No key may be the folder of another (``a``
    beside ``a/b``), since not every store can hold both.
    """

    async def read(self, key: str) -> tuple[bytes, int]:
        """Return an object's bytes and generation.

        Raises:
            ObjectNotFound: when no object has this key.
            ObjectStoreUnavailable: when the store does not answer.
        """
        ...

    async def download(self, key: str, path: Path) -> None:
        """Write an object's bytes to a file, which appears only when it is complete.

        Raises:
            ObjectNotFound: when no object has this key.
            ObjectStoreUnavailable: when the store does not answer, or the disk is full.
        """
        ...

    async def write(self, key: str, data: bytes, *, if_generation_match: int | None = None) -> int:
        """Write an object; returns its new generation.

        ``if_generation_match=0`` writes only where no object is; another number only over that
        generation.

        Raises:
            PreconditionFailed: when the object has another generation.
            ObjectStoreUnavailable: when the store does not answer, or its disk is full.
        """
        ...

    async def upload(self, key: str, path: Path, *, if_generation_match: int | None = None) -> int:
        """Write an object from a file, under the same conditions as ``write``.

        Raises:
            PreconditionFailed: as ``write``.
            ObjectStoreError: when there is no such file.
            ObjectStoreUnavailable: as ``write``.
        """
        ...

    async def list_objects(self, prefix: str) -> list[ObjectInfo]:
        """Return the objects whose key begins with ``prefix``, sorted by key."""
        ...
