"""The API server's clock, told from its responses."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.kube.server_clock import ServerClock

SERVER = 1_773_000_000.0


@given(
    ahead=st.floats(-1e7, 1e7),
    delays=st.lists(st.floats(0, 1.0), min_size=1, max_size=20),
    second=st.floats(0, 0.999),
)
def test_it_is_right_to_two_seconds_whatever_this_machines_clock_says(
    ahead: float, delays: list[float], second: float
) -> None:
    now = SERVER + second
    clock = ServerClock(lambda: now + ahead)
    for delay in delays:
        clock.observe(formatdate(now - delay, usegmt=True))
    assert clock.now() == pytest.approx(now, abs=2.1)


def test_a_slow_response_is_no_skew() -> None:
    now = SERVER
    clock = ServerClock(lambda: now)
    for delay in (0.2, 30.0, 0.4):
        clock.observe(formatdate(now - delay, usegmt=True))
        assert clock.skew_seconds == 0


def test_a_clock_that_was_corrected_is_noticed() -> None:
    ahead = 3600.0
    clock = ServerClock(lambda: SERVER + ahead)
    clock.observe(formatdate(SERVER, usegmt=True))
    assert clock.skew_seconds == pytest.approx(3600, abs=1)
    ahead = 0.0
    clock.observe(formatdate(SERVER, usegmt=True))
    assert clock.skew_seconds == 0
    assert clock.now() == SERVER


@pytest.mark.parametrize("date", [None, "", "yesterday", "Mon, 99 Foo 2026 00:00:00 GMT"])
def test_a_response_without_a_date_tells_nothing(date: str | None) -> None:
    clock = ServerClock(lambda: SERVER)
    clock.observe(date)
    assert clock.now() == SERVER
