"""Discovery from a JSON file that a supervisor or a person writes."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from shashin.discovery.protocol import Endpoint
from shashin.errors import UserError
from shashin.model_space import ModelSpace, check_model_id
from shashin.runtime.logging import get_logger

log = get_logger(__name__)


class FileDiscovery:
    """Reads ``{"endpoints": [{"name", "role", "tier", "address", "model_id", "group",
    "zone"}], "active_model": {"model_id", "dimensions"}}`` on each change.

    ``tier``, ``model_id``, ``group``, ``zone`` and ``active_model`` may be missing or null.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._known: list[Endpoint] = []
        self._active: ModelSpace | None = None
        self._problem: str | None = None

    async def endpoints(self) -> list[Endpoint]:
        """Return the file's endpoints: none if it is missing, the last good ones if it is invalid."""
        self._read()
        return self._known

    async def active_model(self) -> ModelSpace | None:
        """Return the file's active model: none if it is missing, the last good one if invalid."""
        self._read()
        return self._active

    def _read(self) -> None:
        try:
            stat = self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            self._stamp, self._known, self._active = None, [], None
            self._problem = None
            return
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if stamp != self._stamp:
            try:
                document = json.loads(self._path.read_text(encoding="utf-8"))
                endpoints = sorted(_endpoint(entry) for entry in document["endpoints"])
                self._active = _active_model(document.get("active_model"))
                self._known = endpoints
                self._problem = None
            except (OSError, ValueError, KeyError, TypeError, UserError) as error:
                self._problem = f"discovery file {self._path} is invalid: {error}"
                log.warning(
                    "discovery file is invalid: keeping the last good endpoints",
                    path=str(self._path),
                    error=str(error),
                )
            self._stamp = stamp

    @property
    def problem(self) -> str | None:
        """Return what is wrong with the file, as it was read last; None if it is valid or missing."""
        return self._problem

    async def close(self) -> None:
        """Do nothing: no file stays open."""


def _endpoint(entry: Any) -> Endpoint:
    found = Endpoint(
        entry["name"],
        entry["role"],
        entry["address"],
        tier=entry.get("tier") or "",
        model_id=entry.get("model_id") or "",
        group=entry.get("group") or "",
        zone=entry.get("zone") or "",
    )
    for field in fields(found):
        if not isinstance(value := getattr(found, field.name), str):
            raise TypeError(f"{field.name} must be a string, found {value!r}: {entry}")
    return found


def _active_model(entry: Any) -> ModelSpace | None:
    if entry is None:
        return None
    model_id, dimensions = entry["model_id"], entry["dimensions"]
    if not isinstance(model_id, str) or type(dimensions) is not int or dimensions < 1:
        raise TypeError(f"active_model must have a model_id and dimensions: {entry}")
    check_model_id(model_id)
    return ModelSpace(model_id, dimensions)
