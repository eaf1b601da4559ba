"""The indexer as a process, over the real log: live tier, sealing, recovery."""

from __future__ import annotations

import shutil
import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.errors import GroupIdNotFound, NoError
from aiokafka.protocol.admin import DeleteGroupsRequest

from shashin.codecs.ranges import ranges_in, report_in
from shashin.kafka.groups import DOWNLOADER_GROUP
from shashin.kafka.log_reader import LogReader
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.topics import DEAD_LETTER_SUFFIX, LISTINGS_EVENTS, VECTORS_EMBEDDED
from shashin.objectstore.open import open_object_store
from shashin.offsets.coverage import StageLag, missing_ranges
from shashin.offsets.ranges import OffsetRange
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.tiers import HOURLY
from tests.support.embedded_listings import (
    MODEL,
    IndexClient,
    embedded,
    hidden,
    vector_of,
)
from tests.support.indexer_settings import indexer_settings
from tests.support.running_service import RunningService
from tests.support.topic_records import records_of
from tests.support.waiting import until

StartService = Callable[..., Awaitable[RunningService]]


@pytest.fixture
def repository(tmp_path: Path) -> ModelRepository:
    return ModelRepository(open_object_store((tmp_path / "repository").as_uri()))


async def shards_of(repository: ModelRepository) -> list[StoredShard]:
    stored, unreadable = await repository.shards(MODEL, HOURLY)
    assert not unreadable
    return stored


async def holds_rows(repository: ModelRepository, rows: int) -> bool:
    """Whether the sealed shards have so many rows together."""
    return sum(shard.manifest.rows for shard in await shards_of(repository)) == rows


async def holds_one_shard(repository: ModelRepository) -> bool:
    """Whether there is one sealed shard, and no more."""
    return len(await shards_of(repository)) == 1


async def test_a_vector_in_the_log_is_found_in_the_live_tier(
    start_service: StartService, producer: Producer, tmp_path: Path
) -> None:
    indexer = await start_service("indexer", **indexer_settings(tmp_path))
    await producer.send_all([embedded(f"listing-{i}", photos=3) for i in range(20)])
    async with IndexClient(indexer.grpc) as client:
        for i in range(20):
            await until(partial(client.finds, f"listing-{i}", photo=2), f"listing {i} is found")
        described = await client.describe()
    assert described.rows == 60
    assert sum(p.live_offset for p in described.positions) == 20


async def test_a_sold_listing_is_hidden_and_a_relisted_one_is_found_again(
    start_service: StartService, producer: Producer, tmp_path: Path
) -> None:
    indexer = await start_service("indexer", **indexer_settings(tmp_path))
    await producer.send_all([embedded("lamp"), embedded("chair")])
    async with IndexClient(indexer.grpc) as client:
        await until(lambda: client.finds("lamp"), "the lamp is found")
        await producer.send_all([hidden("lamp", 2)])

        async def gone() -> bool:
            return await client.nearest(vector_of("lamp"), k=5) == [("chair", 1, 0)]

        await until(gone, "the lamp is hidden")
        await producer.send_all([embedded("lamp", 3)])
        await until(lambda: client.finds("lamp", 3), "the relisted lamp is found")


async def test_an_update_hides_the_old_version_once_the_new_one_is_searchable(
    start_service: StartService, producer: Producer, tmp_path: Path
) -> None:
    indexer = await start_service("indexer", **indexer_settings(tmp_path))
    await producer.send_all([embedded("lamp", 1)])
    async with IndexClient(indexer.grpc) as client:
        await until(lambda: client.finds("lamp", 1), "version 1 is found")
        await producer.send_all([embedded("lamp", 2)])

        async def replaced() -> bool:
            found = await client.nearest(vector_of("lamp", 1), k=5)
            assert found, "at no moment is the listing missing"
            return found == [("lamp", 2, 0)]

        await until(replaced, "only version 2 is found")


async def test_broken_records_are_dead_lettered_and_stop_nothing(
    start_service: StartService, producer: Producer, tmp_path: Path
) -> None:
    indexer = await start_service("indexer", **indexer_settings(tmp_path))
    short = embedded("short")
    broken = OutRecord(VECTORS_EMBEDDED, b"broken", b"\xff\xff\xff", partition=0)
    wrong = OutRecord(
        VECTORS_EMBEDDED,
        short.key,
        short.value.replace(vector_of("short").astype("<f2").tobytes(), b""),
        partition=0,
    )
    await producer.send_all(
        [broken, wrong, embedded("other-model", model="another"), embedded("lamp")]
    )
    async with IndexClient(indexer.grpc) as client:
        await until(lambda: client.finds("lamp"), "the lamp is found")
    await until(
        lambda: _metric_is(indexer, "shashin_dead_letters_total", 2), "both are dead letters"
    )


