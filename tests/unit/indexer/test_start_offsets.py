"""Start offsets, against a reference model of sets of offsets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.indexer.start_offsets import StartOffset, first_horizons, start_offsets
from shashin.offsets.coverage import Position, missing_ranges
from shashin.offsets.ranges import OffsetRange
from shashin.repository.horizons import Horizon

RANGES = st.lists(
    st.builds(
        lambda partition, begin, length: OffsetRange(partition, begin, begin + length),
        st.integers(0, 1),
        st.integers(0, 18),
        st.integers(1, 5),
    ),
    max_size=8,
)


@given(RANGES, st.integers(0, 25), st.integers(0, 25))
def test_nothing_is_sealed_twice_and_nothing_is_skipped(
    sealed: list[OffsetRange], log_start: int, horizon: int
) -> None:
    found = start_offsets(sealed, {0: log_start}, {0: Horizon("m", 0, horizon)})[0]
    held = {o for r in sealed if r.partition == 0 for o in range(r.from_offset, r.to_offset)}
    assert found.horizon_offset == horizon, "a start never moves the horizon"
    # The open range starts at an offset that no shard holds and the log still has.
    assert found.from_offset not in held
    assert found.from_offset >= log_start
    # Everything before it is sealed, lost, or below the horizon.
    before = set(range(horizon, found.from_offset))
    lost = {o for r in found.lost for o in range(r.from_offset, r.to_offset)}
    assert before - held <= lost == set(range(horizon, log_start)) - held
    # No gap that the log still holds is skipped.
    assert all(offset in held or offset < log_start for offset in before)


@given(RANGES, st.integers(0, 25), st.randoms(use_true_random=False))
def test_the_order_of_manifests_does_not_matter(
    sealed: list[OffsetRange], log_start: int, rng: object
) -> None:
    shuffled = list(sealed)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    begins = {0: log_start, 1: 3}
    horizons = {0: Horizon("m", 0, 2), 1: Horizon("m", 1, 0)}
    assert start_offsets(shuffled, begins, horizons) == start_offsets(sealed, begins, horizons)
    assert first_horizons(shuffled, begins) == first_horizons(sealed, begins)


@given(RANGES, st.integers(0, 25), st.integers(0, 25), st.data())
def test_what_is_lost_after_the_horizon_was_stored_is_sealed_again_or_reported(
    sealed: list[OffsetRange], log_start: int, later_log_start: int, data: st.DataObject
) -> None:
    """Shards disappear and retention goes on, between two starts."""
    horizons = {0: Horizon("m", 0, first_horizons(sealed, {0: log_start})[0])}
    left = data.draw(st.lists(st.sampled_from(sealed), unique=True)) if sealed else []
    begin = max(log_start, later_log_start)
    found = start_offsets(left, {0: begin}, horizons)[0]
    position = Position(found.horizon_offset, found.from_offset)
    required = {o for r in sealed if r.partition == 0 for o in range(r.from_offset, r.to_offset)}
    held = {o for r in left if r.partition == 0 for o in range(r.from_offset, r.to_offset)}
    missing = {
        o for r in missing_ranges(left, {0: position}) for o in range(r.from_offset, r.to_offset)
    }
    gone = {offset for offset in required - held if offset < found.from_offset}
    assert gone <= missing, "a shard that is gone is never below the horizon"


@given(RANGES, st.integers(0, 25), st.integers(0, 25), st.integers(0, 25))
def test_a_second_model_never_reads_below_where_it_began(
    sealed: list[OffsetRange], log_start: int, horizon: int, live_from: int
) -> None:
    stored = Horizon("m", 0, horizon, live_from=live_from)
    found = start_offsets(sealed, {0: log_start}, {0: stored})[0]
    first = max(horizon, live_from)
    held = {o for r in sealed if r.partition == 0 for o in range(r.from_offset, r.to_offset)}
    assert found.horizon_offset == horizon
    assert found.from_offset >= live_from
    assert found.from_offset >= log_start
    assert found.from_offset not in held
    assert all(o in held or o < log_start for o in range(first, found.from_offset))
    assert all(r.from_offset >= first for r in found.lost), "what builds bring is not lost"


def start_at(
    sealed: list[OffsetRange],
    log_start: int,
    horizon: int | None = None,
    live_from: int | None = None,
) -> StartOffset:
    """Return where partition 0 starts; without a horizon, for the first time."""
    begins = {0: log_start}
    first = first_horizons(sealed, begins)[0] if horizon is None else horizon
    return start_offsets(sealed, begins, {0: Horizon("m", 0, first, live_from=live_from)})[0]


def sealed(*bounds: tuple[int, int]) -> list[OffsetRange]:
    return [OffsetRange(0, begin, end) for begin, end in bounds]


def test_without_shards_the_whole_log_is_read() -> None:
    assert first_horizons([], {0: 0, 1: 7}) == {0: 0, 1: 7}
    assert start_at([], 7) == StartOffset(7, 7)


def test_a_contiguous_run_is_continued_at_its_end() -> None:
    assert start_at(sealed((0, 5), (5, 9), (9, 12)), 0) == StartOffset(0, 12)
    assert start_at(sealed((0, 5), (5, 9)), 9) == StartOffset(0, 9)


def test_a_gap_is_read_again() -> None:
    assert start_at(sealed((0, 5), (7, 9)), 0) == StartOffset(0, 5)
    assert start_at(sealed((0, 5), (7, 9)), 0, horizon=6) == StartOffset(6, 5), "as a whole"


def test_offsets_before_the_first_shard_are_below_the_horizon() -> None:
    assert start_at(sealed((20, 25)), 4) == StartOffset(20, 25)


def test_lost_first_shards_are_read_again_while_the_log_has_them_and_reported_otherwise() -> None:
    left = sealed((100, 200), (200, 300))
    assert start_at(left, 0, horizon=0) == StartOffset(0, 0)
    assert start_at(left, 300, horizon=0) == StartOffset(0, 300, tuple(sealed((0, 100))))
    assert start_at([], 300, horizon=0) == StartOffset(0, 300, tuple(sealed((0, 300))))


def test_what_retention_deleted_before_it_was_ever_sealed_is_lost() -> None:
    assert start_at([], 40, horizon=10) == StartOffset(10, 40, tuple(sealed((10, 40))))


def test_a_raised_horizon_excuses_what_is_lost() -> None:
    assert start_at(sealed((100, 300)), 300, horizon=100) == StartOffset(100, 300)


def test_offsets_that_are_neither_sealed_nor_in_the_log_are_lost() -> None:
    assert start_at(sealed((0, 5)), 8) == StartOffset(0, 8, tuple(sealed((5, 8))))


def test_after_a_lost_gap_no_range_starts_inside_a_sealed_one() -> None:
    # It would overlap the sealed range, and a tier must not serve an offset twice.
    assert start_at(sealed((0, 5), (7, 12)), 9) == StartOffset(0, 12, tuple(sealed((5, 7))))


def test_a_second_model_begins_where_it_began_whatever_builds_have_brought() -> None:
    assert start_at([], 0, horizon=3, live_from=90) == StartOffset(3, 90)
    assert start_at(sealed((3, 50)), 60, horizon=3, live_from=90) == StartOffset(3, 90)
    assert start_at(sealed((3, 90), (90, 95)), 60, horizon=3, live_from=90) == StartOffset(3, 95)
    assert start_at(sealed((90, 95)), 92, horizon=3, live_from=90) == StartOffset(3, 95)
    lost = tuple(sealed((90, 92)))
    assert start_at([], 92, horizon=3, live_from=90) == StartOffset(3, 92, lost)


def test_other_partitions_are_ignored() -> None:
    assert start_at([OffsetRange(7, 0, 5)], 2) == StartOffset(2, 2)
