"""Calls that arrive one after another at a server that takes its time, on a simulated clock."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.refusal_rate import RefusalRate

EVERY, TARGET = 0.05, 0.05


@dataclass
class Served:
    """A queue before a server that answers a call in ``service`` seconds, or refuses it in a fifth of that."""

    rate: RefusalRate = field(default_factory=lambda: RefusalRate(target_seconds=TARGET))
    service: float = 0.005
    now: float = 0.0
    free_at: float = 0.0
    next_update: float = EVERY
    calls: int = 0
    refused: int = 0
    waits: list[float] = field(default_factory=list)
    """Of calls that were answered."""

    def run(self, load: float, seconds: float) -> Served:
        """Let calls arrive, ``load`` times as many as it can answer; returns the server."""
        self.calls, self.refused, self.waits = 0, 0, []
        ends = self.now + seconds
        while self.now < ends:
            self.now += self.service / load
            while self.next_update <= self.now:
                self.rate.update(max(0.0, self.free_at - self.next_update))
                self.next_update += EVERY
            self.calls += 1
            begins = max(self.free_at, self.now)
            if self.rate.refuses():
                self.refused += 1
                self.free_at = begins + self.service / 5
            else:
                self.waits.append(begins - self.now)
                self.free_at = begins + self.service
        return self


@given(st.floats(0.01, 0.95), st.floats(0.0005, 0.02))
def test_below_its_capacity_nothing_is_refused(load: float, service: float) -> None:
    assert Served(service=service).run(load, 10.0).refused == 0


@pytest.mark.parametrize("load", [1.1, 1.5, 2.0, 3.0])
def test_above_its_capacity_answered_calls_wait_about_as_long_as_they_should(load: float) -> None:
    served = Served()
    served.run(load, 10.0)
    steady = served.run(load, 20.0)
    assert steady.refused
    assert max(steady.waits) < 3 * TARGET
    # No more is refused than necessary: what can be answered besides refusing the rest is.
    ideal = (1 - load / 5) / (1 - 1 / 5) / served.service
    assert len(steady.waits) / 20.0 > 0.9 * ideal


def test_when_the_load_ends_so_do_refusals() -> None:
    served = Served()
    served.run(2.0, 10.0)
    served.run(0.5, 3.0)
    assert served.run(0.5, 10.0).refused == 0


def test_a_short_burst_is_not_refused() -> None:
    served = Served()
    served.run(0.2, 1.0)
    assert served.run(3.0, 0.08).refused == 0


@given(st.lists(st.floats(0, 10), max_size=200))
def test_the_share_stays_within_its_bounds_and_some_calls_are_answered(waits: list[float]) -> None:
    rate = RefusalRate(target_seconds=TARGET)
    for wait in waits:
        rate.update(wait)
        assert 0.0 <= rate.share <= 0.95
    assert not all(rate.refuses() for _ in range(100))


@given(st.floats(0.01, 0.95), st.integers(1, 500))
def test_exactly_its_share_is_refused(share: float, calls: int) -> None:
    rate = RefusalRate(target_seconds=TARGET)
    rate.share = share
    refused = sum(rate.refuses() for _ in range(calls))
    assert abs(refused - share * calls) <= 1


def test_no_calls_no_share() -> None:
    served = Served()
    served.run(3.0, 5.0)
    assert served.rate.share > 0
    for _ in range(100):
        served.rate.update(0.0)
    assert served.rate.share == 0
