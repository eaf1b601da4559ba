"""Plans of tiers and their rollout, by pointers and by images."""

from __future__ import annotations

from shashin.metrics.core import counter, gauge, histogram
from shashin.metrics.definitions import Label
from shashin.metrics.labels import REASON, SEALED_TIER

ROLLOUTS = counter("shashin_image_builder_rollouts", "Plans rolled out.", [SEALED_TIER])
PLANNED_SHARDS = gauge(
    "shashin_image_builder_planned_shards", "Shards in the current plan of a tier.", [SEALED_TIER]
)
REFUSED_SHARDS = gauge(
    "shashin_image_builder_refused_shards",
    "Shards left out of the plan, by reason: unreadable (it stays if it is served), or redundant, "
    "since others contain all of its offsets.",
    [SEALED_TIER, Label("reason", "why", values=("unreadable", "redundant"))],
)
WAKES = counter("shashin_image_builder_wakes", "Wake-ups by records of indexes.sealed.")
WAITING_SHARDS = gauge(
    "shashin_image_builder_waiting_shards",
    "Shards that leave their tier once index servers of an older tier have served their offsets for "
    "long enough.",
    [SEALED_TIER],
)
ROUND_SECONDS = histogram(
    "shashin_image_builder_round_seconds",
    "Duration of a round of planning all tiers and moving their pointers.",
    unit="seconds",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
OLDEST_SNAPSHOT = gauge(
    "shashin_image_builder_oldest_snapshot_timestamp_seconds",
    "Time of the oldest snapshot of hidden rows among served shards, in Unix seconds, as of the last "
    "look once a day; 0 if a shard has none.",
    unit="seconds",
)
PUBLISHED_IMAGES = counter(
    "shashin_image_builder_published_images",
    "Images published, with other content.",
    [SEALED_TIER],
)
PUBLISH_SECONDS = histogram(
    "shashin_image_builder_publish_seconds",
    "Time to publish an image.",
    [SEALED_TIER],
    unit="seconds",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
SENT_BYTES = counter(
    "shashin_image_builder_sent_bytes",
    "Bytes sent to the registry of images.",
    [SEALED_TIER],
    unit="bytes",
)
SERVINGS = gauge("shashin_image_builder_servings", "IndexServings of a tier.", [SEALED_TIER])
MOVING_SHARDS = gauge(
    "shashin_image_builder_moving_shards",
    "Shards that move to another image, and stay in their old one until the other serves them.",
    [SEALED_TIER],
)
IMAGE_FAILURES = counter(
    "shashin_image_builder_image_failures",
    "Rounds in which the images of a tier could not be made to follow its pointer, by error.",
    [SEALED_TIER, REASON],
)
DELETED_IMAGES = counter(
    "shashin_image_builder_deleted_images", "Images deleted since nothing used them any more."
)
