"""Embedding photos: model calls, batches, and what waits for them."""

from __future__ import annotations

from shashin.metrics.core import counter, gauge, histogram
from shashin.metrics.definitions import Label

_KINDS = [Label("kind", "whose photos: of queries or of listings", values=("query", "listing"))]

PHOTOS = counter("shashin_embedder_photos", "Photos embedded.", _KINDS)
BATCH_PHOTOS = histogram(
    "shashin_embedder_batch_photos",
    "Photos per model call.",
    _KINDS,
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
)
MODEL_SECONDS = histogram(
    "shashin_embedder_model_seconds",
    "Duration of a model call.",
    _KINDS,
    unit="seconds",
    buckets=(0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
WAIT_SECONDS = histogram(
    "shashin_embedder_wait_seconds",
    "Time photos wait for the model.",
    _KINDS,
    unit="seconds",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
QUERY_PHOTOS = gauge(
    "shashin_embedder_query_photos",
    "Query photos that wait or are under way; SHASHIN_WAITING_PHOTOS is the limit.",
)
REFUSED_QUERY_PHOTOS = counter(
    "shashin_embedder_refused_query_photos",
    "Query photos that were refused because too many, or too many bytes of them, waited or were under way.",
)
WAITING = gauge("shashin_embedder_waiting_photos", "Photos waiting for the model.", _KINDS)
