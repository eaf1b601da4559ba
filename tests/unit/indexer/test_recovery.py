"""Startup recovery: manifests determine start offsets and adopted shards."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from prometheus_client import REGISTRY

from services.indexer.hidden_store import HiddenStore
from services.indexer.live_start import BesideActiveModel, LiveStart
from services.indexer.live_tier import LiveTier
from services.indexer.recovery import Recovery, Starts
from services.indexer.settings import IndexerSettings
from shashin.errors import KafkaUnavailable, RecordsLost, UserError
from shashin.kafka.log_reader import LogReader
from shashin.kafka.lost_records import OnLostRecords
from shashin.objectstore.protocol import OnlyIf
from shashin.offsets.coverage import Position, missing_ranges
from shashin.offsets.log_position import LogPosition
from shashin.offsets.ranges import OffsetRange
from shashin.repository.given_up import GivenUp, GivenUpOffsets
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.repository.horizons import Horizon, Horizons
from shashin.repository.pointer import PointedShard, Pointer
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.serving.hidden_listings import LogBounds
from shashin.serving.served_shards import ServedShards
from shashin.shards.format.hidden_snapshot import HiddenSnapshot
from shashin.shards.format.manifest import ROWS_FILE
from shashin.shards.visibility import HiddenEntry
from shashin.tiers import HOURLY
from tests.support.hidden_log import MemoryLog
from tests.support.loops import loop_scope
from tests.support.made_shards import (
    DIMENSIONS,
    MODEL,
    WatchedStore,
    commit,
    listings,
    object_key,
    open_shard,
)

STORES = count()
"""Numbers the stores of hidden listings: each has a folder of its own."""


class FakeLog:
    """A fake log reader of two partitions."""

    def __init__(self) -> None:
        self.begins = {0: 0, 1: 0}

    async def partitions(self) -> list[int]:
        return sorted(self.begins)

    async def begin_offsets(self, partitions: list[int]) -> dict[int, int]:
        return {partition: self.begins[partition] for partition in partitions}


class Indexer:
    """A live tier over a repository in a folder."""

    def __init__(self, folder: Path, partitions: str = "all") -> None:
        self.folder = folder
        self.store = WatchedStore(folder / "store")
        self.repository = ModelRepository(self.store)
        self.log = FakeLog()
        self.served = ServedShards()
        settings = IndexerSettings(
            model_id=MODEL,
            dimensions=DIMENSIONS,
            repository=(folder / "store").as_uri(),
            work_folder=folder / "work",
            discovery=(folder / "discovery.json").as_uri(),
            partitions=partitions,
            on_lost_records="continue",
        )
        self.hidden_log = MemoryLog()
        self.hidden = HiddenStore(folder / f"hidden-{next(STORES)}")
        self.live = LiveTier(settings, self.served, self.hidden)
        reader = cast("LogReader", self.log)
        starts = Starts(reader, Horizons(self.store, MODEL))
        self._settings, self._reader, self._starts = settings, reader, starts

    def told_to(self, on_lost_records: OnLostRecords) -> None:
        self._settings = self._settings.model_copy(update={"on_lost_records": on_lost_records})

    async def recover_without_waiting(self) -> list[str]:
        """Recover; an error that is retried until a person decides is raised."""
        stop = asyncio.Event()
        stop.set()
        return await self.recover(stop)

    async def recover(self, stop: asyncio.Event | None = None) -> list[str]:
        """Recover; returns the ids of the shards whose manifest could not be read."""
        scope = loop_scope(ready_when="the start to finish", stop=stop)
        bounds = self.hidden_log.bounds()
        self.hidden.open_at(bounds)
        recovery = Recovery(
            self._settings,
            self.repository,
            HiddenSnapshots(self.store),
            self.hidden,
            bounds,
            self._reader,
            self._starts,
            GivenUpOffsets(self.store, MODEL),
        )
        return [shard.shard_id for shard in await recovery.run(self.live, scope)]

    async def sealed(self, begin: int, end: int, partition: int = 0) -> StoredShard:
        shard = open_shard(listings(begin, end), from_offset=begin, partition=partition)
        return await commit(self.repository, shard, self.folder / "scratch")

    async def point_to(self, *shards: StoredShard) -> None:
        named = tuple(PointedShard.of(s.manifest) for s in shards)
        await self.repository.move_pointer(Pointer(MODEL, HOURLY, named), over=None)

    def positions(self) -> Mapping[int, Position]:
        return self.live.positions(self.served.snapshot().shards, {})

    def ranges(self) -> list[str]:
        """Return the served ranges, except empty open ones."""
        ranges = [r for shard in self.served.snapshot().shards for r in shard.ranges]
        return [str(r) for r in ranges if r.from_offset < r.to_offset]


@pytest.fixture
def indexer(tmp_path: Path) -> Indexer:
    return Indexer(tmp_path)


async def test_each_partition_is_read_from_where_its_last_shard_ends(indexer: Indexer) -> None:
    await indexer.sealed(0, 5)
    await indexer.sealed(5, 9)
    await indexer.recover()
    assert indexer.live.next_offsets() == {0: 9, 1: 0}
    assert indexer.positions() == {0: Position(0, 9), 1: Position(0, 0)}


async def test_sealed_shards_that_are_not_in_the_pointer_are_adopted(
    indexer: Indexer,
) -> None:
    pointed = await indexer.sealed(0, 5)
    await indexer.sealed(5, 9)
    await indexer.point_to(pointed)
    indexer.hidden.open_at(indexer.hidden_log.bounds())
    indexer.hidden.note([HiddenEntry("listing-7", 2)], LogPosition("first", {0: 0, 1: 0}))
    await indexer.recover()
    assert indexer.ranges() == ["0:[5, 9)"]
    adopted = indexer.served.snapshot().shards[0]
    assert adopted.visible_rows_of("listing-6")
    assert adopted.visible_rows_of("listing-7") == [], "it was hidden before the shard was adopted"


async def test_a_shard_after_a_gap_is_not_adopted_since_its_range_is_read_again(
    indexer: Indexer,
) -> None:
    await indexer.sealed(0, 5)
    await indexer.sealed(7, 9)
    await indexer.recover()
    assert indexer.ranges() == ["0:[0, 5)"]
    assert indexer.live.next_offsets()[0] == 5


async def test_a_damaged_shard_does_not_block_the_others(
    indexer: Indexer,
) -> None:
    damaged = await indexer.sealed(0, 5)
    await indexer.sealed(5, 9)
    await indexer.store.write(object_key(damaged, ROWS_FILE), b"damaged")
    await indexer.recover()
    assert indexer.ranges() == ["0:[5, 9)"]
    assert indexer.live.next_offsets()[0] == 9


@pytest.mark.parametrize("damaged", [False, True])
async def test_the_range_that_the_key_of_an_unreadable_manifest_names_counts_as_sealed(
    indexer: Indexer, damaged: bool
) -> None:
    await indexer.sealed(0, 5)
    unreadable = await indexer.sealed(5, 9)
    await indexer.sealed(9, 12)
    newer = unreadable.manifest.to_json().replace(b"manifest/3", b"manifest/5")
    await indexer.store.write(unreadable.manifest_key, b"{" if damaged else newer)
    assert await indexer.recover() == [unreadable.manifest.shard_id]
    assert indexer.live.next_offsets()[0] == 12
    assert indexer.ranges() == ["0:[0, 5)", "0:[9, 12)"], "the others are adopted"


async def test_an_unreadable_manifest_whose_key_names_no_range_holds_nothing_up(
    indexer: Indexer,
) -> None:
    await indexer.sealed(0, 5)
    await indexer.store.write(f"indexes/{MODEL}/hourly/7/stray/manifest.json", b"{")
    assert await indexer.recover() == ["stray"]
    assert indexer.live.next_offsets()[0] == 5


async def test_an_unreadable_pointer_does_not_end_the_start(indexer: Indexer) -> None:
    await indexer.sealed(0, 5)
    await indexer.store.write(f"serving/{MODEL}/hourly.json", b"{")
    await indexer.recover()
    assert indexer.live.next_offsets()[0] == 5
    assert indexer.ranges() == [], "any of its shards may be served, so none is adopted"


async def test_a_retried_recovery_serves_nothing_twice(indexer: Indexer) -> None:
    await indexer.sealed(0, 5)
    begin_offsets = indexer.log.begin_offsets
    failures = iter([KafkaUnavailable("kafka is down")])

    async def down_at_first(partitions: list[int]) -> dict[int, int]:
        for failure in failures:
            raise failure
        return await begin_offsets(partitions)

    indexer.log.begin_offsets = down_at_first  # type: ignore[method-assign]
    await indexer.recover()
    assert indexer.ranges() == ["0:[0, 5)"]


async def test_a_replica_recovers_only_its_own_partitions(tmp_path: Path) -> None:
    indexer = Indexer(tmp_path, partitions="1")
    await indexer.sealed(0, 5, partition=0)
    await indexer.sealed(0, 3, partition=1)
    await indexer.recover()
    assert indexer.live.next_offsets() == {1: 3}
    assert indexer.ranges() == [str(OffsetRange(1, 0, 3))]


async def test_partitions_that_the_topic_does_not_have_are_rejected(tmp_path: Path) -> None:
    indexer = Indexer(tmp_path, partitions="1-3")
    with pytest.raises(UserError, match=r"partitions \[2, 3\], but"):
        await indexer.recover()


async def test_the_horizon_stays_where_the_first_start_found_the_log(tmp_path: Path) -> None:
    first = Indexer(tmp_path)
    first.log.begins = {0: 10, 1: 0}
    await first.recover()
    assert first.positions()[0] == Position(10, 10)
    # Retention deletes 10 to 40 before anything was sealed.
    second = Indexer(tmp_path)
    second.log.begins = {0: 40, 1: 0}
    await second.recover()
    assert second.positions()[0] == Position(10, 40)
    assert missing_ranges([], second.positions()) == (OffsetRange(0, 10, 40),)


async def test_a_first_shard_that_is_lost_with_its_part_of_the_log_is_missing(
    tmp_path: Path,
) -> None:
    indexer = Indexer(tmp_path)
    lost = await indexer.sealed(0, 5)
    await indexer.sealed(5, 9)
    await indexer.recover()
    await indexer.store.delete(lost.manifest_key)
    after = Indexer(tmp_path)
    after.log.begins = {0: 9, 1: 0}
    await after.recover()
    held = [r for shard in after.served.snapshot().shards for r in shard.ranges]
    assert missing_ranges(held, after.positions()) == (OffsetRange(0, 0, 5),)


async def test_an_unreadable_horizon_counts_as_0_and_stops_nothing(indexer: Indexer) -> None:
    horizon = Horizon(MODEL, 0, 5)
    await indexer.store.write(horizon.key, b"{")
    indexer.log.begins = {0: 7, 1: 2}
    await indexer.recover()
    assert indexer.positions() == {0: Position(0, 7), 1: Position(2, 2)}
    assert (await indexer.store.read(horizon.key))[0] == b"{", "it is not overwritten"


async def test_an_adopted_shard_is_masked_by_its_snapshot_and_by_what_the_store_knows(
    indexer: Indexer,
) -> None:
    stored = await indexer.sealed(0, 5)
    await snapshot(indexer, stored, 1, offset=4)
    bounds = LogBounds("first", {0: 3, 1: 0}, {0: 9, 1: 0})
    indexer.hidden_log.begins, indexer.hidden_log.records[0] = {0: 3, 1: 0}, []
    indexer.hidden.open_at(bounds)
    indexer.hidden.note([HiddenEntry("listing-3", 2)], LogPosition("first", {0: 3, 1: 0}))
    await indexer.recover()
    adopted = indexer.served.snapshot().shards[0]
    visible = [n for n in range(5) if adopted.visible_rows_of(f"listing-{n}")]
    assert visible == [0, 2, 4]


async def test_a_shard_of_which_too_little_is_known_is_not_adopted(
    indexer: Indexer, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = await indexer.sealed(0, 5), await indexer.sealed(5, 9)
    await snapshot(indexer, old, 1, offset=4)
    await snapshot(indexer, new, 1, offset=6)
    indexer.hidden_log.begins = {0: 6, 1: 0}
    indexer.told_to("stop")
    await indexer.recover()
    assert indexer.ranges() == ["0:[5, 9)"]
    assert (
        "end at offset 4 of listings.hidden[0], but the log begins at 6" in capsys.readouterr().out
    )
    again = Indexer(indexer.folder)
    again.hidden_log.begins = {0: 6, 1: 0}
    await again.recover()
    assert again.ranges() == ["0:[0, 5)", "0:[5, 9)"], "told to continue, it serves what is known"


async def snapshot(indexer: Indexer, stored: StoredShard, *rows: int, offset: int) -> None:
    await HiddenSnapshots(indexer.store).write(
        stored.manifest,
        HiddenSnapshot(
            stored.manifest.shard_id,
            stored.manifest.rows_sha256,
            np.array(rows, dtype=np.uint32),
            LogPosition("first", {0: offset, 1: 0}),
            0.0,
        ),
    )


class Beside(BesideActiveModel):
    """Another model that is active since offset 2, and a log that ends at 30."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def starts(self, partitions: Sequence[int]) -> dict[int, LiveStart]:
        self.asked += partitions
        return {partition: LiveStart(2, 30) for partition in partitions if partition == 0}


