"""How old the snapshots of hidden rows are: reads their headers, not their row numbers."""

from __future__ import annotations

from contextlib import suppress

from shashin.errors import CorruptShard, ObjectNotFound, UnknownFormat
from shashin.objectstore.protocol import ObjectStore
from shashin.shards.format.hidden_header import SnapshotHeader, is_snapshot_name
from shashin.shards.format.manifest import Manifest


async def newest_snapshot_at(store: ObjectStore, manifest: Manifest) -> float:
    """Return when the newest snapshot of a shard was made, in Unix seconds; 0 if it has none.

    The manifest of a built shard is one: the build left out what was hidden. A damaged header counts
    for nothing, and neither does that of a snapshot of other rows.

    Raises:
        ObjectStoreError: when the store does not respond or refuses.
    """
    newest = manifest.created_at if manifest.hidden_offsets else 0.0
    for info in await store.list_objects(f"{manifest.folder}/hidden-"):
        if is_snapshot_name(info.key.rpartition("/")[2]):
            # Deleted since it was listed: a newer one has replaced it.
            with suppress(ObjectNotFound, CorruptShard, UnknownFormat):
                header = SnapshotHeader.of_line(await _first_line(store, info.key), key=info.key)
                if header.rows_sha256 == manifest.rows_sha256:
                    newest = max(newest, header.created_at)
    return newest


async def _first_line(store: ObjectStore, key: str) -> bytes:
    read = b""
    async with store.opened(key) as opened:
        assert opened is not None
        async for chunk in opened.chunks:
            read += chunk
            if b"\n" in read:
                break
    return read.partition(b"\n")[0]
