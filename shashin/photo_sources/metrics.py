"""Metrics of photos: how they are read, confirmed and scaled down."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

PHOTOS = Counter(
    "shashin_downloader_photos", "Photos by outcome: ok, or the name of the error.", ["outcome"]
)
PHOTO_BYTES = Counter("shashin_downloader_photo_bytes", "Bytes of original photos read.")
FETCH_SECONDS = Histogram(
    "shashin_downloader_fetch_seconds",
    "Time to read one original photo, in seconds.",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
THUMBNAIL_SECONDS = Histogram(
    "shashin_downloader_thumbnail_seconds",
    "Time to decode a photo and make its thumbnail, in seconds.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
WAITING_DECODES = Gauge(
    "shashin_downloader_waiting_decodes",
    "Photos that wait until SHASHIN_DECODE_BYTES has room for them.",
)
WAITING_ORIGINALS = Gauge(
    "shashin_downloader_waiting_originals",
    "Photos that wait until SHASHIN_ORIGINAL_BYTES has room for them.",
)
ORIGINAL_BYTES = Gauge(
    "shashin_downloader_original_bytes", "Memory reserved for originals now, in bytes."
)
CONFIRMATIONS = Counter(
    "shashin_downloader_confirmations",
    "Cached photos whose source was asked again, by outcome: unchanged, changed (other bytes under "
    "the same URI), or unavailable (the cached photo was used).",
    ["outcome"],
)
