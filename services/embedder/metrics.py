"""Metrics of the embedder."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

PHOTOS = Counter("shashin_embedder_photos", "Photos embedded.", ["kind"])
BATCH_PHOTOS = Histogram(
    "shashin_embedder_batch_photos",
    "Photos per model call.",
    ["kind"],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
)
MODEL_SECONDS = Histogram(
    "shashin_embedder_model_seconds",
    "Duration of a model call, in seconds.",
    ["kind"],
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
WAIT_SECONDS = Histogram(
    "shashin_embedder_wait_seconds",
    "Time photos wait for the model, in seconds.",
    ["kind"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
QUERY_PHOTOS = Gauge(
    "shashin_embedder_query_photos",
    "Query photos that wait or are under way; SHASHIN_WAITING_PHOTOS is the limit.",
)
WAITING = Gauge("shashin_embedder_waiting_photos", "Photos waiting for the model.", ["kind"])
