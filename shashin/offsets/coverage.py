"""Coverage is arithmetic: the offset ranges that are held must tile the log. Pure functions.

What a search answer says of itself is decided with these in services.router.answer_coverage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from shashin.offsets.ranges import OffsetRange, merge_ranges


@dataclass(frozen=True)
class Position:
    """What must be covered of one partition: from the horizon up to the live offset."""

    horizon_offset: int
    live_offset: int


def missing_ranges(
    held: Iterable[OffsetRange], positions: Mapping[int, Position]
) -> tuple[OffsetRange, ...]:
    """Return the offsets between horizon and live position that no held range contains.

    In the fewest ranges, sorted.
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
    return tuple(missing)
