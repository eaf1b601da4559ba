"""The expected model of the crash matrix, and the verdict."""

from __future__ import annotations

import asyncio
from itertools import islice
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from shashin.client.listing_events import LISTED, SOLD, UPDATED
from shashin.runtime.failpoints import POINTS
from tests.chaos.kills import Killer
from tests.chaos.plan import Expected, Model, PlannedEvent, batches_of, model_of, stream
from tests.chaos.verdict import FoundRow, judge
from tests.support.waiting import until

MODEL: Model = {"lamp": Expected(3, 2), "sold": None}
RIGHT = [FoundRow("live", 3, 0), FoundRow("hourly", 3, 1)]


@given(st.integers(0, 1000))
def test_a_stream_is_the_same_for_a_seed_and_versions_never_go_backwards(seed: int) -> None:
    events = list(islice(stream(photos=5, seed=seed), 200))
    assert events == list(islice(stream(photos=5, seed=seed), 200))
    newest: dict[str, int] = {}
    for event in events:
        assert event.version >= newest.get(event.listing_id, 1)
        newest[event.listing_id] = event.version
        assert bool(event.photos) == (event.kind in {LISTED, UPDATED})


@given(st.integers(0, 1000), st.integers(1, 30))
def test_batches_keep_the_order_and_hold_a_listing_once(seed: int, at_most: int) -> None:
    events = list(islice(stream(photos=5, seed=seed), 100))
    batches = list(batches_of(events, at_most))
    assert [event for batch in batches for event in batch] == events
    for batch in batches:
        assert len({event.listing_id for event in batch}) == len(batch) <= at_most


def test_the_newest_version_decides() -> None:
    assert model_of(
        [
            PlannedEvent("a", 1, LISTED, (1,)),
            PlannedEvent("b", 1, LISTED, (1,)),
            PlannedEvent("b", 2, SOLD),
            PlannedEvent("a", 4, UPDATED, (1, 2)),
            PlannedEvent("a", 1, LISTED, (1,)),
        ]
    ) == {"a": Expected(4, 2), "b": None}


def test_a_matching_state_has_no_problems() -> None:
    verdict = judge(MODEL, {"lamp": RIGHT})
    assert verdict.whole
    assert verdict.line(7, 2) == (
        "chaos: 7 kills, 2 listings, 0 lost, 0 duplicated, 0 resurrected, 0 coverage gaps"
    )


def test_each_fault_is_found() -> None:
    assert judge(MODEL, {}).lost.keys() == {"lamp"}
    assert judge(MODEL, {"lamp": RIGHT[:1]}).lost.keys() == {"lamp"}
    assert judge(MODEL, {"lamp": [FoundRow("live", 2, 0)]}).lost.keys() == {"lamp"}
    older = [*RIGHT, FoundRow("hourly", 2, 0)]
    assert judge(MODEL, {"lamp": older}).duplicated.keys() == {"lamp"}
    ghost = {"lamp": RIGHT, "sold": [FoundRow("hourly", 1, 0)]}
    assert judge(MODEL, ghost).resurrected.keys() == {"sold"}
    unknown = {"lamp": RIGHT, "other": [FoundRow("hourly", 1, 0)]}
    assert judge(MODEL, unknown).resurrected.keys() == {"other"}


async def test_every_failpoint_is_used_once_before_any_is_used_twice(tmp_path: Path) -> None:
    points = sum(map(len, POINTS.values()))
    killer = Killer(tmp_path, kills=points + 4, seed=3, on_kill=lambda: None)
    killing = asyncio.ensure_future(killer.run())

    def all_killed() -> bool:
        for armed in tmp_path.iterdir():
            armed.unlink(missing_ok=True)  # as a dying process does
        return killer.done

    await until(all_killed, "all kills are done")
    await killing
    assert len(killer.killed) == points + 4
    assert not killer.never
