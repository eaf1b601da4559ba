"""The topics: names and configuration. Pure; shashin.kafka.topic_admin creates and checks them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

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

CLEANUP, TIMESTAMPS = "cleanup.policy", "message.timestamp.type"
MAX_BYTES, RETENTION_MS, RETENTION_BYTES = "max.message.bytes", "retention.ms", "retention.bytes"

_REQUIRED = (CLEANUP, TIMESTAMPS, MAX_BYTES, RETENTION_BYTES)
"""Settings that correctness rests on. How long a topic retains records is the operator's choice."""


@dataclass(frozen=True)
class Topic:
    """One topic and its configuration."""

    name: str
    per_listing: bool = True
    """Keyed by listing id, with the same number of partitions as the other such topics."""
    config: Mapping[str, str] = field(default_factory=dict)


def _retained(days: int, **more: str) -> dict[str, str]:
    """Return the configuration of a topic whose records are deleted after some days.

    By time alone, and by the broker's clock: a limit in bytes, or a producer's old timestamps, would
    let the broker delete records within minutes, read or not.
    """
    return {
        CLEANUP: "delete",
        TIMESTAMPS: "LogAppendTime",
        RETENTION_MS: str(days * _DAY_MS),
        RETENTION_BYTES: "-1",
        **more,
    }


TOPICS: tuple[Topic, ...] = (
    Topic(LISTINGS_EVENTS, config=_retained(30)),
    # Longer than an outage that nobody notices over a weekend; about 60 KB per listing.
    Topic(IMAGES_DOWNLOADED, config=_retained(7, **{MAX_BYTES: str(MAX_RECORD_BYTES)})),
    # Buckets are cut by the broker's clock, so that all readers see the same times.
    Topic(VECTORS_EMBEDDED, config=_retained(400)),
    # Deleting a record of it would bring a sold listing back.
    Topic(
        LISTINGS_HIDDEN,
        config={
            CLEANUP: "compact",
            TIMESTAMPS: "LogAppendTime",
            "min.cleanable.dirty.ratio": "0.1",
        },
    ),
    Topic(INDEXES_SEALED, per_listing=False, config=_retained(30)),
    *(
        Topic(
            name,
            per_listing=False,
            config=_retained(90, **{MAX_BYTES: str(MAX_DEAD_LETTER_BYTES)}),
        )
        for name in DEAD_LETTER_TOPICS
    ),
)


def topic_named(name: str) -> Topic:
    """Return the topic with this name."""
    return next(known for known in TOPICS if known.name == name)


@dataclass(frozen=True, order=True)
class WrongSetting:
    """A setting of an existing topic that correctness cannot rest on."""

    topic: str
    name: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.topic} has {self.name}={self.found} instead of {self.expected}"


def wrong_settings(topic: Topic, actual: Mapping[str, str]) -> list[WrongSetting]:
    """Compare a topic's actual configuration with what is required.

    ``max.message.bytes`` may be higher; settings that are not required may have any value.
    """
    return [
        WrongSetting(topic.name, name, actual.get(name, "nothing"), topic.config[name])
        for name in _REQUIRED
        if name in topic.config and not _holds(name, actual.get(name), topic.config[name])
    ]


def _holds(name: str, actual: str | None, expected: str) -> bool:
    if name == MAX_BYTES and actual is not None and actual.isdigit():
        return int(actual) >= int(expected)
    return actual == expected