async def _metric_is(service: RunningService, name: str, value: float) -> bool:
    return await service.metric(name) == value


async def test_an_idle_bucket_is_sealed_and_survives_a_crash(
    start_service: StartService, producer: Producer, repository: ModelRepository, tmp_path: Path
) -> None:
    settings = indexer_settings(tmp_path, bucket_seconds=2)
    indexer = await start_service("indexer", **settings)
    await producer.send_all([embedded(f"listing-{i}", photos=2) for i in range(10)])

    await until(partial(holds_rows, repository, 20), "all rows are sealed")
    before = {s.manifest.shard_id: s.manifest for s in await shards_of(repository)}
    await indexer.kill()
    await indexer.start()
    await indexer.until_ready()
    async with IndexClient(indexer.grpc) as client:
        for i in range(10):
            await until(partial(client.finds, f"listing-{i}", photo=1), f"listing {i} is found")
    after = {s.manifest.shard_id: s.manifest for s in await shards_of(repository)}
    assert before.items() <= after.items()


async def test_an_idle_partition_is_sealed_while_another_one_is_busy(
    start_service: StartService, producer: Producer, repository: ModelRepository, tmp_path: Path
) -> None:
    await start_service("indexer", **indexer_settings(tmp_path, bucket_seconds=2))
    await producer.send_all([embedded("quiet", partition=0)])
    sent = 0

    async def quiet_one_is_sealed() -> bool:
        nonlocal sent
        # Without a pause, so that the reader is never idle.
        await producer.send_all(embedded(f"busy-{sent}-{i}", partition=1) for i in range(5))
        sent += 1
        ranges = [r for shard in await shards_of(repository) for r in shard.manifest.source_ranges]
        return any(r.partition == 0 for r in ranges)

    await until(quiet_one_is_sealed, "the idle partition is sealed", limit_seconds=15)


async def test_two_replicas_seal_the_same_shards(
    start_service: StartService, producer: Producer, repository: ModelRepository, tmp_path: Path
) -> None:
    settings = indexer_settings(tmp_path, bucket_seconds=2, row_limit=30)
    first = await start_service("indexer", **{**settings, "work_folder": tmp_path / "one"})
    second = await start_service("indexer", **{**settings, "work_folder": tmp_path / "two"})
    for batch in range(4):
        await producer.send_all([embedded(f"listing-{batch}-{i}", photos=3) for i in range(20)])

    await until(partial(holds_rows, repository, 240), "all rows are sealed")
    for replica in (first, second):
        async with IndexClient(replica.grpc) as client:
            assert await client.finds("listing-3-19", photo=2)
    shards = await shards_of(repository)
    ranges = sorted(r for shard in shards for r in shard.manifest.source_ranges)
    for one, other in pairwise(ranges):
        assert one.partition != other.partition or one.to_offset == other.from_offset

    async def all_sealed_twice() -> bool:
        sealed = [
            await replica.metric("shashin_indexer_sealed_shards_total")
            for replica in (first, second)
        ]
        return min(sealed) >= len(shards)

    await until(all_sealed_twice, "each replica sealed every shard")
    by_another = [
        await replica.metric("shashin_indexer_sealed_by_another_total")
        for replica in (first, second)
    ]
    assert sum(by_another) >= len(shards)


async def test_without_offsets_and_disk_the_same_shards_exist_afterwards(
    start_service: StartService,
    producer: Producer,
    kafka: str,
    repository: ModelRepository,
    tmp_path: Path,
) -> None:
    settings = indexer_settings(tmp_path, bucket_seconds=2)
    indexer = await start_service("indexer", **settings)
    await producer.send_all([embedded(f"listing-{i}") for i in range(12)])

    await until(partial(holds_rows, repository, 12), "all rows are sealed")
    before = objects_in(tmp_path / "repository")
    await indexer.kill()
    await forget_offsets(kafka, f"indexer.{MODEL}")
    shutil.rmtree(tmp_path / "work")
    await indexer.start()
    await indexer.until_ready()
    await producer.send_all([embedded("one-more")])
    await until(partial(holds_rows, repository, 13), "the new row is sealed as well")
    after = objects_in(tmp_path / "repository")
    assert before.items() <= after.items(), "no shard was written again, none is gone"


