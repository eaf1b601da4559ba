"""Swapping shards in: how long it takes, and what cannot be served."""

from __future__ import annotations

from shashin.metrics.core import counter, gauge, histogram

SWAPS = counter("shashin_index_server_swaps", "Swaps of the set of served shards.")
SWAP_SECONDS = histogram(
    "shashin_index_server_swap_seconds",
    "Time from the decision to serve other shards until they are served: fetching, verifying and opening "
    "them, and applying what was hidden since.",
    unit="seconds",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)
BAD_SHARDS = gauge(
    "shashin_index_server_bad_shards", "Shards in the pointer that cannot be served."
)
BAD_POINTER = gauge(
    "shashin_index_server_bad_pointer", "1 while the tier's pointer cannot be read, else 0."
)
