"""What a snapshot of the served shards covers: right, and not sorted again by every search."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from shashin.offsets.ranges import OffsetRange, merge_ranges
from shashin.serving.served_shards import Snapshot
from shashin.shards.sealed_shard import SealedShard
from tests.support.made_shards import BUCKET_START, listings, new_row, open_shard, write


class CountedShard(SealedShard):
    """A sealed shard that counts how often it is asked for its ranges."""

    asked = 0

    @property
    def ranges(self) -> tuple[OffsetRange, ...]:
        self.asked += 1
        return super().ranges


def sealed(from_offset: int, rows: int, partition: int = 0) -> CountedShard:
    with tempfile.TemporaryDirectory() as folder:
        shard = open_shard(listings(0, rows), from_offset=from_offset, partition=partition)
        return CountedShard(write(shard, Path(folder)), Path(folder))


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 4), st.integers(0, 2)), max_size=5),
    st.integers(0, 5),
)
def test_a_snapshot_covers_what_its_shards_hold_while_an_open_one_grows(
    of_sealed: list[tuple[int, int, int]], growth: int
) -> None:
    shards = [sealed(*bounds) for bounds in of_sealed]
    growing = open_shard([new_row("lamp")], from_offset=20)
    snapshot = Snapshot([*shards, growing])
    for number in range(growth):
        growing.add([new_row(f"new-{number}")], position=22 + number, bucket_start=BUCKET_START)
        everything = [r for shard in (*shards, growing) for r in shard.ranges]
        assert snapshot.covered() == merge_ranges(everything)


def test_the_ranges_of_sealed_shards_are_sorted_once_per_snapshot() -> None:
    shards = [sealed(5 * number, 5) for number in range(6)]
    snapshot = Snapshot([*shards, open_shard([new_row("lamp")], from_offset=30)])
    asked = [shard.asked for shard in shards]
    for _ in range(10):
        assert snapshot.covered() == [OffsetRange(0, 0, 31)]
    assert [shard.asked for shard in shards] == asked
