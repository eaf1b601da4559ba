"""Damage to a log on the broker's disk."""

from __future__ import annotations

from pathlib import Path


def flip(partition: Path, old: bytes, *, occurrence: int = 0) -> None:
    """Change one byte where ``old`` occurs in the log of a partition's folder."""
    (segment,) = partition.glob("*.log")
    data = segment.read_bytes()
    at = -1
    for _ in range(occurrence + 1):
        at = data.index(old, at + 1)
    with segment.open("r+b") as file:
        file.seek(at)
        file.write(bytes([old[0] ^ 1]))
