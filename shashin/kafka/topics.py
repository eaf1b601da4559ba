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
SEGMENT_MS = "segment.ms"

_REQUIRED = (CLEANUP, TIMESTAMPS, MAX_BYTES, RETENTION_BYTES)
"""Settings that correctness rests on. How long a topic retains records is the operator's choice, except
for ``listings.hidden``."""

COMPACT = "compact"
COMPACT_AND_DELETE = "compact,delete"

PIPELINE = (LISTINGS_EVENTS, IMAGES_DOWNLOADED, VECTORS_EMBEDDED)
"""The topics that a version of a listing passes through, in this order."""

HIDDEN_DEPENDS_ON = (*PIPELINE, *DEAD_LETTER_TOPICS)
"""The topics whose retention decides for how long a record of ``listings.hidden`` matters."""

_DEFAULT_SEGMENT_MS = 7 * _DAY_MS
_REPEATS_MS = 30 * _DAY_MS
"""How long after a sale an app may still send, or send again, a version from before it."""


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


_RETAINED: tuple[Topic, ...] = (
    Topic(LISTINGS_EVENTS, config=_retained(30)),
    # Longer than an outage that nobody notices over a weekend; about 60 KB per listing.
    Topic(IMAGES_DOWNLOADED, config=_retained(7, **{MAX_BYTES: str(MAX_RECORD_BYTES)})),
    # Buckets are cut by the broker's clock, so that all readers see the same times.
    Topic(VECTORS_EMBEDDED, config=_retained(400)),
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


def hidden_retention_ms(configs: Mapping[str, Mapping[str, str]]) -> int | None:
    """Return how long records of ``listings.hidden`` have to be retained; None for ever.

    ``configs`` are the settings of ``HIDDEN_DEPENDS_ON``. A sealed row needs what was hidden after its
    shard's snapshot. A row that is still to come needs every record that was written after its event
    was: as long as the event can be on its way. At each stage that is its retention, and again, after
    a replay, with the retention of its dead letters in between; a record outlives its retention by up
    to a segment.
    """
    total = _REPEATS_MS
    for name in HIDDEN_DEPENDS_ON:
        retained = int(configs[name].get(RETENTION_MS, "-1"))
        if retained < 0:
            return None
        lives = retained + int(configs[name].get(SEGMENT_MS, _DEFAULT_SEGMENT_MS))
        total += 2 * lives if name in PIPELINE else lives
    return total


TOPICS: tuple[Topic, ...] = (
    *_RETAINED,
    # Compaction drops repeats. Deleting a record that still matters would bring a sold listing back.
    Topic(
        LISTINGS_HIDDEN,
        config={
            CLEANUP: COMPACT_AND_DELETE,
            TIMESTAMPS: "LogAppendTime",
            RETENTION_MS: str(hidden_retention_ms({t.name: t.config for t in _RETAINED})),
            RETENTION_BYTES: "-1",
            "min.cleanable.dirty.ratio": "0.1",
        },
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
    ``listings.hidden`` may also be compacted alone, and then has no retention;
    ``wrong_hidden_retention`` compares the one that it has.
    """
    if topic.name == LISTINGS_HIDDEN and actual.get(CLEANUP) == COMPACT:
        actual = {**actual, CLEANUP: COMPACT_AND_DELETE, RETENTION_BYTES: "-1"}
    return [
        WrongSetting(topic.name, name, actual.get(name, "nothing"), topic.config[name])
        for name in _REQUIRED
        if name in topic.config and not _holds(name, actual.get(name), topic.config[name])
    ]


def wrong_hidden_retention(
    actual: Mapping[str, str], depends_on: Mapping[str, Mapping[str, str]]
) -> list[WrongSetting]:
    """Compare the retention of ``listings.hidden`` with those of the topics that it depends on."""
    if actual.get(CLEANUP) == COMPACT:
        return []
    found = actual.get(RETENTION_MS, "nothing")
    needed = hidden_retention_ms(depends_on)
    if found == "-1" or (needed is not None and found.isdigit() and int(found) >= needed):
        return []
    expected = "-1" if needed is None else str(needed)
    return [WrongSetting(LISTINGS_HIDDEN, RETENTION_MS, found, expected)]


def _holds(name: str, actual: str | None, expected: str) -> bool:
    if name == CLEANUP and actual is not None:
        return sorted(actual.split(",")) == sorted(expected.split(","))
    if name == MAX_BYTES and actual is not None and actual.isdigit():
        return int(actual) >= int(expected)
    return actual == expected