def objects_in(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return every object with its time and its bytes."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


async def forget_offsets(kafka: str, group: str) -> None:
    """Delete a consumer group with its offsets; a dead member is waited for."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:

        async def deleted() -> bool:
            coordinator = await admin.find_coordinator(group)
            answer = await admin._send_request(DeleteGroupsRequest([group]), coordinator)
            ((_, code),) = answer.results
            return code in {NoError.errno, GroupIdNotFound.errno}

        await until(deleted, "the group is deleted")
    finally:
        await admin.close()


async def test_a_partition_that_is_added_is_indexed_and_sealed_without_a_restart(
    start_service: StartService,
    producer: Producer,
    kafka: str,
    repository: ModelRepository,
    tmp_path: Path,
) -> None:
    indexer = await start_service("indexer", **indexer_settings(tmp_path, bucket_seconds=2))
    await producer.send_all([embedded("old", partition=0)])
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_partitions({VECTORS_EMBEDDED: NewPartitions(total_count=3)})
    finally:
        await admin.close()
    async with (
        IndexClient(indexer.grpc) as client,
        Producer(kafka, client_id="test-later") as later,
    ):

        async def written() -> bool:
            try:
                await later.send_all([embedded("new", partition=2)])
            except AssertionError:  # the client does not know the partition yet
                return False
            return True

        await until(written, "a record is in the new partition")
        await until(lambda: client.finds("new"), "it is found")
        assert await client.finds("old")
        described = await client.describe()
    assert {p.partition for p in described.positions} == {0, 1, 2}

    async def sealed() -> bool:
        ranges = [r for s in await shards_of(repository) for r in s.manifest.source_ranges]
        return {r.partition for r in ranges} == {0, 2}

    await until(sealed, "both are sealed")


async def test_an_unavailable_repository_is_retried_and_searches_continue(
    start_service: StartService, producer: Producer, repository: ModelRepository, tmp_path: Path
) -> None:
    indexer = await start_service("indexer", **indexer_settings(tmp_path, bucket_seconds=2))
    folder = tmp_path / "repository"
    shutil.rmtree(folder, ignore_errors=True)
    folder.touch()  # writes below it fail
    await producer.send_all([embedded("lamp")])
    await until(lambda: "retrying" in indexer.log(), "it says that it waits")
    async with IndexClient(indexer.grpc) as client:
        assert await client.finds("lamp")
    folder.unlink()

    await until(partial(holds_one_shard, repository), "it is sealed once the repository is back")


async def test_a_disk_that_cannot_be_written_is_waited_for_and_loses_nothing(
    start_service: StartService, producer: Producer, repository: ModelRepository, tmp_path: Path
) -> None:
    indexer = await start_service("indexer", **indexer_settings(tmp_path, bucket_seconds=2))
    work = tmp_path / "work"
    shutil.rmtree(work)
    work.touch()
    await producer.send_all([embedded("lamp")])
    await until(lambda: "cannot be written" in indexer.log(), "it says what is wrong")
    work.unlink()

    await until(partial(holds_one_shard, repository), "it is sealed once the disk can be written")


async def test_too_many_bad_records_pause_consumption_and_searches_continue(
    start_service: StartService, producer: Producer, kafka: str, tmp_path: Path
) -> None:
    indexer = await start_service(
        "indexer", **indexer_settings(tmp_path, dead_letter_window=20, dead_letter_share=0.25)
    )
    await producer.send_all([embedded("lamp", partition=0)])
    async with IndexClient(indexer.grpc) as client:
        await until(lambda: client.finds("lamp"), "the lamp is found")
        await producer.send_all(
            OutRecord(VECTORS_EMBEDDED, b"bad", b"\xff\xff", partition=0) for _ in range(30)
        )
        await until(
            lambda: _metric_is(indexer, "shashin_consumption_paused", 1), "consumption is paused"
        )
        assert await client.finds("lamp")

        async def unread_is_missing() -> bool:
            described = await client.describe()
            held = [r for shard in described.shards for r in ranges_in(shard.ranges)]
            missing = missing_ranges(held, report_in(described).positions)
            return missing == (OffsetRange(0, 1, 31),)

        await until(unread_is_missing, "what it has not read is missing")
    assert "consumption paused" in indexer.log()
    assert await indexer.get("livez") is not None
    assert await indexer.get("readyz") is not None, "searches still work"
    assert await indexer.get("healthz") is None
    async with LogReader(kafka, VECTORS_EMBEDDED + DEAD_LETTER_SUFFIX, client_id="test") as reader:
        assert sum((await reader.end_offsets(await reader.partitions())).values()) <= 5


async def test_how_far_the_stages_before_are_behind_is_reported(
    start_service: StartService, producer: Producer, kafka: str, tmp_path: Path
) -> None:
    indexer = await start_service("indexer", **indexer_settings(tmp_path))
    await producer.send_all(
        [OutRecord(LISTINGS_EVENTS, b"lamp", b"event", partition=p) for p in (0, 0, 1)]
    )
    async with (
        IndexClient(indexer.grpc) as client,
        LogReader(kafka, LISTINGS_EVENTS, client_id="test", group=DOWNLOADER_GROUP) as downloader,
    ):

        async def lag_is(records: int) -> bool:
            stages = report_in(await client.describe()).stages
            by_name = {lag.stage: lag for lag in stages}
            assert list(by_name) == ["downloader", "embedder"]
            waits = by_name["downloader"].seconds > 0
            return (
                by_name["downloader"].records == records
                and by_name["embedder"] == StageLag("embedder", 0)
                and waits == bool(records)
            )

        async def alertable() -> bool:
            return await indexer.metric("shashin_indexer_stage_lag_seconds") > 0

        await until(partial(lag_is, 3), "no event is processed yet")
        await until(alertable, "it is a metric, though no downloader runs")

        async def committed(offsets: dict[int, int], records: int) -> bool:
            # Again and again: the group takes none while it has a member that was killed in another test.
            await downloader.commit(offsets)
            return await lag_is(records)

        downloader.start_at({0: 0, 1: 0})
        await until(partial(committed, {0: 1}, 2), "one event is processed")
        await until(partial(committed, {0: 2, 1: 1}, 0), "all are processed")


async def test_a_restart_does_not_forget_for_how_long_records_wait_for_a_stage(
    start_service: StartService, producer: Producer, kafka: str, tmp_path: Path
) -> None:
    await producer.send_all([OutRecord(LISTINGS_EVENTS, b"lamp", b"event", partition=0)])
    (waiting,) = await records_of(kafka, LISTINGS_EVENTS)
    first = await start_service("indexer", **indexer_settings(tmp_path))
    await first.kill()
    indexer = await start_service("indexer", **indexer_settings(tmp_path))
    watched_since = time.time()

    async def as_old_as_the_record() -> bool:
        lag = await indexer.metric("shashin_indexer_stage_lag_seconds")
        return time.time() - lag <= waiting.timestamp_ms / 1000 + 0.5 < watched_since

    await until(as_old_as_the_record, "the lag is the record's age")


async def test_a_partition_that_no_replica_indexes_is_counted(
    start_service: StartService, producer: Producer, kafka: str, tmp_path: Path
) -> None:
    async with LogReader(kafka, VECTORS_EMBEDDED, client_id="test") as reader:
        partitions = await reader.partitions()
    assert len(partitions) > 1
    indexer = await start_service("indexer", **indexer_settings(tmp_path, partitions="0"))
    async with IndexClient(indexer.grpc) as client:
        report = report_in(await client.describe())
    assert report.positions.keys() == {0}
    assert report.partitions == len(partitions)


async def test_control_records_of_transactions_at_the_end_of_the_log_count_as_read(
    start_service: StartService, kafka: str, tmp_path: Path
) -> None:
    record = embedded("lamp", partition=0)
    async with AIOKafkaProducer(bootstrap_servers=kafka, transactional_id="app") as app:
        async with app.transaction():
            await app.send_and_wait(record.topic, record.value, record.key, partition=0)
        indexer = await start_service("indexer", **indexer_settings(tmp_path))
        async with IndexClient(indexer.grpc) as client:
            await until(lambda: client.finds("lamp"), "the lamp is found")

            async def whole() -> bool:
                described = await client.describe()
                positions = report_in(described).positions
                held = [r for shard in described.shards for r in ranges_in(shard.ranges)]
                return positions[0].live_offset == 2 and not missing_ranges(held, positions)

            await until(whole, "the marker after the record is covered")
