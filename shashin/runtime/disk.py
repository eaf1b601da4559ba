"""Watches the disks that a process writes to."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from shashin.metrics import disk as metrics


def watch_disk(folder: str, path: Path) -> None:
    """Expose the free space of the disk that a folder is on, as of each scrape.

    A folder that does not exist yet is going to be made, so the disk of the one above counts.
    """

    def of_disk(what: str) -> float:
        for folder_or_above in (path, *path.absolute().parents):
            try:
                return float(getattr(shutil.disk_usage(folder_or_above), what))
            except FileNotFoundError:
                continue
            except OSError:
                break
        return math.nan

    metrics.FREE_BYTES.labels(folder).set_function(lambda: of_disk("free"))
    metrics.SIZE_BYTES.labels(folder).set_function(lambda: of_disk("total"))
