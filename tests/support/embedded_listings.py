"""Vectors of listings as the embedder writes them, and a client to search for them."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

from shashin.codecs.hit_lists import hits_in
from shashin.codecs.ranges import ranges_in
from shashin.kafka.producer import OutRecord
from shashin.kafka.topics import LISTINGS_HIDDEN, VECTORS_EMBEDDED
from shashin.offsets.ranges import OffsetRange
from shashin.rpc.channel import open_channel
from shashin.v1 import events_pb2, index_pb2, index_pb2_grpc

MODEL = "test-model"
DIMENSIONS = 16


def vector_of(listing_id: str, version: int = 1, photo: int = 0) -> npt.NDArray[np.float32]:
    """Return a unit vector, (16,), that only this photo has."""
    seed = zlib.crc32(f"{listing_id}/{version}/{photo}".encode())
    vector = np.random.default_rng(seed).normal(size=DIMENSIONS).astype(np.float32)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def embedded(
    listing_id: str,
    version: int = 1,
    photos: int = 1,
    *,
    partition: int | None = None,
    model: str = MODEL,
) -> OutRecord:
    """Return the record of a listing's version."""
    message = events_pb2.EmbeddedListing(
        listing_id=listing_id,
        version=version,
        kind=events_pb2.LISTING_KIND_LISTED,
        model_id=model,
        dimensions=DIMENSIONS,
        attributes=events_pb2.Attributes(category="shoes", price_minor=1200, currency="JPY"),
        vectors=[
            events_pb2.PhotoVector(
                photo_number=photo,
                vector=vector_of(listing_id, version, photo).astype("<f2").tobytes(),
            )
            for photo in range(photos)
        ],
    )
    return OutRecord(
        VECTORS_EMBEDDED, listing_id.encode(), message.SerializeToString(), partition=partition
    )


def hidden(listing_id: str, below_version: int) -> OutRecord:
    """Return the record that hides a listing's versions below one."""
    message = events_pb2.HiddenListing(
        listing_id=listing_id,
        below_version=below_version,
        reason=events_pb2.HIDDEN_REASON_SOLD,
    )
    return OutRecord(LISTINGS_HIDDEN, listing_id.encode(), message.SerializeToString())


class IndexClient:
    """Client of one endpoint of a tier."""

    def __init__(self, address: str) -> None:
        self._channel = open_channel(address)
        self._stub = index_pb2_grpc.IndexServiceStub(self._channel)

    async def __aenter__(self) -> IndexClient:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._channel.close()

    async def nearest(
        self, vector: npt.NDArray[np.float32], k: int = 1
    ) -> list[tuple[str, int, int]]:
        """Return listing, version and photo number of the k nearest rows."""
        response = await self._stub.Search(
            index_pb2.IndexSearchRequest(
                model_id=MODEL,
                queries=vector.astype("<f4").tobytes(),
                dimensions=DIMENSIONS,
                k=k,
            )
        )
        hits = hits_in(response.hits, 1, 0)
        return list(zip(hits.listing_ids, hits.versions, hits.photo_numbers, strict=True))

    async def finds(self, listing_id: str, version: int = 1, photo: int = 0) -> bool:
        """Return whether this photo is the first hit of its own vector."""
        found = await self.nearest(vector_of(listing_id, version, photo))
        return found == [(listing_id, version, photo)]

    async def covered(self) -> list[OffsetRange]:
        """Return the ranges that an answer covers, by partition and offset."""
        response = await self._stub.Search(
            index_pb2.IndexSearchRequest(
                model_id=MODEL,
                queries=vector_of("any").astype("<f4").tobytes(),
                dimensions=DIMENSIONS,
                k=1,
            )
        )
        return sorted(ranges_in(response.covered))

    async def describe(self) -> index_pb2.DescribeResponse:
        """Return what the endpoint holds."""
        return await self._stub.Describe(index_pb2.DescribeRequest())
