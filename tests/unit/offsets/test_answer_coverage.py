"""Coverage of an answer, against a reference model of sets of offsets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shashin.offsets.answer_coverage import KnownPositions, answer_coverage, merge_reports
from shashin.offsets.coverage import LiveReport, Position, StageLag
from shashin.offsets.ranges import OffsetRange

PARTITIONS = st.integers(0, 2)
OFFSETS = st.integers(0, 12)
RANGES = st.lists(st.builds(OffsetRange, PARTITIONS, OFFSETS, OFFSETS), max_size=8)
POSITIONS = st.dictionaries(PARTITIONS, st.builds(Position, st.integers(0, 4), OFFSETS))


@given(RANGES, POSITIONS, POSITIONS, st.integers(0, 4))
def test_missing_offsets_are_those_required_and_not_held(
    held: list[OffsetRange],
    reported: dict[int, Position],
    known: dict[int, Position],
    topic_partitions: int,
) -> None:
    covered = {(r.partition, o) for r in held for o in range(r.from_offset, r.to_offset)}
    expected = set()
    for partition in reported.keys() | known.keys():
        live = max(p[partition].live_offset for p in (reported, known) if partition in p)
        horizon = (reported if partition in reported else known)[partition].horizon_offset
        expected |= {(partition, offset) for offset in range(horizon, live)}
    found = answer_coverage(held, LiveReport(reported, topic_partitions), known)
    missing = [(r.partition, o) for r in found.missing for o in range(r.from_offset, r.to_offset)]
    assert len(missing) == len(set(missing)) == found.missing_offsets
    assert set(missing) == expected - covered
    partitions = reported.keys() | known.keys() | {r.partition for r in held}
    partitions |= set(range(topic_partitions))
    assert set(found.unknown_partitions) == partitions - reported.keys()
    assert found.complete == bool(
        partitions and expected <= covered and partitions == reported.keys()
    )


def test_a_live_tier_that_is_down_leaves_its_range_missing() -> None:
    known = {0: Position(0, 10)}
    found = answer_coverage([OffsetRange(0, 0, 6)], LiveReport(), known)
    assert found.missing == (OffsetRange(0, 6, 10),)
    assert found.unknown_partitions == (0,)
    assert not found.complete


def test_an_answer_without_a_live_tier_is_incomplete_though_all_known_offsets_are_held() -> None:
    # The log may have grown since.
    found = answer_coverage([OffsetRange(0, 0, 10)], LiveReport(), {0: Position(0, 10)})
    assert found.missing == ()
    assert not found.complete


def test_without_known_positions_no_answer_is_complete() -> None:
    assert not answer_coverage([], LiveReport(), {}).complete


def test_partitions_that_nobody_indexes_are_unknown_and_no_answer_is_complete() -> None:
    # A topic of 8 partitions, of which one replica indexes the first four.
    live = LiveReport({p: Position(0, 5) for p in range(4)}, partitions=8)
    found = answer_coverage([OffsetRange(p, 0, 5) for p in range(4)], live, {})
    assert found.missing == ()
    assert found.unknown_partitions == (4, 5, 6, 7)
    assert not found.complete
    other = LiveReport({p: Position(0, 0) for p in range(4, 8)}, partitions=8)
    whole = merge_reports([live, other])
    assert answer_coverage([OffsetRange(p, 0, 5) for p in range(4)], whole, {}).complete


def test_a_replaying_live_tier_leaves_known_offsets_missing() -> None:
    live = LiveReport({0: Position(0, 4)})
    found = answer_coverage([OffsetRange(0, 0, 4)], live, {0: Position(0, 10)})
    assert found.missing == (OffsetRange(0, 4, 10),)


def test_positions_learned_during_a_search_do_not_count_against_it() -> None:
    positions = KnownPositions()
    positions.update({0: Position(0, 4)})
    before = positions.snapshot()
    positions.update({0: Position(0, 9)})
    live = LiveReport({0: Position(0, 5)})
    assert answer_coverage([OffsetRange(0, 0, 5)], live, before).complete


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
    first, second = (
        LiveReport({0: Position(3, 8)}),
        LiveReport({0: Position(1, 6), 1: Position(0, 2)}),
    )
    assert merge_reports([first, second]).positions == {0: Position(1, 8), 1: Position(0, 2)}


STAGES = ("downloader", "embedder")
REPORTS = st.builds(
    LiveReport,
    positions=POSITIONS,
    partitions=st.integers(0, 4),
    end_unknown_seconds=st.sampled_from([0.0, 7.0, 40.0]),
    stages=st.tuples(
        *(
            st.builds(StageLag, st.just(stage), st.none() | st.integers(0, 9), st.floats(0, 9))
            for stage in STAGES
        )
    ),
)


@given(st.lists(REPORTS, max_size=4), st.randoms(use_true_random=False))
def test_merged_reports_never_say_less_than_any_of_them_in_whatever_order(
    reports: list[LiveReport], dice: object
) -> None:
    merged = merge_reports(reports)
    shuffled = list(reports)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    assert merge_reports(shuffled) == merged
    assert merge_reports([merge_reports(reports[:2]), *reports[2:]]) == merged
    for report in reports:
        assert merged.partitions >= report.partitions
        assert merged.end_unknown_seconds >= report.end_unknown_seconds
        for partition, position in report.positions.items():
            both = merged.positions[partition]
            assert both.horizon_offset <= position.horizon_offset
            assert both.live_offset >= position.live_offset
    for number, stage in enumerate(merged.stages):
        assert stage.stage == STAGES[number]
        known = [n for r in reports if (n := r.stages[number].records) is not None]
        assert stage.records == (max(known) if known else None), "what some know is known"


def test_an_answer_has_the_lag_of_the_stages_and_for_how_long_the_end_is_unknown() -> None:
    stages = (StageLag("downloader", 12, 3.5),)
    found = answer_coverage([], LiveReport({0: Position(0, 0)}, 1, 40.0, stages), {})
    assert (found.stages, found.end_unknown_seconds) == (stages, 40.0)
    assert found.complete, "lag of the stages before is no gap in the log"
