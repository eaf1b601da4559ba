"""The recall of live queries, from a sample that is repeated exactly."""

from __future__ import annotations

from shashin.metrics.core import counter
from shashin.metrics.labels import TIER

REPLAYED = counter(
    "shashin_recall_replayed_queries",
    "Live queries that were repeated and compared with an exact search.",
    [TIER],
)
EXPECTED = counter(
    "shashin_recall_expected_hits",
    "Hits among the first 10 that exact searches of repeated queries had.",
    [TIER],
)
FOUND = counter(
    "shashin_recall_found_hits",
    "Those of them that the searches had found: the recall is their share of the expected hits.",
    [TIER],
)
