"""Metrics of the image builder."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

ROLLOUTS = Counter("shashin_image_builder_rollouts", "Plans that were rolled out.", ["tier"])
PLANNED_SHARDS = Gauge(
    "shashin_image_builder_planned_shards", "Shards that a tier should serve.", ["tier"]
)
REFUSED_SHARDS = Gauge(
    "shashin_image_builder_refused_shards",
    "Shards that are left out because of their manifest, by why.",
    ["tier", "reason"],
)
WAKES = Counter("shashin_image_builder_wakes", "Records of indexes.sealed that woke the builder.")
