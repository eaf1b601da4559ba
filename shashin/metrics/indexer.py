"""The live tier: reading the log, sealing shards, and how far the stages are behind."""

from __future__ import annotations

from shashin.metrics.core import counter, gauge, histogram
from shashin.metrics.definitions import Label
from shashin.metrics.labels import PARTITION

_STAGE = Label("stage", "the stage", values=("downloader", "embedder", "indexer"))

RECORDS = counter("shashin_indexer_records", "Records of vectors.embedded applied.")
SKIPPED = counter(
    "shashin_indexer_skipped_records", "Records skipped because they belong to another model."
)
ROWS = counter("shashin_indexer_rows", "Rows added to open shards.")
SEARCHABLE_SECONDS = histogram(
    "shashin_indexer_searchable_seconds",
    "Time from a record's append to the log until its rows are searchable.",
    unit="seconds",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60),
)
LIVE_OFFSET = gauge("shashin_indexer_live_offset", "Next offset to read.", [PARTITION])
SHARDS_SEALED = counter(
    "shashin_indexer_sealed_shards",
    "Shards sealed, by reason of the cut.",
    [Label("cut", "why the range was cut", values=("time", "rows", "idle"))],
)
SEALED_BY_ANOTHER = counter(
    "shashin_indexer_sealed_by_another",
    "Shards that another replica had already committed.",
)
SEALED_DIFFERENTLY = counter(
    "shashin_indexer_sealed_differently",
    "Shards that another replica had committed otherwise, by what differs: index, other bytes of the "
    "index over the same rows, as another CPU or library version writes them; rows, other rows of the "
    "same range; range, a range that was cut elsewhere.",
    [Label("what", "what differs", values=("index", "rows", "range"))],
)
SET_ASIDE_SHARDS = gauge(
    "shashin_indexer_set_aside_shards",
    "Closed shards that cannot be sealed for now, for example because the manifest that is committed "
    "for their range cannot be read; they are served and retried.",
)
UNREADABLE_MANIFESTS = gauge(
    "shashin_indexer_unreadable_manifests",
    "Manifests that could not be read at startup and have not been readable since; their ranges count "
    "as sealed.",
)
SEAL_SECONDS = histogram(
    "shashin_indexer_seal_seconds",
    "Time from the cut of a range to the commit of its shard.",
    unit="seconds",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
SEAL_LAG_SECONDS = gauge(
    "shashin_indexer_seal_lag_seconds",
    "For how long the oldest closed shard has been waiting to be sealed, also while it is being sealed; 0 if "
    "none is.",
    unit="seconds",
)
HELD_SHARDS = gauge(
    "shashin_indexer_held_shards", "Closed and sealed shards not yet released to index servers."
)
READING_PAUSED = gauge(
    "shashin_indexer_reading_paused",
    "1 while consumption is paused because too many held rows wait for an index server, else 0.",
)
RECALL = gauge(
    "shashin_indexer_last_recall_ratio",
    "Recall@10 of the most recently sealed shard, from 0 to 1.",
    unit="ratio",
)
STAGE_LAG_SECONDS = gauge(
    "shashin_indexer_stage_lag_seconds",
    "For how long the oldest unprocessed record of a stage has been waiting, also while the stage is "
    "paused or does not run, and from before this process's start; NaN while unknown. Of the indexer: in "
    "the partitions that this replica indexes.",
    [_STAGE, Label("topic", "the topic that the stage consumes", at_most=4)],
    unit="seconds",
)
STAGE_LAG = gauge(
    "shashin_indexer_stage_lag_records",
    "Records that a stage has not processed; NaN while unknown.",
    [_STAGE],
)
HIDDEN_STORES_DISCARDED = counter(
    "shashin_indexer_hidden_stores_discarded",
    "Stores of hidden listings that were of no use and were filled again from the log's begin.",
)
