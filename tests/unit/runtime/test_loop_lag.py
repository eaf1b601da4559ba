"""An event loop that is held shows in its lag."""

from __future__ import annotations

import time

from prometheus_client import REGISTRY

from shashin.runtime.loop_lag import loop_lag_observed
from tests.support.waiting import until

HELD_SECONDS = 0.8


def lag(part: str) -> float:
    return REGISTRY.get_sample_value(f"shashin_event_loop_lag_seconds_{part}") or 0.0


async def test_a_computation_that_holds_the_loop_is_observed() -> None:
    count, total = lag("count"), lag("sum")
    with loop_lag_observed():
        time.sleep(HELD_SECONDS)  # noqa: ASYNC251 - this holds the loop beyond the next sample
        await until(lambda: lag("count") > count, "a sample is taken")
    assert lag("sum") - total > (HELD_SECONDS - 0.5) / 2


async def test_nothing_is_observed_any_more_at_the_end() -> None:
    with loop_lag_observed():
        pass
    count = lag("count")
    with loop_lag_observed():
        await until(lambda: lag("count") > count, "a sample is taken")
    assert lag("count") == count + 1, "the first one had been stopped"
