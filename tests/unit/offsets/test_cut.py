"""Where a range ends: each reason at its boundary, and what does not end it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.offsets.cut import CutReason, CutRules, OpenRange, cut_before, cut_when_idle

RULES = CutRules(bucket_seconds=60, grace_seconds=2.5, row_limit=10)
BUCKET = 1_700_000_040
END_MS = (BUCKET + 60) * 1000
DEADLINE_MS = END_MS + 2_500


@given(st.integers(0, 2**41), st.integers(1, 7 * 86400))
def test_a_time_falls_into_exactly_one_bucket(timestamp_ms: int, seconds: int) -> None:
    rules = CutRules(bucket_seconds=seconds)
    start = rules.bucket_start(timestamp_ms)
    assert start * 1000 <= timestamp_ms < rules.bucket_end_ms(start)
    assert start % seconds == 0
    assert rules.bucket_start(rules.bucket_end_ms(start)) == start + seconds


@pytest.mark.parametrize(
    ("timestamp_ms", "reason"),
    [(END_MS - 1, None), (END_MS, CutReason.TIME), (END_MS + 3_600_000, CutReason.TIME)],
)
def test_a_record_at_the_end_of_the_bucket_or_past_it_cuts(
    timestamp_ms: int, reason: CutReason | None
) -> None:
    assert cut_before(OpenRange(BUCKET, 5), timestamp_ms, 1, RULES) == reason


def test_time_cuts_a_range_without_rows_as_well() -> None:
    assert cut_before(OpenRange(BUCKET, 0), END_MS, 0, RULES) is CutReason.TIME


@pytest.mark.parametrize(
    ("rows", "new_rows", "reason"),
    [(9, 1, None), (10, 0, None), (9, 2, CutReason.ROWS), (10, 1, CutReason.ROWS)],
)
def test_the_record_that_would_exceed_the_row_limit_cuts(
    rows: int, new_rows: int, reason: CutReason | None
) -> None:
    assert cut_before(OpenRange(BUCKET, rows), END_MS - 1, new_rows, RULES) == reason


def test_a_record_over_the_limit_does_not_cut_a_range_that_has_no_rows() -> None:
    # Otherwise it would cut forever, as it fits in no range.
    assert cut_before(OpenRange(BUCKET, 0), END_MS - 1, 99, RULES) is None


def test_a_range_that_time_and_rows_would_cut_is_cut_by_time() -> None:
    assert cut_before(OpenRange(BUCKET, 10), END_MS, 5, RULES) is CutReason.TIME


@given(st.integers(0, 2**41), st.integers(0, 100))
def test_a_range_without_a_record_is_never_cut(timestamp_ms: int, new_rows: int) -> None:
    empty = OpenRange(None, 0)
    assert cut_before(empty, timestamp_ms, new_rows, RULES) is None
    assert cut_when_idle(empty, 7, 7, timestamp_ms, RULES) is None


@pytest.mark.parametrize(
    ("asked_at_ms", "reason"),
    [(END_MS, None), (DEADLINE_MS, None), (DEADLINE_MS + 1, CutReason.IDLE)],
)
def test_an_idle_range_is_cut_only_after_the_grace(
    asked_at_ms: int, reason: CutReason | None
) -> None:
    assert cut_when_idle(OpenRange(BUCKET, 3), 7, 7, asked_at_ms, RULES) == reason


@pytest.mark.parametrize("high_watermark", [6, 8])
def test_a_partition_with_records_under_way_is_not_idle(high_watermark: int) -> None:
    assert cut_when_idle(OpenRange(BUCKET, 3), 7, high_watermark, DEADLINE_MS + 1, RULES) is None
