"""When a router that has just started may be asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.router.first_ready import FirstReady
from shashin.offsets.answer_coverage import AnswerCoverage

COMPLETE = AnswerCoverage(missing=(), unknown_partitions=(), partitions=1)
PART = AnswerCoverage(missing=(), unknown_partitions=(0,), partitions=1)


def test_it_is_ready_as_soon_as_coverage_is_complete() -> None:
    first = FirstReady(5.0)
    assert "coverage is not complete yet: 5 s" in (first.waits_for(PART, 100.0) or "")
    assert first.waits_for(COMPLETE, 101.0) is None


def test_it_is_ready_after_a_while_in_any_case() -> None:
    first = FirstReady(5.0)
    assert first.waits_for(PART, 100.0)
    assert first.waits_for(PART, 104.9)
    assert first.waits_for(PART, 105.0) is None


@given(st.lists(st.sampled_from([COMPLETE, PART])))
def test_once_ready_it_stays_so_however_complete_coverage_is(then: list[AnswerCoverage]) -> None:
    first = FirstReady(5.0)
    assert first.waits_for(COMPLETE, 0.0) is None
    for number, coverage in enumerate(then):
        assert first.waits_for(coverage, float(number)) is None
