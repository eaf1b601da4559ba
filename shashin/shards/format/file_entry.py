"""A shard's file in its manifest: name, size and SHA-256."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict

_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class FileEntry:
    """One file of a shard."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str
    size: int
    """Bytes."""
    sha256: str
    """Hexadecimal."""


def file_entry(path: Path) -> FileEntry:
    """Return a file's name, size and SHA-256; reads the whole file, so it blocks."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return FileEntry(path.name, size, digest.hexdigest())
