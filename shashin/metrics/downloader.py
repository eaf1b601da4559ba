"""Reading original photos and scaling them down, and what listing events hide."""

from __future__ import annotations

from shashin.metrics.core import counter, gauge, histogram
from shashin.metrics.definitions import Label
from shashin.metrics.labels import ERRORS

PHOTOS = counter(
    "shashin_downloader_photos",
    "Photos by outcome.",
    [Label("outcome", "ok, or the error", values=("ok", *ERRORS))],
)
PHOTO_BYTES = counter(
    "shashin_downloader_photo_bytes", "Bytes of original photos read.", unit="bytes"
)
FETCH_SECONDS = histogram(
    "shashin_downloader_fetch_seconds",
    "Time to read one original photo.",
    unit="seconds",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
THUMBNAIL_SECONDS = histogram(
    "shashin_downloader_thumbnail_seconds",
    "Time to decode a photo and make its thumbnail.",
    unit="seconds",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
WAITING_DECODES = gauge(
    "shashin_downloader_waiting_decodes",
    "Photos that wait until SHASHIN_DECODE_BYTES has room for them.",
)
WAITING_ORIGINALS = gauge(
    "shashin_downloader_waiting_originals",
    "Photos that wait until SHASHIN_ORIGINAL_BYTES has room for them.",
)
ORIGINAL_BYTES = gauge(
    "shashin_downloader_original_bytes", "Memory reserved for originals now.", unit="bytes"
)
CONFIRMATIONS = counter(
    "shashin_downloader_confirmations",
    "Cached photos whose source was asked again, by outcome: unchanged, changed (other bytes under "
    "the same URI), or unavailable (the cached photo was used).",
    [Label("outcome", "what the source said", values=("unchanged", "changed", "unavailable"))],
)
HIDDEN = counter(
    "shashin_downloader_hidden",
    "Listings reported as sold or removed.",
    [Label("kind", "the kind of event", values=("LISTING_KIND_SOLD", "LISTING_KIND_REMOVED"))],
)
