"""Offset ranges of the log: merging them, and what they contain. Pure."""

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


class MergedRanges:
    """Offset ranges that are merged once and then asked often what they contain."""

    def __init__(self, ranges: Iterable[OffsetRange]) -> None:
        self._merged = merge_ranges(ranges)

    def contain(self, wanted: OffsetRange) -> bool:
        """Return whether they contain every offset of a range; an empty one has none."""
        if wanted.from_offset >= wanted.to_offset:
            return True
        after = bisect_right(self._merged, (wanted.partition, wanted.from_offset), key=_start)
        if after == 0:
            return False
        holding = self._merged[after - 1]
        return holding.partition == wanted.partition and wanted.to_offset <= holding.to_offset


def _start(held: OffsetRange) -> tuple[int, int]:
    return held.partition, held.from_offset
