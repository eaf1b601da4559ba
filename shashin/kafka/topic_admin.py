"""Creates topics, and checks the settings of existing ones that correctness rests on; and groups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import GroupIdNotFound, KafkaError, TopicAlreadyExistsError, for_code

from shashin.errors import KafkaUnavailable, UserError, WrongTopicSettings
from shashin.kafka.topics import (
    HIDDEN_DEPENDS_ON,
    LISTINGS_HIDDEN,
    RETENTION_MS,
    TOPICS,
    WrongSetting,
    topic_named,
    wrong_hidden_retention,
    wrong_settings,
)
from shashin.metrics import kafka as metrics

_SET_ON_TOPIC = 1
"""The source of a setting that was given for the topic itself."""


async def ensure_topics(
    bootstrap: str, *, partitions: int, replication: int = 1, correct: bool = False
) -> None:
    """Create missing topics, and check those that exist; with ``correct``, correct their settings.

    Raises:
        KafkaUnavailable: when the broker does not respond.
        WrongTopicSettings: when one has settings that correctness cannot rest on.
        UserError: when the per-listing topics differ in their number of partitions.
    """
    async with _admin(bootstrap) as admin:
        existing = set(await admin.list_topics())
        missing = [
            NewTopic(
                topic.name,
                num_partitions=partitions if topic.per_listing else 1,
                replication_factor=replication,
                topic_configs=dict(topic.config),
            )
            for topic in TOPICS
            if topic.name not in existing
        ]
        if missing:
            response = await admin.create_topics(missing)
            for name, code, *_ in response.topic_errors:
                error = for_code(code)
                if code and error is not TopicAlreadyExistsError:
                    raise KafkaUnavailable(f"topic {name} cannot be created: {error.__name__}")
        found = existing & {topic.name for topic in TOPICS}
        depends_on = HIDDEN_DEPENDS_ON if LISTINGS_HIDDEN in found else ()
        configs = await _configs(admin, {*found, *depends_on})
        wrong = _wrong(configs, found)
        if wrong and correct:
            await _set(admin, wrong, configs)
        elif wrong:
            raise _refusal(bootstrap, wrong)
        described = await admin.describe_topics([t.name for t in TOPICS if t.per_listing])
    counts = {entry["topic"]: len(entry["partitions"]) for entry in described}
    if len(set(counts.values())) > 1:
        raise UserError(
            f"per-listing topics have different numbers of partitions ({counts}): a listing must "
            "have the same partition in all of them, so give them the same number"
        )


async def check_topics(bootstrap: str, names: Collection[str]) -> None:
    """Check the settings of topics that a service uses.

    Raises:
        KafkaUnavailable: when the broker does not respond, or a topic does not exist (yet).
        WrongTopicSettings: when one has settings that correctness cannot rest on.
    """
    async with _admin(bootstrap) as admin:
        depends_on = HIDDEN_DEPENDS_ON if LISTINGS_HIDDEN in names else ()
        configs = await _configs(admin, {*names, *depends_on})
    _note_retention(configs, names)
    if wrong := _wrong(configs, names):
        raise _refusal(bootstrap, wrong)


async def measure_retention(bootstrap: str, names: Collection[str]) -> None:
    """Measure for how long topics retain records: an operator may change it at any time.

    Raises:
        KafkaUnavailable: when the broker does not respond, or a topic does not exist.
    """
    async with _admin(bootstrap) as admin:
        _note_retention(await _configs(admin, names), names)


async def group_has_begun(bootstrap: str, group: str) -> bool:
    """Whether a consumer group has, or ever had, a member.

    Raises:
        KafkaUnavailable: when the broker does not respond.
    """
    async with _admin(bootstrap) as admin:
        (response,) = await admin.describe_consumer_groups([group])
    ((code, _, state, *_),) = response.groups
    if code not in {0, GroupIdNotFound.errno}:
        raise KafkaUnavailable(f"consumer group {group}: {for_code(code).__name__}")
    return not code and state != "Dead"


@asynccontextmanager
async def _admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        yield admin
    except KafkaError as error:
        raise KafkaUnavailable(f"kafka at {bootstrap} does not respond: {error!r}") from error
    finally:
        await admin.close()


_Configs = Mapping[str, Mapping[str, tuple[str, int]]]
"""Topic to setting to value and source."""


async def _configs(admin: AIOKafkaAdminClient, names: Iterable[str]) -> _Configs:
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in sorted(names)]
    if not resources:
        return {}
    found: dict[str, dict[str, tuple[str, int]]] = {}
    for response in await admin.describe_configs(resources):
        for code, _, _, name, entries in response.resources:
            if code:
                raise KafkaUnavailable(f"topic {name}: {for_code(code).__name__}")
            found[name] = {entry[0]: (entry[1], int(entry[3])) for entry in entries}
    return found


def _note_retention(configs: _Configs, names: Iterable[str]) -> None:
    for name in names:
        retention_ms, _ = configs[name].get(RETENTION_MS, ("-1", 0))
        metrics.RETENTION_SECONDS.labels(name).set(
            -1 if int(retention_ms) < 0 else int(retention_ms) / 1000
        )


def _wrong(configs: _Configs, names: Collection[str]) -> list[WrongSetting]:
    values = {
        name: {key: value for key, (value, _) in config.items()} for name, config in configs.items()
    }
    wrong = [found for name in names for found in wrong_settings(topic_named(name), values[name])]
    if LISTINGS_HIDDEN in names:
        wrong += wrong_hidden_retention(values[LISTINGS_HIDDEN], values)
    return wrong


def _refusal(bootstrap: str, wrong: Collection[WrongSetting]) -> WrongTopicSettings:
    by_topic: dict[str, list[str]] = defaultdict(list)
    for setting in wrong:
        # kafka-configs.sh wants brackets around a list.
        value = f"[{setting.expected}]" if "," in setting.expected else setting.expected
        by_topic[setting.topic].append(f"{setting.name}={value}")
    commands = "; ".join(
        f"kafka-configs.sh --bootstrap-server {bootstrap} --alter --entity-type topics "
        f"--entity-name {name} --add-config {','.join(settings)}"
        for name, settings in by_topic.items()
    )
    found = ", ".join(map(str, wrong))
    return WrongTopicSettings(f"{found}: listings would be lost or come back. Run: {commands}")


async def _set(
    admin: AIOKafkaAdminClient, wrong: Iterable[WrongSetting], configs: _Configs
) -> None:
    by_topic: dict[str, dict[str, str]] = defaultdict(dict)
    for setting in wrong:
        by_topic[setting.topic][setting.name] = setting.expected
    # This request replaces all settings of a topic, so the others are repeated.
    resources = [
        ConfigResource(
            ConfigResourceType.TOPIC,
            name,
            {
                **{k: v for k, (v, source) in configs[name].items() if source == _SET_ON_TOPIC},
                **expected,
            },
        )
        for name, expected in by_topic.items()
    ]
    for response in await admin.alter_configs(resources):
        for code, message, _, name in response.resources:
            if code:
                raise KafkaUnavailable(f"topic {name} cannot be changed: {message}")
