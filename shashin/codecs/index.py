"""Converts IndexService messages: queries and filters of requests, and hits as packed columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from shashin.codecs.attributes import attributes_message
from shashin.codecs.filters import check_filter
from shashin.codecs.limits import MAX_HITS, MAX_QUERIES
from shashin.codecs.unit_vectors import unit_length
from shashin.errors import InvalidQuery
from shashin.shards.hits import Hits
from shashin.shards.kinds.protocol import Vectors
from shashin.shards.row_filter import RowFilter
from shashin.shards.shard import Shard
from shashin.v1 import index_pb2

_EVERY_ROW = RowFilter()


def queries_of(request: index_pb2.IndexSearchRequest, dimensions: int) -> Vectors:
    """Return the query vectors of a request, (m, dimensions) float32, scaled to unit length.

    Raises:
        InvalidQuery: naming the invalid field.
    """
    if request.dimensions != dimensions:
        raise InvalidQuery(
            f"dimensions is {request.dimensions}; this endpoint holds vectors of {dimensions}"
        )
    queries: npt.NDArray[np.float32] = np.frombuffer(request.queries, dtype=np.uint8)
    if len(queries) == 0 or len(queries) % (4 * dimensions):
        raise InvalidQuery(
            f"queries has {len(queries)} bytes; expected 1 to {MAX_QUERIES} times {4 * dimensions}"
        )
    queries = queries.view("<f4").reshape(-1, dimensions)
    if len(queries) > MAX_QUERIES:
        raise InvalidQuery(
            f"queries has {len(queries)} vectors; at most {MAX_QUERIES} are allowed per call"
        )
    if not np.isfinite(queries).all():
        raise InvalidQuery("queries has values that are not finite")
    if not queries.any(axis=1).all():
        raise InvalidQuery("queries has a vector that is all zeros: cosine similarity is undefined")
    if not 1 <= request.k <= MAX_HITS:
        raise InvalidQuery(f"k is {request.k}; expected 1 to {MAX_HITS}")
    return unit_length(queries)


def filter_of(message: index_pb2.Filter) -> RowFilter:
    """Return the filter of a message.

    Raises:
        InvalidQuery: naming the invalid field.
    """
    if not message.ByteSize():
        return _EVERY_ROW
    check_filter(message)
    return RowFilter(
        categories=tuple(message.categories),
        brands=tuple(message.brands),
        min_price_minor=message.min_price_minor if message.HasField("min_price_minor") else None,
        max_price_minor=message.max_price_minor if message.HasField("max_price_minor") else None,
        currency=message.currency,
        listed_from=message.listed_from if message.HasField("listed_from") else None,
        listed_to=message.listed_to if message.HasField("listed_to") else None,
    )


def hit_columns(
    parts: Sequence[tuple[Hits, int, int]], shards: Sequence[Shard], attributes: int
) -> index_pb2.HitColumns:
    """Return the hits of queries as columns, with the attributes of the first ``attributes`` of each.

    Each part is hits, and which of their queries are meant: from one number to before the other.
    ``shards`` are those that hits name.
    """
    return joined_columns(
        [_columns_of(hits, first, end, shards, attributes) for hits, first, end in parts]
    )


def joined_columns(chosen: Sequence[index_pb2.HitColumns]) -> index_pb2.HitColumns:
    """Return the hits of all of these, at least one, in this order."""
    if len(chosen) == 1:
        return chosen[0]
    return index_pb2.HitColumns(
        counts=[count for columns in chosen for count in columns.counts],
        listing_ids=b"".join(columns.listing_ids for columns in chosen),
        listing_id_lengths=b"".join(columns.listing_id_lengths for columns in chosen),
        versions=b"".join(columns.versions for columns in chosen),
        photo_numbers=b"".join(columns.photo_numbers for columns in chosen),
        scores=b"".join(columns.scores for columns in chosen),
        attributes=[described for columns in chosen for described in columns.attributes],
    )


def _columns_of(
    hits: Hits, first: int, end: int, shards: Sequence[Shard], attributes: int
) -> index_pb2.HitColumns:
    counts = hits.counts[first:end]
    begin = sum(hits.counts[:first])
    own = slice(begin, begin + sum(counts))
    ids = hits.ids
    if end - first < len(hits.counts):
        ids_begin = int(hits.id_lengths[:begin].sum())
        ids = ids[ids_begin : ids_begin + int(hits.id_lengths[own].sum())]
    of_shards, rows = hits.found.shards[own].tolist(), hits.found.rows[own].tolist()
    starts = accumulate(counts, initial=0)
    described = [
        attributes_message(shards[of_shards[number]].attributes(rows[number]))
        for start, count in zip(starts, counts, strict=False)
        for number in range(start, start + min(count, attributes))
    ]
    return index_pb2.HitColumns(
        counts=counts,
        listing_ids=ids,
        listing_id_lengths=hits.id_lengths[own].astype("<u4", copy=False).tobytes(),
        versions=hits.versions[own].astype("<u8", copy=False).tobytes(),
        photo_numbers=hits.photo_numbers[own].astype("<u4", copy=False).tobytes(),
        scores=hits.found.scores[own].astype("<f4", copy=False).tobytes(),
        attributes=described,
    )
