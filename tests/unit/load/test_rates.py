"""Schedules: their text, and when requests are due."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.errors import UserError
from shashin.workload.load.rates import Phase, Schedule, parse_duration, parse_schedule

RATES = st.floats(0, 300)
PHASES = st.builds(Phase, RATES, RATES, st.floats(0.1, 20))
SCHEDULES = st.lists(PHASES, min_size=1, max_size=4).map(lambda phases: Schedule(tuple(phases)))


def test_a_schedule_has_ramps_steps_and_a_last_phase_without_a_length() -> None:
    schedule = parse_schedule("0..200/s over 60s, 200/s for 1m, 30/min")
    assert schedule.phases == (Phase(0, 200, 60), Phase(200, 200, 60), Phase(0.5, 0.5, math.inf))
    assert schedule.requests(30) == pytest.approx(1500)
    assert schedule.requests(130) == pytest.approx(6000 + 12000 + 5)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("fast", "'fast' is not a rate: expected"),
        ("0..200/s", "ramp without a length: expected `0..200/s over 60s`"),
        ("0..200/s for 60s", "ramp without a length"),
        ("20/s over 60s", "not a ramp: expected `for`"),
        ("20/s, 30/s", "'20/s' has no length, and others follow"),
        ("20/s for 10 parsecs", "'10 parsecs' is not a duration"),
        ("20/s for 0s", "'0s' is not a duration"),
        ("-3/s", "not a rate"),
        ("9999999/s", "more than 100,000"),
        ("", "not a rate"),
    ],
)
def test_a_wrong_schedule_is_named_with_what_was_expected(text: str, named: str) -> None:
    with pytest.raises(UserError) as raised:
        parse_schedule(text)
    assert named in raised.value.message


def test_durations_have_units() -> None:
    assert [parse_duration(text) for text in ("500ms", "2s", "2 m", "1.5h")] == [0.5, 2, 120, 5400]


@given(SCHEDULES, st.floats(0.1, 60))
def test_even_arrivals_are_as_many_as_expected_at_any_time(
    schedule: Schedule, seconds: float
) -> None:
    due = list(schedule.due_times(seconds, "even", 0))
    assert due == sorted(due)
    assert all(0 <= at < seconds for at in due)
    for number, at in enumerate(due):
        assert schedule.requests(at) == pytest.approx(number + 0.5, abs=1e-3)
    assert abs(len(due) - schedule.requests(min(seconds, schedule.seconds))) <= 0.5 + 1e-6


@given(SCHEDULES, st.integers(0, 1000))
def test_the_same_seed_gives_the_same_arrivals(schedule: Schedule, seed: int) -> None:
    first = list(schedule.due_times(10, "poisson", seed))
    assert first == list(schedule.due_times(10, "poisson", seed))
    assert first == sorted(first)
    assert all(0 <= at < 10 for at in first)


def test_poisson_arrivals_have_the_rate_and_the_gaps_of_a_poisson_process() -> None:
    due = list(parse_schedule("100/s").due_times(200, "poisson", 7))
    gaps = [after - before for before, after in pairwise(due)]
    mean = sum(gaps) / len(gaps)
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    assert len(due) == pytest.approx(20_000, rel=0.03)
    assert deviation == pytest.approx(mean, rel=0.05)


def test_a_ramp_grows_evenly() -> None:
    due = list(parse_schedule("0..100/s over 100s").due_times(100, "poisson", 3))
    early = sum(at < 50 for at in due)
    assert early / len(due) == pytest.approx(0.25, abs=0.03)
