"""The indexer over logs that others have written to, damaged or deleted."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.records import InRecord
from shashin.kafka.topics import DEAD_LETTER_SUFFIX, VECTORS_EMBEDDED
from shashin.objectstore.open import open_object_store
from shashin.repository.repository import ModelRepository
from shashin.tiers import HOURLY
from tests.support.damaged_log import flip
from tests.support.deleted_records import delete_before
from tests.support.embedded_listings import MODEL, IndexClient, embedded
from tests.support.foreign_producer import librdkafka, produce
from tests.support.indexer_settings import indexer_settings
from tests.support.running_service import RunningService
from tests.support.shashin_command import shashin
from tests.support.topic_records import records_of
from tests.support.waiting import until

StartService = Callable[..., Awaitable[RunningService]]


def fields(record: OutRecord) -> dict[str, Any]:
    return {"key": record.key, "value": record.value, "partition": 0}


async def test_a_log_that_ends_with_the_end_of_a_transaction_is_read_to_its_end(
    kafka: str, start_service: StartService, tmp_path: Path
) -> None:
    transactional = librdkafka(kafka, transactional_id="vectors")
    transactional.init_transactions(30)
    for listing, commit in (("lamp", True), ("ghost", False)):
        transactional.begin_transaction()
        transactional.produce(VECTORS_EMBEDDED, **fields(embedded(listing)))
        assert transactional.flush(30) == 0
        transactional.commit_transaction(30) if commit else transactional.abort_transaction(30)
    # It is ready only once it has reached the end.
    indexer = await start_service("indexer", **indexer_settings(tmp_path))
    async with IndexClient(indexer.grpc) as client:
        assert await client.finds("lamp")
        described = await client.describe()
    assert described.rows == 1
    # Two records, and a control record after each.
    assert {p.partition: p.live_offset for p in described.positions}[0] == 4


async def test_a_tombstone_in_the_log_is_a_dead_letter(
    kafka: str, start_service: StartService, producer: Producer, tmp_path: Path
) -> None:
    produce(kafka, VECTORS_EMBEDDED, [{"key": b"lamp", "value": None, "partition": 0}])
    await producer.send_all([embedded("lamp", partition=0)])
    indexer = await start_service("indexer", **indexer_settings(tmp_path))
    async with IndexClient(indexer.grpc) as client:
        assert await client.finds("lamp")

    async def dead_letters() -> Sequence[InRecord]:
        return await records_of(kafka, VECTORS_EMBEDDED + DEAD_LETTER_SUFFIX)

    (dead_letter,) = await until(dead_letters, "the tombstone is a dead letter")
    # An empty value would be a listing without an id.
    assert b"tombstone" in (dict(dead_letter.headers)["shashin-message"] or b"")


async def test_a_damaged_batch_holds_its_partition_back_until_it_is_skipped(
    kafka: str,
    start_service: StartService,
    producer: Producer,
    log_folder: Path,
    tmp_path: Path,
) -> None:
    await producer.send_all([embedded("before", partition=0)])
    await producer.send_all([embedded("damaged", partition=0)])
    await producer.send_all([embedded("after", partition=0)])
    flip(log_folder / f"{VECTORS_EMBEDDED}-0", b"damaged", occurrence=0)
    indexer = await start_service("indexer", ready=False, **indexer_settings(tmp_path))

    async def waits() -> bool:
        return "shashin dlq skip vectors.embedded:0:1" in await indexer.probe("healthz")

    await until(waits, "it says what it waits for")
    await producer.send_all([embedded("elsewhere", partition=1)])
    async with IndexClient(indexer.grpc) as client:

        async def serves() -> bool:
            return not (await client.describe()).not_serving

        await until(serves, "it has read the hidden listings")
        await until(lambda: client.finds("before"), "what came before is found")
        await until(lambda: client.finds("elsewhere"), "the other partition goes on")
        await shashin(
            "dlq",
            "skip",
            "vectors.embedded:0:1",
            state=tmp_path / "state",
            env={"SHASHIN_KAFKA": kafka},
        )
        await until(lambda: client.finds("after"), "it goes on after the batch")
    await indexer.until_ready()


async def test_records_that_were_deleted_unread_stop_the_start_until_told_to_continue(
    kafka: str, start_service: StartService, producer: Producer, tmp_path: Path
) -> None:
    await producer.send_all([embedded(f"early-{i}", partition=0) for i in range(5)])
    first = await start_service(
        "indexer", **indexer_settings(tmp_path, row_limit=1000, bucket_seconds=1)
    )
    repository = ModelRepository(open_object_store((tmp_path / "repository").as_uri()))

    async def sealed() -> bool:
        shards, _ = await repository.shards(MODEL, HOURLY)
        return sum(shard.manifest.rows for shard in shards) == 5

    await until(sealed, "they are sealed")
    await first.kill()
    await producer.send_all([embedded(f"late-{i}", partition=0) for i in range(10)])
    await delete_before(kafka, VECTORS_EMBEDDED, 10)

    stopped = await start_service("indexer", ready=False, **indexer_settings(tmp_path))

    async def named() -> bool:
        return "offsets 5 to 9 of vectors.embedded[0] were deleted" in await stopped.probe(
            "healthz"
        )

    await until(named, "it names the gap")
    await stopped.kill()
    again = await start_service("indexer", **indexer_settings(tmp_path, on_lost_records="continue"))
    async with IndexClient(again.grpc) as client:
        assert await client.finds("late-9")
    assert await again.metric("shashin_lost_records_total") == 5
    await again.kill()
    # Nothing past the gap is sealed, and the setting is gone: the decision is remembered.
    last = await start_service("indexer", **indexer_settings(tmp_path))
    async with IndexClient(last.grpc) as client:
        assert await client.finds("late-9")
    assert await last.metric("shashin_lost_records_total") == 0


async def test_an_indexer_that_retention_overtakes_as_it_runs_ends_and_the_next_start_names_the_gap(
    kafka: str, start_service: StartService, producer: Producer, tmp_path: Path
) -> None:
    await producer.send_all([embedded(f"early-{i}", partition=0) for i in range(5)])
    indexer = await start_service("indexer", **indexer_settings(tmp_path))
    async with IndexClient(indexer.grpc) as client:
        await until(lambda: client.finds("early-4"), "the first ones are read")
    indexer.process.send_signal(signal.SIGSTOP)
    # The broker answers the fetch that it may hold with this one, and none of the next.
    await producer.send_all([embedded("next", partition=0)])
    await producer.send_all([embedded(f"late-{i}", partition=0) for i in range(10)])
    await delete_before(kafka, VECTORS_EMBEDDED, 15)
    indexer.process.send_signal(signal.SIGCONT)
    assert await asyncio.to_thread(indexer.process.wait, 60) != 0
    assert "vectors.embedded[0] were deleted" in indexer.log()

    await indexer.start()

    async def named() -> bool:
        return "offsets 0 to 14 of vectors.embedded[0] were deleted" in await indexer.probe(
            "healthz"
        )

    await until(named, "it names the gap")
    assert await indexer.get("livez") is not None
