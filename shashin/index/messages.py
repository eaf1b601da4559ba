"""Between protobuf messages and the index's own types: events to rows, hits to columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from shashin.errors import InvalidEvent, InvalidQuery, UnparsableRecord, WrongVector
from shashin.index.coverage import OffsetRange
from shashin.index.row_filter import RowFilter
from shashin.index.rows import MAX_PHOTO_NUMBER, NO_TIME, Row, RowAttributes
from shashin.index.served_shards import ShardHit
from shashin.index.shard import NewRow
from shashin.index.vector_index import Vectors
from shashin.kafka.records import InRecord
from shashin.v1 import events_pb2, index_pb2


def attributes_of(message: events_pb2.Attributes) -> RowAttributes:
    """Return a row's attributes."""
    return RowAttributes(
        category=message.category,
        brand=message.brand,
        price_minor=message.price_minor,
        currency=message.currency,
        listed_at=message.listed_at.seconds if message.HasField("listed_at") else NO_TIME,
    )


def attributes_message(attributes: RowAttributes) -> events_pb2.Attributes:
    """Return the message of a row's attributes."""
    message = events_pb2.Attributes(
        category=attributes.category,
        brand=attributes.brand,
        price_minor=attributes.price_minor,
        currency=attributes.currency,
    )
    if attributes.listed_at != NO_TIME:
        message.listed_at.seconds = attributes.listed_at
    return message


def parse_embedded(record: InRecord) -> events_pb2.EmbeddedListing:
    """Return the message of a record of vectors.embedded.

    Raises:
        UnparsableRecord: when the value is something else.
    """
    message = events_pb2.EmbeddedListing()
    try:
        message.ParseFromString(record.value)
    except Exception as error:
        raise UnparsableRecord(f"{record} is not an EmbeddedListing: {error}") from error
    if not message.listing_id:
        raise UnparsableRecord(f"{record} is not an EmbeddedListing: it has no listing id")
    return message


def new_rows_of(
    message: events_pb2.EmbeddedListing, dimensions: int, *, record: InRecord
) -> list[NewRow]:
    """Return one row a vector of the message.

    Raises:
        WrongVector: when a vector has another length, or a number that is not finite.
        InvalidEvent: when a photo's number is more than a row can hold.
    """
    attributes = attributes_of(message.attributes)
    rows = []
    for photo in message.vectors:
        if photo.photo_number > MAX_PHOTO_NUMBER:
            raise InvalidEvent(
                f"{record}, listing {message.listing_id} has a photo_number of "
                f"{photo.photo_number}; at most {MAX_PHOTO_NUMBER} is expected"
            )
        if len(photo.vector) != 2 * dimensions:
            raise WrongVector(
                f"{record}, listing {message.listing_id}, photo {photo.photo_number} has a vector "
                f"of {len(photo.vector)} bytes; {dimensions} dimensions in float16 have "
                f"{2 * dimensions}: the embedder's model and SHASHIN_DIMENSIONS have to agree"
            )
        vector = np.frombuffer(photo.vector, dtype="<f2").astype(np.float32)
        if not np.isfinite(vector).all():
            raise WrongVector(
                f"{record}, listing {message.listing_id}, photo {photo.photo_number} has a vector "
                "with numbers that are not finite"
            )
        rows.append(
            NewRow(Row(message.listing_id, message.version, photo.photo_number, attributes), vector)
        )
    return rows


def queries_of(request: index_pb2.IndexSearchRequest, dimensions: int) -> Vectors:
    """Return the query vectors of a request, (m, dimensions) float32.

    Raises:
        InvalidQuery: naming the field that is wrong.
    """
    if request.dimensions != dimensions:
        raise InvalidQuery(
            f"dimensions is {request.dimensions}; this endpoint holds vectors of {dimensions}"
        )
    queries: npt.NDArray[np.float32] = np.frombuffer(request.queries, dtype=np.uint8)
    if len(queries) == 0 or len(queries) % (4 * dimensions):
        raise InvalidQuery(
            f"queries has {len(queries)} bytes; expected 1 to 64 times {4 * dimensions}"
        )
    queries = queries.view("<f4").reshape(-1, dimensions)
    if len(queries) > 64:
        raise InvalidQuery(f"queries holds {len(queries)} vectors; at most 64 go in one call")
    if not np.isfinite(queries).all():
        raise InvalidQuery("queries holds numbers that are not finite")
    if not 1 <= request.k <= 1000:
        raise InvalidQuery(f"k is {request.k}; expected 1 to 1000")
    return queries


def filter_of(message: index_pb2.Filter) -> RowFilter:
    """Return the filter that a message describes."""
    return RowFilter(
        categories=tuple(message.categories),
        brands=tuple(message.brands),
        min_price_minor=message.min_price_minor if message.HasField("min_price_minor") else None,
        max_price_minor=message.max_price_minor if message.HasField("max_price_minor") else None,
        currency=message.currency,
        listed_from=message.listed_from if message.HasField("listed_from") else None,
        listed_to=message.listed_to if message.HasField("listed_to") else None,
    )


def hit_columns(hits: Sequence[Sequence[ShardHit]]) -> index_pb2.HitColumns:
    """Return the hits of all queries as packed columns."""
    flat = [hit for of_query in hits for hit in of_query]
    return index_pb2.HitColumns(
        counts=[len(of_query) for of_query in hits],
        listing_ids=[hit.row.listing_id for hit in flat],
        versions=[hit.row.version for hit in flat],
        photo_numbers=[hit.row.photo_number for hit in flat],
        scores=[hit.score for hit in flat],
        attributes=[attributes_message(hit.row.attributes) for hit in flat],
    )


def range_messages(ranges: Iterable[OffsetRange]) -> list[index_pb2.OffsetRange]:
    """Return the messages of offset ranges."""
    return [
        index_pb2.OffsetRange(
            partition=r.partition, from_offset=r.from_offset, to_offset=r.to_offset
        )
        for r in ranges
    ]
