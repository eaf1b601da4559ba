"""The manifests of a tier's shards, and which shards cannot be put into an image now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping, Sequence

from shashin.errors import CorruptShard
from shashin.index_images.packing import PackedImage
from shashin.index_images.shard_layer import in_store, shard_layer
from shashin.objectstore.protocol import ObjectStore
from shashin.oci.layers import hash_layer
from shashin.repository.pointer import Pointer
from shashin.repository.repository import ModelRepository, StoredShard, UnreadableShard
from shashin.runtime.logging import get_logger
from shashin.shards.format.manifest import Manifest

CORRUPT_SECONDS = 60.0
"""How long a new shard is left out whose files are not those of its manifest."""

log = get_logger(__name__)


class ShardReader:
    """Remembers what the last look at a pointer's shards has found."""

    def __init__(
        self, repository: ModelRepository, store: ObjectStore, model_id: str, tier: str
    ) -> None:
        self._repository = repository
        self._store = store
        self._model_id = model_id
        self._tier = tier
        self._manifests: Mapping[str, Manifest] = {}
        self._corrupt: dict[str, tuple[str, float]] = {}
        """By shard: what is wrong with its files, and until when it is left out."""
        self.unusable: Mapping[str, str] = {}
        """By shard, why it cannot be put into an image."""

    async def read(self, pointer: Pointer, others: Collection[str]) -> None:
        """Read the manifests of a pointer's shards; one that has not changed is not read again.

        Those of the ``others``, which servings still have, are kept if they were read before.

        Raises:
            ObjectStoreError: when the store does not respond or refuses.
        """
        keys = [shard.manifest_key for shard in pointer.shards]
        shards = await asyncio.gather(*map(self._repository.shard_at, keys))
        now = time.monotonic()
        self._corrupt = {name: of for name, of in self._corrupt.items() if now < of[1]}
        manifests = {name: of for name, of in self._manifests.items() if name in others}
        unusable: dict[str, str] = {}
        for pointed, shard in zip(pointer.shards, shards, strict=True):
            name = pointed.shard_id
            manifests.pop(name, None)
            if shard is None:
                unusable[name] = f"{pointed.manifest_key} was deleted"
            elif isinstance(shard, UnreadableShard):
                unusable[name] = shard.error.message
            elif name in self._corrupt:
                unusable[name] = self._corrupt[name][0]
            else:
                manifests[name] = shard.manifest
        self._manifests, self.unusable = manifests, unusable

    def of(self, image: PackedImage) -> Sequence[Manifest] | None:
        """Return the manifests of an image's shards; None if it has one that cannot be used."""
        found = [self._manifests.get(shard.shard_id) for shard in image.shards]
        usable = [manifest for manifest in found if manifest is not None]
        return usable if len(usable) == len(found) else None

    async def find(self, names: Collection[str]) -> set[str]:
        """Look for the manifests of shards that no pointer names; returns those that have none.

        Only a process that has just started does not know them: then the tier's keys are listed.

        Raises:
            ObjectStoreError: when the store does not respond or refuses.
        """
        unknown = set(names) - self._manifests.keys()
        if not unknown:
            return unknown
        keys = await self._repository.manifest_keys(self._model_id, self._tier)
        found = dict(self._manifests)
        for key in keys:
            name = key.split("/")[-2]
            if name in unknown and isinstance(
                shard := await self._repository.shard_at(key), StoredShard
            ):
                found[name] = shard.manifest
        self._manifests = found
        return unknown - found.keys()

    async def check(self, manifests: Iterable[Manifest]) -> None:
        """Read shards, and leave those out for a while whose files are damaged or missing.

        Raises:
            ObjectStoreError: when the store does not respond or refuses.
        """
        for manifest in manifests:
            try:
                await hash_layer(shard_layer(in_store(manifest, self._store)))
            except CorruptShard as error:
                until = time.monotonic() + CORRUPT_SECONDS
                self._corrupt[manifest.shard_id] = error.message, until
                log.error("shard is in no image", shard=manifest.shard_id, error=error.message)  # noqa: TRY400
