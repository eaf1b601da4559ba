"""Start offsets, against a reference model of sets of offsets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.indexer.start_offsets import StartOffset, start_offsets
from shashin.offsets.ranges import OffsetRange

RANGES = st.lists(
    st.builds(
        lambda partition, begin, length: OffsetRange(partition, begin, begin + length),
        st.integers(0, 1),
        st.integers(0, 18),
        st.integers(1, 5),
    ),
    max_size=8,
)


@given(RANGES, st.integers(0, 25))
def test_nothing_is_sealed_twice_and_nothing_is_skipped(
    sealed: list[OffsetRange], log_start: int
) -> None:
    found = start_offsets(sealed, {0: log_start})[0]
    held = {o for r in sealed if r.partition == 0 for o in range(r.from_offset, r.to_offset)}
    if not held:
        assert found == StartOffset(log_start, log_start)
        return
    assert found.horizon_offset == min(held), "the horizon is the first sealed offset"
    # The open range starts at an offset that no shard holds and the log still has.
    assert found.from_offset not in held
    assert found.from_offset >= log_start
    # Everything before it is sealed, lost, or below the horizon.
    before = set(range(found.horizon_offset, found.from_offset))
    lost = {o for r in found.lost for o in range(r.from_offset, r.to_offset)}
    assert before - held == lost == set(range(found.horizon_offset, log_start)) - held
    # No gap that the log still holds is skipped.
    assert all(offset in held or offset < log_start for offset in before)


@given(RANGES, st.integers(0, 25), st.randoms(use_true_random=False))
def test_the_order_of_manifests_does_not_matter(
    sealed: list[OffsetRange], log_start: int, rng: object
) -> None:
    shuffled = list(sealed)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    begins = {0: log_start, 1: 3}
    assert start_offsets(shuffled, begins) == start_offsets(sealed, begins)


def sealed(*bounds: tuple[int, int]) -> list[OffsetRange]:
    return [OffsetRange(0, begin, end) for begin, end in bounds]


def test_without_shards_the_whole_log_is_read() -> None:
    assert start_offsets([], {0: 0, 1: 7}) == {0: StartOffset(0, 0), 1: StartOffset(7, 7)}


def test_a_contiguous_run_is_continued_at_its_end() -> None:
    assert start_offsets(sealed((0, 5), (5, 9), (9, 12)), {0: 0}) == {0: StartOffset(0, 12)}
    assert start_offsets(sealed((0, 5), (5, 9)), {0: 9}) == {0: StartOffset(0, 9)}


def test_a_gap_is_read_again() -> None:
    assert start_offsets(sealed((0, 5), (7, 9)), {0: 0}) == {0: StartOffset(0, 5)}


def test_offsets_before_the_first_shard_are_below_the_horizon() -> None:
    assert start_offsets(sealed((20, 25)), {0: 4}) == {0: StartOffset(20, 25)}


def test_offsets_that_are_neither_sealed_nor_in_the_log_are_lost() -> None:
    assert start_offsets(sealed((0, 5)), {0: 8}) == {0: StartOffset(0, 8, tuple(sealed((5, 8))))}


def test_after_a_lost_gap_no_range_starts_inside_a_sealed_one() -> None:
    # It would overlap the sealed range, and a tier must not serve an offset twice.
    assert start_offsets(sealed((0, 5), (7, 12)), {0: 9}) == {
        0: StartOffset(0, 12, tuple(sealed((5, 7))))
    }


def test_other_partitions_are_ignored() -> None:
    assert start_offsets([OffsetRange(7, 0, 5)], {0: 2}) == {0: StartOffset(2, 2)}
