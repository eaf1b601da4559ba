"""Notices that files have changed, as certificates and keys do when they are renewed.

A file that is mounted from a Secret of Kubernetes changes by a symbolic link that is moved, so it is what a
path leads to that is compared, and not the path's own time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

Stamp = tuple[tuple[int, int, int, int] | None, ...]


class WatchedFiles:
    """Some files; ``changed`` is true once after each change, and the first time."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._seen: Stamp | None = None

    def changed(self) -> bool:
        """Whether any of the files has changed since this was asked last."""
        before, self._seen = self._seen, self.stamp()
        return self._seen != before

    def stamp(self) -> Stamp:
        """Return what changes with the files; None in place of one that cannot be reached."""
        return tuple(_stamp(path) for path in self.paths)


def _stamp(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
