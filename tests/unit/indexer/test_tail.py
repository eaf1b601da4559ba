"""The tail loop: what it reports while what it needs is away, or while too many rows are held."""

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
from shashin.serving.served_shards import ServedShards
from shashin.shards.visibility import HiddenMap
from shashin.v1 import events_pb2
from tests.support.loops import running
from tests.support.made_shards import DIMENSIONS, MODEL, listings, open_shard, vector_of
from tests.support.waiting import until


class Log:
    """One partition with one record, a second version of a listing."""

    def __init__(self) -> None:
        message = events_pb2.EmbeddedListing(
            listing_id="lamp",
            version=2,
            model_id=MODEL,
            dimensions=DIMENSIONS,
            vectors=[events_pb2.PhotoVector(vector=vector_of("lamp").astype("<f2").tobytes())],
        )
        record = InRecord("vectors.embedded", 0, 0, 0, b"lamp", message.SerializeToString())
        self._unread: dict[int, list[InRecord]] = {0: [record]}
        self.reads = 0

    def start_at(self, offsets: Mapping[int, int]) -> None:
        assert offsets == {0: 0}

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
    """Takes nothing until it is back."""

    def __init__(self, *, away: bool = False) -> None:
        self.away = away
        self.attempts = 0
        self.written: list[OutRecord] = []

    async def send_all(self, records: Iterable[OutRecord]) -> None:
        self.attempts += 1
        if self.away:
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
        self.live.begin(start_offsets((), {0: 0}))
        self.tail = Tail(
            settings,
            self.live,
            cast("LogReader", self.log),
            cast("Producer", self.broker),
            cast("Sealer", None),
            executor,
        )


async def test_a_broker_that_goes_away_in_the_middle_of_a_write_is_no_stall_and_is_named(
    tmp_path: Path,
) -> None:
    with ThreadPoolExecutor(1) as executor:
        indexer = Indexer(tmp_path, executor)
        indexer.broker.away = True
        async with running(indexer.tail.loop(), health=indexer.health):

            def has_tried(attempts: int) -> bool:
                return indexer.broker.attempts >= attempts

            for attempts in (1, 2, 3):
                await until(partial(has_tried, attempts), "it tries to write")
                indexer.now += 1000
                assert indexer.health.liveness_problems() == []
            named = "kafka to take records: kafka did not acknowledge"
            await until(lambda: named in indexer.health.problems(), "it says what it waits for")
            indexer.broker.away = False
            await until(lambda: not indexer.health.problems(), "all is well, and the log is read")
        (hidden,) = indexer.broker.written
        assert events_pb2.HiddenListing.FromString(hidden.value).below_version == 2


async def test_consumption_pauses_while_too_many_rows_are_held_and_says_so(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:
        indexer = Indexer(tmp_path, executor, held_row_limit=5)
        held = open_shard(listings(0, 6), partition=1)
        indexer.live.held.hold(held)
        async with running(indexer.tail.loop(), health=indexer.health):
            problem = "consumption of vectors.embedded: paused: 6 sealed rows wait for an index"
            await until(lambda: problem in str(indexer.health.problems()), "it says so")
            assert indexer.log.reads == 0
            indexer.live.release([held])
            await until(lambda: not indexer.health.problems(), "it reads on")
        assert indexer.log.reads > 0
