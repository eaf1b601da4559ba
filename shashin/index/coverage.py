"""Coverage is arithmetic: the offset ranges that are held must tile the log. Pure functions.

What a search answer says of itself is decided with these in services.router.answer_coverage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, order=True)
class OffsetRange:
    """Offsets ``[from_offset, to_offset)`` of one partition of ``vectors.embedded``."""

    partition: int
    from_offset: int
    to_offset: int

    def __str__(self) -> str:
        return f"{self.partition}:[{self.from_offset}, {self.to_offset})"


@dataclass(frozen=True)
class Position:
    """What must be covered of one partition: from the horizon up to the live offset."""

    horizon_offset: int
    live_offset: int


@dataclass(frozen=True)
class Coverage:
    """Whether everything that must be covered is, and what is not."""

    missing: tuple[OffsetRange, ...] = ()
    unknown_partitions: tuple[int, ...] = field(default=())

    @property
    def complete(self) -> bool:
        """Whether nothing is missing and every partition's position is known."""
        return not self.missing and not self.unknown_partitions


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


def coverage(
    held: Iterable[OffsetRange],
    positions: Mapping[int, Position],
    expected_partitions: Iterable[int] = (),
) -> Coverage:
    """Return which offsets between horizon and live position no held range contains.

    A partition that is expected but has no position is unknown: nobody can tell how far its log
    goes, so the answer is not complete.
    """
    merged = merge_ranges(held)
    missing: list[OffsetRange] = []
    for partition, position in sorted(positions.items()):
        reached = position.horizon_offset
        for held_range in merged:
            if held_range.partition != partition or held_range.to_offset <= reached:
                continue
            if held_range.from_offset >= position.live_offset:
                break
            if held_range.from_offset > reached:
                missing.append(OffsetRange(partition, reached, held_range.from_offset))
            reached = held_range.to_offset
        if reached < position.live_offset:
            missing.append(OffsetRange(partition, reached, position.live_offset))
    unknown = tuple(sorted(set(expected_partitions) - set(positions)))
    return Coverage(tuple(missing), unknown)
