"""A shard's file in its manifest: name, size and SHA-256."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field

_CHUNK = 1024 * 1024

_NAME = r"^[a-z0-9][a-z0-9_-]*(\.[a-z0-9_-]+)*$"
"""Names become paths: one part, not hidden, the same on every file system."""


@dataclass(frozen=True)
class FileEntry:
    """One file of a shard."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=_NAME, max_length=100)]
    size: Annotated[int, Field(ge=0)]
    """Bytes."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Hexadecimal."""

    @property
    def hashed_name(self) -> str:
        """The name with the first 64 bits of the hash: other content has another name."""
        stem, dot, suffix = self.name.rpartition(".")
        if not dot:
            return f"{self.name}.{self.sha256[:16]}"
        return f"{stem}.{self.sha256[:16]}.{suffix}"


def file_entry(path: Path) -> FileEntry:
    """Return a file's name, size and SHA-256; reads the whole file, so it blocks."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return FileEntry(path.name, size, digest.hexdigest())
