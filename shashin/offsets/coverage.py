"""Coverage is arithmetic: the offset ranges that are held must tile the log. Pure functions.

What a search answer says of itself is decided with these in services.router.answer_coverage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

from shashin.offsets.ranges import OffsetRange, merge_ranges


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


def coverage(
    held: Iterable[OffsetRange],
    positions: Mapping[int, Position],
    expected_partitions: Iterable[int] = (),
) -> Coverage:
    """Return which offsets between horizon and live position no held range contains.

    A partition that is expected but has no position is unknown: nobody can tell how far its log
    goes, so the answer is not complete.
    """
    merged = groupby(merge_ranges(held), key=attrgetter("partition"))
    by_partition = {partition: list(ranges) for partition, ranges in merged}
    missing: list[OffsetRange] = []
    for partition, position in sorted(positions.items()):
        reached = position.horizon_offset
        for held_range in by_partition.get(partition, ()):
            if held_range.to_offset <= reached:
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
