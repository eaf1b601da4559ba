"""Ids of shards: the same for the same ranges, different for others."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from shashin.offsets.ranges import OffsetRange
from shashin.shards.format.shard_id import shard_folder, shard_id
from shashin.tiers import TIERS

OFFSETS = st.integers(0, 2**63 - 1)
"""Kafka's offsets are signed 64-bit integers."""

RANGES = st.builds(OffsetRange, st.integers(0, 2**31 - 1) | st.integers(0, 3), OFFSETS, OFFSETS)
SETS = st.sets(RANGES | st.builds(OffsetRange, *[st.integers(0, 3)] * 3), min_size=1, max_size=8)

MODEL_IDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=100)


@given(SETS, st.data())
def test_the_order_of_ranges_does_not_matter(ranges: set[OffsetRange], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(sorted(ranges)))
    assert shard_id("demo-v1", "daily", shuffled) == shard_id("demo-v1", "daily", sorted(ranges))


@given(SETS, SETS)
def test_other_ranges_give_another_id(one: set[OffsetRange], other: set[OffsetRange]) -> None:
    assume(one != other)
    assert shard_id("demo-v1", "daily", list(one)) != shard_id("demo-v1", "daily", list(other))


@given(SETS, st.sampled_from(TIERS), st.sampled_from(TIERS))
def test_another_tier_or_model_gives_another_id(
    ranges: set[OffsetRange], one: str, other: str
) -> None:
    assume(one != other)
    assert shard_id("demo-v1", one, list(ranges)) != shard_id("demo-v1", other, list(ranges))
    assert shard_id("demo-v1", one, list(ranges)) != shard_id("demo-v2", one, list(ranges))


@given(RANGES)
def test_a_single_range_is_named_in_full(only: OffsetRange) -> None:
    identity = shard_id("demo-v1", "hourly", [only])
    named = re.fullmatch(r"demo-v1\.hourly\.p(\d{4,})\.(\d{12,})-(\d{12,})", identity)
    assert named is not None
    assert OffsetRange(*map(int, named.groups())) == only


def test_the_ids_of_shards_that_exist_stay_as_they_are() -> None:
    # Manifests and pointers contain them: a new id for the same ranges would be a new shard.
    one, other = OffsetRange(12, 7, 1_234_567), OffsetRange(3, 0, 240)
    assert shard_id("demo-v1", "hourly", [one]) == "demo-v1.hourly.p0012.000000000007-000001234567"
    assert shard_id("demo-v1", "daily", [one, other]) == (
        "demo-v1.daily.p0003-p0012.2.7ec87b82141cd4fc"
    )


@given(MODEL_IDS, st.sampled_from(TIERS), SETS)
def test_an_id_is_short_enough_for_the_name_of_a_folder(
    model_id: str, tier: str, ranges: set[OffsetRange]
) -> None:
    identity = shard_id(model_id, tier, list(ranges))
    assert len(identity.encode()) < 200
    assert identity.startswith(f"{model_id}.{tier}.")


def test_a_shard_of_no_range_has_no_id() -> None:
    with pytest.raises(ValueError, match="at least one source range"):
        shard_id("demo-v1", "hourly", [])


def test_the_folder_of_a_shard_follows_from_its_id() -> None:
    identity = shard_id("demo-v1", "hourly", [OffsetRange(0, 0, 1)])
    assert shard_folder("demo-v1", "hourly", 3600, identity) == (
        f"indexes/demo-v1/hourly/3600/{identity}"
    )
