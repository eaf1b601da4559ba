from __future__ import annotations

import pytest

from services.router.deadline import Deadline


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_shortest_bound_applies_and_none_is_no_bound() -> None:
    clock = Clock()
    assert Deadline.within(2.0, None, 0.5, clock=clock).seconds == 0.5


def test_time_is_reserved_for_the_response() -> None:
    clock = Clock()
    assert Deadline.within(1.0, clock=clock).remaining() == pytest.approx(0.95)
    assert Deadline.within(0.01, clock=clock).remaining() == pytest.approx(0.009)


def test_no_time_remains_after_expiry() -> None:
    clock = Clock()
    deadline = Deadline.within(1.0, clock=clock)
    clock.now += 5.0
    assert deadline.remaining() == 0.0
    assert Deadline.within(-1.0, clock=clock).remaining() == 0.0
