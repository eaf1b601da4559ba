"""Planning a tier: the plan depends on manifests and pointer, not on their order."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.image_builder.plan import Candidate, HandOver, Older, Plan, plan_tier
from shashin.offsets.ranges import MergedRanges, OffsetRange
from shashin.repository.pointer import PointedShard, Pointer
from tests.support.counted_offsets import Counted, comparisons_of

RANGES = st.builds(
    lambda partition, begin, length: OffsetRange(partition, begin, begin + length),
    st.integers(0, 2),
    st.integers(0, 20),
    st.integers(1, 6),
)


@st.composite
def candidates_and_pointer(draw: st.DrawFn) -> tuple[list[Candidate], Pointer | None]:
    """Return candidates, some of the same range or id, and a pointer to some that never overlap."""
    ranges = draw(st.lists(st.lists(RANGES, min_size=1, max_size=4), max_size=12))
    candidates = [
        Candidate(
            f"shard-{draw(st.integers(0, 9))}",
            f"key-{number}",
            tuple(sorted(of_shard)),
            rewrites=draw(st.integers(0, 2)),
        )
        for number, of_shard in enumerate(ranges)
    ]
    if draw(st.booleans()):
        return candidates, None
    served: list[Candidate] = []
    for candidate in draw(st.permutations(candidates))[:3]:
        if not any(overlap(candidate, other) for other in served):
            served.append(candidate)
    gone = [PointedShard("shard-gone", "key-gone")] if draw(st.booleans()) else []
    return candidates, Pointer("m", "hourly", (*map(pointed, served), *gone))


Shards = Callable[[int], list[Candidate]]


def pointed(candidate: Candidate) -> PointedShard:
    return candidate.pointed


def offsets(candidate: Candidate) -> set[tuple[int, int]]:
    return {(r.partition, o) for r in candidate.ranges for o in range(r.from_offset, r.to_offset)}


def overlap(one: Candidate, other: Candidate) -> bool:
    return bool(offsets(one) & offsets(other))


@given(candidates_and_pointer())
def test_the_chosen_shards_contain_every_offset_and_none_is_chosen_in_vain(
    given_: tuple[list[Candidate], Pointer | None],
) -> None:
    candidates, current = given_
    plan = plan_tier("m", "hourly", candidates, current)
    assert (plan.pointer.model_id, plan.pointer.tier) == ("m", "hourly")
    by_pointed = {pointed(c): c for c in candidates}
    chosen = [by_pointed[shard] for shard in plan.pointer.shards]
    every = set[tuple[int, int]]().union(*map(offsets, candidates))
    assert set[tuple[int, int]]().union(*map(offsets, chosen)) == every
    left_out = [c.shard_id for c in candidates if c not in chosen]
    assert sorted(plan.redundant) == sorted(left_out)


@given(candidates_and_pointer(), st.data())
def test_a_shard_that_cannot_be_read_stays_if_it_is_served_and_is_set_aside_otherwise(
    given_: tuple[list[Candidate], Pointer | None], data: st.DataObject
) -> None:
    candidates, current = given_
    readable = [data.draw(st.booleans()) for _ in candidates]
    marked = [replace(c, readable=flag) for c, flag in zip(candidates, readable, strict=True)]
    served = set(current.shards) if current else set()
    plan = plan_tier("m", "hourly", marked, current)
    aside = [c for c in marked if not c.readable and pointed(c) not in served]
    assert plan.set_aside == tuple(c.shard_id for c in aside)
    without = plan_tier("m", "hourly", [c for c in marked if c not in aside], current)
    assert (plan.pointer, plan.redundant) == (without.pointer, without.redundant)


def test_a_served_shard_of_unknown_ranges_stays() -> None:
    unknown = Candidate("shard-0", "key-0", (), readable=False)
    known = Candidate("shard-1", "key-1", (OffsetRange(0, 0, 5),))
    current = Pointer("m", "hourly", (pointed(unknown),))
    plan = plan_tier("m", "hourly", [known, unknown], current)
    assert plan.pointer.shards == (pointed(unknown), pointed(known))


@given(candidates_and_pointer())
def test_served_shards_stay_unless_their_manifest_is_gone_or_others_contain_them(
    given_: tuple[list[Candidate], Pointer | None],
) -> None:
    candidates, current = given_
    plan = plan_tier("m", "hourly", candidates, current)
    by_pointed = {pointed(c): c for c in candidates}
    chosen = [by_pointed[shard] for shard in plan.pointer.shards]
    for shard in current.shards if current else ():
        if shard in by_pointed and shard not in plan.pointer.shards:
            others = set[tuple[int, int]]().union(*map(offsets, chosen))
            assert offsets(by_pointed[shard]) <= others


@given(candidates_and_pointer(), st.data())
def test_the_order_of_candidates_does_not_matter(
    given_: tuple[list[Candidate], Pointer | None], data: st.DataObject
) -> None:
    candidates, current = given_
    shuffled = data.draw(st.permutations(candidates))
    plan = plan_tier("m", "hourly", candidates, current)
    assert plan_tier("m", "hourly", shuffled, current).pointer == plan.pointer


@given(candidates_and_pointer())
def test_planning_is_idempotent(
    given_: tuple[list[Candidate], Pointer | None],
) -> None:
    candidates, current = given_
    pointer = plan_tier("m", "hourly", candidates, current).pointer
    assert plan_tier("m", "hourly", candidates, pointer).pointer == pointer
    assert list(pointer.shards) == sorted(pointer.shards)


def planned_by_offsets(candidates: list[Candidate], current: Pointer | None) -> Pointer:
    """Return the pointer by the rule, offset by offset."""
    served = set(current.shards) if current else set()

    def precedence(c: Candidate) -> tuple[object, ...]:
        return [(r.partition, r.from_offset, -r.to_offset) for r in c.ranges], pointed(c)

    taken = sorted(
        candidates, key=lambda c: (-c.rewrites, pointed(c) not in served, *precedence(c))
    )
    for _ in ("built and served ones first", "then all alike"):
        claimed: set[tuple[int, int]] = set()
        kept = []
        for candidate in taken:
            if not offsets(candidate) <= claimed:
                kept.append(candidate)
                claimed |= offsets(candidate)
        taken = sorted(kept, key=lambda c: (-c.rewrites, *precedence(c)))
    return Pointer("m", "hourly", tuple(sorted(map(pointed, taken))))


@given(candidates_and_pointer())
def test_the_plan_follows_the_rule(given_: tuple[list[Candidate], Pointer | None]) -> None:
    candidates, current = given_
    pointer = plan_tier("m", "hourly", candidates, current).pointer
    assert pointer == planned_by_offsets(candidates, current)


def hourly_shards(count: int) -> list[Candidate]:
    """Return shards that tile 16 partitions, shuffled."""
    candidates = [
        Candidate(
            f"shard-{n}",
            f"key-{n}",
            (OffsetRange(Counted(n % 16), Counted(n // 16 * 10), Counted(n // 16 * 10 + 10)),),
        )
        for n in range(count)
    ]
    random.Random(count).shuffle(candidates)
    return candidates


def overlapping_neighbours(count: int) -> list[Candidate]:
    """Return shards of two ranges each, of which every second overlaps both neighbours."""
    return [
        Candidate(
            f"shard-{n}", f"key-{n}", tuple(OffsetRange(Counted(p), begin, end) for p in (0, 1))
        )
        for n in range(count)
        for begin, end in [(Counted(n * 5), Counted(n * 5 + 7))]
    ]


@pytest.mark.parametrize("shards", [hourly_shards, overlapping_neighbours])
@pytest.mark.parametrize("served_already", [0.0, 0.5, 1.0])
def test_planning_takes_n_log_n_comparisons(shards: Shards, served_already: float) -> None:
    count = 3000
    candidates = shards(count)
    served = plan_tier("m", "hourly", candidates[: int(count * served_already)], None).pointer

    def plan() -> Plan:
        return plan_tier("m", "hourly", candidates, served)

    # Pairwise comparison takes 9 million.
    assert comparisons_of(plan) < 12 * count * math.log2(count)


def candidate(shard: str, begin: int, end: int) -> Candidate:
    return Candidate(shard, f"key-{shard}", (OffsetRange(0, begin, end),))


def test_shards_that_overlap_are_both_served_if_each_has_offsets_of_its_own() -> None:
    both = [candidate("early", 0, 5), candidate("late", 3, 9)]
    assert plan_tier("m", "hourly", both, None).pointer.shards == (
        pointed(both[0]),
        pointed(both[1]),
    )


def test_a_shard_that_several_others_contain_is_left_out() -> None:
    late, early, long = candidate("late", 3, 9), candidate("early", 0, 3), candidate("long", 1, 8)
    current = Pointer("m", "hourly", (pointed(early), pointed(late)))
    plan = plan_tier("m", "hourly", [late, long, early], current)
    assert (plan.pointer, plan.redundant) == (current, ("long",))


def test_a_shard_whose_own_ranges_overlap_or_are_empty_claims_each_offset_once() -> None:
    odd = Candidate(
        "odd", "key-odd", (OffsetRange(0, 0, 10), OffsetRange(0, 2, 4), OffsetRange(0, 12, 12))
    )
    others = [candidate("within", 5, 7), candidate("behind", 10, 15)]
    plan = plan_tier("m", "hourly", [odd, *others], None)
    assert plan.pointer.shards == (pointed(others[1]), pointed(odd))
    assert plan.redundant == ("within",)


def test_of_two_copies_of_a_range_the_served_one_stays() -> None:
    # Sealed twice, before and after a change of the bucket length.
    twins = [Candidate("shard", key, (OffsetRange(0, 0, 5),)) for key in ("key-a", "key-b")]
    for twin in twins:
        current = Pointer("m", "hourly", (pointed(twin),))
        for order in (twins, twins[::-1]):
            assert plan_tier("m", "hourly", order, current).pointer == current


def test_an_early_cut_by_a_fast_clock_loses_no_offset() -> None:
    early = [
        Candidate("early", "key-1", (OffsetRange(0, 0, 50),)),
        Candidate("rest", "key-2", (OffsetRange(0, 50, 80),)),
    ]
    others = Candidate("whole", "key-3", (OffsetRange(0, 0, 80),))
    for current in (None, Pointer("m", "hourly", (pointed(others),))):
        plan = plan_tier("m", "hourly", [*early, others], current)
        chosen = {shard.shard_id for shard in plan.pointer.shards}
        assert chosen == {"whole"}


def test_cuts_of_a_fast_clock_that_fit_no_others_lose_no_offset() -> None:
    fast = [candidate("fast-1", 0, 50)]
    others = [candidate("slow-1", 0, 70), candidate("slow-2", 70, 120)]
    current = Pointer("m", "hourly", (pointed(fast[0]),))
    plan = plan_tier("m", "hourly", [*fast, *others], current)
    assert {shard.shard_id for shard in plan.pointer.shards} == {"slow-1", "slow-2"}
    only_first = plan_tier("m", "hourly", [*fast, others[1], candidate("odd", 40, 80)], current)
    assert only_first.redundant == ()


def tier_of(*shards: Candidate) -> Pointer:
    return Pointer("m", "hourly", tuple(sorted(map(pointed, shards))))


def test_a_built_shard_replaces_its_parents_in_one_step() -> None:
    parents = [candidate("early", 0, 5), candidate("late", 5, 9)]
    child = Candidate("child", "key-child", (OffsetRange(0, 0, 9),), rewrites=1)
    plan = plan_tier("m", "hourly", [*parents, child], tier_of(*parents))
    assert plan.pointer == tier_of(child)
    assert sorted(plan.redundant) == ["early", "late"]


def test_a_parent_stays_until_an_older_tier_has_served_its_child_for_long_enough() -> None:
    parents = [candidate("early", 0, 5), candidate("late", 5, 9), candidate("today", 9, 12)]
    child = MergedRanges([OffsetRange(0, 0, 9)])
    current = tier_of(*parents)
    plan = plan_tier("m", "hourly", parents, current, older=Older(child))
    assert (plan.pointer, plan.waiting) == (current, ("early", "late"))
    plan = plan_tier("m", "hourly", parents, current, older=Older(child, {"early"}))
    assert plan.pointer == tier_of(*parents[1:])
    assert (plan.handed_over, plan.waiting) == (("early",), ("late",))
    # It does not come back if the older tier's index servers are down later.
    plan = plan_tier("m", "hourly", parents, plan.pointer, older=Older(child))
    assert plan.pointer == tier_of(*parents[1:])


def test_a_shard_is_handed_over_once_it_was_held_without_interruption() -> None:
    hand_over = HandOver(3.0)
    waiting = [candidate("early", 0, 5).pointed, candidate("late", 5, 9).pointed]
    held, gone = MergedRanges([OffsetRange(0, 0, 7)]), MergedRanges([])
    assert hand_over.served_long([(waiting, held)], now=10.0) == frozenset()
    assert hand_over.served_long([(waiting, held)], now=12.9) == frozenset()
    assert hand_over.served_long([(waiting, held)], now=13.0) == {"early"}
    assert hand_over.served_long([(waiting, gone)], now=14.0) == frozenset()
    assert hand_over.served_long([(waiting, held)], now=15.0) == frozenset()
    assert hand_over.served_long([(waiting, held)], now=18.0) == {"early"}


def test_what_lies_before_the_horizon_is_not_served() -> None:
    shards = [candidate("before", 0, 5), candidate("across", 5, 9), candidate("after", 9, 12)]
    plan = plan_tier("m", "hourly", shards, tier_of(*shards), horizons={0: 7})
    assert plan.pointer == tier_of(*shards[1:])
    assert plan.retired == ("before",)


def test_a_rejected_shard_leaves_once_what_it_replaced_is_served() -> None:
    parents = [candidate("early", 0, 5), candidate("late", 5, 9)]
    child = Candidate("child", "key-child", (OffsetRange(0, 0, 9),), rewrites=1, rejected=True)
    plan = plan_tier("m", "hourly", [*parents, child], tier_of(child))
    assert plan.pointer == tier_of(*parents, child)
    assert plan.waiting == ("child",)
    replaced = Older(MergedRanges(()), {"child"})
    plan = plan_tier("m", "hourly", [*parents, child], plan.pointer, older=replaced)
    assert (plan.pointer, plan.rejected) == (tier_of(*parents), ("child",))


def test_a_rejected_shard_that_is_not_served_is_not_chosen() -> None:
    child = Candidate("child", "key-child", (OffsetRange(0, 0, 9),), rewrites=1, rejected=True)
    plan = plan_tier("m", "hourly", [child], None)
    assert (plan.pointer.shards, plan.rejected) == ((), ("child",))
