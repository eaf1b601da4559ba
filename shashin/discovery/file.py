"""Discovery from a JSON file that a supervisor or a person writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shashin.discovery.protocol import Endpoint
from shashin.runtime.logging import get_logger

log = get_logger(__name__)


class FileDiscovery:
    """Reads ``{"endpoints": [{"name", "role", "tier", "address", "model_id"}]}`` on each change.

    ``tier`` and ``model_id`` may be missing or null.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._known: list[Endpoint] = []

    async def endpoints(self) -> list[Endpoint]:
        """Return the file's endpoints: none if it is missing, the last good ones if it is invalid."""
        try:
            stat = self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            self._stamp, self._known = None, []
            return []
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if stamp != self._stamp:
            try:
                document = json.loads(self._path.read_text(encoding="utf-8"))
                self._known = sorted(_endpoint(entry) for entry in document["endpoints"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning(
                    "discovery file is invalid: keeping the last good endpoints",
                    path=str(self._path),
                    error=str(error),
                )
            self._stamp = stamp
        return self._known

    async def close(self) -> None:
        """Do nothing: no file stays open."""


def _endpoint(entry: Any) -> Endpoint:
    found = Endpoint(
        entry["name"],
        entry["role"],
        entry["address"],
        tier=entry.get("tier") or "",
        model_id=entry.get("model_id") or "",
    )
    parts = (found.name, found.role, found.address, found.tier, found.model_id)
    if not all(isinstance(part, str) for part in parts):
        raise TypeError(f"name, role, address, tier and model_id must be strings: {entry}")
    return found
