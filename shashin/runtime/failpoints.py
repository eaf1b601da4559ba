"""Failpoints: named places at which a test may have a process killed, as a crash would kill it.

They do nothing unless ``SHASHIN_FAILPOINTS`` names a folder. Then a process that reaches a point
looks for the file ``<service>.<point>`` there; it takes the file away and kills itself. So each
file is one kill, and whoever wrote it sees by its absence that the kill has happened.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

VARIABLE = "SHASHIN_FAILPOINTS"

_CONSUMER = ("after-read", "after-decode", "amid-produce", "after-produce", "after-commit")

POINTS: dict[str, tuple[str, ...]] = {
    "downloader": _CONSUMER,
    "embedder": _CONSUMER,
    "indexer": (
        "after-read",
        "after-add",
        "after-hide",
        "after-cut",
        "after-write",
        "between-files",
        "before-manifest",
        "after-manifest",
        "before-event",
        "before-offset-commit",
        "before-release",
        "after-release",
    ),
    "image-builder": ("after-plan", "before-pointer", "after-pointer"),
    "index-server": ("after-fetch", "before-swap", "after-swap"),
    "router": ("after-embed", "after-fan-out"),
}
"""Every boundary, in the order in which a service crosses it."""


class _Armed:
    """Where this process looks, and under which name; nowhere unless it is enabled."""

    folder: Path | None = None
    service = ""


def enable(service: str) -> None:
    """Let the environment decide whether this process has failpoints."""
    folder = os.environ.get(VARIABLE)
    _Armed.folder = Path(folder) if folder else None
    _Armed.service = service


def failpoint(point: str) -> None:
    """Die here, if that is asked for."""
    if _Armed.folder is None:
        return
    if point in POINTS.get(_Armed.service, ()):
        try:
            (_Armed.folder / f"{_Armed.service}.{point}").unlink()
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)
