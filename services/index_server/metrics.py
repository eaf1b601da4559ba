"""Metrics of the index server."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

SWAPS = Counter("shashin_index_server_swaps", "Swaps of the set of served shards.")
BAD_SHARDS = Gauge(
    "shashin_index_server_bad_shards", "Shards in the pointer that cannot be served."
)
BAD_POINTER = Gauge(
    "shashin_index_server_bad_pointer", "1 while the tier's pointer cannot be read, else 0."
)
