"""Metrics of the image builder."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

ROLLOUTS = Counter("shashin_image_builder_rollouts", "Plans rolled out.", ["tier"])
PLANNED_SHARDS = Gauge(
    "shashin_image_builder_planned_shards", "Shards in the current plan of a tier.", ["tier"]
)
REFUSED_SHARDS = Gauge(
    "shashin_image_builder_refused_shards",
    "Shards left out of the plan, by reason: unreadable (it stays if it is served), or redundant, "
    "since others contain all of its offsets.",
    ["tier", "reason"],
)
WAKES = Counter("shashin_image_builder_wakes", "Wake-ups by records of indexes.sealed.")
WAITING_SHARDS = Gauge(
    "shashin_image_builder_waiting_shards",
    "Shards that leave their tier once index servers of an older tier have served their offsets for "
    "long enough.",
    ["tier"],
)
OLDEST_SNAPSHOT = Gauge(
    "shashin_image_builder_oldest_snapshot_timestamp_seconds",
    "Time of the oldest snapshot of hidden rows among served shards, in Unix seconds, as of the last "
    "look once a day; 0 if a shard has none.",
)
