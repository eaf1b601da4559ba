"""Plans the builds that are due: reads what is served and new, and records new IndexBuilds."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from shashin.builds.document import BUILT_TIERS, IndexBuild, Metadata, Source, Spec, Window
from shashin.builds.policy import DueBuild, Policy, TierShard, due_builds
from shashin.builds.recorded import RecordedBuilds
from shashin.builds.records import RecordedBuild
from shashin.errors import ObjectNotFound, RepositoryError
from shashin.repository.known_shards import KnownShards, read_known_shards
from shashin.repository.pointer import PointedShard
from shashin.repository.repository import ModelRepository, StoredShard, UnreadableShard


@dataclass
class PlannedBuilds:
    """What a planning round found."""

    created: list[str] = field(default_factory=list)
    """Names of new builds, to be run."""
    pending: list[str] = field(default_factory=list)
    """Names of due builds that were recorded earlier, or by another planner at the same time, and have
    not been run yet."""
    unfinished: list[RecordedBuild] = field(default_factory=list)
    """Due builds that have failed or were cancelled: a person decides whether to retry them."""
    unreadable: list[UnreadableShard] = field(default_factory=list)
    """Shards whose manifest cannot be read. New ones are left out of builds."""
    left_out: list[str] = field(default_factory=list)
    """Names of due builds that would merge served shards of which one cannot be read."""


async def plan_builds(
    repository: ModelRepository,
    uri: str,
    builds: RecordedBuilds,
    model_id: str,
    now: datetime,
    policy: Policy,
    *,
    tiers: Collection[str] = BUILT_TIERS,
) -> PlannedBuilds:
    """Record the builds of a model that are due; two planners at once record each of them once.

    Only builds that make shards of ``tiers`` are recorded.

    Raises:
        RepositoryError: when a pointer cannot be read: then nothing is planned, since what it names
            would be merged in part.
        ObjectStoreError: when the store does not respond or refuses.
        DiskUnavailable, KubernetesError: when builds cannot be read or recorded.
    """
    known = await read_known_shards(repository, model_id)
    if known.unreadable_pointers:
        raise RepositoryError(
            f"the pointers of {model_id} for {', '.join(known.unreadable_pointers)} cannot be read: "
            "no build is planned; the image builder's /healthz says why"
        )
    recorded = {one.build.name: one for one in (await builds.read_all())[0]}
    planned = PlannedBuilds(unreadable=[*known.unreadable])
    busy = _parents_of(one for one in recorded.values() if one.status.phase in builds.under_way)
    for due in due_builds(model_id, shards_of(known), now, policy, busy=busy):
        if due.tier not in tiers:
            continue
        before = recorded.get(due.name)
        if before is None:
            keys = [known.manifest_keys[parent] for parent in due.parents]
            parents = [await _shard_at(repository, key) for key in keys]
            unreadable = [one for one in parents if isinstance(one, UnreadableShard)]
            if unreadable:
                planned.unreadable += unreadable
                planned.left_out.append(due.name)
                continue
            sound = [one for one in parents if isinstance(one, StoredShard)]
            build = build_of(due, model_id, sound[0].manifest.dimensions)
            is_new = await builds.create(build, uri, now)
            (planned.created if is_new else planned.pending).append(due.name)
        elif before.status.phase == "Pending":
            planned.pending.append(due.name)
        elif before.status.phase in {"Failed", "Cancelled"}:
            planned.unfinished.append(before)
    return planned


async def _shard_at(repository: ModelRepository, key: str) -> StoredShard | UnreadableShard:
    gone = ObjectNotFound(f"no object {key}: restore it, or take it out of service")
    return await repository.shard_at(key) or UnreadableShard(key, gone, ())


def shards_of(known: KnownShards) -> list[TierShard]:
    """Return what is served and new, by tier."""
    found = {
        shard.manifest_key: TierShard(tier, shard)
        for tier, pointer in known.pointers.items()
        for shard in pointer.shards
        if shard.ranges
    }
    for stored in known.stored:
        entry = TierShard(stored.manifest.tier, PointedShard.of(stored.manifest))
        found.setdefault(stored.manifest_key, entry)
    return list(found.values())


def _parents_of(recorded: Iterable[RecordedBuild]) -> set[str]:
    return {parent for one in recorded for parent in one.build.spec.source.shards or ()}


def build_of(due: DueBuild, model_id: str, dimensions: int) -> IndexBuild:
    """Return the document of a due build."""
    return IndexBuild(
        metadata=Metadata(name=due.name),
        spec=Spec(
            model=model_id,
            dimensions=dimensions,
            tier=due.tier,
            window=Window(start=due.start, end=due.end),
            source=Source(shards=due.parents),
        ),
    )