async def test_a_second_model_is_asked_once_where_it_begins_and_requires_what_is_before(
    tmp_path: Path,
) -> None:
    first = Indexer(tmp_path)
    beside = Beside()
    starts = Starts(cast("LogReader", first.log), Horizons(first.store, MODEL), beside)
    first._starts = starts
    first.log.begins = {0: 10, 1: 20}
    await first.recover()
    assert beside.asked == [0, 1]
    assert first.positions() == {0: Position(2, 30), 1: Position(20, 20)}
    assert first.live.next_offsets() == {0: 30, 1: 20}
    await first.sealed(30, 34)
    again = Indexer(tmp_path)
    again._starts = starts
    again.log.begins = {0: 32, 1: 20}
    await again.recover()
    assert beside.asked == [0, 1], "it is decided once"
    assert again.live.next_offsets() == {0: 34, 1: 20}
    held = [r for shard in again.served.snapshot().shards for r in shard.ranges]
    assert missing_ranges(held, again.positions()) == (OffsetRange(0, 2, 30),)


def given_up() -> float:
    return (
        REGISTRY.get_sample_value("shashin_lost_records_total", {"topic": "vectors.embedded"}) or 0
    )


async def test_a_loss_that_was_given_up_once_stops_no_later_start_and_is_counted_once(
    tmp_path: Path,
) -> None:
    first = Indexer(tmp_path)
    await first.sealed(0, 5)
    first.log.begins[0] = 10
    before = given_up()
    await first.recover()
    assert given_up() == before + 5
    # Nothing past the gap is sealed yet.
    told: OnLostRecords
    for told in ("stop", "continue"):
        again = Indexer(tmp_path)
        again.log.begins[0] = 10
        again.told_to(told)
        await again.recover()
        assert again.live.next_offsets() == {0: 10, 1: 0}
        assert given_up() == before + 5
    # What retention deletes after that was decided by nobody.
    later = Indexer(tmp_path)
    later.log.begins[0] = 12
    later.told_to("stop")
    with pytest.raises(RecordsLost, match="offsets 10 to 11"):
        await later.recover_without_waiting()
    later.told_to("continue")
    await later.recover()
    assert given_up() == before + 7


async def test_what_cannot_be_read_of_a_loss_that_was_given_up_counts_as_not_given_up(
    tmp_path: Path,
) -> None:
    indexer = Indexer(tmp_path)
    await indexer.sealed(0, 5)
    key = GivenUp(MODEL, 0, 0).key
    await indexer.store.write(key, b"{", only_if=OnlyIf.absent())
    indexer.log.begins[0] = 10
    indexer.told_to("stop")
    with pytest.raises(RecordsLost, match="offsets 5 to 9"):
        await indexer.recover_without_waiting()
    indexer.told_to("continue")
    await indexer.recover()
    assert indexer.live.next_offsets() == {0: 10, 1: 0}
    assert (await indexer.store.read(key))[0] == b"{", "it may be of a newer version"
