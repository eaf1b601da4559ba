"""How often something may happen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.runtime.token_bucket import TokenBucket


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_is_followed_by_the_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(2, 3, clock=clock)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    assert bucket.seconds_to_next() == pytest.approx(0.5)
    clock.now += 0.25
    assert not bucket.take()
    assert bucket.seconds_to_next() == pytest.approx(0.25)
    clock.now += 0.25
    assert bucket.seconds_to_next() == 0
    assert bucket.take()
    assert not bucket.take()


def test_a_pause_fills_it_and_no_more() -> None:
    clock = Clock()
    bucket = TokenBucket(5, 2, clock=clock)
    clock.now += 3600
    assert [bucket.take() for _ in range(3)] == [True, True, False]


@given(
    pauses=st.lists(st.floats(0, 2), max_size=60),
    rate=st.floats(0.5, 20),
    burst=st.integers(1, 10),
)
def test_never_more_than_the_burst_and_the_rate(
    pauses: list[float], rate: float, burst: int
) -> None:
    clock = Clock()
    bucket = TokenBucket(rate, burst, clock=clock)
    taken = 0
    for pause in pauses:
        clock.now += pause
        taken += bucket.take()
        assert taken <= burst + rate * (clock.now - 1000) + 1e-6
