"""The hits of an endpoint as it sends them."""

from __future__ import annotations

from collections.abc import Sequence

from shashin.codecs.index import put_hits
from shashin.shards.kinds.protocol import Hits
from shashin.shards.shard import Shard
from shashin.v1 import index_pb2


def hit_columns(
    parts: Sequence[tuple[Hits, int, int]], shards: Sequence[Shard], attributes: int
) -> index_pb2.HitColumns:
    """Return the hits of queries as columns, with attributes and photo of the first ``attributes`` of each."""
    columns = index_pb2.HitColumns()
    put_hits(columns, parts, shards, attributes)
    return columns
