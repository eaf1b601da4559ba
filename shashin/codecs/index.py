"""Converts IndexService messages: queries and filters of requests, and hits as packed columns."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from shashin.codecs.attributes import put_attributes
from shashin.codecs.columns import FLOAT32, UINT32, UINT64, packed, unpacked
from shashin.codecs.filters import check_filter
from shashin.codecs.limits import MAX_HITS, MAX_QUERIES
from shashin.errors import InvalidQuery
from shashin.shards.kinds.native.library import unit_vectors
from shashin.shards.kinds.protocol import Hits, Vectors
from shashin.shards.row_filter import FieldChoices, PriceRange, RowFilter, TimeRange
from shashin.shards.shard import Shard
from shashin.v1 import index_pb2

_EVERY_ROW = RowFilter()
_UINT32, _UINT64, _FLOAT32 = np.dtype("<u4"), np.dtype("<u8"), np.dtype("<f4")
"""As columns have them."""


def queries_of(request: index_pb2.IndexSearchRequest, dimensions: int) -> Vectors:
    """Return the query vectors of a request, (m, dimensions) float32, scaled to unit length.

    Raises:
        InvalidQuery: naming the invalid field.
    """
    if request.dimensions != dimensions:
        raise InvalidQuery(
            f"dimensions is {request.dimensions}; this endpoint holds vectors of {dimensions}"
        )
    count, rest = divmod(len(request.queries), 4 * dimensions)
    if count == 0 or rest:
        raise InvalidQuery(
            f"queries has {len(request.queries)} bytes; expected 1 to {MAX_QUERIES} times {4 * dimensions}"
        )
    if count > MAX_QUERIES:
        raise InvalidQuery(
            f"queries has {count} vectors; at most {MAX_QUERIES} are allowed per call"
        )
    if not 1 <= request.k <= MAX_HITS:
        raise InvalidQuery(f"k is {request.k}; expected 1 to {MAX_HITS}")
    try:
        return unit_vectors(unpacked(FLOAT32, request.queries), dimensions)
    except ValueError as error:
        raise InvalidQuery(f"queries {error}") from None


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
        category_prefixes=tuple(message.category_prefixes),
        brands=tuple(message.brands),
        prices=tuple(
            PriceRange(
                price.currency,
                price.min_minor if price.HasField("min_minor") else None,
                price.max_minor if price.HasField("max_minor") else None,
            )
            for price in message.prices
        ),
        listed=tuple(_time_range(time) for time in message.listed),
    )


def unknown_message(unknown: FieldChoices) -> index_pb2.UnknownChoices:
    """Return the message of a filter's choices that no row has."""
    return index_pb2.UnknownChoices(
        categories=unknown.category.strings,
        category_prefixes=unknown.category.prefixes,
        brands=unknown.brand.strings,
    )


def _time_range(message: index_pb2.TimeRange) -> TimeRange:
    return TimeRange(
        message.since if message.HasField("since") else None,
        message.until if message.HasField("until") else None,
    )


def put_hits(
    columns: index_pb2.HitColumns,
    parts: Sequence[tuple[Hits, int, int]],
    shards: Sequence[Shard],
    attributes: int,
    others_of: Vectors | None = None,
) -> None:
    """Append the hits of queries to columns, with attributes and photo of the first ``attributes`` of each.

    Each part is hits, and which of their queries are meant: from one number to before the other.
    ``shards`` are those that hits name. With the vectors of all these queries, ``others_of``, the other
    photos of the hits' listings are appended as well, which takes about 50 microseconds a hit.
    """
    begin = 0
    for hits, first, end in parts:
        queries = None if others_of is None else others_of[begin : begin + end - first]
        _put_part(columns, hits, first, end, shards, attributes, queries)
        begin += end - first


def _put_part(
    columns: index_pb2.HitColumns,
    hits: Hits,
    first: int,
    end: int,
    shards: Sequence[Shard],
    attributes: int,
    queries: Vectors | None,
) -> None:
    counts = hits.counts[first:end]
    begin = sum(hits.counts[:first])
    own = slice(begin, begin + sum(counts))
    ids, id_lengths = hits.ids, hits.id_lengths[own]
    if end - first < len(hits.counts):
        ids_begin = int(hits.id_lengths[:begin].sum())
        ids = ids[ids_begin : ids_begin + int(id_lengths.sum())]
    columns.counts.extend(counts)
    columns.listing_ids += ids
    columns.listing_id_lengths += id_lengths.astype(_UINT32, copy=False).tobytes()
    columns.versions += hits.versions[own].astype(_UINT64, copy=False).tobytes()
    columns.photo_numbers += hits.photo_numbers[own].astype(_UINT32, copy=False).tobytes()
    columns.scores += hits.scores[own].astype(_FLOAT32, copy=False).tobytes()
    uris, hashes = [], []
    add = columns.attributes.add
    for query, shard, row in _described(hits, own, counts, shards, attributes):
        details, uri, photo_hash = shard.details(row)
        put_attributes(add(), details)
        uris.append(uri)
        hashes.append(photo_hash)
        if queries is not None:
            columns.other_photos.append(_other_photos(shard, row, queries[query]))
    columns.photo_uris += b"".join(uris)
    columns.photo_uri_lengths += packed(array(UINT32, map(len, uris)))
    columns.photo_hashes += packed(array(UINT64, hashes))


def _described(
    hits: Hits, own: slice, counts: Sequence[int], shards: Sequence[Shard], most: int
) -> list[tuple[int, Shard, int]]:
    """Return the query, the shard and the row of the first ``most`` hits of each query."""
    of_shards, rows = hits.shards[own].tolist(), hits.rows[own].tolist()
    begins = accumulate(counts, initial=0)
    return [
        (query, shards[of_shards[number]], rows[number])
        for query, (begin, count) in enumerate(zip(begins, counts, strict=False))
        for number in range(begin, begin + min(count, most))
    ]


def _other_photos(shard: Shard, row: int, query: Vectors) -> index_pb2.OtherPhotos:
    """Return the visible rows of a row's listing and version, but this one; ``query`` is (dimensions,)."""
    found = shard.row(row)
    others = [
        (number, other)
        for number, other in shard.visible_rows_of(found.listing_id)
        if other.version == found.version and number != row
    ]
    if not others:
        return index_pb2.OtherPhotos()
    scores = shard.vectors([number for number, _ in others]) @ query
    return index_pb2.OtherPhotos(
        photos=[
            index_pb2.OtherPhotos.Photo(
                photo_number=other.photo_number,
                score=score,
                uri=other.photo_uri,
                hash=other.photo_hash,
            )
            for (_, other), score in zip(others, scores.tolist(), strict=True)
        ]
    )
