"""Which builds begin, and which are deleted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.controller.build_queue import EndedBuild, QueuedBuild, expired, why_waiting

PARENTS = st.frozensets(st.sampled_from("abcdef"), max_size=3)
MONDAY = datetime(2026, 11, 23, tzinfo=UTC)


@st.composite
def queues(draw: st.DrawFn) -> tuple[list[QueuedBuild], list[QueuedBuild]]:
    created = draw(st.lists(st.integers(10, 99), max_size=8))
    builds = [
        QueuedBuild(("shop", f"b{n}"), str(at), draw(PARENTS)) for n, at in enumerate(created)
    ]
    split = draw(st.integers(0, len(builds)))
    return builds[:split], builds[split:]


@given(queues(), st.integers(1, 4))
def test_builds_that_begin_together_are_no_more_than_the_limit_and_share_no_parents(
    found: tuple[list[QueuedBuild], list[QueuedBuild]], limit: int
) -> None:
    waiting, running = found
    begin = [b for b in waiting if not why_waiting(b.key, waiting, running, limit=limit)]
    assert len(begin) <= max(0, limit - len(running))
    for n, build in enumerate(begin):
        for other in (*begin[:n], *running):
            assert build.parents.isdisjoint(other.parents)


@given(queues(), st.integers(1, 4))
def test_a_build_begins_if_a_place_is_free_and_none_before_it_can_take_it(
    found: tuple[list[QueuedBuild], list[QueuedBuild]], limit: int
) -> None:
    waiting, running = found
    order = sorted(waiting, key=lambda one: (one.created, one.key))
    begin = [b for b in order if not why_waiting(b.key, waiting, running, limit=limit)]
    for build in order:
        if build in begin:
            continue
        before = [b for b in begin if order.index(b) < order.index(build)]
        taken = frozenset[str]().union(*(b.parents for b in (*running, *before)))
        assert len(running) + len(before) >= limit or build.parents & taken


def test_the_reason_names_what_it_waits_for() -> None:
    one = QueuedBuild(("shop", "one"), "1", frozenset("a"))
    two = QueuedBuild(("shop", "two"), "2", frozenset("a"))
    assert why_waiting(two.key, [one, two], [], limit=2) == "one merges some of its shards"
    other = QueuedBuild(("shop", "two"), "2", frozenset("b"))
    assert why_waiting(other.key, [other], [one], limit=1) == "1 other builds run, or come first"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["hourly", "daily"]),
            st.sampled_from(["Succeeded", "Failed"]),
            st.none() | st.integers(0, 30),
        ),
        max_size=20,
    ),
    st.integers(1, 5),
)
def test_the_newest_of_each_tier_and_phase_are_kept(
    found: list[tuple[str, str, int | None]], history: int
) -> None:
    builds = [
        EndedBuild(
            ("shop", f"b{n}"), tier, phase, None if at is None else MONDAY + timedelta(hours=at)
        )
        for n, (tier, phase, at) in enumerate(found)
    ]
    gone = set(expired(builds, history=history))
    for tier in ("hourly", "daily"):
        for phase in ("Succeeded", "Failed"):
            group = [b for b in builds if (b.tier, b.phase) == (tier, phase)]
            kept = [b for b in group if b.key not in gone]
            assert len(kept) == min(len(group), history)
            deleted = [b for b in group if b.key in gone]
            newest_deleted = max(
                (b.completed or datetime.min.replace(tzinfo=UTC) for b in deleted), default=None
            )
            if newest_deleted is not None:
                assert all(
                    (b.completed or datetime.min.replace(tzinfo=UTC)) >= newest_deleted
                    for b in kept
                )
