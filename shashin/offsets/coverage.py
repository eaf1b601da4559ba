"""Coverage: whether the offset ranges of shards tile the log. Pure functions.

shashin.offsets.answer_coverage uses them to compute the coverage of a search response.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

from shashin.offsets.ranges import OffsetRange, merge_ranges


@dataclass(frozen=True)
class Position:
    """The offsets of one partition that must be covered: from the horizon to the live offset."""

    horizon_offset: int
    live_offset: int


@dataclass(frozen=True)
class StageLag:
    """How far a stage before the live tier is behind the end of its input topic."""

    stage: str
    records: int | None
    """Records that it has not processed; None if unknown."""
    seconds: float = 0.0
    """For how long at least the oldest of them has been waiting."""


@dataclass(frozen=True)
class LiveReport:
    """What a live tier knows of the log, or several of them together."""

    positions: Mapping[int, Position] = field(default_factory=dict)
    """Of the partitions that it indexes."""
    partitions: int = 0
    """The topic has the partitions 0 to ``partitions`` - 1; 0 if unknown."""
    end_unknown_seconds: float = 0.0
    """For how long the end of the log could not be read; 0 for a short time."""
    stages: tuple[StageLag, ...] = ()
    """In the order of the pipeline."""


def missing_ranges(
    held: Iterable[OffsetRange], positions: Mapping[int, Position]
) -> tuple[OffsetRange, ...]:
    """Return the offsets between horizon and live offset that no held range contains.

    The result is sorted and has as few ranges as possible.
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
