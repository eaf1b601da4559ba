"""Which replica is asked, after how long a second one, and how many hedges are allowed."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from shashin.discovery.protocol import Endpoint
from shashin.serving.replica_choice import (
    Candidate,
    HedgeBudget,
    HedgeDelay,
    Standing,
    choose_replica,
    last_resort_after,
    unresponsive_after,
)

ENDPOINTS = st.builds(
    Endpoint,
    name=st.uuids().map(str),
    role=st.just("index-server"),
    address=st.just("h:1"),
    zone=st.sampled_from(["", "a", "b"]),
)
CANDIDATES = st.lists(
    st.builds(Candidate, ENDPOINTS, st.sampled_from(Standing), st.integers(0, 5)),
    min_size=1,
    max_size=6,
)


@given(CANDIDATES, st.sampled_from(["", "a", "b"]), st.data(), st.integers())
def test_the_standing_counts_before_the_preferred_one_and_that_before_the_zone(
    candidates: list[Candidate], zone: str, data: st.DataObject, seed: int
) -> None:
    preferred = data.draw(st.sampled_from([None, *candidates]))
    chosen = choose_replica(
        candidates,
        zone=zone,
        preferred=None if preferred is None else preferred.endpoint,
        chance=random.Random(seed),
    )
    assert chosen.standing == min(c.standing for c in candidates)
    best = [c for c in candidates if c.standing == chosen.standing]
    if preferred in best:
        assert chosen is preferred
    elif zone and (near := [c for c in best if c.endpoint.zone == zone]):
        assert chosen in near


@given(CANDIDATES, st.integers())
def test_the_busiest_replica_is_never_chosen_over_all_others(
    candidates: list[Candidate], seed: int
) -> None:
    equal = [Candidate(c.endpoint, outstanding=c.outstanding) for c in candidates]
    chosen = choose_replica(equal, chance=random.Random(seed))
    others = [c.outstanding for c in equal if c is not chosen]
    assert not others or chosen.outstanding <= max(others)


def test_equal_replicas_share_the_calls() -> None:
    equal = [Candidate(Endpoint(name, "index-server", "h:1")) for name in "abc"]
    chance = random.Random(1)
    chosen = [choose_replica(equal, chance=chance) for _ in range(100)]
    assert all(chosen.count(one) > 10 for one in equal)


@given(st.floats(0.01, 0.5), st.floats(0, 60), st.integers(0, 5))
def test_each_replica_that_is_left_gets_its_turn_before_the_deadline(
    delay: float, seconds_left: float, replicas: int
) -> None:
    left = seconds_left
    for count in range(replicas, -1, -1):
        wait = last_resort_after(delay, seconds_left=left, replicas_left=count)
        assert wait <= unresponsive_after(delay)
        left -= wait
        # As much time as an equal share of the whole.
        assert left >= seconds_left * count / (replicas + 1) - 1e-9


@given(st.lists(st.floats(0, 10), max_size=400))
def test_at_most_a_twentieth_of_recent_calls_took_longer_than_the_delay(took: list[float]) -> None:
    delay = HedgeDelay(default=0.1, shortest=0.01, longest=0.5, warm_up=20, calls=100)
    for seconds in took:
        delay.observe(seconds)
    found = delay.seconds()
    recent = took[-100:]
    if len(recent) < 20:
        assert found == 0.1
        return
    assert 0.01 <= found <= 0.5
    if found < 0.5:
        assert sum(seconds > found for seconds in recent) <= 0.05 * len(recent)
    if found > 0.01:
        assert sum(seconds >= found for seconds in recent) >= 0.05 * len(recent)


@given(st.lists(st.booleans(), max_size=500))
def test_hedges_stay_within_their_share_over_any_run_of_calls(hedge_wanted: list[bool]) -> None:
    budget = HedgeBudget(share=0.05, burst=2)
    hedged = []
    for wanted in hedge_wanted:
        budget.call()
        hedged.append(wanted and budget.take())
    for begin in range(0, len(hedged), 37):
        run = hedged[begin:]
        assert sum(run) <= 0.05 * len(run) + 2


def test_a_hedge_is_allowed_after_enough_calls_and_only_once() -> None:
    budget = HedgeBudget(share=0.5, burst=3)
    assert not budget.take()
    for _ in range(2):
        budget.call()
    assert budget.take()
    assert not budget.take()
