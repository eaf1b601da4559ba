"""The contents of a model repository, and consistency checks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from shashin.errors import RepositoryError, ShashinError
from shashin.objectstore.protocol import ObjectStore
from shashin.offsets.coverage import Position, missing_ranges
from shashin.offsets.ranges import OffsetRange, merge_ranges
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.shards.format.hidden_header import is_snapshot_name
from shashin.shards.format.manifest import MANIFEST_FILE, Manifest


@dataclass
class Contents:
    """The contents of a repository."""

    shards: list[StoredShard] = field(default_factory=list)
    unreadable: list[ShashinError] = field(default_factory=list)
    pointed: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """(model, tier) to the ids of the shards that its pointer names."""
    without_manifest: list[str] = field(default_factory=list)
    """Folders without a manifest: garbage, or an upload in progress."""
    unreferenced: list[str] = field(default_factory=list)
    """Objects in a shard's folder that its manifest does not name: uploads of a replica that was
    not the first to commit."""


async def read_contents(store: ObjectStore) -> tuple[ModelRepository, Contents]:
    """Read the contents of the repository in ``store``."""
    repository = ModelRepository(store)
    contents = Contents()
    # Pointers before shards: a running system commits a shard before a pointer names it, so
    # whatever these pointers name is in the listings below, or is really missing.
    for info in await store.list_objects("serving/"):
        parts = info.key.split("/")
        if len(parts) == 3 and parts[2].endswith(".json"):
            await _read_pointer(repository, parts[1], parts[2].removesuffix(".json"), contents)
    folders: dict[str, set[str]] = defaultdict(set)
    tiers = set(contents.pointed)
    for info in await store.list_objects("indexes/"):
        parts = info.key.split("/")
        if len(parts) == 6:
            tiers.add((parts[1], parts[2]))
            folders["/".join(parts[:5])].add(parts[5])
    for model_id, tier in sorted(tiers):
        shards, unreadable = await repository.shards(model_id, tier)
        contents.shards += shards
        contents.unreadable += [shard.error for shard in unreadable]
    contents.without_manifest = sorted(
        folder for folder, names in folders.items() if MANIFEST_FILE not in names
    )
    for manifest in (stored.manifest for stored in contents.shards):
        named = {manifest.key, *map(manifest.object_key, manifest.files)}
        held = {f"{manifest.folder}/{name}" for name in folders[manifest.folder]}
        contents.unreferenced += sorted(
            key for key in held - named if not is_snapshot_name(key.rpartition("/")[2])
        )
    return repository, contents


async def _read_pointer(
    repository: ModelRepository, model_id: str, tier: str, contents: Contents
) -> None:
    try:
        pointer, _ = await repository.read_pointer(model_id, tier)
    except RepositoryError as error:
        contents.unreadable.append(error)
    else:
        named = {shard.shard_id for shard in pointer.shards} if pointer else set()
        contents.pointed[model_id, tier] = named


def overlaps(contents: Contents) -> list[str]:
    """Return which shards of a tier contain the same offsets.

    That is a waste and no problem: replicas with clocks that differ cut the log in different places.
    Built shards and their parents are not among them.
    """
    alike: dict[tuple[str, str, int], list[Manifest]] = defaultdict(list)
    for manifest in (stored.manifest for stored in contents.shards):
        # A built shard contains the offsets of its parents, which stay until they are pruned.
        alike[manifest.model_id, manifest.tier, manifest.rewrites].append(manifest)
    return [
        f"{model_id} {tier}: {one} and {other} contain the same offsets"
        for (model_id, tier, _), manifests in alike.items()
        for one, other in overlapping(manifests)
    ]


def arrangement_problems(contents: Contents) -> list[str]:
    """Return gaps between shards, and pointers to missing shards."""
    problems = []
    by_model: dict[str, list[OffsetRange]] = defaultdict(list)
    for stored in contents.shards:
        by_model[stored.manifest.model_id] += stored.manifest.source_ranges
    for model_id, ranges in by_model.items():
        problems += [f"{model_id}: no shard contains offsets {gap}" for gap in gaps(ranges)]
    existing = {stored.manifest.shard_id for stored in contents.shards}
    for (model_id, tier), pointed in contents.pointed.items():
        problems += [
            f"the pointer of {model_id} {tier} names shard {shard_id}, which does not exist"
            for shard_id in sorted(pointed - existing)
        ]
    return problems


def overlapping(manifests: Iterable[Manifest]) -> list[tuple[str, str]]:
    """Return pairs of shards that contain the same offsets of a partition.

    Every shard that overlaps another is in some pair. Not all pairs are returned, since their
    number can be quadratic.
    """
    spans = sorted(
        (r, manifest.shard_id)
        for manifest in manifests
        for r in merge_ranges(manifest.source_ranges)
    )
    found: dict[tuple[str, str], None] = {}
    furthest: tuple[OffsetRange, str] | None = None
    for current in spans:
        if furthest is not None and furthest[0].partition == current[0].partition:
            if current[0].from_offset < furthest[0].to_offset:
                found[min(furthest[1], current[1]), max(furthest[1], current[1])] = None
            if current[0].to_offset <= furthest[0].to_offset:
                continue
        furthest = current
    return list(found)


def gaps(ranges: Sequence[OffsetRange]) -> list[OffsetRange]:
    """Return the offsets between the first and last of each partition that no range contains."""
    positions: dict[int, Position] = {}
    for r in ranges:
        known = positions.get(r.partition, Position(r.from_offset, r.to_offset))
        positions[r.partition] = Position(
            min(known.horizon_offset, r.from_offset), max(known.live_offset, r.to_offset)
        )
    return list(missing_ranges(ranges, positions))
