"""The topics: names, configuration and creation."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from shashin.errors import KafkaUnavailable, UserError

MAX_RECORD_BYTES = 8 * 1024 * 1024
"""Maximum record size: fits a listing's 20 inline thumbnails."""

MAX_DEAD_LETTER_BYTES = MAX_RECORD_BYTES + 1024 * 1024
"""Maximum dead letter size: any record plus its cause. If it did not fit, it would be retried forever."""

LISTINGS_EVENTS = "listings.events"
IMAGES_DOWNLOADED = "images.downloaded"
VECTORS_EMBEDDED = "vectors.embedded"
LISTINGS_HIDDEN = "listings.hidden"
INDEXES_SEALED = "indexes.sealed"
DEAD_LETTER_SUFFIX = ".dlq"
DEAD_LETTER_TOPICS = tuple(
    name + DEAD_LETTER_SUFFIX for name in (LISTINGS_EVENTS, IMAGES_DOWNLOADED, VECTORS_EMBEDDED)
)


def hidden_key(listing_id: str, below_version: int) -> bytes:
    """Return the key of a record of ``listings.hidden``.

    The key includes the version: compaction keeps the last record of a key, which is not always
    the one with the highest version. A restarted indexer may write again that version 5 replaced
    older ones, after version 6 was sold.
    """
    return f"{listing_id}\0{below_version}".encode()


_DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True)
class Topic:
    """One topic and its required configuration."""

    name: str
    per_listing: bool = True
    """Keyed by listing id, with the same number of partitions as the other such topics."""
    config: dict[str, str] = field(default_factory=dict)


TOPICS: tuple[Topic, ...] = (
    Topic(LISTINGS_EVENTS, config={"retention.ms": str(30 * _DAY_MS)}),
    Topic(
        IMAGES_DOWNLOADED,
        config={
            "max.message.bytes": str(MAX_RECORD_BYTES),
            "retention.ms": str(2 * _DAY_MS),
            "retention.bytes": str(2 * 1024**3),
        },
    ),
    Topic(
        VECTORS_EMBEDDED,
        config={
            # Buckets are cut by the broker's clock, so that all readers see the same times.
            "message.timestamp.type": "LogAppendTime",
            "retention.ms": str(400 * _DAY_MS),
        },
    ),
    Topic(
        LISTINGS_HIDDEN, config={"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1"}
    ),
    Topic(INDEXES_SEALED, per_listing=False, config={"retention.ms": str(30 * _DAY_MS)}),
    *(
        Topic(
            name,
            per_listing=False,
            config={
                "max.message.bytes": str(MAX_DEAD_LETTER_BYTES),
                "retention.ms": str(90 * _DAY_MS),
            },
        )
        for name in DEAD_LETTER_TOPICS
    ),
)


async def ensure_topics(bootstrap: str, *, partitions: int, replication: int = 1) -> None:
    """Create missing topics; existing ones stay unchanged.

    Raises:
        KafkaUnavailable: when the broker does not respond.
        UserError: when the per-listing topics differ in their number of partitions.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        existing = set(await admin.list_topics())
        missing = [
            NewTopic(
                topic.name,
                num_partitions=partitions if topic.per_listing else 1,
                replication_factor=replication,
                topic_configs=topic.config,
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
        described = await admin.describe_topics([t.name for t in TOPICS if t.per_listing])
    except KafkaError as error:
        raise KafkaUnavailable(f"kafka at {bootstrap} does not respond: {error}") from error
    finally:
        await admin.close()
    counts = {entry["topic"]: len(entry["partitions"]) for entry in described}
    if len(set(counts.values())) > 1:
        raise UserError(
            f"per-listing topics have different numbers of partitions ({counts}): a listing must "
            "have the same partition in all of them, so give them the same number"
        )
