"""Metrics of the indexer."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

RECORDS = Counter("shashin_indexer_records", "Records of vectors.embedded that were applied.")
SKIPPED = Counter(
    "shashin_indexer_skipped_records", "Records left alone because they are of another model."
)
ROWS = Counter("shashin_indexer_rows", "Rows added to open shards.")
SEARCHABLE_SECONDS = Histogram(
    "shashin_indexer_searchable_seconds",
    "From a record's append to the log until its rows can be found, in seconds.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60),
)
LIVE_OFFSET = Gauge("shashin_indexer_live_offset", "Offset read next.", ["partition"])
SHARDS_SEALED = Counter("shashin_indexer_sealed_shards", "Shards sealed, by why.", ["cut"])
SEALED_BY_ANOTHER = Counter(
    "shashin_indexer_sealed_by_another",
    "Shards that another replica had committed with the same content.",
)
SEAL_SECONDS = Histogram(
    "shashin_indexer_seal_seconds",
    "From the cut of a range to the commit of its shard, in seconds.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
HELD_SHARDS = Gauge(
    "shashin_indexer_held_shards", "Sealed shards that no index server is known to hold yet."
)
READING_PAUSED = Gauge(
    "shashin_indexer_reading_paused",
    "1 while the log is not read on, because too many sealed rows wait for an index server.",
)
RECALL = Gauge("shashin_indexer_last_recall", "Recall@10 of the last sealed shard.")
