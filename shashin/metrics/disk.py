"""Disks: how much room there is where a process writes."""

from __future__ import annotations

from shashin.metrics.core import gauge
from shashin.metrics.definitions import Label

_FOLDER = Label(
    "folder",
    "what the folder is for: shards, hidden listings, or photos",
    values=("work", "hidden", "cache"),
)

FREE_BYTES = gauge(
    "shashin_folder_free_bytes",
    "Free space of the disk that a folder of the process is on; NaN while it cannot be asked.",
    [_FOLDER],
    unit="bytes",
)
SIZE_BYTES = gauge(
    "shashin_folder_size_bytes",
    "Size of that disk; NaN while it cannot be asked.",
    [_FOLDER],
    unit="bytes",
)
