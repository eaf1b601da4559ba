"""Offset ranges of the log: merging, overlap. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class OffsetRange:
    """Offsets ``[from_offset, to_offset)`` of one partition of ``vectors.embedded``."""

    partition: int
    from_offset: int
    to_offset: int

    def __str__(self) -> str:
        return f"{self.partition}:[{self.from_offset}, {self.to_offset})"


def merge_ranges(ranges: Iterable[OffsetRange]) -> list[OffsetRange]:
    """Return the same offsets in the fewest ranges, sorted; empty ranges vanish."""
    merged: list[OffsetRange] = []
    for current in sorted(r for r in ranges if r.from_offset < r.to_offset):
        last = merged[-1] if merged else None
        if (
            last is not None
            and last.partition == current.partition
            and current.from_offset <= last.to_offset
        ):
            end = max(last.to_offset, current.to_offset)
            merged[-1] = OffsetRange(last.partition, last.from_offset, end)
        else:
            merged.append(current)
    return merged
