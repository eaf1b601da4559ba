"""Which objects are looked at, and when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.controller.work_queue import LONGEST_BACKOFF_SECONDS, WorkQueue
from shashin.kube.resource import Key

KEYS: list[Key] = [("shop", name) for name in "abc"]


class Worked(RuleBasedStateMachine):
    """A queue beside what it must not forget."""

    def __init__(self) -> None:
        super().__init__()
        self.queue, self.now = WorkQueue(), 0.0
        self.unseen: set[Key] = set()
        """Changed or failed since they were taken."""
        self.changed: set[Key] = set()
        self.taken: Key | None = None

    @rule(keys=st.sets(st.sampled_from(KEYS)))
    def change(self, keys: set[Key]) -> None:
        self.queue.add(keys, self.now)
        self.unseen |= keys
        self.changed |= keys

    @rule(seconds=st.floats(0.0, 100.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def take(self) -> None:
        if self.taken is not None:
            return
        self.taken = self.queue.take(self.now)
        if self.taken is None:
            assert not self.changed
        else:
            self.unseen.discard(self.taken)
            self.changed.discard(self.taken)

    @rule(good=st.booleans())
    def finish(self, good: bool) -> None:
        if self.taken is None:
            return
        if good:
            self.queue.succeeded(self.taken, self.now)
        else:
            self.queue.failed(self.taken, self.now)
            self.unseen.add(self.taken)
        self.taken = None

    @invariant()
    def nothing_is_forgotten(self) -> None:
        left = self.queue.seconds_to_next(self.now)
        assert (left is None) == (not self.unseen)
        if self.changed:
            assert left == 0
        if left is not None:
            assert left <= LONGEST_BACKOFF_SECONDS


TestWorked = Worked.TestCase


def test_a_key_that_goes_on_failing_is_looked_at_less_and_less_often() -> None:
    queue, waits = WorkQueue(), []
    for _ in range(20):
        queue.failed(KEYS[0], 0.0)
        waits.append(queue.seconds_to_next(0.0) or 0.0)
        assert queue.take(1e9) == KEYS[0]
    assert waits[0] <= 0.1
    assert LONGEST_BACKOFF_SECONDS / 2 <= waits[-1] <= LONGEST_BACKOFF_SECONDS
    queue.succeeded(KEYS[0], 0.0)
    queue.failed(KEYS[0], 0.0)
    assert (queue.seconds_to_next(0.0) or 0.0) <= 0.1


@given(st.floats(0.0, 1e6))
def test_a_server_that_asks_for_time_gets_it(seconds: float) -> None:
    queue = WorkQueue()
    queue.failed(KEYS[0], 0.0, seconds)
    assert (queue.seconds_to_next(0.0) or 0.0) >= seconds


def test_a_key_can_be_looked_at_again_later() -> None:
    queue = WorkQueue()
    queue.succeeded(KEYS[0], 5.0, 10.0)
    assert queue.take(14.9) is None
    assert queue.take(15.0) == KEYS[0]
