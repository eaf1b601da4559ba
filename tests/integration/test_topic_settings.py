"""Topic settings that correctness rests on: checked at the start, refused with the correction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import UnknownTopicOrPartitionError

from services.image_builder.wake_ups import WakeUps
from shashin.errors import WrongTopicSettings
from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.topic_admin import check_topics, ensure_topics
from shashin.kafka.topics import (
    IMAGES_DOWNLOADED,
    INDEXES_SEALED,
    LISTINGS_EVENTS,
    LISTINGS_HIDDEN,
    TOPICS,
    VECTORS_EMBEDDED,
    topic_named,
)
from shashin.runtime.health import Health
from tests.support.copying_stage import Copying, consuming
from tests.support.embedded_listings import IndexClient, embedded
from tests.support.indexer_settings import indexer_settings
from tests.support.loops import running
from tests.support.running_service import RunningService
from tests.support.shashin_command import shashin
from tests.support.topic_records import records_of
from tests.support.waiting import until

StartService = Callable[..., Awaitable[RunningService]]

SET_ON_TOPIC = 1
HIDDEN_MS = int(topic_named(LISTINGS_HIDDEN).config["retention.ms"])


async def configure(kafka: str, topic: str, **settings: str) -> None:
    """Replace a topic's settings, as an operator does; underscores stand for dots."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    given = {name.replace("_", "."): value for name, value in settings.items()}

    async def shown() -> bool:
        # The controller answers before the broker applies it.
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, given)
        (response,) = await admin.alter_configs([resource])
        code = response.resources[0][0]
        assert code in {0, UnknownTopicOrPartitionError.errno}
        # The settings of a topic that the broker does not know yet look like none.
        return code == 0 and given == await settings_of(admin, topic)

    try:
        await until(shown, "the settings are applied")
    finally:
        await admin.close()


async def settings_of(admin: AIOKafkaAdminClient, topic: str) -> dict[str, str]:
    """Return the settings that were given for the topic itself."""
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    (response,) = await admin.describe_configs([resource])
    ((_, _, _, _, entries),) = response.resources
    return {entry[0]: entry[1] for entry in entries if entry[3] == SET_ON_TOPIC}


@pytest.mark.parametrize(
    ("topic", "settings", "named"),
    [
        (LISTINGS_HIDDEN, {"cleanup_policy": "delete"}, "cleanup.policy=[compact,delete]"),
        (LISTINGS_HIDDEN, {"cleanup_policy": "compact,delete"}, f"retention.ms={HIDDEN_MS}"),
        (
            LISTINGS_HIDDEN,
            {"cleanup_policy": "delete,compact", "retention_ms": str(HIDDEN_MS - 1)},
            f"retention.ms={HIDDEN_MS}",
        ),
        (VECTORS_EMBEDDED, {}, "message.timestamp.type=LogAppendTime"),
        (LISTINGS_EVENTS, {}, "message.timestamp.type=LogAppendTime"),
        (IMAGES_DOWNLOADED, {"retention_bytes": "2147483648"}, "retention.bytes=-1"),
        (IMAGES_DOWNLOADED, {"max_message_bytes": "1000000"}, "max.message.bytes=8388608"),
    ],
)
async def test_a_wrong_setting_is_refused_with_the_command_that_corrects_it(
    kafka: str, topic: str, settings: dict[str, str], named: str
) -> None:
    await configure(kafka, topic, **settings)
    for check in (partial(check_topics, names=[topic]), partial(ensure_topics, partitions=2)):
        with pytest.raises(WrongTopicSettings) as refused:
            await check(kafka)
        assert f"kafka-configs.sh --bootstrap-server {kafka} --alter" in refused.value.message
        assert f"--entity-name {topic} --add-config" in refused.value.message
        assert named in refused.value.message


async def test_settings_that_are_the_operators_choice_are_accepted(kafka: str) -> None:
    await configure(
        kafka,
        LISTINGS_EVENTS,
        message_timestamp_type="LogAppendTime",
        retention_ms="86400000",
        max_message_bytes="20000000",
    )
    await check_topics(kafka, [LISTINGS_EVENTS])


async def test_hidden_listings_may_be_retained_for_ever_or_as_long_as_other_topics_need(
    kafka: str,
) -> None:
    for settings in (
        {"cleanup_policy": "compact"},
        {"cleanup_policy": "compact,delete", "retention_ms": "-1"},
        {"cleanup_policy": "compact,delete", "retention_ms": str(HIDDEN_MS + 1)},
    ):
        await configure(kafka, LISTINGS_HIDDEN, message_timestamp_type="LogAppendTime", **settings)
        await check_topics(kafka, [LISTINGS_HIDDEN])
    await configure(
        kafka, VECTORS_EMBEDDED, message_timestamp_type="LogAppendTime", retention_ms="-1"
    )
    with pytest.raises(WrongTopicSettings, match=r"retention\.ms=-1"):
        await check_topics(kafka, [LISTINGS_HIDDEN])


