"""Which shards of another model a re-index reads, and which offsets it brings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from shashin.builds.document import Window
from shashin.errors import StepFailed
from shashin.objectstore.protocol import ObjectStore
from shashin.offsets.ranges import OffsetRange, merge_ranges
from shashin.repository.horizons import Horizons
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.tiers import SEALED_TIERS


@dataclass(frozen=True)
class Selection:
    """The shards of one window."""

    shards: list[StoredShard]
    sources: tuple[OffsetRange, ...]
    """The offsets that the new shard counts as having, sorted."""


async def select_served(
    store: ObjectStore, *, from_model: str, model: str, window: Window
) -> Selection:
    """Return the shards of ``from_model`` that are served, of all tiers, with buckets in a window.

    Those that have only offsets which the indexer of ``model`` reads itself are left out.

    Raises:
        StepFailed: when there are none, or one cannot be read.
        RepositoryError: when a pointer, or a horizon of ``model``, cannot be read.
        ObjectStoreError: when the store does not respond or refuses.
    """
    served = await _served(ModelRepository(store), from_model, window)
    horizons = await Horizons(store, model).all()
    live_from = {h.partition: h.live_from for h in horizons if h.live_from is not None}
    chosen, sources = [], []
    for stored in served:
        below = below_live(stored.manifest.source_ranges, live_from)
        if below:
            chosen.append(stored)
            sources += below
    if served and not chosen:
        raise StepFailed(
            f"the indexer of {model} reads all of these offsets itself: nothing is to be indexed again"
        )
    if not served:
        raise StepFailed(
            f"{from_model} serves no shard with a bucket that starts from {window.start} up to "
            f"{window.end}: expected a window of its listings, see `shashin indexes ls`"
        )
    return Selection(chosen, tuple(merge_ranges(sources)))


def below_live(ranges: Sequence[OffsetRange], live_from: Mapping[int, int]) -> list[OffsetRange]:
    """Return the offsets of ranges that a model's indexer does not read itself. Pure.

    A shard that counted as having later ones would take the place of shards that its indexer seals,
    which may have other listings there: two embedders write the same listings in another order.
    """
    clipped = [
        replace(r, to_offset=min(r.to_offset, live_from.get(r.partition, r.to_offset)))
        for r in ranges
    ]
    return [r for r in clipped if r.from_offset < r.to_offset]


async def _served(repository: ModelRepository, model_id: str, window: Window) -> list[StoredShard]:
    start, end = window.start.timestamp(), window.end.timestamp()
    found: list[StoredShard] = []
    unreadable = []
    for tier in SEALED_TIERS:
        pointer, _ = await repository.read_pointer(model_id, tier)
        for pointed in pointer.shards if pointer else ():
            # Pointers of the first format do not say when a shard's bucket starts.
            if pointed.ranges and not start <= pointed.bucket_start < end:
                continue
            shard = await repository.shard_at(pointed.manifest_key)
            if not isinstance(shard, StoredShard):
                reason = shard.error.message if shard else "its manifest is missing"
                unreadable.append(f"{pointed.shard_id} ({reason})")
            elif start <= shard.manifest.bucket_start < end:
                found.append(shard)
    if unreadable:
        raise StepFailed(
            f"{len(unreadable)} served shards of {model_id} cannot be read: "
            f"{'; '.join(unreadable)}: restore them, or take them out of service"
        )
    return found
