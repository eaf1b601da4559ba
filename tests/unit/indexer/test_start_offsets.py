"""Where partitions go on after a start, against sets of single offsets."""

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
def test_a_partition_goes_on_where_nothing_is_sealed_twice_and_nothing_is_left_out(
    sealed: list[OffsetRange], log_begin: int
) -> None:
    found = start_offsets(sealed, {0: log_begin})[0]
    held = {o for r in sealed if r.partition == 0 for o in range(r.from_offset, r.to_offset)}
    if not held:
        assert found == StartOffset(log_begin, log_begin)
        return
    assert found.horizon_offset == min(held), "what is sealed is covered from there on"
    # The open range never begins on an offset that a shard holds, and the log still has it.
    assert found.from_offset not in held
    assert found.from_offset >= log_begin
    # Everything before it is sealed, lost, or below the horizon.
    before = set(range(found.horizon_offset, found.from_offset))
    lost = {o for r in found.lost for o in range(r.from_offset, r.to_offset)}
    assert before - held == lost == set(range(found.horizon_offset, log_begin)) - held
    # No hole that can be read again is left behind.
    assert all(offset in held or offset < log_begin for offset in before)


@given(RANGES, st.integers(0, 25), st.randoms(use_true_random=False))
def test_the_order_of_manifests_does_not_matter(
    sealed: list[OffsetRange], log_begin: int, dice: object
) -> None:
    shuffled = list(sealed)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    begins = {0: log_begin, 1: 3}
    assert start_offsets(shuffled, begins) == start_offsets(sealed, begins)


def sealed(*bounds: tuple[int, int]) -> list[OffsetRange]:
    return [OffsetRange(0, begin, end) for begin, end in bounds]


def test_without_shards_everything_that_the_log_holds_is_read() -> None:
    assert start_offsets([], {0: 0, 1: 7}) == {0: StartOffset(0, 0), 1: StartOffset(7, 7)}


def test_an_unbroken_run_goes_on_at_its_end() -> None:
    assert start_offsets(sealed((0, 5), (5, 9), (9, 12)), {0: 0}) == {0: StartOffset(0, 12)}
    assert start_offsets(sealed((0, 5), (5, 9)), {0: 9}) == {0: StartOffset(0, 9)}


def test_a_hole_is_read_again() -> None:
    assert start_offsets(sealed((0, 5), (7, 9)), {0: 0}) == {0: StartOffset(0, 5)}


def test_what_retention_removed_from_the_beginning_is_not_asked_for() -> None:
    assert start_offsets(sealed((20, 25)), {0: 4}) == {0: StartOffset(20, 25)}


def test_offsets_that_are_neither_sealed_nor_in_the_log_are_lost_and_named() -> None:
    assert start_offsets(sealed((0, 5)), {0: 8}) == {0: StartOffset(0, 8, tuple(sealed((5, 8))))}


def test_behind_a_lost_hole_no_range_begins_amid_a_sealed_one() -> None:
    # It would overlap that one, and no tier may serve two shards of the same offsets.
    assert start_offsets(sealed((0, 5), (7, 12)), {0: 9}) == {
        0: StartOffset(0, 12, tuple(sealed((5, 7))))
    }


def test_partitions_of_others_are_left_alone() -> None:
    assert start_offsets([OffsetRange(7, 0, 5)], {0: 2}) == {0: StartOffset(2, 2)}
