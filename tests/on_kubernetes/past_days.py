"""Shards of past days: vectors in the log, and their shards in the model repository."""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shashin.kafka.producer import OutRecord, Producer
from shashin.kafka.topics import VECTORS_EMBEDDED
from shashin.model_space import ModelSpace
from shashin.objectstore.open import opened_object_store
from shashin.repository.repository import ModelRepository
from shashin.shards.format.manifest import Manifest
from shashin.shards.format.row import NewRow, Row, RowAttributes
from shashin.shards.kinds.registry import DEFAULT_KIND, growing_kind
from shashin.shards.open_shard import OpenShard
from shashin.tiers import HOURLY
from shashin.v1 import events_pb2
from tests.support.hidden_map import HiddenMap

HOURS = 6
LISTINGS_PER_HOUR = 40
_HOUR, _DAY = 3600, 86400


@dataclass(frozen=True)
class PastDay:
    """A day whose hours are sealed."""

    start: int
    """Unix seconds."""
    vectors: Mapping[str, npt.NDArray[np.float32]]
    """By listing."""
    shard_ids: Sequence[str]


async def seal_past_days(
    bootstrap: str, repository: str, space: ModelSpace, folder: Path, *, days: int
) -> list[PastDay]:
    """Write some hours of the last days, as an indexer of then has; the oldest day comes first.

    No indexer may have read the log yet: it goes on after them.
    """
    today = int(time.time()) // _DAY * _DAY
    found, offset = [], 0
    async with (
        Producer(bootstrap, client_id="past") as producer,
        opened_object_store(repository) as store,
    ):
        models = ModelRepository(store)
        for start in range(today - days * _DAY, today, _DAY):
            vectors: dict[str, npt.NDArray[np.float32]] = {}
            shard_ids = []
            for hour in range(HOURS):
                made = _listings_of(start + hour * _HOUR, space.dimensions)
                await producer.send_all(embedded_record(i, v, space) for i, v in made.items())
                manifest = await _seal(models, made, offset, start + hour * _HOUR, space, folder)
                offset += len(made)
                vectors |= made
                shard_ids.append(manifest.shard_id)
            found.append(PastDay(start, vectors, shard_ids))
    return found


async def _seal(
    models: ModelRepository,
    made: Mapping[str, npt.NDArray[np.float32]],
    offset: int,
    start: int,
    space: ModelSpace,
    folder: Path,
) -> Manifest:
    shard = OpenShard(0, offset, space, growing_kind(DEFAULT_KIND), HiddenMap())
    rows = [NewRow(_row(listing_id), vector) for listing_id, vector in made.items()]
    shard.add(rows, position=offset + len(made), bucket_start=start)
    path = folder / shard.shard_id
    manifest = shard.write(path, tier=HOURLY, bucket_seconds=_HOUR, reason="time")
    manifest = replace(manifest, recall_at_10=1.0, created_at=float(start + _HOUR))
    await models.commit_shard(manifest, path)
    return manifest


def _listings_of(start: int, dimensions: int) -> dict[str, npt.NDArray[np.float32]]:
    ids = [f"past-{start}-{number}" for number in range(LISTINGS_PER_HOUR)]
    return {listing_id: vector_of(listing_id, dimensions) for listing_id in ids}


def vector_of(listing_id: str, dimensions: int) -> npt.NDArray[np.float32]:
    """Return a unit vector, (dimensions,), that only this listing has."""
    drawn = np.random.default_rng(zlib.crc32(listing_id.encode())).normal(size=dimensions)
    exact: npt.NDArray[np.float32] = (drawn / np.linalg.norm(drawn)).astype("<f2").astype("<f4")
    return exact


def _row(listing_id: str) -> Row:
    return Row(
        listing_id,
        1,
        0,
        RowAttributes("shoes", "ACME", 1200, "JPY", 5),
        photo_uri=f"s3://photos/{listing_id}.jpg",
        photo_hash=zlib.crc32(listing_id.encode()),
    )


def embedded_record(
    listing_id: str, vector: npt.NDArray[np.float32], space: ModelSpace
) -> OutRecord:
    """Return the record of a listing as the embedder writes it, to partition 0."""
    message = events_pb2.EmbeddedListing(
        listing_id=listing_id,
        version=1,
        kind=events_pb2.LISTING_KIND_LISTED,
        model_id=space.model_id,
        dimensions=space.dimensions,
        attributes=events_pb2.Attributes(category="shoes", price_minor=1200, currency="JPY"),
        vectors=[events_pb2.PhotoVector(photo_number=0, vector=vector.astype("<f2").tobytes())],
    )
    return OutRecord(
        VECTORS_EMBEDDED, listing_id.encode(), message.SerializeToString(), partition=0
    )
