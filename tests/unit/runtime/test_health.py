"""Alive means progress, not a socket; ready means that every condition holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.runtime.health import Health


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(stall_seconds=10, clock=clock)


def test_a_process_without_loops_and_conditions_is_alive_and_ready(
    health: Health, clock: Clock
) -> None:
    clock.now += 1000
    assert health.liveness_problems() == []
    assert health.readiness_problems() == []


def test_a_loop_that_stands_still_is_named_and_is_well_once_it_beats(
    health: Health, clock: Clock
) -> None:
    reader = health.heartbeat("reader")
    health.heartbeat("sealer")
    clock.now += 8
    reader.beat()
    clock.now += 4
    assert health.liveness_problems() == ["sealer made no progress for 12 s"]
    clock.now += 10
    assert health.liveness_problems() == [
        "reader made no progress for 14 s",
        "sealer made no progress for 22 s",
    ]
    reader.beat()
    assert health.liveness_problems() == ["sealer made no progress for 22 s"]


def test_a_loop_has_its_whole_time_from_when_it_is_registered(health: Health, clock: Clock) -> None:
    clock.now += 1000
    health.heartbeat("reader")
    clock.now += 10
    assert health.liveness_problems() == []


def test_a_loop_that_has_come_to_its_end_need_not_beat(health: Health, clock: Clock) -> None:
    start = health.heartbeat("start")
    health.finished(start)
    health.finished(start)
    clock.now += 1000
    assert health.liveness_problems() == []


def test_standing_still_does_not_make_a_process_unready(health: Health, clock: Clock) -> None:
    # Whoever routes by readiness may keep asking it; restarting it is the liveness probe's matter.
    health.heartbeat("reader")
    clock.now += 1000
    assert health.readiness_problems() == []


def test_every_condition_that_does_not_hold_is_named_with_why(health: Health) -> None:
    health.require("consumer group", waiting_for="partitions of listings.events")
    health.require("model")
    assert health.readiness_problems() == [
        "consumer group: partitions of listings.events",
        "model: start",
    ]
    health.set_ready("model")
    assert health.readiness_problems() == ["consumer group: partitions of listings.events"]
    health.set_ready("consumer group")
    health.set_unready("model", "is loaded anew")
    assert health.readiness_problems() == ["model: is loaded anew"]


def test_a_condition_that_holds_already_is_not_lost_when_it_is_required(health: Health) -> None:
    health.set_ready("model")
    health.require("model")
    assert health.readiness_problems() == []


def test_waiting_for_a_condition_is_no_reason_to_be_restarted(health: Health) -> None:
    health.require("kafka")
    assert health.liveness_problems() == []


def test_a_process_that_failed_is_neither_alive_nor_ready_whatever_follows(health: Health) -> None:
    beat = health.heartbeat("reader")
    health.fail("the model's thread died")
    beat.beat()
    health.set_ready("model")
    assert health.liveness_problems() == ["the model's thread died"]
    assert health.readiness_problems() == ["the model's thread died"]


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.floats(0, 20), st.booleans()), max_size=20
    )
)
def test_alive_is_every_loop_that_beat_within_the_limit(
    turns: list[tuple[str, float, bool]],
) -> None:
    clock = Clock()
    health = Health(stall_seconds=10, clock=clock)
    beats = {name: health.heartbeat(name) for name in "abc"}
    last = dict.fromkeys(beats, clock.now)
    for name, seconds, does_beat in turns:
        clock.now += seconds
        if does_beat:
            beats[name].beat()
            last[name] = clock.now
        late = [other for other, at in last.items() if clock.now - at > 10]
        assert [problem.split()[0] for problem in health.liveness_problems()] == late


def test_a_loop_that_stands_still_makes_a_consumer_unready_and_leaves_a_server_in_service() -> None:
    for serving in (False, True):
        health = Health(serving=serving)
        health.hold("kafka", "does not answer")
        assert health.problems() == ["kafka: does not answer"]
        assert bool(health.readiness_problems()) is not serving
        assert not health.liveness_problems()
        health.go_on("kafka")
        assert not health.problems()
