"""The history of the pipeline: what is counted, and rates."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.pipeline_history import (
    APP,
    HISTORY_SECONDS,
    SEARCHABLE,
    GrowingOffsets,
    GrowingTotals,
    PipelineHistory,
    searched_up_to,
)
from shashin.offsets.progress import PartitionOffsets, PipelineProgress, StageOffsets
from shashin.offsets.ranges import OffsetRange


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def progress(
    downloaded: int, end: int, indexed: int, *, events: int = 0, seconds: float = 0.0
) -> PipelineProgress:
    return PipelineProgress(
        (
            StageOffsets(
                "downloader", "listings.events", 2.0, {0: PartitionOffsets(downloaded, end)}
            ),
            StageOffsets("indexer", "vectors.embedded", 0.0, {0: PartitionOffsets(indexed, end)}),
        ),
        {"listings.events.dlq": 3},
        events,
        seconds,
    )


@given(st.lists(st.dictionaries(st.integers(0, 2), st.integers(0, 50)), max_size=20))
def test_offsets_are_counted_from_where_a_partition_was_first_seen(
    notes: list[dict[int, int]],
) -> None:
    grown = GrowingOffsets()
    counted = 0
    for offsets in notes:
        grown.note(offsets)
        assert grown.counted >= counted, "it never runs back"
        counted = grown.counted
    seen: dict[int, list[int]] = {}
    for offsets in notes:
        for partition, offset in offsets.items():
            seen.setdefault(partition, []).append(offset)
    assert counted == sum(max(values) - values[0] for values in seen.values())
    assert grown.processed == sum(max(values) for values in seen.values())


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=4))
def test_totals_of_a_process_that_restarts_go_on(lives: list[list[int]]) -> None:
    totals = GrowingTotals()
    totals.note("indexer", 0, 0.0)
    expected = 0
    for added in lives:
        total = 0
        for count in added:
            total += count
            totals.note("indexer", total, float(total))
        # A restart shows only if fewer are counted than before.
        totals.note("indexer", 0, 0.0)
        expected += total
    assert totals.count == expected
    assert totals.seconds == pytest.approx(expected)


def test_a_process_that_is_first_seen_adds_nothing() -> None:
    totals = GrowingTotals()
    totals.note("indexer", 1_000_000, 5.0)
    assert totals.count == 0
    totals.keep_only(())
    totals.note("indexer", 2_000_000, 9.0)
    assert totals.count == 0


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0.96, 3.0)), min_size=12, max_size=40))
def test_rates_add_up_to_what_was_processed(steps: list[tuple[int, float]]) -> None:
    clock = Clock()
    history = PipelineHistory(clock, clock)
    at = 0
    history.note({"i": progress(0, 0, 0)}, {0: 0})
    for records, seconds in steps:
        clock.now += seconds
        at += records
        assert history.wants_sample()
        history.note({"i": progress(at, at, at)}, {0: at})
    moments = history.moments()
    assert len(moments) == len(steps) + 1
    assert moments[0].rates == {}, "one sample has no rate"
    for number, moment in enumerate(moments[1:], start=1):
        earlier = [m for m in moments[:number] if m.sample.clock <= moment.sample.clock - 4.95]
        before = earlier[-1] if earlier else moments[0]
        counted = (
            moment.sample.stages["downloader"].counted - before.sample.stages["downloader"].counted
        )
        rate = counted / (moment.sample.clock - before.sample.clock)
        for stage in (APP, "downloader", "indexer", SEARCHABLE):
            assert moment.rates[stage] == pytest.approx(rate)
    assert "embedder" not in moments[-1].rates, "nobody reported it"


def test_after_a_gap_a_rate_is_the_mean_since_before_it() -> None:
    clock = Clock()
    history = PipelineHistory(clock, clock)
    history.note({"i": progress(100, 100, 100)}, {0: 100})
    for _ in range(60):
        clock.now += 1
        history.note({}, {})
        assert history.moments()[-1].rates == {}, "nobody knows"
    clock.now += 1
    history.note({"i": progress(222, 222, 222)}, {0: 222})
    assert history.last() is not None
    assert history.moments()[-1].rates["downloader"] == pytest.approx(2.0)


def test_what_is_behind_and_how_fresh_it_was() -> None:
    clock = Clock()
    history = PipelineHistory(clock, clock)
    assert history.last() is None
    history.note({"i": progress(5, 9, 7)}, {0: 6})
    clock.now += 1
    history.note({"i": progress(5, 9, 7, events=4, seconds=3.0)}, {0: 6})
    last = history.last()
    assert last is not None
    figures = last.sample.stages
    assert (figures["downloader"].behind, figures["downloader"].seconds) == (4, 2.0)
    assert (figures["indexer"].behind, figures[SEARCHABLE].behind) == (2, 3)
    assert (figures[APP].processed, figures[APP].behind) == (9, None)
    assert last.freshness_seconds == pytest.approx(0.75)
    assert last.sample.dead_letters == {"listings.events.dlq": 3}
    for _ in range(6):
        clock.now += 1
        history.note({"i": progress(5, 9, 7, events=4, seconds=3.0)}, {0: 6})
    assert history.moments()[-1].freshness_seconds is None, "none became searchable lately"


def test_the_history_is_bounded_and_can_be_read_from_a_time_on() -> None:
    clock = Clock()
    history = PipelineHistory(clock, clock)
    for _ in range(2 * HISTORY_SECONDS):
        history.note({}, {})
        assert not history.wants_sample(), "a sample per second is enough"
        clock.now += 1
    moments = history.moments()
    assert len(moments) == HISTORY_SECONDS
    newest = history.moments(moments[-4].sample.at)
    assert newest == moments[-3:]


def test_how_far_the_log_is_searched_is_the_end_of_the_last_range() -> None:
    ranges = [OffsetRange(0, 5, 9), OffsetRange(1, 0, 2), OffsetRange(0, 0, 5)]
    assert searched_up_to(ranges) == {0: 9, 1: 2}
