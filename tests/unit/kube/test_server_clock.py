"""The API server's clock, told from its responses."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.kube.server_clock import ServerClock

SERVER = 1_773_000_000.0


class Times:
    """The clocks of this machine, and the server's."""

    def __init__(self, *, ahead: float = 0.0, second: float = 0.0) -> None:
        self.server = SERVER + second
        self.ahead = ahead
        self.clock = ServerClock(lambda: self.server + self.ahead, lambda: self.server - 1e9)

    def respond(self, delay: float = 0.0) -> None:
        """Have a response arrive that was sent ``delay`` seconds ago."""
        self.clock.observe(formatdate(self.server - delay, usegmt=True))


@given(
    ahead=st.floats(-1e7, 1e7),
    delays=st.lists(st.floats(0, 1.0), min_size=1, max_size=20),
    second=st.floats(0, 0.999),
)
def test_it_is_right_to_two_seconds_whatever_this_machines_clock_says(
    ahead: float, delays: list[float], second: float
) -> None:
    times = Times(ahead=ahead, second=second)
    for delay in delays:
        times.respond(delay)
    assert times.clock.now() == pytest.approx(times.server, abs=2.1)


@pytest.mark.parametrize("ahead", [0.0, 30.0, -30.0])
def test_slow_responses_are_no_skew(ahead: float) -> None:
    times = Times(ahead=ahead)
    for delay in (0.2, 29.0, 0.4, 25.0):
        times.respond(delay)
        assert times.clock.skew_seconds == pytest.approx(ahead, abs=1)


def test_a_clock_that_is_set_while_it_runs_is_noticed_at_once_and_never_believed() -> None:
    times = Times()
    for _ in range(10):
        times.respond()
    for ahead in (7200.0, -7200.0, 0.0):
        times.ahead = ahead
        assert times.clock.now() == pytest.approx(times.server, abs=2.1)
        assert times.clock.skew_seconds == pytest.approx(ahead, abs=1)
        times.server += 60
        assert times.clock.now() == pytest.approx(times.server, abs=2.1)


@pytest.mark.parametrize("date", [None, "", "yesterday", "Mon, 99 Foo 2026 00:00:00 GMT"])
def test_a_response_without_a_date_tells_nothing(date: str | None) -> None:
    clock = ServerClock(lambda: SERVER)
    clock.observe(date)
    assert clock.now() == SERVER
