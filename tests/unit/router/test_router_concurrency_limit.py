"""Queries to endpoints that take longer the more they have, on a simulated clock."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.concurrency_limit import ConcurrencyLimit

LEAST, MOST, TARGET = 16.0, 1000.0, 0.1


def made() -> ConcurrencyLimit:
    return ConcurrencyLimit(at_least=LEAST, at_most=MOST, target_seconds=TARGET)


@dataclass
class Endpoints:
    """So many queries at once, each for so many seconds; the rest wait in the order of their arrival."""

    limit: ConcurrencyLimit = field(default_factory=made)
    slots: int = 8
    seconds: float = 0.02
    now: float = 0.0
    took: list[float] = field(default_factory=list)
    refused: int = 0
    _free: list[float] = field(default_factory=list)
    _running: list[tuple[float, float, bool]] = field(default_factory=list)

    @property
    def capacity(self) -> float:
        """Queries a second."""
        return self.slots / self.seconds

    def run(self, load: float, seconds: float) -> Endpoints:
        """Let queries arrive, ``load`` times as many as can be answered; returns itself."""
        self.took, self.refused = [], 0
        self._free = self._free or [0.0] * self.slots
        ends = self.now + seconds
        while self.now < ends:
            self.now += 1 / (load * self.capacity)
            while self._running and self._running[0][0] <= self.now:
                at, began, alone = heapq.heappop(self._running)
                self.took.append(at - began)
                self.limit.end(1.0, "vector", at - began, at, alone=alone)
            if not self.limit.fits(1.0):
                self.refused += 1
                continue
            alone = self.limit.begin(1.0, self.now)
            done = max(heapq.heappop(self._free), self.now) + self.seconds
            heapq.heappush(self._free, done)
            heapq.heappush(self._running, (done, self.now, alone))
        return self


@given(st.floats(0.05, 0.95), st.sampled_from([0.001, 0.02, 0.5, 3.0]))
def test_below_their_capacity_nothing_is_refused_however_long_queries_take(
    load: float, seconds: float
) -> None:
    endpoints = Endpoints(seconds=seconds)
    assert endpoints.run(load, 100 * seconds).refused == 0


@pytest.mark.parametrize("load", [1.2, 2.0, 4.0])
def test_above_their_capacity_they_stay_busy_and_answers_are_not_late(load: float) -> None:
    endpoints = Endpoints()
    endpoints.run(load, 20.0)
    steady = endpoints.run(load, 20.0)
    assert steady.refused
    assert len(steady.took) / 20.0 > 0.95 * endpoints.capacity
    took = sorted(steady.took)
    assert took[len(took) // 2] < TARGET
    assert took[-1] < 3 * TARGET


def test_a_limit_that_shrank_grows_again_once_answers_are_in_time() -> None:
    endpoints = Endpoints()
    endpoints.run(3.0, 20.0)
    shrunk = endpoints.limit.limit
    endpoints.run(0.5, 20.0)
    assert endpoints.limit.limit > 5 * shrunk
    assert endpoints.run(0.9, 5.0).refused == 0


def test_queries_that_are_slow_by_themselves_are_not_refused_for_long() -> None:
    endpoints = Endpoints(slots=400, seconds=0.02)
    endpoints.run(0.05, 5.0)
    endpoints.seconds = 1.0  # one endpoint hangs, so each query takes its deadline
    endpoints.run(0.5, 30.0)
    assert endpoints.run(0.5, 20.0).refused == 0


def test_whatever_it_costs_a_query_that_is_alone_may_begin() -> None:
    limit = made()
    limit.limit = LEAST
    assert limit.fits(5000.0)
    limit.begin(5000.0, 0.0)
    assert not limit.fits(1.0)
    limit.end(5000.0, "photo", 1.0, 1.0, alone=True)
    assert limit.fits(5000.0)


def test_what_costs_more_takes_more_of_the_limit() -> None:
    limit = made()
    limit.begin(5.0, 0.0)
    limit.limit = 20.0
    for _ in range(3):
        assert limit.fits(5.0)
        limit.begin(5.0, 0.0)
    assert not limit.fits(1.0)


@given(
    st.lists(
        st.tuples(
            st.floats(0, 2), st.floats(0.25, 100), st.none() | st.floats(0, 60), st.booleans()
        ),
        max_size=200,
    )
)
def test_the_limit_stays_within_its_bounds_and_work_is_counted_exactly(
    calls: list[tuple[float, float, float | None, bool]],
) -> None:
    limit, now = made(), 0.0
    running: list[tuple[float, bool]] = []
    for pause, cost, seconds, ends in calls:
        now += pause
        if ends and running:
            done, alone = running.pop()
            limit.end(done, "photo", seconds, now, alone=alone)
        elif limit.fits(cost):
            running.append((cost, limit.begin(cost, now)))
        assert LEAST <= limit.limit <= MOST
        assert limit.in_progress == pytest.approx(sum(cost for cost, _ in running), abs=1e-6)
