"""Failpoints: named places in the code where a test can make a process crash.

They do nothing unless ``SHASHIN_FAILPOINTS`` names a folder. A process that reaches a failpoint
then looks for the file ``<service>.<point>`` there, deletes it and kills itself. Each file thus
causes one crash, and its absence shows the test that the crash has happened.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

VARIABLE = "SHASHIN_FAILPOINTS"

_CONSUMER = ("after-read", "after-decode", "amid-produce", "after-produce", "after-commit")

POINTS: dict[str, tuple[str, ...]] = {
    "downloader": ("after-read", "amid-content", "after-content", "after-entry", *_CONSUMER[1:]),
    "embedder": _CONSUMER,
    "indexer": (
        "after-read",
        "after-add",
        "after-hide",
        "after-cut",
        "after-write",
        "after-snapshot",
        "after-announcement",
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
"""The failpoints of each service, in the order in which it reaches them."""

IMAGE_POINTS = ("after-image", "after-serving")
"""Those of the image builder where it rolls out images."""

BUILD = "build"
"""The name under which the steps of builds are killed."""

BUILD_POINTS = (
    "after-fetch",
    "amid-merge",
    "amid-write",
    "after-announcement",
    "between-files",
    "before-manifest",
    "after-manifest",
)
"""The failpoints of the steps of a build, in the order in which it reaches them."""

REINDEX_POINTS = ("after-photos", "after-vectors")
"""Those that only a re-index reaches: after the pack of some photos, and of their vectors."""


class _Armed:
    """The folder that this process checks, and its service name; None while disabled."""

    folder: Path | None = None
    service = ""


def enable(service: str) -> None:
    """Enable this process's failpoints if the environment variable is set."""
    folder = os.environ.get(VARIABLE)
    _Armed.folder = Path(folder) if folder else None
    _Armed.service = service


def failpoint(point: str) -> None:
    """Crash here if a test requested it."""
    if _Armed.folder is None:
        return
    if point in _points_of(_Armed.service):
        try:
            (_Armed.folder / f"{_Armed.service}.{point}").unlink()
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


def _points_of(service: str) -> tuple[str, ...]:
    if service == BUILD:
        return (*BUILD_POINTS, *REINDEX_POINTS)
    points = POINTS.get(service, ())
    return (*points, *IMAGE_POINTS) if service == "image-builder" else points
