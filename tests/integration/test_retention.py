"""Retention that overtakes a reader: the gap is named and stops it, or is counted when told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest
from prometheus_client import REGISTRY

from shashin.errors import RecordsLost
from shashin.kafka.log_reader import LogReader
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.records import InRecord
from shashin.kafka.stage import Outcome
from shashin.kafka.topics import IMAGES_DOWNLOADED, LISTINGS_EVENTS
from shashin.runtime.health import Health
from tests.support.copying_stage import Copying, consuming
from tests.support.deleted_records import delete_before
from tests.support.topic_records import records_of
from tests.support.waiting import until


def events(first: int, end: int) -> list[OutRecord]:
    return [OutRecord(LISTINGS_EVENTS, b"key", b"%d" % i, partition=0) for i in range(first, end)]


async def copied(kafka: str) -> set[bytes]:
    return {record.value for record in await records_of(kafka, IMAGES_DOWNLOADED)}


async def until_copied(kafka: str, first: int, end: int) -> None:
    async def there() -> bool:
        return {b"%d" % i for i in range(first, end)} <= await copied(kafka)

    await until(there, f"{first} to {end} are copied")


async def lost_while_stopped(kafka: str, producer: Producer) -> None:
    """Process offsets 0 to 19, and delete 20 to 29 unread."""
    await producer.send_all(events(0, 20))
    async with consuming(kafka, Copying()):
        await until_copied(kafka, 0, 20)
    await producer.send_all(events(20, 40))
    await delete_before(kafka, LISTINGS_EVENTS, 30)


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_a_group_whose_position_was_deleted_stops_and_names_the_gap(
    kafka: str, producer: Producer
) -> None:
    await lost_while_stopped(kafka, producer)
    health, stage = Health(), Copying()
    async with consuming(kafka, stage, health):

        def reported() -> list[str]:
            return [problem for problem in health.problems() if "were deleted" in problem]

        (problem,) = await until(reported, "it is reported")
        assert "offsets 20 to 29 of listings.events[0]" in problem
        assert "SHASHIN_ON_LOST_RECORDS=continue" in problem
        assert health.liveness_problems() == []
        assert health.readiness_problems() != []
    assert stage.seen == []


async def test_told_to_continue_it_counts_what_was_lost_and_goes_on(
    kafka: str, producer: Producer
) -> None:
    await lost_while_stopped(kafka, producer)
    counted = {"topic": LISTINGS_EVENTS}
    before = metric("shashin_lost_records_total", **counted)
    health = Health()
    async with consuming(kafka, Copying(), health, on_lost_records="continue"):
        await until_copied(kafka, 30, 40)
        assert health.problems() == []
    assert metric("shashin_lost_records_total", **counted) == before + 10
    assert not {b"%d" % i for i in range(20, 30)} & await copied(kafka)


class Waiting(Copying):
    """Waits before it processes anything."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    async def process(self, records: Sequence[InRecord]) -> Sequence[Outcome]:
        await self.go_on.wait()
        return await super().process(records)


@asynccontextmanager
async def releasing(stage: Waiting) -> AsyncIterator[None]:
    """Let the stage go on at the latest when the context ends, also by a failure."""
    try:
        yield
    finally:
        stage.go_on.set()


async def test_a_group_without_a_position_starts_at_the_begin_and_says_what_cannot_be_known(
    kafka: str, producer: Producer
) -> None:
    await producer.send_all(events(0, 20))
    await delete_before(kafka, LISTINGS_EVENTS, 10)
    before = metric("shashin_unknown_positions_total", topic=LISTINGS_EVENTS)
    health, stage = Health(), Waiting()
    async with consuming(kafka, stage, health), releasing(stage):
        part = "position in listings.events[0]: the group has no position"
        (problem,) = await until(
            lambda: [p for p in health.problems() if p.startswith(part)], "it is reported"
        )
        assert "the log begins at offset 10" in problem
        assert health.liveness_problems() == []
        stage.go_on.set()
        await until_copied(kafka, 10, 20)
        await until(lambda: not health.problems(), "the group has processed something")
    assert metric("shashin_unknown_positions_total", topic=LISTINGS_EVENTS) == before + 1


async def test_a_new_group_of_a_log_from_which_nothing_was_deleted_is_no_problem(
    kafka: str, producer: Producer
) -> None:
    await producer.send_all(events(0, 20))
    before = metric("shashin_unknown_positions_total", topic=LISTINGS_EVENTS)
    health, stage = Health(), Waiting()
    async with consuming(kafka, stage, health), releasing(stage):
        await until(lambda: not health.readiness_problems(), "it has partitions")
        assert health.problems() == []
        stage.go_on.set()
        await until_copied(kafka, 0, 20)
    assert metric("shashin_unknown_positions_total", topic=LISTINGS_EVENTS) == before


async def test_a_reader_with_a_position_of_its_own_names_the_gap(
    kafka: str, producer: Producer
) -> None:
    await producer.send_all(events(0, 20))
    await delete_before(kafka, LISTINGS_EVENTS, 10)
    async with LogReader(kafka, LISTINGS_EVENTS, client_id="test") as reader:
        await until(lambda: _knows(reader), "the topic is known")
        reader.start_at({0: 4})
        with pytest.raises(RecordsLost, match=r"offsets 4 to 9 of listings\.events\[0\]"):
            await until(lambda: reader.read(timeout_seconds=1.0, max_records=10), "it reads")


async def _knows(reader: LogReader) -> bool:
    return bool(reader.known_partitions())


async def test_lag_and_what_is_retained_before_the_position_are_metrics(
    kafka: str, producer: Producer
) -> None:
    await producer.send_all(events(0, 20))
    await delete_before(kafka, LISTINGS_EVENTS, 5)
    labels: Mapping[str, str] = {"topic": LISTINGS_EVENTS, "partition": "0"}

    def measured() -> bool:
        return metric("shashin_consumer_retained_records", **labels) == 15

    async with consuming(kafka, Copying()):
        await until(measured, "15 offsets before its position are retained")
        assert metric("shashin_consumer_lag_records", **labels) == 0
        assert metric("shashin_topic_retention_seconds", topic=LISTINGS_EVENTS) == 30 * 24 * 3600
