from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shashin.errors import UserError
from shashin.index_images.packing import Budget, PackedImage, PackedShard, pack

budgets = st.builds(Budget, st.integers(1, 6), st.integers(1, 40))
shard_sets = st.dictionaries(
    st.integers(0, 60).map(lambda n: f"m.hourly.p{n:04d}"), st.integers(0, 50), max_size=30
).map(lambda rows: [PackedShard(shard_id, count) for shard_id, count in rows.items()])


def where(images: tuple[PackedImage, ...]) -> dict[PackedShard, int]:
    return {shard: image.number for image in images for shard in image.shards}


def within(image: PackedImage, budget: Budget) -> bool:
    alone = len(image.shards) == 1
    return alone or (len(image.shards) <= budget.layers and image.rows <= budget.rows)


@st.composite
def tiers(draw: st.DrawFn) -> tuple[list[PackedShard], tuple[PackedImage, ...]]:
    """A tier that was packed a few times while shards came and went."""
    images: tuple[PackedImage, ...] = ()
    shards: list[PackedShard] = []
    for _ in range(draw(st.integers(0, 4))):
        shards = draw(shard_sets)
        images = pack(shards, images, draw(budgets))
    return shards, images


@given(shard_sets, tiers(), budgets)
def test_every_shard_is_in_exactly_one_image_within_its_budget(
    shards: list[PackedShard], tier: tuple[object, tuple[PackedImage, ...]], budget: Budget
) -> None:
    images = pack(shards, tier[1], budget)
    packed = [shard for image in images for shard in image.shards]
    assert sorted(packed) == sorted(shards)
    assert all(image.shards and within(image, budget) for image in images)
    assert len({image.number for image in images}) == len(images)


@given(shard_sets, budgets, shard_sets)
def test_no_shard_moves_when_others_are_added(
    shards: list[PackedShard], budget: Budget, more: list[PackedShard]
) -> None:
    before = pack(shards, (), budget)
    known = {shard.shard_id for shard in shards}
    added = [shard for shard in more if shard.shard_id not in known]
    after = where(pack([*shards, *added], before, budget))
    assert {shard: after[shard] for shard in shards} == where(before)


@given(tiers(), budgets)
def test_packing_again_changes_nothing(
    tier: tuple[list[PackedShard], tuple[PackedImage, ...]], budget: Budget
) -> None:
    once = pack(tier[0], tier[1], budget)
    assert pack(tier[0], once, budget) == once


@given(shard_sets, tiers(), budgets, st.integers())
def test_the_order_of_arguments_changes_nothing(
    shards: list[PackedShard],
    tier: tuple[object, tuple[PackedImage, ...]],
    budget: Budget,
    seed: int,
) -> None:
    shuffled, images = list(shards), list(tier[1])
    random.Random(seed).shuffle(shuffled)
    random.Random(seed).shuffle(images)
    assert pack(shuffled, images, budget) == pack(shards, tier[1], budget)


@given(shard_sets, budgets)
def test_an_image_is_opened_only_if_no_other_has_room(
    shards: list[PackedShard], budget: Budget
) -> None:
    """So of two images one is more than half full, by rows or by layers."""
    images = pack(shards, (), budget)
    for image in images:
        for other in images:
            if other.number < image.number:
                smallest = min(image.shards, key=lambda shard: shard.rows)
                assert not budget.has_room(other.shards, smallest)


@given(shard_sets, budgets, st.integers())
def test_a_shard_that_leaves_moves_at_most_what_its_image_has_left(
    shards: list[PackedShard], budget: Budget, seed: int
) -> None:
    before = pack(shards, (), budget)
    if not shards:
        return
    gone = random.Random(seed).choice(sorted(shards))
    after = where(pack([shard for shard in shards if shard != gone], before, budget))
    was = where(before)
    assert {was[shard] for shard in after if after[shard] != was[shard]} <= {was[gone]}


def test_an_image_that_lost_most_of_its_shards_is_dissolved() -> None:
    budget = Budget(4, 100)
    a, b, c, d = (PackedShard(f"m.{name}", 40) for name in "abcd")
    before = pack([a, b, c, d], (), budget)
    assert where(before) == {a: 0, b: 0, c: 1, d: 1}
    small = PackedShard("m.e", 20)
    both = pack([a, c, d, small], before, budget)
    assert where(both) == {a: 0, c: 1, d: 1, small: 0}
    after = pack([c, d, small], both, budget)
    assert where(after) == {c: 1, d: 1, small: 1}


def test_a_shard_beyond_the_budget_is_alone() -> None:
    large, small = PackedShard("m.large", 1000), PackedShard("m.small", 1)
    images = pack([small, large], (), Budget(10, 100))
    assert [image.shards for image in images] == [(large,), (small,)]


@pytest.mark.parametrize(("layers", "rows"), [(0, 1), (1, 0), (-3, 5)])
def test_a_budget_for_nothing_is_refused(layers: int, rows: int) -> None:
    with pytest.raises(UserError, match="use a base image with fewer layers"):
        Budget(layers, rows)
