"""Retention: a horizon rises over what is too old, and over nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.image_builder.retention import raised_horizons
from shashin.offsets.ranges import OffsetRange
from shashin.repository.pointer import PointedShard

DAY = 86_400


def shard(number: int, *ranges: OffsetRange, day: int) -> PointedShard:
    return PointedShard(f"shard-{number}", f"key-{number}", ranges, day * DAY, DAY)


@st.composite
def tiled(draw: st.DrawFn) -> list[PointedShard]:
    """Return shards in log order of one day each, of two partitions, some of them missing."""
    shards: list[PointedShard] = []
    first = draw(st.integers(0, 3))
    ends = {0: first, 1: 0}
    for day in range(draw(st.integers(0, 8))):
        ranges: list[OffsetRange] = []
        for partition, start in ends.items():
            length = draw(st.integers(0, 3))
            ends[partition] = start + length
            if ends[partition] > start:
                ranges.append(OffsetRange(partition, start, ends[partition]))
        is_missing = draw(st.integers(0, 5)) == 0
        if ranges and not is_missing:
            shards.append(shard(day, *ranges, day=day))
    return shards


@given(tiled(), st.integers(0, 9), st.dictionaries(st.integers(0, 1), st.integers(0, 6)))
def test_a_horizon_rises_over_old_shards_up_to_the_first_offset_that_is_young_or_missing(
    shards: list[PointedShard], days: int, horizons: dict[int, int]
) -> None:
    raised = raised_horizons(shards, horizons, before=days * DAY)
    for partition in (0, 1):
        expected = horizons.get(partition, 0)
        old = {
            offset
            for found in shards
            for r in found.ranges
            if r.partition == partition and found.bucket_start + DAY <= days * DAY
            for offset in range(r.from_offset, r.to_offset)
        }
        while expected in old:
            expected += 1
        assert raised.get(partition, horizons.get(partition, 0)) == expected


def test_a_shard_of_an_unknown_bucket_is_never_too_old() -> None:
    unknown = PointedShard("shard", "key", (OffsetRange(0, 0, 5),))
    assert raised_horizons([unknown], {}, before=1e12) == {}
