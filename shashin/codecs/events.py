"""Converts records of ``vectors.embedded`` to the rows that they add to a shard."""

from __future__ import annotations

import numpy as np

from shashin.codecs.attributes import attributes_of
from shashin.codecs.unit_vectors import length_problem
from shashin.errors import InvalidEvent, UnparsableRecord, WrongVector
from shashin.kafka.records import InRecord
from shashin.photo_hash import photo_hash
from shashin.shards.format.row import MAX_PHOTO_NUMBER, NewRow, Row
from shashin.v1 import events_pb2


def parse_embedded(record: InRecord) -> events_pb2.EmbeddedListing:
    """Parse a record of vectors.embedded.

    Raises:
        UnparsableRecord: when the value is not a valid EmbeddedListing.
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
    """Return one row per vector of the message.

    Raises:
        WrongVector: when a vector has the wrong number of values, or is not of unit length.
        InvalidEvent: when a photo number exceeds the maximum.
    """
    attributes = attributes_of(message.attributes)
    rows = []
    for photo in message.vectors:
        if photo.photo_number > MAX_PHOTO_NUMBER:
            raise InvalidEvent(
                f"{record}, listing {message.listing_id} has a photo_number of "
                f"{photo.photo_number}; the maximum is {MAX_PHOTO_NUMBER}"
            )
        if len(photo.vector) != 2 * dimensions:
            raise WrongVector(
                f"{record}, listing {message.listing_id}, photo {photo.photo_number} has a vector "
                f"of {len(photo.vector)} bytes; {dimensions} dimensions in float16 have "
                f"{2 * dimensions}: the embedder's model and SHASHIN_DIMENSIONS must agree"
            )
        vector = np.frombuffer(photo.vector, dtype="<f2").astype(np.float32)
        problem = length_problem(vector)
        if problem is not None:
            raise WrongVector(
                f"{record}, listing {message.listing_id}, photo {photo.photo_number} has a vector "
                f"{problem}: its producer must scale vectors to unit length"
            )
        row = Row(
            message.listing_id,
            message.version,
            photo.photo_number,
            attributes,
            photo_uri=photo.uri,
            photo_hash=photo_hash(photo.content_sha256),
        )
        rows.append(NewRow(row, vector))
    return rows
