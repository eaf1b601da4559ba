"""Pruning: deletes shards that nothing serves, needs or may need again.

A shard is deleted only if all of this holds:

- no pointer names it, it is not announced, no index server holds it, and no unfinished build reads it;
- shards that pointers name have all of its offsets, or they lie before the horizon;
- it was committed longer ago than shards are kept, and so was every shard that was built from it, so
  that these can be rolled back for that long.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from shashin.errors import RepositoryError
from shashin.objectstore.protocol import ObjectInfo, ObjectStore
from shashin.offsets.ranges import MergedRanges, OffsetRange
from shashin.repository.horizons import Horizons
from shashin.repository.pointer import Pointer, history_prefix
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.shards.format.hidden_header import is_snapshot_name
from shashin.shards.format.manifest import MANIFEST_FILE, Manifest
from shashin.tiers import SEALED_TIERS

_SHARD_PARTS = 6
"""Of the key of an object in a shard's folder: ``indexes/<model>/<tier>/<bucket>/<shard>/<name>``."""


@dataclass(frozen=True)
class ReadBuckets:
    """The shards of a model with buckets that start in a window, of which a build reads some."""

    model_id: str
    start: float
    """Unix seconds."""
    end: float
    """Unix seconds, not included."""

    def have(self, manifest: Manifest) -> bool:
        """Return whether a shard is one of them."""
        return manifest.model_id == self.model_id and (
            self.start <= manifest.bucket_start < self.end
        )


@dataclass(frozen=True)
class InUse:
    """Shards that may not be deleted."""

    held: Collection[str] = ()
    """The ids of those that index servers hold."""
    needed: Collection[str] = ()
    """The ids of those that builds name that are not finished."""
    needed_buckets: Sequence[ReadBuckets] = ()
    """What such builds read without naming it: whatever was served when they selected it."""

    def is_needed(self, manifest: Manifest) -> bool:
        """Return whether a build that is not finished may read a shard."""
        return manifest.shard_id in self.needed or any(
            buckets.have(manifest) for buckets in self.needed_buckets
        )


@dataclass
class Pruning:
    """What may be deleted, and why other shards that are not served stay."""

    objects: list[ObjectInfo] = field(default_factory=list)
    """In the order in which to delete them: a manifest before the files that it vouches for."""
    shards: list[str] = field(default_factory=list)
    """Ids of the shards that are deleted as a whole."""
    kept: dict[str, str] = field(default_factory=dict)
    """Shard id to the reason, of each shard that is not served and not deleted."""

    @property
    def size(self) -> int:
        """Bytes that are freed."""
        return sum(info.size for info in self.objects)


async def plan_pruning(
    store: ObjectStore,
    model_id: str,
    in_use: InUse,
    *,
    committed_before: float,
) -> Pruning:
    """Return what of a model may be deleted; ``committed_before`` is in Unix seconds.

    Raises:
        RepositoryError: when a pointer or horizon cannot be read: whatever it names may be needed.
        ObjectStoreError: when the store does not respond or refuses.
    """
    repository = ModelRepository(store)
    # Objects first: what is committed or announced since is not among them.
    folders: defaultdict[str, list[ObjectInfo]] = defaultdict(list)
    for info in await store.list_objects(f"indexes/{model_id}/"):
        if info.key.count("/") == _SHARD_PARTS - 1:
            folders[info.key.rpartition("/")[0]].append(info)
    announced = {
        found.announcement.manifest_key.rpartition("/")[0]
        for found in await repository.announced(model_id)
        if found.announcement is not None
    }
    pointers: list[Pointer] = []
    for tier in SEALED_TIERS:
        pointer, _ = await repository.read_pointer(model_id, tier)
        if pointer is not None and not pointer.has_ranges:
            raise RepositoryError(
                f"the pointer of {model_id} {tier} does not say which offsets it serves: wait until "
                "the image builder has written it again"
            )
        pointers += [pointer] if pointer is not None else []
    horizons = {h.partition: h.offset for h in await Horizons(store, model_id).all()}
    pruning = Pruning()
    manifests = {
        folder: await _manifest(repository, folder, infos, pruning)
        for folder, infos in sorted(folders.items())
    }
    rules = _Rules(
        pointers,
        horizons,
        in_use,
        committed_before,
        young=[m for m in manifests.values() if m is not None and m.created_at >= committed_before],
    )
    for folder, manifest in manifests.items():
        if folder in announced:
            continue
        if manifest is not None:
            _prune_shard(manifest, folders[folder], rules, pruning)
        elif _is_garbage(folder, folders[folder]):
            pruning.objects += folders[folder]
    for tier in SEALED_TIERS:
        pruning.objects += await _old_history(store, model_id, tier, committed_before)
    return pruning


