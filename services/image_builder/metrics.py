"""Metrics of the image builder."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

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
PUBLISHED_IMAGES = Counter(
    "shashin_image_builder_published_images", "Images published, with other content.", ["tier"]
)
PUBLISH_SECONDS = Histogram(
    "shashin_image_builder_publish_seconds",
    "Time to publish an image, in seconds.",
    ["tier"],
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
SENT_BYTES = Counter(
    "shashin_image_builder_sent_bytes", "Bytes sent to the registry of images.", ["tier"]
)
SERVINGS = Gauge("shashin_image_builder_servings", "IndexServings of a tier.", ["tier"])
MOVING_SHARDS = Gauge(
    "shashin_image_builder_moving_shards",
    "Shards that move to another image, and stay in their old one until the other serves them.",
    ["tier"],
)
IMAGE_FAILURES = Counter(
    "shashin_image_builder_image_failures",
    "Rounds in which the images of a tier could not be made to follow its pointer, by error.",
    ["tier", "reason"],
)
DELETED_IMAGES = Counter(
    "shashin_image_builder_deleted_images", "Images deleted since nothing used them any more."
)
