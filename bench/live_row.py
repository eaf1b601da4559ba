"""Prints the resident bytes of one row of the live tier, measured in a process of its own.

100,000 rows of 128 dimensions, three photos a listing, added as the indexer adds them.
"""

from __future__ import annotations

import gc

import numpy as np
import psutil

from bench.nothing_hidden import NothingHidden
from shashin.codecs.attributes import attributes_message
from shashin.codecs.events import new_rows_of, parse_embedded
from shashin.kafka.records import InRecord
from shashin.kafka.topics import VECTORS_EMBEDDED
from shashin.model_space import ModelSpace
from shashin.shards.format.row import RowAttributes
from shashin.shards.kinds.registry import DEFAULT_KIND, growing_kind
from shashin.shards.open_shard import OpenShard
from shashin.v1 import events_pb2

ROWS = 100_000
DIMENSIONS = 128
PHOTOS_EACH = 3
BATCH_LISTINGS = 100
MODEL = "demo-v1"


def record(number: int, rng: np.random.Generator) -> InRecord:
    """Return the record of one listing with random vectors."""
    vectors = rng.normal(size=(PHOTOS_EACH, DIMENSIONS))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    attributes = RowAttributes(
        f"category/{number % 200}", f"brand {number % 3000}", number, "JPY", 1_700_000_000 + number
    )
    listing_id = f"listing-{number:012d}"
    message = events_pb2.EmbeddedListing(
        listing_id=listing_id,
        version=1,
        kind=events_pb2.LISTING_KIND_LISTED,
        model_id=MODEL,
        dimensions=DIMENSIONS,
        attributes=attributes_message(attributes),
        vectors=[
            events_pb2.PhotoVector(photo_number=photo, vector=vector.astype("<f2").tobytes())
            for photo, vector in enumerate(vectors)
        ],
    )
    return InRecord(
        VECTORS_EMBEDDED, 0, number, 0, listing_id.encode(), message.SerializeToString()
    )


def bytes_per_row(rows: int = ROWS, *, after: int = 0) -> float:
    """Return by how much resident memory grows with each row, those up to ``after`` not counted.

    The first thousands of rows also return or take some megabytes once.
    """
    kind = growing_kind(DEFAULT_KIND)
    shard = OpenShard(0, 0, ModelSpace(MODEL, DIMENSIONS), kind, NothingHidden())
    rng = np.random.default_rng(0)

    def add_batch() -> None:
        first = shard.position
        for number in range(first, first + BATCH_LISTINGS):
            added = record(number, rng)
            new_rows = new_rows_of(parse_embedded(added), DIMENSIONS, record=added)
            shard.add(new_rows, position=number + 1, bucket_start=0)
        gc.collect()

    def resident() -> int:
        return int(psutil.Process().memory_info().rss)

    add_batch()  # what the first rows need once is not counted
    while shard.rows < after:
        add_batch()
    rows_before, bytes_before = shard.rows, resident()
    while shard.rows < rows:
        add_batch()
    return (resident() - bytes_before) / (shard.rows - rows_before)


if __name__ == "__main__":
    print(bytes_per_row())