async def _old_history(
    store: ObjectStore, model_id: str, tier: str, before: float
) -> list[ObjectInfo]:
    """Return copies of pointers that were replaced before a time; the newest one stays."""
    prefix = history_prefix(model_id, tier)
    return [
        copy
        for copy, later in pairwise(await store.list_objects(prefix))
        if int(later.key.removeprefix(prefix).removesuffix(".json")) < before * 1000
    ]


async def prune(
    store: ObjectStore, pruning: Pruning, *, on_progress: Callable[[int], None] = lambda _done: None
) -> None:
    """Delete what was planned, and tell how many objects are deleted; plan again after a failure.

    Raises:
        ObjectStoreError: when the store does not respond or refuses.
    """
    for done, info in enumerate(pruning.objects, start=1):
        await store.delete(info.key)
        on_progress(done)


@dataclass(frozen=True)
class _Rules:
    pointers: Sequence[Pointer]
    horizons: dict[int, int]
    in_use: InUse
    committed_before: float
    young: Sequence[Manifest]
    """Shards that were committed since."""

    @cached_property
    def parents_of_young(self) -> set[str]:
        """The ids of shards that a rollback would serve again."""
        return {parent for manifest in self.young for parent in manifest.parents}

    @cached_property
    def served(self) -> MergedRanges:
        """The offsets of the shards that pointers name."""
        return MergedRanges(r for p in self.pointers for s in p.shards for r in s.ranges)

    @cached_property
    def named(self) -> set[str]:
        """The keys of their manifests."""
        return {shard.manifest_key for p in self.pointers for shard in p.shards}

    def reason_to_keep(self, manifest: Manifest) -> str:
        """Return why a shard that is not served stays; empty if it is deleted."""
        if manifest.shard_id in self.in_use.held:
            return "an index server holds it"
        if self.in_use.is_needed(manifest):
            return "a build that is not finished reads it"
        if manifest.created_at >= self.committed_before:
            return "it is too young"
        if manifest.shard_id in self.parents_of_young:
            return "a shard that was built from it is too young: it may be rolled back"
        if not all(self.served.contain(r) or self._is_before(r) for r in manifest.source_ranges):
            return "no served shard has all of its offsets"
        return ""

    def _is_before(self, r: OffsetRange) -> bool:
        return r.to_offset <= self.horizons.get(r.partition, 0)


async def _manifest(
    repository: ModelRepository, folder: str, infos: Sequence[ObjectInfo], pruning: Pruning
) -> Manifest | None:
    key = f"{folder}/{MANIFEST_FILE}"
    if not any(info.key == key for info in infos):
        return None
    shard = await repository.shard_at(key)
    if isinstance(shard, StoredShard):
        return shard.manifest
    if shard is not None:
        pruning.kept[shard.shard_id] = f"its manifest cannot be read: {shard.error.message}"
    return None


def _is_garbage(folder: str, infos: Sequence[ObjectInfo]) -> bool:
    """Whether nobody will commit what is in a folder that is not announced.

    A shard is announced before anything but a snapshot of its hidden rows is uploaded.
    """
    names = [info.key.removeprefix(f"{folder}/") for info in infos]
    return MANIFEST_FILE not in names and not all(map(is_snapshot_name, names))


def _prune_shard(
    manifest: Manifest, infos: Sequence[ObjectInfo], rules: _Rules, pruning: Pruning
) -> None:
    if manifest.key in rules.named:
        if manifest.created_at < rules.committed_before:
            pruning.objects += _unreferenced(manifest, infos)
    elif reason := rules.reason_to_keep(manifest):
        pruning.kept[manifest.shard_id] = reason
    else:
        pruning.shards.append(manifest.shard_id)
        pruning.objects += sorted(infos, key=lambda info: info.key != manifest.key)


def _unreferenced(manifest: Manifest, infos: Sequence[ObjectInfo]) -> Iterator[ObjectInfo]:
    """Yield what replicas uploaded that were not the first to commit."""
    named = {manifest.key, *map(manifest.object_key, manifest.files)}
    for info in infos:
        if info.key not in named and not is_snapshot_name(info.key.rpartition("/")[2]):
            yield info
