"""``listings.hidden`` over a real Kafka: what a start reads, and what retention or a new topic loses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import numpy as np
from aiokafka.admin import AIOKafkaAdminClient

from shashin.errors import KafkaUnavailable, UserError
from shashin.kafka.log_reader import LogReader
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.topic_admin import ensure_topics
from shashin.kafka.topics import LISTINGS_HIDDEN
from shashin.model_space import ModelSpace
from shashin.objectstore.open import open_object_store
from shashin.offsets.log_position import LogPosition
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.repository.pointer import PointedShard, Pointer
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.shards.format.hidden_snapshot import HiddenSnapshot
from shashin.shards.format.row import NewRow, Row, RowAttributes
from shashin.shards.open_shard import OpenShard
from shashin.tiers import HOURLY
from tests.support.deleted_records import delete_before
from tests.support.embedded_listings import (
    DIMENSIONS,
    MODEL,
    IndexClient,
    embedded,
    hidden,
    vector_of,
)
from tests.support.foreign_producer import produce
from tests.support.hidden_map import HiddenMap
from tests.support.indexer_settings import indexer_settings
from tests.support.kafka_fixtures import PARTITIONS
from tests.support.made_shards import BUCKET_START, KIND, commit
from tests.support.running_service import RunningService
from tests.support.waiting import until

StartService = Callable[..., Awaitable[RunningService]]


async def hide_others(producer: Producer, count: int) -> None:
    """Hide listings that no shard has, in partition 0."""
    records = [hidden(f"someone-else-{n}", 2) for n in range(count)]
    await producer.send_all([OutRecord(r.topic, r.key, r.value, partition=0) for r in records])


async def metric_is(service: RunningService, name: str, value: float) -> bool:
    return await service.metric(name) == value


async def test_after_kill_9_an_indexer_goes_on_where_its_store_is(
    start_service: StartService, producer: Producer, tmp_path: Path
) -> None:
    settings = indexer_settings(tmp_path, hidden_folder=tmp_path / "hidden")
    indexer = await start_service("indexer", **settings)
    await hide_others(producer, 50)
    await producer.send_all([hidden("lamp", 2)])
    await until(lambda: metric_is(indexer, "shashin_hidden_listings", 51), "all are stored")
    await indexer.kill()
    await producer.send_all([hidden("mug", 2)])
    await indexer.start()
    await indexer.until_ready()
    assert await indexer.metric("shashin_hidden_records_total") == 1
    await producer.send_all([embedded("lamp"), embedded("mug"), embedded("chair")])
    async with IndexClient(indexer.grpc) as client:
        await until(lambda: client.finds("chair"), "the chair is found")

        async def all_read() -> bool:
            return (await client.describe()).rows == 3

        await until(all_read, "all are read")
        assert await client.nearest(vector_of("lamp"), k=3) == [("chair", 1, 0)]


async def served_shard(tmp_path: Path, *listings: str) -> StoredShard:
    """Commit a shard, and point to it."""
    repository = ModelRepository(open_object_store((tmp_path / "repository").as_uri()))
    shard = OpenShard(0, 0, ModelSpace(MODEL, DIMENSIONS), KIND, HiddenMap())
    rows = [NewRow(Row(name, 1, 0, RowAttributes()), vector_of(name)) for name in listings]
    shard.add(rows, position=len(rows), bucket_start=BUCKET_START)
    stored = await commit(repository, shard, tmp_path / "scratch")
    await repository.move_pointer(
        Pointer(MODEL, HOURLY, (PointedShard.of(stored.manifest),)), over=None
    )
    return stored


async def topic_id(kafka: str) -> str:
    async with LogReader(kafka, LISTINGS_HIDDEN, client_id="test") as reader:
        return await reader.topic_id()


async def write_snapshot(
    tmp_path: Path, stored: StoredShard, topic: str, offsets: Mapping[int, int]
) -> None:
    store = open_object_store((tmp_path / "repository").as_uri())
    snapshot = HiddenSnapshot(
        stored.manifest.shard_id,
        stored.manifest.rows_sha256,
        np.empty(0, dtype=np.uint32),
        LogPosition(topic, offsets),
        0.0,
    )
    await HiddenSnapshots(store).write(stored.manifest, snapshot)


def server_settings(tmp_path: Path, **changes: object) -> dict[str, object]:
    return {
        "model_id": MODEL,
        "dimensions": DIMENSIONS,
        "repository": (tmp_path / "repository").as_uri(),
        "work_folder": tmp_path / "server",
        **changes,
    }


async def test_a_start_reads_only_what_was_hidden_after_the_snapshot_of_its_shard(
    start_service: StartService, kafka: str, producer: Producer, tmp_path: Path
) -> None:
    stored = await served_shard(tmp_path, "lamp", "chair", "mug")
    await hide_others(producer, 200)
    await write_snapshot(tmp_path, stored, await topic_id(kafka), {0: 200})
    await producer.send_all([hidden("lamp", 2)])
    server = await start_service("index_server", **server_settings(tmp_path))
    assert await server.metric("shashin_hidden_records_total") == 1
    async with IndexClient(server.grpc) as client:
        await until(lambda: client.finds("mug"), "the shard is served")
        found = {name for name, _, _ in await client.nearest(vector_of("lamp"), k=3)}
        assert found == {"chair", "mug"}
        await producer.send_all([hidden("chair", 2)])

        async def gone() -> bool:
            return await client.nearest(vector_of("chair"), k=3) == [("mug", 1, 0)]

        await until(gone, "what is hidden later disappears, too")


async def test_a_shard_whose_snapshot_is_older_than_the_log_is_named_and_not_served(
    start_service: StartService, kafka: str, producer: Producer, tmp_path: Path
) -> None:
    stored = await served_shard(tmp_path, "lamp")
    await write_snapshot(tmp_path, stored, await topic_id(kafka), {0: 4})
    await hide_others(producer, 20)
    await delete_before(kafka, LISTINGS_HIDDEN, 10)
    server = await start_service("index_server", **server_settings(tmp_path))

    async def named() -> bool:
        problems = await server.probe("healthz")
        return (
            f"shard {stored.manifest.shard_id}: its snapshots of hidden rows end at offset 4 of "
            "listings.hidden[0], but the log begins at 10" in problems
        )

    await until(named, "the gap is named")
    async with IndexClient(server.grpc) as client:
        assert (await client.describe()).rows == 0
    await server.stop()
    told = await start_service(
        "index_server", **server_settings(tmp_path, on_lost_records="continue")
    )
    async with IndexClient(told.grpc) as client:
        await until(lambda: client.finds("lamp"), "it is served with what is known")
    assert await told.metric("shashin_lost_records_total") == 6


async def recreate(kafka: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.delete_topics([LISTINGS_HIDDEN])

        async def gone() -> bool:
            return LISTINGS_HIDDEN not in await admin.list_topics()

        await until(gone, "the topic is deleted")
    finally:
        await admin.close()

    async def created() -> bool:
        try:
            await ensure_topics(kafka, partitions=PARTITIONS)
        except (KafkaUnavailable, UserError):  # the broker still deletes, or shows no partition yet
            return False
        return True

    await until(created, "the topic is created again")


async def test_a_topic_that_is_created_again_is_noticed_and_its_shards_are_not_served(
    start_service: StartService, kafka: str, producer: Producer, tmp_path: Path
) -> None:
    stored = await served_shard(tmp_path, "lamp")
    first = await topic_id(kafka)
    await write_snapshot(tmp_path, stored, first, {0: 2})
    await hide_others(producer, 2)
    server = await start_service("index_server", **server_settings(tmp_path))
    async with IndexClient(server.grpc) as client:
        await until(lambda: client.finds("lamp"), "the shard is served")
    await recreate(kafka)
    await hide_others(producer, 40)
    assert first != await topic_id(kafka) != ""
    await until(lambda: server.process.poll() is not None, "the server ends")
    assert "deleted and created again" in server.log(), server.log()
    await server.start()

    async def named() -> bool:
        return "belong to another listings.hidden" in await server.probe("healthz")

    await until(named, "it is named after the restart")
    async with IndexClient(server.grpc) as client:
        assert (await client.describe()).rows == 0


async def test_the_first_offsets_of_a_topic_are_known_at_the_first_request(kafka: str) -> None:
    async with LogReader(kafka, LISTINGS_HIDDEN, client_id="test-before") as other:
        # A topic that was just created may have no leader for a moment: this repeats requests.
        await other.end_offsets([0, 1])
    async with LogReader(kafka, LISTINGS_HIDDEN, client_id="test") as reader:
        # A start waits for them, so a repeated request would delay every one.
        reader._consumer._fetcher._retry_backoff = 3600
        async with asyncio.timeout(60):
            begins = await reader.begin_offsets([0, 1])
            assert await reader.end_offsets([0, 1]) == begins == {0: 0, 1: 0}


async def test_a_record_that_cannot_be_read_is_named_and_the_next_ones_take_effect(
    start_service: StartService, kafka: str, producer: Producer, tmp_path: Path
) -> None:
    await producer.send_all([embedded("lamp"), embedded("mug")])
    indexer = await start_service("indexer", **indexer_settings(tmp_path))
    async with IndexClient(indexer.grpc) as client:
        await until(lambda: client.finds("mug"), "the mug is found")
        await asyncio.to_thread(
            produce, kafka, LISTINGS_HIDDEN, [{"key": b"lamp\x002", "value": None}]
        )

        async def named() -> bool:
            health = await indexer.probe("healthz")
            return f"{LISTINGS_HIDDEN}[" in health and "tombstone" in health

        await until(named, "it is named")
        assert await indexer.metric("shashin_hidden_bad_records_total") == 1
        assert await indexer.get("livez") is not None
        await producer.send_all([hidden("mug", 2)])

        async def gone() -> bool:
            return not await client.finds("mug")

        await until(gone, "the mug is hidden")
        assert await client.finds("lamp")