async def test_the_topics_of_the_own_kafka_are_corrected_and_keep_their_other_settings(
    kafka: str,
) -> None:
    await configure(kafka, LISTINGS_HIDDEN, cleanup_policy="delete", segment_ms="1234567")
    await ensure_topics(kafka, partitions=2, correct=True)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    expected = {
        "cleanup.policy": "compact,delete",
        "message.timestamp.type": "LogAppendTime",
        "retention.ms": str(HIDDEN_MS),
        "segment.ms": "1234567",
    }

    async def corrected() -> bool:
        return await settings_of(admin, LISTINGS_HIDDEN) == expected

    try:
        await until(corrected, "it is corrected")
    finally:
        await admin.close()
    await check_topics(kafka, [topic.name for topic in TOPICS])


async def test_a_service_waits_until_the_settings_are_right_and_says_why(
    kafka: str, producer: Producer
) -> None:
    await producer.send_all([OutRecord(LISTINGS_EVENTS, b"lamp", b"one")])
    await configure(kafka, IMAGES_DOWNLOADED, retention_bytes="1000")
    health, stage = Health(), Copying()
    async with consuming(kafka, stage, health):
        await until(
            lambda: any("images.downloaded has" in p for p in health.problems()), "it says why"
        )
        assert stage.seen == []
        assert health.liveness_problems() == []
        await ensure_topics(kafka, partitions=2, correct=True)
        await until(lambda: stage.seen == [b"one"], "it goes on")
        await until(lambda: not health.problems(), "all is well")
    assert len(await records_of(kafka, IMAGES_DOWNLOADED)) == 1


async def test_an_operator_creates_the_topics_of_a_kafka_by_a_command(
    kafka: str, tmp_path: Path
) -> None:
    command = ("kafka", "topics", "--kafka", kafka, "--partitions", "2")
    made = await shashin(*command, state=tmp_path / "state")
    assert f"{len(TOPICS)} topics are ready at {kafka}" in made.out
    await configure(kafka, VECTORS_EMBEDDED, message_timestamp_type="CreateTime")
    refused = await shashin(*command, state=tmp_path / "state", ends_with=None)
    assert refused.code != 0
    assert "message.timestamp.type" in refused.err
    await shashin(*command, "--correct", state=tmp_path / "state")

    async def accepted() -> bool:
        return not (await shashin(*command, state=tmp_path / "state", ends_with=None)).code

    await until(accepted, "the broker has applied the correction")


@pytest.mark.parametrize(
    ("topic", "wrong", "command"),
    [
        (
            VECTORS_EMBEDDED,
            {"message_timestamp_type": "CreateTime"},
            "message.timestamp.type=LogAppendTime",
        ),
        (INDEXES_SEALED, {"cleanup_policy": "compact"}, "cleanup.policy=delete"),
        (LISTINGS_HIDDEN, {"cleanup_policy": "delete"}, "cleanup.policy=[compact,delete]"),
    ],
)
async def test_an_indexer_serves_nothing_until_the_settings_are_right_and_says_why(
    kafka: str,
    producer: Producer,
    start_service: StartService,
    tmp_path: Path,
    topic: str,
    wrong: dict[str, str],
    command: str,
) -> None:
    await configure(kafka, topic, **wrong)
    await producer.send_all([embedded("lamp")])
    indexer = await start_service("indexer", ready=False, **indexer_settings(tmp_path))

    async def named() -> bool:
        return command in await indexer.probe("healthz")

    await until(named, "the command that corrects it is shown")
    assert await indexer.get("livez") is not None
    assert await indexer.get("readyz") is None
    await ensure_topics(kafka, partitions=2, correct=True)
    await indexer.until_ready()
    async with IndexClient(indexer.grpc) as client:
        await until(lambda: client.finds("lamp"), "the lamp is found")


async def test_the_image_builder_names_a_wrong_setting_of_the_topic_that_wakes_it(
    kafka: str,
) -> None:
    await configure(kafka, INDEXES_SEALED, message_timestamp_type="CreateTime")
    health = Health()
    async with running(WakeUps(kafka, lambda: None).loop(), health=health):
        await until(
            lambda: any("--entity-name indexes.sealed" in p for p in health.problems()),
            "it says how to correct the topic",
        )
        await ensure_topics(kafka, partitions=2, correct=True)
        await until(lambda: not health.problems(), "it goes on")
