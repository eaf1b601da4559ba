"""A shard as a layer: ``/indexes/<shard id>/`` with its files and its manifest."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from shashin.errors import CorruptShard, DiskUnavailable, ObjectNotFound
from shashin.objectstore.protocol import ObjectStore
from shashin.oci.layers import Layer, LayerFile
from shashin.shards.format.file_entry import FileEntry
from shashin.shards.format.manifest import MANIFEST_FILE, Manifest

INDEXES_FOLDER = "indexes"
"""In the root of the image."""

_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class ShardSource:
    """A shard, and where its files are read."""

    manifest: Manifest
    read: Callable[[FileEntry], AsyncGenerator[bytes]]
    """Returns a file's bytes from the start; they are verified by who reads them."""


def in_folder(manifest: Manifest, folder: Path) -> ShardSource:
    """Return a shard whose files are in a folder, as ``ModelRepository.fetch`` leaves them."""
    return ShardSource(manifest, lambda entry: _file_chunks(folder / entry.name))


def in_store(manifest: Manifest, store: ObjectStore) -> ShardSource:
    """Return a shard that is streamed from the object store of the model repository.

    An image that has it as a new layer reads it twice, to hash it and to send it; nothing is written to
    the disk.
    """
    return ShardSource(manifest, lambda entry: _object_chunks(store, manifest.object_key(entry)))


def manifest_digest(manifest: Manifest) -> str:
    """Return the SHA-256 of a manifest, in hexadecimal: it stands for all of the shard's bytes."""
    return hashlib.sha256(manifest.to_json()).hexdigest()


def shard_layer(source: ShardSource) -> Layer:
    """Return the layer of a shard. It depends on the manifest alone.

    Reading it raises CorruptShard when a file does not have the SHA-256 of the manifest, and
    DiskUnavailable or ObjectStoreUnavailable when it cannot be read.
    """
    manifest = source.manifest
    folder = f"{INDEXES_FOLDER}/{manifest.shard_id}"
    described = manifest.to_json()
    files = [
        LayerFile(f"{folder}/{entry.name}", entry.size, _verified(source, entry))
        for entry in manifest.files
    ]
    own = LayerFile(f"{folder}/{MANIFEST_FILE}", len(described), lambda: _once(described))
    return Layer((*files, own))


def _verified(source: ShardSource, entry: FileEntry) -> Callable[[], AsyncGenerator[bytes]]:
    async def read() -> AsyncGenerator[bytes]:
        digest, size = hashlib.sha256(), 0
        async with aclosing(source.read(entry)) as chunks:
            async for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                if size > entry.size:
                    break
                yield chunk
        if (size, digest.hexdigest()) != (entry.size, entry.sha256):
            raise CorruptShard(
                f"{entry.name} of shard {source.manifest.shard_id} does not have the {entry.size} "
                f"bytes with SHA-256 {entry.sha256} of its manifest: restore it, or delete the "
                "manifest so that the shard is sealed again"
            )

    return read


async def _once(data: bytes) -> AsyncGenerator[bytes]:
    yield data


async def _file_chunks(path: Path) -> AsyncGenerator[bytes]:
    try:
        file = await asyncio.to_thread(path.open, "rb")
    except FileNotFoundError as error:
        raise CorruptShard(
            f"{path} is missing, though its manifest names it: fetch the shard again"
        ) from error
    except OSError as error:
        raise DiskUnavailable(f"{path} cannot be read: {error.strerror or error}") from error
    with file:
        while True:
            try:
                chunk = await asyncio.to_thread(file.read, _CHUNK)
            except OSError as error:
                raise DiskUnavailable(
                    f"{path} cannot be read: {error.strerror or error}"
                ) from error
            if not chunk:
                return
            yield chunk


async def _object_chunks(store: ObjectStore, key: str) -> AsyncGenerator[bytes]:
    try:
        async with aclosing(store.stream(key)) as chunks:
            async for chunk in chunks:
                yield chunk
    except ObjectNotFound as error:
        raise CorruptShard(
            f"{key} is missing, though its manifest names it: restore it, or delete the manifest so "
            "that the shard is sealed again"
        ) from error
