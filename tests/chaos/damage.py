"""A manifest that becomes unreadable in mid-run, and is restored."""

from __future__ import annotations

import asyncio

from shashin.errors import ShashinError
from shashin.objectstore.open import opened_object_store
from shashin.objectstore.protocol import ObjectStore
from shashin.offsets.ranges import MergedRanges
from shashin.repository.repository import ModelRepository
from shashin.tiers import HOURLY

_DAMAGED_SECONDS = 15.0
_LOOK_SECONDS = 1.0


async def damage_a_manifest(repository: str, model_id: str) -> str:
    """Damage the manifest of a served shard for a while; returns what went wrong, if anything.

    Unreadable is not absent: the pointer must go on naming the shard, or others that contain it.
    """
    async with opened_object_store(repository) as store:
        return await _damage_a_manifest(store, model_id)


async def _damage_a_manifest(store: ObjectStore, model_id: str) -> str:
    served = ModelRepository(store)
    while True:
        pointer, _ = await served.read_pointer(model_id, HOURLY)
        if pointer is not None and pointer.shards:
            break
        await asyncio.sleep(_LOOK_SECONDS)
    shard = pointer.shards[0]
    manifest, _ = await store.read(shard.manifest_key)
    await store.write(shard.manifest_key, b"{ not a manifest")
    try:
        await asyncio.sleep(_DAMAGED_SECONDS)
        try:
            pointer, _ = await served.read_pointer(model_id, HOURLY)
        except ShashinError as error:
            return f"the pointer cannot be read: {error.message}"
        named = MergedRanges(r for s in (pointer.shards if pointer else ()) for r in s.ranges)
        if not named.contain_all(shard.ranges):
            return f"the pointer no longer names {shard.shard_id}, whose manifest was unreadable"
    finally:
        await store.write(shard.manifest_key, manifest)
    return ""
