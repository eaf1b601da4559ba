"""Damage to a log on the broker's disk."""

from __future__ import annotations

import struct
from pathlib import Path

from tests.support.record_batches import replaced


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


def replace_in_batch(partition: Path, old: bytes, new: bytes) -> None:
    """Change bytes of the one batch that has ``old``, which keeps a right checksum."""
    (segment,) = partition.glob("*.log")
    data = segment.read_bytes()
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from(">i", data, at + 8)
        batch = data[at : at + 12 + length]
        if old in batch:
            with segment.open("r+b") as file:
                file.seek(at)
                file.write(replaced(batch, old, new))
            return
        at += len(batch)
    raise AssertionError(f"no batch in {segment} has {old!r}")
