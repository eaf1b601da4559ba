"""Coverage of an answer, against a reference model of sets of offsets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.router.answer_coverage import KnownPositions, answer_coverage, merge_positions
from shashin.offsets.coverage import Position
from shashin.offsets.ranges import OffsetRange

PARTITIONS = st.integers(0, 2)
OFFSETS = st.integers(0, 12)
RANGES = st.lists(st.builds(OffsetRange, PARTITIONS, OFFSETS, OFFSETS), max_size=8)
POSITIONS = st.dictionaries(PARTITIONS, st.builds(Position, st.integers(0, 4), OFFSETS))


@given(RANGES, POSITIONS, POSITIONS)
def test_missing_offsets_are_those_required_and_not_held(
    held: list[OffsetRange], reported: dict[int, Position], known: dict[int, Position]
) -> None:
    covered = {(r.partition, o) for r in held for o in range(r.from_offset, r.to_offset)}
    expected = set()
    for partition in reported.keys() | known.keys():
        live = max(p[partition].live_offset for p in (reported, known) if partition in p)
        horizon = (reported if partition in reported else known)[partition].horizon_offset
        expected |= {(partition, offset) for offset in range(horizon, live)}
    found = answer_coverage(held, reported, known)
    missing = [(r.partition, o) for r in found.missing for o in range(r.from_offset, r.to_offset)]
    assert len(missing) == len(set(missing)) == found.missing_offsets
    assert set(missing) == expected - covered
    partitions = reported.keys() | known.keys() | {r.partition for r in held}
    assert set(found.unknown_partitions) == partitions - reported.keys()
    assert found.complete == bool(
        partitions and expected <= covered and partitions == reported.keys()
    )


def test_a_live_tier_that_is_down_leaves_its_range_missing() -> None:
    known = {0: Position(0, 10)}
    found = answer_coverage([OffsetRange(0, 0, 6)], {}, known)
    assert found.missing == (OffsetRange(0, 6, 10),)
    assert found.unknown_partitions == (0,)
    assert not found.complete


def test_an_answer_without_a_live_tier_is_incomplete_though_all_known_offsets_are_held() -> None:
    # The log may have grown since.
    found = answer_coverage([OffsetRange(0, 0, 10)], {}, {0: Position(0, 10)})
    assert found.missing == ()
    assert not found.complete


def test_without_known_positions_no_answer_is_complete() -> None:
    assert not answer_coverage([], {}, {}).complete


def test_a_replaying_live_tier_leaves_known_offsets_missing() -> None:
    found = answer_coverage([OffsetRange(0, 0, 4)], {0: Position(0, 4)}, {0: Position(0, 10)})
    assert found.missing == (OffsetRange(0, 4, 10),)


def test_positions_learned_during_a_search_do_not_count_against_it() -> None:
    positions = KnownPositions()
    positions.update({0: Position(0, 4)})
    before = positions.snapshot()
    positions.update({0: Position(0, 9)})
    assert answer_coverage([OffsetRange(0, 0, 5)], {0: Position(0, 5)}, before).complete


@given(st.lists(POSITIONS, max_size=6))
def test_live_offsets_only_increase_and_partitions_are_never_forgotten(
    reports: list[dict[int, Position]],
) -> None:
    positions = KnownPositions()
    for report in reports:
        before = positions.snapshot()
        copy = dict(before)
        positions.update(report)
        assert dict(before) == copy, "a snapshot never changes"
        after = positions.snapshot()
        assert after.keys() == before.keys() | report.keys()
        for partition, position in before.items():
            assert after[partition].live_offset >= position.live_offset
        for partition, position in report.items():
            assert after[partition].live_offset >= position.live_offset
            assert after[partition].horizon_offset == position.horizon_offset


def test_the_highest_live_offset_and_the_lowest_horizon_of_replicas_count() -> None:
    assert merge_positions([(0, Position(3, 8)), (0, Position(1, 6)), (1, Position(0, 2))]) == {
        0: Position(1, 8),
        1: Position(0, 2),
    }
