"""Alive means progress, not an open port; ready means that all loops have met their condition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.runtime.health import LONG_WAIT_SECONDS, Health


class Clock:
    """A clock that only tests advance."""

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


def test_a_process_without_loops_is_alive_and_ready(health: Health, clock: Clock) -> None:
    clock.now += 1000
    assert health.liveness_problems() == []
    assert health.readiness_problems() == []


def test_a_loop_that_stalls_is_named_until_it_makes_progress(health: Health, clock: Clock) -> None:
    reader = health.register("reader")
    health.register("sealer")
    clock.now += 8
    reader.progress()
    clock.now += 4
    assert health.liveness_problems() == ["sealer made no progress for 12 s"]
    clock.now += 10
    assert health.liveness_problems() == [
        "reader made no progress for 14 s",
        "sealer made no progress for 22 s",
    ]
    reader.progress()
    assert health.liveness_problems() == ["sealer made no progress for 22 s"]


def test_the_stall_limit_of_a_loop_starts_at_registration(health: Health, clock: Clock) -> None:
    clock.now += 1000
    health.register("reader")
    clock.now += 10
    assert health.liveness_problems() == []


def test_a_loop_may_have_its_own_stall_limit(health: Health, clock: Clock) -> None:
    health.register("start", stall_seconds=600)
    clock.now += 599
    assert health.liveness_problems() == []
    clock.now += 2
    assert health.liveness_problems() == ["start made no progress for 601 s"]


def test_what_nothing_else_needs_is_reported_and_keeps_the_process_ready(health: Health) -> None:
    thumbnails = health.register("thumbnails", optional=True)
    reader = health.register("reader")
    thumbnails.degraded["thumbnails"] = "are not written"
    assert health.problems() == ["thumbnails: are not written"]
    assert health.readiness_problems() == []
    reader.degraded["poll"] = "failed"
    assert health.readiness_problems() == ["poll: failed"]


def test_a_loop_that_has_ended_is_not_reported(health: Health, clock: Clock) -> None:
    start = health.register("start", ready_when="the start to finish")
    health.forget(start)
    health.forget(start)
    clock.now += 1000
    assert health.problems() == []


def test_a_stall_does_not_make_a_process_unready(health: Health, clock: Clock) -> None:
    # Clients may keep calling it; restarting it is up to the liveness probe.
    health.register("reader")
    clock.now += 1000
    assert health.readiness_problems() == []


def test_a_loop_is_not_ready_from_when_it_is_registered(health: Health) -> None:
    model = health.register("embedder", ready_when="the model")
    assert health.readiness_problems() == ["embedder: waiting for the model"]
    assert health.liveness_problems() == []
    model.not_ready = None
    assert health.readiness_problems() == []
    model.not_ready = "the model is being reloaded"
    assert health.readiness_problems() == ["embedder: the model is being reloaded"]


def test_a_long_external_wait_is_reported_but_is_not_a_stall(health: Health, clock: Clock) -> None:
    reader = health.register("reader")
    with reader.waiting_for("kafka to take records"):
        clock.now += LONG_WAIT_SECONDS
        assert health.problems() == []
        clock.now += 3600
        assert health.liveness_problems() == []
        assert health.problems() == ["reader: waiting for kafka to take records for 3605 s"]
    assert health.problems() == []
    clock.now += 9
    assert health.liveness_problems() == [], "the end of the wait was progress"
    clock.now += 2
    assert health.liveness_problems() == ["reader made no progress for 11 s"]


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.floats(0, 20), st.booleans()), max_size=20
    )
)
def test_a_loop_is_alive_if_it_made_progress_within_its_limit(
    turns: list[tuple[str, float, bool]],
) -> None:
    clock = Clock()
    health = Health(stall_seconds=10, clock=clock)
    loops = {name: health.register(name) for name in "abc"}
    last = dict.fromkeys(loops, clock.now)
    for name, seconds, progresses in turns:
        clock.now += seconds
        if progresses:
            loops[name].progress()
            last[name] = clock.now
        late = [other for other, at in last.items() if clock.now - at > 10]
        assert [problem.split()[0] for problem in health.liveness_problems()] == late


def test_a_degraded_loop_makes_a_consumer_unready_and_leaves_a_server_in_service() -> None:
    for is_called in (False, True):
        health = Health()
        health.ready_when_degraded = is_called
        reader = health.register("reader")
        reader.degraded["kafka"] = "does not respond"
        assert health.problems() == ["kafka: does not respond"]
        assert bool(health.readiness_problems()) is not is_called
        assert not health.liveness_problems()
        del reader.degraded["kafka"]
        assert not health.problems()
