"""The consumer loop over a real broker: at least once, nothing skipped, everything acknowledged."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import CorruptRecordException, KafkaConnectionError
from prometheus_client import REGISTRY

from shashin.errors import KafkaUnavailable
from shashin.kafka.log_reader import LogReader
from shashin.kafka.producer import Acknowledged, OutRecord, Producer
from shashin.kafka.topic_admin import ensure_topics
from shashin.kafka.topics import IMAGES_DOWNLOADED, LISTINGS_EVENTS
from shashin.runtime.health import Health
from tests.support.copying_stage import Copying, Crash, consuming
from tests.support.loops import loop_scope
from tests.support.topic_records import records_of
from tests.support.waiting import until

DEAD = f"{LISTINGS_EVENTS}.dlq"


async def values_of(kafka: str, topic: str) -> list[bytes]:
    return [record.value for record in await records_of(kafka, topic)]


def events(count: int, first: int = 0) -> list[OutRecord]:
    return [
        OutRecord(LISTINGS_EVENTS, f"key-{i}".encode(), f"value-{i}".encode())
        for i in range(first, first + count)
    ]


async def test_every_record_is_copied_and_a_bad_one_is_a_dead_letter_with_its_cause(
    kafka: str, producer: Producer
) -> None:
    bad = OutRecord(LISTINGS_EVENTS, b"key", b"bad one", headers=[("app", b"x")])
    await producer.send_all([*events(25), bad, *events(25, first=25)])
    async with consuming(kafka, Copying()):
        await until(lambda: _count(kafka, IMAGES_DOWNLOADED, 50), "50 records are copied")
        await until(lambda: _count(kafka, DEAD, 1), "one is a dead letter")
    assert sorted(await values_of(kafka, IMAGES_DOWNLOADED)) == sorted(
        record.value for record in events(50)
    )
    (dead_letter,) = await records_of(kafka, DEAD)
    headers = dict(dead_letter.headers)
    assert (dead_letter.key, dead_letter.value) == (b"key", b"bad one")
    assert headers["shashin-error"] == b"InvalidEvent"
    assert headers["shashin-message"] == b"it is bad"
    assert headers["shashin-step"] == b"test.copy"
    assert headers["shashin-topic"] == LISTINGS_EVENTS.encode()


async def test_what_was_committed_is_not_read_again(kafka: str, producer: Producer) -> None:
    await producer.send_all(events(20))
    async with consuming(kafka, Copying()):
        await until(lambda: _count(kafka, IMAGES_DOWNLOADED, 20), "all are copied")
    again = Copying()
    await producer.send_all(events(1, first=20))
    async with consuming(kafka, again):
        await until(lambda: again.seen, "the new one is read")
    assert again.seen == [b"value-20"]


async def test_a_crash_before_the_commit_repeats_the_batch_and_loses_nothing(
    kafka: str, producer: Producer
) -> None:
    await producer.send_all(events(30))
    crashing = Copying(crash_on=b"value-17")
    with pytest.raises(Crash):
        async with consuming(kafka, crashing):
            await until(lambda: b"value-17" in crashing.seen, "it crashes")
    async with consuming(kafka, Copying()):
        await until(lambda: _has_all(kafka, 30), "all are copied in the end")


async def test_an_idle_loop_makes_progress(kafka: str, producer: Producer) -> None:
    now = [0.0]
    health = Health(stall_seconds=10, clock=lambda: now[0])
    stage = Copying()
    await producer.send_all(events(1))
    async with consuming(kafka, stage, health):
        await until(lambda: stage.seen, "the loop runs")
        assert not health.readiness_problems()
        for turn in (1, 2, 3):
            # A loop without progress after this never looks live again.
            now[0] = 100.0 * turn
            await until(lambda: not health.liveness_problems(), "an idle loop makes progress")


class UnavailableProducer(Producer):
    """Fails until the broker is available again."""

    unavailable = True
    attempts = 0

    async def send_all(self, records: Iterable[OutRecord]) -> list[Acknowledged]:
        self.attempts += 1
        if self.unavailable:
            raise KafkaUnavailable("kafka did not acknowledge")
        return await super().send_all(records)


async def test_a_broker_that_fails_during_a_write_is_no_stall_and_is_reported(
    kafka: str, producer: Producer
) -> None:
    now = [0.0]
    health = Health(stall_seconds=10, clock=lambda: now[0])
    await producer.send_all(events(3))
    async with (
        UnavailableProducer(kafka, client_id="test") as writer,
        consuming(kafka, Copying(), health, writer),
    ):

        def has_tried(attempts: int) -> bool:
            return writer.attempts >= attempts

        for attempts in (1, 2):
            await until(partial(has_tried, attempts), "it tries to write")
            now[0] += 1000
            assert health.liveness_problems() == []
        named = "kafka to take outputs: kafka did not acknowledge"
        await until(lambda: named in health.problems(), "it says what it waits for")
        writer.unavailable = False
        await until(lambda: _count(kafka, IMAGES_DOWNLOADED, 3), "all are copied")
        await until(lambda: not health.problems(), "all is well")


async def test_a_poll_that_fails_is_named_and_counted_and_repeated(
    kafka: str, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    poll, failing = AIOKafkaConsumer.getmany, True

    async def failing_poll(consumer: AIOKafkaConsumer, *args: Any, **kwargs: Any) -> Any:
        if failing:
            raise CorruptRecordException("damaged on its way")
        return await poll(consumer, *args, **kwargs)

    monkeypatch.setattr(AIOKafkaConsumer, "getmany", failing_poll)
    health, stage = Health(), Copying()
    await producer.send_all(events(1))
    before = poll_failures()
    async with consuming(kafka, stage, health):
        part = f"poll of {LISTINGS_EVENTS}: "
        (problem,) = await until(
            lambda: [p for p in health.problems() if p.startswith(part)], "it is named"
        )
        assert "damaged on its way" in problem
        await until(lambda: poll_failures() >= before + 2, "it is counted and repeated")
        assert health.liveness_problems() == []
        failing = False
        await until(lambda: stage.seen, "it reads on")
        await until(lambda: not health.problems(), "nothing is wrong any more")


def poll_failures() -> float:
    labels = {"topic": LISTINGS_EVENTS}
    return REGISTRY.get_sample_value("shashin_poll_failures_total", labels) or 0.0


async def test_topics_with_unequal_partitions_are_refused(kafka: str) -> None:
    from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

    from shashin.errors import UserError

    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_partitions({LISTINGS_EVENTS: NewPartitions(total_count=5)})

        async def are_there() -> bool:
            (described,) = await admin.describe_topics([LISTINGS_EVENTS])
            return len(described["partitions"]) == 5

        # The controller answers before the broker's metadata show it.
        await until(are_there, "the new partitions are there")
    finally:
        await admin.close()
    with pytest.raises(UserError, match="different numbers of partitions"):
        await ensure_topics(kafka, partitions=2)


async def test_a_broker_that_is_not_there_is_named() -> None:
    with pytest.raises(KafkaUnavailable, match=r"127\.0\.0\.1:1 does not respond"):
        async with Producer("127.0.0.1:1", client_id="test"):
            pass


async def _count(kafka: str, topic: str, count: int) -> bool:
    return len(await records_of(kafka, topic)) == count


async def _has_all(kafka: str, count: int) -> bool:
    return set(await values_of(kafka, IMAGES_DOWNLOADED)) == {e.value for e in events(count)}


async def test_an_idle_reader_reports_a_broker_that_does_not_respond(kafka: str) -> None:
    health = Health()
    loop = loop_scope(health)
    async with LogReader(kafka, LISTINGS_EVENTS, client_id="test") as reader:
        # A broker may not know a topic yet that was created a moment ago.
        partitions = await loop.retry("partitions", reader.partitions)
        reader.start_at(dict.fromkeys(partitions, 0))
        check = reader.broker_check(loop)
        await check.check()
        assert health.problems() == []

        async def refuse(*_args: object) -> None:
            raise KafkaConnectionError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reader._consumer, "end_offsets", refuse)
            await reader.broker_check(loop).check()
        assert health.problems() == [f"kafka: {kafka} does not respond: waiting"]
        await reader.broker_check(loop).check()
        assert health.problems() == []
