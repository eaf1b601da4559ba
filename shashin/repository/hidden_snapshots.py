"""The snapshots of hidden rows in the folders of shards.

A shard may have several: one of each replica that sealed it, and one of each later run of
``shashin indexes snapshot`` that has not deleted its predecessors yet. Readers combine them, so none
has to be the newest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from shashin.errors import ObjectNotFound, PreconditionFailed, ShashinError
from shashin.objectstore.protocol import ObjectStore, OnlyIf
from shashin.runtime.logging import get_logger
from shashin.shards.format.hidden_header import is_snapshot_name, snapshot_name
from shashin.shards.format.hidden_snapshot import HiddenSnapshot
from shashin.shards.format.manifest import Manifest

log = get_logger(__name__)


@dataclass
class StoredSnapshots:
    """The snapshots of one shard."""

    by_key: dict[str, HiddenSnapshot] = field(default_factory=dict)
    unreadable: dict[str, ShashinError] = field(default_factory=dict)
    """Damaged ones, or of a newer format: they count as absent, so more of the log is read."""


class HiddenSnapshots:
    """Reads and writes the snapshots of shards in an object store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def read(self, manifest: Manifest) -> StoredSnapshots:
        """Return the snapshots of a shard.

        Raises:
            ObjectStoreError: when the store does not respond or refuses.
        """
        while True:
            found = StoredSnapshots()
            try:
                for info in await self._store.list_objects(f"{manifest.folder}/hidden-"):
                    if is_snapshot_name(info.key.rpartition("/")[2]):
                        await self._read_into(found, info.key, manifest)
            except ObjectNotFound:
                continue  # the writer of a newer one deleted it: that one is in the next listing
            return found

    async def _read_into(self, found: StoredSnapshots, key: str, manifest: Manifest) -> None:
        data, _ = await self._store.read(key)
        try:
            found.by_key[key] = HiddenSnapshot.of_data(data, key=key, manifest=manifest)
        except ShashinError as error:
            found.unreadable[key] = error

    async def write(self, manifest: Manifest, snapshot: HiddenSnapshot) -> str:
        """Write a snapshot into the folder of its shard; returns its key.

        Raises:
            ObjectStoreError: when the store does not respond or refuses.
        """
        data = snapshot.data
        key = f"{manifest.folder}/{snapshot_name(data)}"
        try:
            await self._store.write(key, data, only_if=OnlyIf.absent())
        except PreconditionFailed:
            # The name has the content's hash, so whatever else is there is damaged.
            stored, version = await self._store.read(key)
            if stored != data:
                log.warning("overwriting a damaged snapshot", key=key)
                await self._store.write(key, data, only_if=OnlyIf.unchanged(version))
        return key

    async def delete(self, keys: Iterable[str]) -> None:
        """Delete snapshots that a newer one replaces, which was made from them."""
        for key in keys:
            await self._store.delete(key)
