"""Metrics of the index server."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

SWAPS = Counter("shashin_index_server_swaps", "Times that the served shards were swapped.")
BAD_SHARDS = Gauge(
    "shashin_index_server_bad_shards", "Shards that the pointer names and that cannot be served."
)
BAD_POINTER = Gauge(
    "shashin_index_server_bad_pointer", "1 while the tier's pointer cannot be read, else 0."
)
