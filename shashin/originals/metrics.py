"""Metrics of the cache of originals."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

LOOKUPS = Counter(
    "shashin_cache_lookups", "Originals that were looked up in the cache: hit or miss.", ["outcome"]
)
BYTES = Gauge("shashin_cache_bytes", "Size of the cache when it was last scanned, in bytes.")
WRITTEN_BYTES = Counter("shashin_cache_written_bytes", "Bytes of originals added to the cache.")
EVICTIONS = Counter(
    "shashin_cache_evictions",
    "Originals removed from the cache: age (not used for too long) or size (the cache is full).",
    ["reason"],
)
ERRORS = Counter(
    "shashin_cache_errors",
    "What went wrong in the cache: read, write, prune, or damaged (an original or entry that is "
    "not what was written; it is dropped).",
    ["what"],
)
