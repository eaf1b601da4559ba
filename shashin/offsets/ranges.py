"""Offset ranges: merging and containment. Pure."""

from __future__ import annotations

from bisect import bisect_right
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

    def overlaps(self, other: OffsetRange) -> bool:
        """Return whether some offset is in both."""
        return self.partition == other.partition and max(self.from_offset, other.from_offset) < min(
            self.to_offset, other.to_offset
        )


def merge_ranges(ranges: Iterable[OffsetRange]) -> list[OffsetRange]:
    """Return the same offsets in as few ranges as possible, sorted; empty ranges are dropped."""
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


class MergedRanges:
    """Offset ranges that are merged once, for many containment checks."""

    def __init__(self, ranges: Iterable[OffsetRange]) -> None:
        self._merged = merge_ranges(ranges)

    def contain_all(self, others: Iterable[OffsetRange]) -> bool:
        """Return whether they contain every offset of some ranges; false without a range."""
        others = tuple(others)
        return bool(others) and all(map(self.contain, others))

    def contain(self, other: OffsetRange) -> bool:
        """Return whether they contain every offset of a range; always true for an empty one."""
        if other.from_offset >= other.to_offset:
            return True
        after = bisect_right(self._merged, (other.partition, other.from_offset), key=_start)
        if after == 0:
            return False
        candidate = self._merged[after - 1]
        return candidate.partition == other.partition and other.to_offset <= candidate.to_offset


def _start(offset_range: OffsetRange) -> tuple[int, int]:
    return offset_range.partition, offset_range.from_offset
