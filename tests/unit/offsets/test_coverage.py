"""Ranges and coverage, against sets of single offsets."""

from __future__ import annotations

import math
import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shashin.offsets.coverage import Coverage, Position, coverage
from shashin.offsets.ranges import OffsetRange, merge_ranges
from tests.support.counted_offsets import Counted, comparisons_of

PARTITIONS = st.integers(0, 2)
OFFSETS = st.integers(0, 14)
RANGES = st.lists(st.builds(OffsetRange, PARTITIONS, OFFSETS, OFFSETS), max_size=10)
POSITIONS = st.dictionaries(PARTITIONS, st.builds(Position, OFFSETS, OFFSETS))


def offsets_of(ranges: list[OffsetRange]) -> set[tuple[int, int]]:
    return {(r.partition, o) for r in ranges for o in range(r.from_offset, r.to_offset)}


@given(RANGES)
def test_merged_ranges_hold_the_same_offsets_in_the_fewest_ranges(
    ranges: list[OffsetRange],
) -> None:
    merged = merge_ranges(ranges)
    assert offsets_of(merged) == offsets_of(ranges)
    assert all(r.from_offset < r.to_offset for r in merged)
    for one, other in pairwise(merged):
        # Sorted, and with an offset between: two that touch would be one.
        assert (one.partition, one.to_offset) < (other.partition, other.from_offset)


@given(RANGES, st.randoms(use_true_random=False))
def test_the_order_of_ranges_does_not_matter(ranges: list[OffsetRange], dice: object) -> None:
    shuffled = list(ranges)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    assert merge_ranges(shuffled) == merge_ranges(ranges)
    assert merge_ranges(merge_ranges(ranges)) == merge_ranges(ranges)


@given(RANGES, POSITIONS, st.sets(st.integers(0, 4)))
def test_missing_is_every_offset_from_horizon_to_live_that_no_range_holds(
    held: list[OffsetRange], positions: dict[int, Position], expected: set[int]
) -> None:
    needed = {
        (partition, offset)
        for partition, position in positions.items()
        for offset in range(position.horizon_offset, position.live_offset)
    }
    found = coverage(held, positions, expected)
    assert offsets_of(list(found.missing)) == needed - offsets_of(held)
    assert list(found.missing) == merge_ranges(found.missing), "the fewest ranges, sorted"
    assert found.unknown_partitions == tuple(sorted(expected - positions.keys()))
    assert found.complete == (needed <= offsets_of(held) and expected <= positions.keys())


def test_coverage_takes_n_log_n_comparisons_however_many_partitions_there_are() -> None:
    count = partitions = 1500
    held = [OffsetRange(Counted(p), Counted(10), Counted(20)) for p in range(partitions)]
    random.Random(4).shuffle(held)
    positions = {p: Position(Counted(0), Counted(30)) for p in range(partitions)}
    # Going through all ranges for each partition takes 2 million.
    assert comparisons_of(lambda: coverage(held, positions)) < 12 * count * math.log2(count)


def test_a_partition_whose_position_nobody_knows_makes_an_answer_incomplete() -> None:
    found = coverage([OffsetRange(0, 0, 5)], {0: Position(0, 5)}, expected_partitions=[0, 1])
    assert found == Coverage(missing=(), unknown_partitions=(1,))
    assert not found.complete


def test_a_range_says_which_partition_and_offsets_it_is() -> None:
    assert str(OffsetRange(3, 10, 25)) == "3:[10, 25)"
