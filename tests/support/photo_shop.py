"""A shop of rendered products behind a real router: what its page shows are the photos that are searched."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from shashin_catalogue import product, render_photo

from shashin.model_space import ModelSpace
from shashin.objectstore.open import opened_object_store
from shashin.photo_hash import hex_photo_hash, photo_hash
from shashin.shards.format.row import NewRow, Row, RowAttributes
from shashin.shards.kinds.registry import DEFAULT_KIND, growing_kind
from shashin.shards.open_shard import OpenShard
from shashin.thumbnails.store import ThumbnailStore
from shashin.v1 import embed_pb2
from tests.support.hidden_map import HiddenMap
from tests.support.running_router import (
    DIMENSIONS,
    MODEL,
    FakeEmbedder,
    System,
    Vector,
    running_system,
    unit,
)

SEED = 11
_HOUR, _DAY = 3600, 86_400
_GRID = 2


def colours_of(photo: bytes, box: tuple[float, float, float, float] = (0, 0, 1, 1)) -> Vector:
    """Return the mean colours of the quarters of a part of a photo as a unit vector, (16,).

    A model that is poor and yet honest: it sees the photo, and nothing but the part.
    """
    image = Image.open(io.BytesIO(photo)).convert("RGB")
    left, top, right, bottom = box
    width, height = image.size
    part = image.crop(
        (round(left * width), round(top * height), round(right * width), round(bottom * height))
    )
    small = part.resize((_GRID, _GRID), Image.Resampling.BOX)
    pixels: npt.NDArray[np.float64] = np.asarray(small, dtype=np.float64).reshape(-1, 3) / 255 - 0.5
    contrasts = pixels.mean(axis=1)
    vector = np.concatenate([pixels.ravel(), contrasts])
    assert len(vector) == DIMENSIONS
    return unit(vector)


class ColourEmbedder(FakeEmbedder):
    """Embeds photos by their colours, and remembers what it was asked for."""

    async def Embed(  # noqa: N802
        self, request: embed_pb2.EmbedRequest, context: Any
    ) -> embed_pb2.EmbedResponse:
        self.calls += 1
        boxes = [(b.left, b.top, b.right, b.bottom) for b in request.boxes]
        self.boxes.append([*boxes])
        if self.refusal is not None:
            await context.abort(*self.refusal)
        vectors = [
            colours_of(photo, box if any(box) else (0, 0, 1, 1))
            for photo, box in zip(
                request.photos, boxes or [(0.0, 0.0, 1.0, 1.0)] * len(request.photos), strict=True
            )
        ]
        return embed_pb2.EmbedResponse(
            model_id=MODEL,
            dimensions=DIMENSIONS,
            vectors=np.stack(vectors).astype("<f4").tobytes(),
        )


@cache
def photo_of(number: int, photo: int = 0) -> bytes:
    """Return a photo of a product as a JPEG."""
    return render_photo(product(SEED, number), photo)


def sha256_of(photo: bytes) -> bytes:
    """Return the SHA-256 of a photo."""
    return hashlib.sha256(photo).digest()


@dataclass(frozen=True)
class Offer:
    """A listing of one product."""

    number: int
    photos: int
    attributes: RowAttributes

    @property
    def listing_id(self) -> str:
        """Its id."""
        return f"m{10_000_000 + 7919 * self.number}"

    def rows(self) -> list[NewRow]:
        """Return its rows."""
        rows = []
        for number in range(self.photos):
            photo = photo_of(self.number, number)
            row = Row(
                self.listing_id,
                1,
                number,
                self.attributes,
                photo_uri=f"s3://shop/{self.listing_id}/{number}.jpg",
                photo_hash=photo_hash(sha256_of(photo)),
            )
            rows.append(NewRow(row, colours_of(photo)))
        return rows


def offers(count: int) -> list[Offer]:
    """Return listings, the oldest first; the last eight are from the last 24 hours."""
    made, now = [], int(time.time())
    for number in range(count):
        shown = product(SEED, number)
        age = (count - number) * 2 * _HOUR if count - number <= 8 else (count - number) * _DAY
        attributes = RowAttributes(
            f"goods/{shown.category}", shown.brand, shown.price_minor, "JPY", now - age
        )
        made.append(Offer(number, 1 + number % 2, attributes))
    return made


def shard_with(listings: Sequence[Offer], from_offset: int = 0) -> OpenShard:
    """Return a shard of these listings, one record each."""
    shard = OpenShard(
        0, from_offset, ModelSpace(MODEL, DIMENSIONS), growing_kind(DEFAULT_KIND), HiddenMap()
    )
    for offset, listing in enumerate(listings, start=from_offset):
        shard.add(listing.rows(), position=offset + 1, bucket_start=0)
    return shard


async def write_thumbnails(folder: Path, listings: Iterable[Offer]) -> None:
    """Write the thumbnails of these listings, which are small photos already."""
    async with opened_object_store(folder.as_uri()) as objects:
        store = ThumbnailStore(objects)
        for listing in listings:
            for number in range(listing.photos):
                photo = photo_of(listing.number, number)
                await store.write(hex_photo_hash(photo_hash(sha256_of(photo))), photo)


@dataclass
class Shop:
    """A running system with listings."""

    system: System
    embedder: ColourEmbedder
    offers: list[Offer]

    @property
    def url(self) -> str:
        """Of the page."""
        return f"{self.system.rest}/"

    def offer(self, listing_id: str) -> Offer:
        """Return a listing."""
        return next(one for one in self.offers if one.listing_id == listing_id)


@asynccontextmanager
async def running_shop(
    folder: Path, *, listings: int = 60, live: int = 30, without_thumbnails: int = 3, **front: Any
) -> AsyncIterator[Shop]:
    """Run a router over a live and an hourly tier; of the last listings some have no thumbnail."""
    thumbnails = folder / "thumbnails"
    thumbnails.mkdir()
    made = offers(listings)
    await write_thumbnails(thumbnails, made[: listings - without_thumbnails])
    async with running_system(folder, thumbnails=thumbnails.as_uri(), **front) as system:
        embedder = ColourEmbedder()
        await system.embedder("embedder", embedder)
        sealed = listings - live
        await system.index("indexer", "live", shard_with(made[sealed:], sealed))
        await system.index("hourly", "hourly", shard_with(made[:sealed]))
        yield Shop(system, embedder, made)
