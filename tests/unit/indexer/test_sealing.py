"""Sealer: writes, commits and announces shards; replicas need no leader."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from services.indexer.sealing import Sealer
from services.indexer.settings import IndexerSettings
from shashin.kafka.producer import Producer
from shashin.offsets.cut import CutReason
from shashin.offsets.ranges import OffsetRange
from shashin.repository.repository import ModelRepository
from shashin.shards.open_shard import OpenShard
from shashin.shards.sealed_shard import SealedShard
from shashin.tiers import HOURLY
from shashin.v1 import events_pb2
from tests.support.loops import running
from tests.support.made_shards import (
    BUCKET_START,
    DIMENSIONS,
    MODEL,
    WatchedStore,
    listings,
    open_shard,
)
from tests.support.waiting import until
from tests.unit.indexer.sent_records import SentRecords


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> WatchedStore:
    return WatchedStore(tmp_path / "store")


class Replica:
    """A sealer with the shards it committed and the records it sent."""

    def __init__(self, store: WatchedStore, work: Path, executor: ThreadPoolExecutor) -> None:
        self.work = work
        self.sealed: list[str] = []
        self.sent = SentRecords()
        settings = IndexerSettings(
            model_id=MODEL,
            dimensions=DIMENSIONS,
            repository=store.root.as_uri(),
            work_folder=work,
            discovery=(work / "discovery.json").as_uri(),
        )

        async def committed(shard: OpenShard) -> None:
            self.sealed.append(shard.shard_id)

        self.sealer = Sealer(
            settings, ModelRepository(store), cast("Producer", self.sent), executor, committed
        )

    async def seal(self, *shards: OpenShard) -> None:
        """Seal these, and stop."""
        for shard in shards:
            self.sealer.seal(shard, CutReason.ROWS)
        async with running(self.sealer.loop()):
            await until(lambda: len(self.sealed) == len(shards), "all are sealed")


async def test_a_closed_range_is_committed_announced_and_removed_from_disk(
    store: WatchedStore, tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    replica = Replica(store, tmp_path / "work", executor)
    shard = open_shard(listings(0, 12), from_offset=40, partition=2)
    await replica.seal(shard)

    (stored,), errors = await ModelRepository(store).shards(MODEL, HOURLY)
    manifest = stored.manifest
    assert errors == []
    assert manifest.source_ranges == (OffsetRange(2, 40, 52),)
    assert (manifest.rows, manifest.listings, manifest.cut_reason) == (12, 12, "rows")
    assert manifest.bucket_start == BUCKET_START
    assert manifest.recall_at_10 is not None
    assert manifest.recall_at_10 >= 0.99
    folder = await ModelRepository(store).fetch(stored, tmp_path / "cache")
    assert SealedShard(manifest, folder).rows == 12

    assert replica.sealed == [shard.shard_id]
    (record,) = replica.sent.records
    announced = events_pb2.SealedShard.FromString(record.value)
    assert (record.topic, record.key) == ("indexes.sealed", manifest.shard_id.encode())
    assert announced.manifest_key == stored.manifest_key
    assert (announced.shard_id, announced.tier, announced.model_id) == (
        manifest.shard_id,
        HOURLY,
        MODEL,
    )
    assert list(replica.work.iterdir()) == []


async def test_a_second_replica_finds_its_shards_already_committed(
    store: WatchedStore, tmp_path: Path, executor: ThreadPoolExecutor
) -> None:
    ranges = ((0, 5), (5, 9))
    for name in ("one", "two"):
        replica = Replica(store, tmp_path / name, executor)
        shards = [open_shard(listings(*bounds), from_offset=bounds[0]) for bounds in ranges]
        await replica.seal(*shards)
        assert replica.sealed == [shard.shard_id for shard in shards], "in log order"
        assert len(replica.sent.records) == 2, "announcing twice is harmless"
    stored, _ = await ModelRepository(store).shards(MODEL, HOURLY)
    assert [str(s.manifest.source_ranges[0]) for s in stored] == ["0:[0, 5)", "0:[5, 9)"]
    assert len(store.writes) == 6, "the second replica uploads nothing"
