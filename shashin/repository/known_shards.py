"""What is sealed of a model, read from pointers and announcements: not by listing its history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shashin.errors import RepositoryError
from shashin.objectstore.protocol import ObjectStore
from shashin.offsets.ranges import OffsetRange
from shashin.repository.pointer import Pointer
from shashin.repository.repository import ModelRepository, StoredShard, UnreadableShard
from shashin.runtime.logging import get_logger
from shashin.tiers import SEALED_TIERS

log = get_logger(__name__)


@dataclass(frozen=True)
class KnownShards:
    """The shards that are served, or new, of all tiers of a model."""

    pointers: Mapping[str, Pointer]
    """By tier, those that exist and can be read."""
    stored: tuple[StoredShard, ...]
    """Announced shards, and all of a tier whose pointer does not say what it names."""
    unreadable: tuple[UnreadableShard, ...]
    """Of these, the ones whose manifest cannot be read."""
    unreadable_pointers: tuple[str, ...]
    """Tiers whose pointer cannot be read: any of their shards may be served."""

    @property
    def ranges(self) -> list[OffsetRange]:
        """The offsets that are sealed, in any order."""
        return [
            *(r for pointer in self.pointers.values() for s in pointer.shards for r in s.ranges),
            *(r for stored in self.stored for r in stored.manifest.source_ranges),
            *(r for shard in self.unreadable for r in shard.ranges),
        ]

    @property
    def manifest_keys(self) -> dict[str, str]:
        """The key of each shard's manifest, by shard id, those that cannot be read included."""
        return {
            **{shard.shard_id: shard.manifest_key for shard in self.unreadable},
            **{s.shard_id: s.manifest_key for p in self.pointers.values() for s in p.shards},
            **{stored.manifest.shard_id: stored.manifest_key for stored in self.stored},
        }

    @property
    def new(self) -> list[StoredShard]:
        """The shards that no pointer names; none of a tier whose pointer cannot be read."""
        named = {shard.manifest_key for p in self.pointers.values() for shard in p.shards}
        return [
            stored
            for stored in self.stored
            if stored.manifest_key not in named
            and stored.manifest.tier not in self.unreadable_pointers
        ]


async def read_known_shards(repository: ModelRepository, model_id: str) -> KnownShards:
    """Read the pointers and announcements of a model.

    A tier whose pointer is missing, unreadable or of a format without ranges is listed instead.

    Raises:
        ObjectStoreError: when the store does not respond or refuses.
    """
    # Announcements first: a shard is settled only after a pointer has named it.
    announced = [found.shard for found in await repository.announced(model_id)]
    stored = {s.manifest_key: s for s in announced if isinstance(s, StoredShard)}
    unreadable = {s.manifest_key: s for s in announced if isinstance(s, UnreadableShard)}
    pointers: dict[str, Pointer] = {}
    unreadable_pointers = []
    for tier in SEALED_TIERS:
        pointer = None
        try:
            pointer, _ = await repository.read_pointer(model_id, tier)
        except RepositoryError as error:
            log.error("unreadable pointer", tier=tier, error=error.message)  # noqa: TRY400
            unreadable_pointers.append(tier)
        if pointer is not None:
            pointers[tier] = pointer
        if pointer is None or not pointer.has_ranges:
            listed, bad = await repository.shards(model_id, tier)
            stored |= {s.manifest_key: s for s in listed}
            unreadable |= {s.manifest_key: s for s in bad}
    return KnownShards(
        pointers,
        tuple(s for _, s in sorted(stored.items())),
        tuple(s for _, s in sorted(unreadable.items())),
        tuple(unreadable_pointers),
    )


async def known_models(store: ObjectStore) -> list[str]:
    """Return the models that have a pointer, a horizon or an announced shard.

    Raises:
        ObjectStoreError: when the store does not respond or refuses.
    """
    listed = [*await store.list_objects("serving/"), *await store.list_objects("announced/")]
    return sorted({info.key.split("/")[1] for info in listed if info.key.count("/") > 1})


async def served_shards(repository: ModelRepository, model_id: str) -> list[StoredShard]:
    """Return the shards that the pointers of a model name, those whose manifest can be read.

    Raises:
        RepositoryError: when a pointer cannot be read.
        ObjectStoreError: when the store does not respond or refuses.
    """
    found = []
    for tier in SEALED_TIERS:
        pointer, _ = await repository.read_pointer(model_id, tier)
        for pointed in pointer.shards if pointer else ():
            shard = await repository.shard_at(pointed.manifest_key)
            if isinstance(shard, StoredShard):
                found.append(shard)
    return found
