"""The tail loop: health while Kafka is unavailable and while consumption is paused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, cast

from services.indexer.live_tier import LiveTier
from services.indexer.recovery import Starts
from services.indexer.sealing import Sealer
from services.indexer.settings import IndexerSettings
from services.indexer.start_offsets import StartOffset
from services.indexer.tail import Tail
from shashin.errors import KafkaUnavailable
from shashin.kafka.log_reader import LogReader
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.records import InRecord
from shashin.objectstore.file import FileObjectStore
from shashin.offsets.coverage import Position, missing_ranges
from shashin.offsets.cut import CutReason
from shashin.offsets.ranges import OffsetRange
from shashin.repository.horizons import Horizons
from shashin.runtime.health import Health
from shashin.runtime.scope import LoopScope
from shashin.serving.served_shards import ServedShards
from shashin.shards.open_shard import OpenShard
from shashin.v1 import events_pb2
from tests.support.hidden_map import HiddenMap
from tests.support.loops import running
from tests.support.made_shards import DIMENSIONS, MODEL, as_logged, listings, open_shard, vector_of
from tests.support.waiting import until


class Log:
    """One partition with one record, a second version of a listing."""

    def __init__(self) -> None:
        message = events_pb2.EmbeddedListing(
            listing_id="lamp",
            version=2,
            model_id=MODEL,
            dimensions=DIMENSIONS,
            vectors=[events_pb2.PhotoVector(vector=as_logged(vector_of("lamp")).tobytes())],
        )
        record = InRecord("vectors.embedded", 0, 0, 0, b"lamp", message.SerializeToString())
        self._unread: dict[int, list[InRecord]] = {0: [record]}
        self.reads = 0
        self.partitions = [0]
        self.started_at: dict[int, int] = {}
        self.positions: dict[int, int] = {}
        self.written = 1
        self.ends_requested = 0

    def high_watermark(self, _partition: int) -> int:
        return self.written

    def start_at(self, offsets: Mapping[int, int]) -> None:
        self.started_at = dict(offsets)
        self.positions = dict(offsets)

    async def position(self, partition: int) -> int:
        return self.positions[partition]

    def broker_check(self, _loop: LoopScope) -> Log:
        return self

    async def check(self) -> None:
        return

    def responded(self) -> None:
        return

    def wait_at_damaged_batches(self, _loop: LoopScope) -> None:
        return

    def known_partitions(self) -> list[int]:
        return self.partitions

    async def begin_offsets(self, partitions: list[int]) -> dict[int, int]:
        return dict.fromkeys(partitions, 3)

    async def end_offsets(self, _partitions: list[int]) -> dict[int, int]:
        self.ends_requested += 1
        return {0: 1}

    async def read(self, **_bounds: Any) -> dict[int, list[InRecord]]:
        self.reads += 1
        await asyncio.sleep(0)
        unread, self._unread = self._unread, {}
        for partition, records in unread.items():
            self.positions[partition] = records[-1].offset + 1
        return unread


class Broker:
    """A fake producer that can be unavailable."""

    def __init__(self, *, down: bool = False) -> None:
        self.down = down
        self.attempts = 0
        self.written: list[OutRecord] = []

    async def send_all(self, records: Iterable[OutRecord]) -> None:
        self.attempts += 1
        if self.down:
            raise KafkaUnavailable("kafka did not acknowledge")
        self.written += records


class Indexer:
    def __init__(self, folder: Path, executor: ThreadPoolExecutor, **changes: Any) -> None:
        self.now = 0.0
        self.sealed: list[OpenShard] = []
        self.health = Health(stall_seconds=10, clock=lambda: self.now)
        self.log = Log()
        self.broker = Broker()
        settings = IndexerSettings(
            model_id=MODEL,
            dimensions=DIMENSIONS,
            repository=folder.as_uri(),
            work_folder=folder / "work",
            discovery=(folder / "discovery.json").as_uri(),
            **{"grace_seconds": 1e12, **changes},
        )
        self.live = LiveTier(settings, ServedShards(), HiddenMap())
        self.live.open_partitions({0: StartOffset(0, 0)})
        self.repository = FileObjectStore(folder)
        self.tail = Tail(
            settings,
            self.live,
            cast("LogReader", self.log),
            Starts(cast("LogReader", self.log), Horizons(self.repository, MODEL)),
            cast("Producer", self.broker),
            cast("Sealer", self),
            executor,
        )

    def seal(self, shard: OpenShard, _reason: CutReason) -> None:
        self.sealed.append(shard)


async def test_a_broker_failure_during_a_write_is_reported_and_is_not_a_stall(
    tmp_path: Path,
) -> None:
    with ThreadPoolExecutor(1) as executor:
        indexer = Indexer(tmp_path, executor)
        indexer.broker.down = True
        async with running(indexer.tail.loop(), health=indexer.health):

            def attempted(attempts: int) -> bool:
                return indexer.broker.attempts >= attempts

            for attempts in (1, 2, 3):
                await until(partial(attempted, attempts), "it attempts to write")
                indexer.now += 1000
                assert indexer.health.liveness_problems() == []
            problem = "kafka to acknowledge records: kafka did not acknowledge"
            await until(lambda: problem in indexer.health.problems(), "the problem is reported")
            indexer.broker.down = False
            await until(lambda: not indexer.health.problems(), "the problem is cleared")
        (hidden,) = indexer.broker.written
        assert events_pb2.HiddenListing.FromString(hidden.value).below_version == 2


async def test_consumption_pauses_while_too_many_rows_are_held(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        indexer = Indexer(tmp_path, executor, held_row_limit=5)
        held = open_shard(listings(0, 6), partition=1)
        indexer.live.held.hold(held)
        async with running(indexer.tail.loop(), health=indexer.health):
            problem = "consumption of vectors.embedded: paused: 6 held rows wait for an index"
            await until(lambda: problem in str(indexer.health.problems()), "the pause is reported")
            assert indexer.log.reads == 0
            indexer.live.release([held])
            await until(lambda: not indexer.health.problems(), "consumption resumes")
        assert indexer.log.reads > 0


async def test_offsets_without_records_at_the_end_of_the_log_count_as_read(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        indexer = Indexer(tmp_path, executor)
        async with running(indexer.tail.loop(), health=indexer.health):
            await until(lambda: indexer.live.next_offsets() == {0: 1}, "the record is read")
            indexer.log.positions[0] = 4  # past the markers of transactions
            await until(lambda: indexer.live.next_offsets() == {0: 4}, "they are passed")
        shards = indexer.live.partitions[0].open
        assert indexer.live.positions([shards], {0: 4}) == {0: Position(0, 4)}
        assert shards.records_end == 1, "where the range will be cut"


async def test_a_new_partition_is_opened_once_its_horizon_is_stored_and_the_others_are_read(
    tmp_path: Path,
) -> None:
    repository = tmp_path / "store"
    with ThreadPoolExecutor(1) as executor:
        indexer = Indexer(repository, executor)
        repository.touch()  # writes below it fail
        indexer.log.partitions = [0, 1]
        async with running(indexer.tail.loop(), indexer.tail.opener(), health=indexer.health):
            await until(lambda: "start offsets" in str(indexer.health.problems()), "it waits")
            assert indexer.live.next_offsets().keys() == {0}
            reads = indexer.log.reads
            await until(lambda: indexer.log.reads > reads + 3, "partition 0 is read")
            repository.unlink()
            await until(lambda: indexer.log.started_at == {0: 1, 1: 3}, "it is read as well")
        stored = (await Horizons(indexer.repository, MODEL).keep(1, 99)).offset
        assert stored == 3


async def test_while_the_reader_waits_the_offsets_that_it_has_not_read_are_missing(
    tmp_path: Path,
) -> None:
    with ThreadPoolExecutor(1) as executor:
        indexer = Indexer(tmp_path, executor, held_row_limit=5)
        indexer.live.held.hold(open_shard(listings(0, 6), partition=1))
        async with running(indexer.tail.loop(), health=indexer.health):
            await until(indexer.health.problems, "consumption is paused")
            shards = [indexer.live.partitions[0].open]
            positions = indexer.live.positions(shards, {0: 7})
            held = [r for shard in shards for r in shard.ranges]
            assert missing_ranges(held, positions) == (OffsetRange(0, 0, 7),)


async def test_an_idle_partition_is_not_cut_while_a_transaction_is_open_behind_its_end(
    tmp_path: Path,
) -> None:
    with ThreadPoolExecutor(1) as executor:
        indexer = Indexer(tmp_path, executor, grace_seconds=0, bucket_seconds=1)
        indexer.log.written = 3
        async with running(indexer.tail.loop(), health=indexer.health):
            await until(lambda: indexer.live.next_offsets() == {0: 1}, "the record is read")
            checks = indexer.log.ends_requested
            await until(lambda: indexer.log.ends_requested > checks + 2, "it is checked for a cut")
            assert indexer.sealed == []
            indexer.log.written = 1
            await until(lambda: indexer.sealed, "it is cut once the transaction has ended")
