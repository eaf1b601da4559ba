"""Small shards for tests, sealed and committed for real."""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shashin.model_space import ModelSpace
from shashin.objectstore.file import FileObjectStore
from shashin.objectstore.protocol import ObjectInfo, OnlyIf, Version
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.shards.format.manifest import Manifest
from shashin.shards.format.row import NewRow, Row, RowAttributes
from shashin.shards.kinds.protocol import GrowingKind, Vectors
from shashin.shards.kinds.registry import growing_kind
from shashin.shards.open_shard import OpenShard
from shashin.tiers import HOURLY
from tests.support.hidden_map import HiddenMap

MODEL = "test-model"
DIMENSIONS = 8
SPACE = ModelSpace(MODEL, DIMENSIONS)
KIND = growing_kind("usearch-hnsw")
"""A kind whose index is one file."""
BUCKET_START = 472_222 * 3600


def vectors(count: int, seed: int) -> Vectors:
    """Return vectors (count, 8) of nearly unit length that bfloat16 holds exactly.

    They are stored without rounding, so scores can be compared with brute force.
    """
    normal = np.random.default_rng(seed).normal(size=(count, DIMENSIONS)).astype(np.float32)
    unit = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    exact: Vectors = (unit.view(np.uint32) & np.uint32(0xFFFF_0000)).view(np.float32)
    return exact


def vector_of(listing_id: str, version: int = 1, photo: int = 0) -> npt.NDArray[np.float32]:
    """Return the vector (8,) that only this photo has."""
    found: npt.NDArray[np.float32] = vectors(
        1, zlib.crc32(f"{listing_id}/{version}/{photo}".encode())
    )[0]
    return found


def as_logged(vector: npt.ArrayLike) -> npt.NDArray[np.float16]:
    """Return a vector as ``vectors.embedded`` has it: of unit length, in float16."""
    array = np.asarray(vector, dtype=np.float64)
    return (array / np.linalg.norm(array)).astype("<f2")


def new_row(
    listing_id: str, version: int = 1, photo: int = 0, attributes: RowAttributes | None = None
) -> NewRow:
    """Return a row to be added, with its own vector."""
    row = Row(
        listing_id,
        version,
        photo,
        attributes or RowAttributes("shoes", "ACME", 1, "JPY", 5),
        photo_uri=f"s3://photos/{listing_id}/{photo}.jpg",
        photo_hash=zlib.crc32(f"{listing_id}/{photo}".encode()),
    )
    return NewRow(row, vector_of(listing_id, version, photo))


def listings(first: int, end: int) -> list[NewRow]:
    """Return a row of one photo for each of the listings ``listing-<first>`` to before ``end``."""
    return [new_row(f"listing-{number}") for number in range(first, end)]


def open_shard(
    rows: Sequence[NewRow] = (),
    *,
    from_offset: int = 0,
    partition: int = 0,
    hidden: HiddenMap | None = None,
    kind: GrowingKind = KIND,
) -> OpenShard:
    """Return a shard with these rows, as if each had come in a record of its own."""
    known = HiddenMap() if hidden is None else hidden
    shard = OpenShard(partition, from_offset, SPACE, kind, known)
    if rows:
        shard.add(rows, position=from_offset + len(rows), bucket_start=BUCKET_START)
    return shard


def write(shard: OpenShard, folder: Path, **changes: Any) -> Manifest:
    """Write a shard's files; returns its manifest, with the given changes."""
    if shard.bucket_start is None:
        shard.add([], position=shard.position, bucket_start=BUCKET_START)
    manifest = shard.write(folder, tier=HOURLY, bucket_seconds=3600, reason="time")
    return replace(manifest, **{"recall_at_10": 1.0, "created_at": 1_700_000_000.5, **changes})


async def commit(
    repository: ModelRepository, shard: OpenShard, scratch: Path, **changes: Any
) -> StoredShard:
    """Write and commit a shard."""
    folder = scratch / shard.shard_id
    manifest = write(shard, folder, **changes)
    await repository.commit_shard(manifest, folder)
    return StoredShard(manifest, manifest.key)


def object_key(shard: StoredShard | Manifest, name: str) -> str:
    """Return the key of one of a shard's files."""
    manifest = shard.manifest if isinstance(shard, StoredShard) else shard
    (entry,) = (entry for entry in manifest.files if entry.name == name)
    return manifest.object_key(entry)


class WatchedStore(FileObjectStore):
    """A file store that records its calls in order."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.root = root
        self.stats: list[str] = []
        self.reads: list[str] = []
        self.streams: list[str] = []
        self.writes: list[str] = []
        self.downloads: list[str] = []
        self.deletes: list[str] = []
        self.lists: list[str] = []

    async def stat(self, key: str) -> ObjectInfo:
        self.stats.append(key)
        return await super().stat(key)

    async def read(self, key: str) -> tuple[bytes, Version]:
        self.reads.append(key)
        return await super().read(key)

    async def stream(self, key: str) -> AsyncGenerator[bytes]:
        self.streams.append(key)
        async with aclosing(super().stream(key)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def write(self, key: str, data: bytes, *, only_if: OnlyIf | None = None) -> Version:
        self.writes.append(key)
        return await super().write(key, data, only_if=only_if)

    async def upload(self, key: str, path: Path, *, only_if: OnlyIf | None = None) -> Version:
        self.writes.append(key)
        return await super().upload(key, path, only_if=only_if)

    async def download(self, key: str, path: Path) -> None:
        self.downloads.append(key)
        await super().download(key, path)

    async def delete(self, key: str, *, only_if: OnlyIf | None = None) -> None:
        self.deletes.append(key)
        await super().delete(key, only_if=only_if)

    async def list_objects(self, prefix: str) -> list[ObjectInfo]:
        self.lists.append(prefix)
        return await super().list_objects(prefix)
