"""Consuming topics: throughput, lag, retries, dead letters and lost records."""

from __future__ import annotations

from shashin.metrics.core import counter, gauge, histogram
from shashin.metrics.definitions import Label
from shashin.metrics.labels import CONSUMED_TOPIC, PARTITION, REASON, TOPIC

RECORDS = counter("shashin_consumed_records", "Records consumed from a topic.", [CONSUMED_TOPIC])
BATCH_SECONDS = histogram(
    "shashin_consume_batch_seconds",
    "Time from poll to commit of a batch.",
    [CONSUMED_TOPIC],
    unit="seconds",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60),
)
BATCH_RECORDS = histogram(
    "shashin_consume_batch_records",
    "Records per batch, from poll to commit.",
    [CONSUMED_TOPIC],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
)
LAG_RECORDS = gauge(
    "shashin_consumer_lag_records",
    "Offsets of a partition that are not processed yet.",
    [CONSUMED_TOPIC, PARTITION],
)
LAG_SECONDS = gauge(
    "shashin_consumer_lag_seconds",
    "For how long at most the oldest record of a partition has been waiting that is not processed yet, "
    "also while it is being processed; 0 if none is.",
    [CONSUMED_TOPIC, PARTITION],
    unit="seconds",
)
RETAINED = gauge(
    "shashin_consumer_retained_records",
    "Offsets that the topic retains before the consumer's position. If it falls to 0 while the "
    "consumer lags, retention deletes records that were not read.",
    [CONSUMED_TOPIC, PARTITION],
)
RETENTION_SECONDS = gauge(
    "shashin_topic_retention_seconds",
    "How long a topic retains records; -1 for ever. As of this process's start; an indexer asks again, "
    "every few seconds, for the topics that it and the stages before it consume.",
    [TOPIC],
    unit="seconds",
)
PAUSED = gauge(
    "shashin_consumption_paused",
    "1 while consumption of a topic is paused because too many records would be dead-lettered, "
    "or because records were lost; else 0.",
    [TOPIC],
)
RETRIES = counter(
    "shashin_retries", "Records that were retried, by topic and error.", [TOPIC, REASON]
)
DEAD_LETTERS = counter(
    "shashin_dead_letters",
    "Records or photos that were dead-lettered, by topic, scope and error.",
    [
        TOPIC,
        Label("scope", "whether a whole record or one photo", values=("record", "photo")),
        REASON,
    ],
)
POLL_FAILURES = counter(
    "shashin_poll_failures", "Polls of a topic that failed and were repeated.", [TOPIC]
)
LOST = counter(
    "shashin_lost_records",
    "Offsets that were deleted from a topic before they were read, and then given up.",
    [TOPIC],
)
UNKNOWN_POSITIONS = counter(
    "shashin_unknown_positions",
    "Partitions that a group without a position began to read at the log's begin, after records had "
    "been deleted there: it is new, or its position was forgotten and records may be lost.",
    [TOPIC],
)
UNDECODABLE_BATCHES = gauge(
    "shashin_undecodable_batches",
    "Partitions that wait at a batch that cannot be decoded.",
    [TOPIC],
)
SKIPPED_OFFSETS = counter(
    "shashin_skipped_offsets",
    "Offsets in undecodable batches that an operator skipped.",
    [TOPIC],
)
