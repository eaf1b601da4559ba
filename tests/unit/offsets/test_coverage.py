"""Ranges and coverage, against sets of single offsets."""

from __future__ import annotations

import math
import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shashin.offsets.coverage import Position, missing_ranges
from shashin.offsets.ranges import MergedRanges, OffsetRange, merge_ranges
from tests.support.counted_offsets import Counted, comparisons_of

PARTITIONS = st.integers(0, 2)
OFFSETS = st.integers(0, 14)
RANGE = st.builds(OffsetRange, PARTITIONS, OFFSETS, OFFSETS)
RANGES = st.lists(RANGE, max_size=10)
POSITIONS = st.dictionaries(PARTITIONS, st.builds(Position, OFFSETS, OFFSETS))


def offsets_of(ranges: list[OffsetRange]) -> set[tuple[int, int]]:
    return {(r.partition, o) for r in ranges for o in range(r.from_offset, r.to_offset)}


@given(RANGE, RANGE)
def test_ranges_overlap_if_they_share_an_offset(one: OffsetRange, other: OffsetRange) -> None:
    assert one.overlaps(other) == bool(offsets_of([one]) & offsets_of([other]))


@given(RANGES)
def test_merged_ranges_hold_the_same_offsets_in_the_fewest_ranges(
    ranges: list[OffsetRange],
) -> None:
    merged = merge_ranges(ranges)
    assert offsets_of(merged) == offsets_of(ranges)
    assert all(r.from_offset < r.to_offset for r in merged)
    for one, other in pairwise(merged):
        # Sorted, with a gap in between: adjacent ranges would be merged.
        assert (one.partition, one.to_offset) < (other.partition, other.from_offset)


@given(RANGES, st.randoms(use_true_random=False))
def test_the_order_of_ranges_does_not_matter(ranges: list[OffsetRange], dice: object) -> None:
    shuffled = list(ranges)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    assert merge_ranges(shuffled) == merge_ranges(ranges)
    assert merge_ranges(merge_ranges(ranges)) == merge_ranges(ranges)


@given(RANGES, POSITIONS)
def test_missing_ranges_are_all_offsets_from_horizon_to_live_that_no_range_contains(
    held: list[OffsetRange], positions: dict[int, Position]
) -> None:
    needed = {
        (partition, offset)
        for partition, position in positions.items()
        for offset in range(position.horizon_offset, position.live_offset)
    }
    missing = list(missing_ranges(held, positions))
    assert offsets_of(missing) == needed - offsets_of(held)
    assert missing == merge_ranges(missing), "the fewest ranges, sorted"


def test_coverage_takes_n_log_n_comparisons_however_many_partitions_there_are() -> None:
    count = partitions = 1500
    held = [OffsetRange(Counted(p), Counted(10), Counted(20)) for p in range(partitions)]
    random.Random(4).shuffle(held)
    positions = {p: Position(Counted(0), Counted(30)) for p in range(partitions)}
    # Scanning all ranges for each partition takes 2 million.
    assert comparisons_of(lambda: missing_ranges(held, positions)) < 12 * count * math.log2(count)


@given(RANGES, st.builds(OffsetRange, PARTITIONS, OFFSETS, OFFSETS))
def test_merged_ranges_contain_a_range_if_they_hold_all_of_its_offsets(
    held: list[OffsetRange], wanted: OffsetRange
) -> None:
    assert MergedRanges(iter(held)).contain(wanted) == (offsets_of([wanted]) <= offsets_of(held))


def test_a_range_prints_its_partition_and_offsets() -> None:
    assert str(OffsetRange(3, 10, 25)) == "3:[10, 25)"
