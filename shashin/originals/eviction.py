"""Which originals a cache removes: those that were not used for longest. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StoredFile:
    """A file of the cache."""

    path: Path
    size: int
    """Bytes."""
    last_use: float
    """Seconds since 1970."""


@dataclass(frozen=True)
class Eviction:
    """What is removed."""

    expired: Sequence[StoredFile]
    """Not used since ``oldest_use``."""
    surplus: Sequence[StoredFile]
    """Beyond the size of the cache."""
    before: float
    """What was last used after this time is kept."""


def plan_eviction(files: Sequence[StoredFile], *, max_bytes: int, oldest_use: float) -> Eviction:
    """Return what is removed, least recently used first, so that the rest fits ``max_bytes``."""
    by_use = sorted(files, key=lambda file: (file.last_use, file.path))
    first_kept = next(
        (at for at, file in enumerate(by_use) if file.last_use >= oldest_use), len(by_use)
    )
    kept_bytes = sum(file.size for file in by_use[first_kept:])
    at = first_kept
    while kept_bytes > max_bytes:
        kept_bytes -= by_use[at].size
        at += 1
    return Eviction(
        expired=by_use[:first_kept],
        surplus=by_use[first_kept:at],
        before=by_use[at - 1].last_use if at > first_kept else oldest_use,
    )
