"""The cache of original photos."""

from __future__ import annotations

from shashin.metrics.core import counter, gauge
from shashin.metrics.definitions import Label

LOOKUPS = counter(
    "shashin_cache_lookups",
    "Originals that were looked up in the cache.",
    [Label("outcome", "the outcome", values=("hit", "miss"))],
)
BYTES = gauge("shashin_cache_bytes", "Size of the cache when it was last scanned.", unit="bytes")
WRITTEN_BYTES = counter(
    "shashin_cache_written_bytes", "Bytes of originals added to the cache.", unit="bytes"
)
EVICTIONS = counter(
    "shashin_cache_evictions",
    "Originals removed from the cache: age (not used for too long) or size (the cache is full).",
    [Label("reason", "why", values=("age", "size"))],
)
ERRORS = counter(
    "shashin_cache_errors",
    "What went wrong in the cache: read, write, prune, or damaged (an original or entry that is "
    "not what was written; it is dropped).",
    [Label("what", "what went wrong", values=("read", "write", "prune", "damaged"))],
)
