"""Deadlines pass in time, and once; what was discarded is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.rpc import deadlines
from shashin.rpc.deadlines import Deadlines


@dataclass
class Timer:
    """A timer of the loop."""

    at: float
    call: Callable[[], None]
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True


@dataclass
class Loop:
    """An event loop whose clock is set."""

    now: float = 0.0
    timers: list[Timer] = field(default_factory=list)

    def time(self) -> float:
        return self.now

    def call_at(self, at: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(at, call))
        return self.timers[-1]

    @property
    def armed(self) -> list[Timer]:
        """Timers that are still to come."""
        return [timer for timer in self.timers if not timer.is_cancelled]

    def run_until(self, at: float) -> None:
        """Let the time pass, and call what is due, in order."""
        while due := sorted((t for t in self.armed if t.at <= at), key=lambda timer: timer.at):
            self.timers.remove(due[0])
            self.now = max(self.now, due[0].at)
            due[0].call()
        self.now = at


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    return looping(monkeypatch)


def looping(monkeypatch: pytest.MonkeyPatch) -> Loop:
    loop = Loop()
    monkeypatch.setattr(deadlines.asyncio, "get_running_loop", lambda: loop)  # type: ignore[attr-defined]
    return loop


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 50)),
        st.tuples(st.just("discard"), st.integers(0, 200)),
        st.tuples(st.just("wait"), st.integers(0, 20)),
    ),
    max_size=200,
)


@given(_STEPS)
def test_what_is_left_is_late_when_its_time_has_come_and_never_again(
    steps: list[tuple[str, int]],
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        loop, tested = looping(monkeypatch), Deadlines()
        left: dict[int, float] = {}
        late: list[tuple[str, float]] = []
        expected: list[tuple[str, float]] = []
        numbers: list[int] = []
        for step, number in steps:
            if step == "add":
                name = str(len(numbers))
                at = loop.now + number

                def note(name: str = name) -> None:
                    late.append((name, loop.now))

                numbers.append(tested.add(at, note))
                left[numbers[-1]] = at
            elif step == "discard":
                if numbers:
                    chosen = numbers[number % len(numbers)]
                    tested.discard(chosen)
                    left.pop(chosen, None)
            else:
                until = loop.now + number
                due = sorted((at, one) for one, at in left.items() if at <= until)
                expected += [(str(numbers.index(one)), at) for at, one in due]
                for _, one in due:
                    del left[one]
                loop.run_until(until)
            assert late == expected
            assert len(tested) == len(left)
            assert len(loop.armed) <= 1
            assert not left or loop.armed


def test_deadlines_that_are_discarded_are_not_kept(loop: Loop) -> None:
    tested, kept = Deadlines(), 10
    for _ in range(kept):
        tested.add(1000.0, pytest.fail)
    for at in range(1, 10_000):
        tested.discard(tested.add(float(at), pytest.fail))
    assert len(tested) == kept
    assert len(tested._queue) <= 2 * (kept + 1) + deadlines._GONE + 1
    loop.run_until(999.0)


def test_one_that_fails_keeps_no_other_from_its_time(loop: Loop) -> None:
    tested, late = Deadlines(), []

    def fail() -> None:
        raise ValueError("a fault")

    tested.add(1.0, fail)
    tested.add(1.0, lambda: late.append("second"))
    with pytest.raises(ValueError, match="a fault"):
        loop.run_until(2.0)
    loop.run_until(2.0)
    assert late == ["second"]


def test_a_late_one_may_add_and_discard_others(loop: Loop) -> None:
    tested, late = Deadlines(), []
    other = tested.add(1.0005, pytest.fail)  # due together with the first

    def first() -> None:
        late.append("first")
        tested.discard(other)
        tested.add(3.0, lambda: late.append("added"))

    tested.add(1.0, first)
    loop.run_until(5.0)
    assert late == ["first", "added"]


async def test_a_deadline_passes_on_a_real_loop() -> None:
    passed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    began = asyncio.get_running_loop().time()
    Deadlines().add(began + 0.02, lambda: passed.set_result(None))
    await asyncio.wait_for(passed, 10)
    assert asyncio.get_running_loop().time() >= began + 0.018
