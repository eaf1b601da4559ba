"""Coverage of an answer, against sets of single offsets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.router.answer_coverage import KnownPositions, answer_coverage, joined
from shashin.offsets.coverage import Position
from shashin.offsets.ranges import OffsetRange

PARTITIONS = st.integers(0, 2)
OFFSETS = st.integers(0, 12)
RANGES = st.lists(st.builds(OffsetRange, PARTITIONS, OFFSETS, OFFSETS), max_size=8)
POSITIONS = st.dictionaries(PARTITIONS, st.builds(Position, st.integers(0, 4), OFFSETS))


@given(RANGES, POSITIONS, POSITIONS)
def test_missing_is_every_offset_that_should_be_held_and_is_not(
    held: list[OffsetRange], fresh: dict[int, Position], known: dict[int, Position]
) -> None:
    covered = {(r.partition, o) for r in held for o in range(r.from_offset, r.to_offset)}
    expected = set()
    for partition in fresh.keys() | known.keys():
        live = max(p[partition].live_offset for p in (fresh, known) if partition in p)
        horizon = (fresh if partition in fresh else known)[partition].horizon_offset
        expected |= {(partition, offset) for offset in range(horizon, live)}
    found = answer_coverage(held, fresh, known)
    missing = [(r.partition, o) for r in found.missing for o in range(r.from_offset, r.to_offset)]
    assert len(missing) == len(set(missing)) == found.missing_offsets
    assert set(missing) == expected - covered
    partitions = fresh.keys() | known.keys() | {r.partition for r in held}
    assert set(found.unknown_partitions) == partitions - fresh.keys()
    assert found.complete == bool(partitions and expected <= covered and partitions == fresh.keys())


def test_a_live_tier_that_is_down_leaves_its_range_missing() -> None:
    known = {0: Position(0, 10)}
    found = answer_coverage([OffsetRange(0, 0, 6)], {}, known)
    assert found.missing == (OffsetRange(0, 6, 10),)
    assert found.unknown_partitions == (0,)
    assert not found.complete


def test_an_answer_without_a_live_tier_is_incomplete_though_all_known_offsets_are_held() -> None:
    # The log may have grown since: nobody can tell.
    found = answer_coverage([OffsetRange(0, 0, 10)], {}, {0: Position(0, 10)})
    assert found.missing == ()
    assert not found.complete


def test_when_nothing_is_known_nothing_is_complete() -> None:
    assert not answer_coverage([], {}, {}).complete


def test_a_live_tier_that_replays_is_behind_what_was_known() -> None:
    found = answer_coverage([OffsetRange(0, 0, 4)], {0: Position(0, 4)}, {0: Position(0, 10)})
    assert found.missing == (OffsetRange(0, 4, 10),)


def test_what_is_learnt_during_a_search_does_not_count_against_it() -> None:
    positions = KnownPositions()
    positions.learn({0: Position(0, 4)})
    before = positions.snapshot()
    positions.learn({0: Position(0, 9)})
    assert answer_coverage([OffsetRange(0, 0, 5)], {0: Position(0, 5)}, before).complete


@given(st.lists(POSITIONS, max_size=6))
def test_live_offsets_only_grow_and_partitions_are_never_forgotten(
    reports: list[dict[int, Position]],
) -> None:
    positions = KnownPositions()
    for report in reports:
        before = positions.snapshot()
        copy = dict(before)
        positions.learn(report)
        assert dict(before) == copy, "a snapshot never changes"
        after = positions.snapshot()
        assert after.keys() == before.keys() | report.keys()
        for partition, position in before.items():
            assert after[partition].live_offset >= position.live_offset
        for partition, position in report.items():
            assert after[partition].live_offset >= position.live_offset
            assert after[partition].horizon_offset == position.horizon_offset


def test_of_two_replicas_the_one_that_is_ahead_and_the_lower_horizon_count() -> None:
    assert joined([(0, Position(3, 8)), (0, Position(1, 6)), (1, Position(0, 2))]) == {
        0: Position(1, 8),
        1: Position(0, 2),
    }
