"""The tail loop: health while Kafka is unavailable and while consumption is paused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, cast

from services.indexer.live_tier import LiveTier
from services.indexer.sealing import Sealer
from services.indexer.settings import IndexerSettings
from services.indexer.start_offsets import start_offsets
from services.indexer.tail import Tail
from shashin.errors import KafkaUnavailable
from shashin.kafka.log_reader import LogReader
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.records import InRecord
from shashin.runtime.health import Health
from shashin.runtime.scope import LoopScope
from shashin.serving.served_shards import ServedShards
from shashin.shards.visibility import HiddenMap
from shashin.v1 import events_pb2
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

    def start_at(self, offsets: Mapping[int, int]) -> None:
        assert offsets == {0: 0}

    def broker_check(self, _loop: LoopScope) -> Log:
        return self

    async def check(self) -> None:
        return

    def responded(self) -> None:
        return

    def known_partitions(self) -> list[int]:
        return [0]

    async def end_offsets(self, _partitions: list[int]) -> dict[int, int]:
        return {0: 1}

    async def read(self, **_bounds: Any) -> dict[int, list[InRecord]]:
        self.reads += 1
        await asyncio.sleep(0)
        unread, self._unread = self._unread, {}
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
        self.health = Health(stall_seconds=10, clock=lambda: self.now)
        self.log = Log()
        self.broker = Broker()
        settings = IndexerSettings(
            model_id=MODEL,
            dimensions=DIMENSIONS,
            repository=folder.as_uri(),
            work_folder=folder / "work",
            discovery=(folder / "discovery.json").as_uri(),
            grace_seconds=1e12,
            **changes,
        )
        self.live = LiveTier(settings, ServedShards(HiddenMap()))
        self.live.open_partitions(start_offsets((), {0: 0}))
        self.tail = Tail(
            settings,
            self.live,
            cast("LogReader", self.log),
            cast("Producer", self.broker),
            cast("Sealer", None),
            executor,
        )


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
