"""Plans the builds that are due: reads what is served and new, and records new IndexBuilds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from shashin.builds.document import IndexBuild, Metadata, Source, Spec, Window
from shashin.builds.fingerprints import fingerprints
from shashin.builds.policy import DueBuild, Policy, TierShard, due_builds
from shashin.builds.records import BuildRecord, BuildRecords, RecordedBuild
from shashin.builds.status import BuildStatus
from shashin.errors import RepositoryError
from shashin.repository.known_shards import KnownShards, read_known_shards
from shashin.repository.pointer import PointedShard
from shashin.repository.repository import ModelRepository


@dataclass
class PlannedBuilds:
    """What a planning round found."""

    created: list[BuildRecord] = field(default_factory=list)
    """New builds, to be run."""
    pending: list[BuildRecord] = field(default_factory=list)
    """Due builds that were recorded earlier, and have not been run yet."""
    unfinished: list[RecordedBuild] = field(default_factory=list)
    """Due builds that have failed or were cancelled: a person decides whether to retry them."""


async def plan_builds(
    repository: ModelRepository,
    uri: str,
    records: BuildRecords,
    model_id: str,
    now: datetime,
    policy: Policy,
) -> PlannedBuilds:
    """Record the builds of a model that are due; two planners at once record each of them once.

    Raises:
        RepositoryError: when a pointer or a shard cannot be read: then nothing is planned, since what
            it names would be merged in part.
        ObjectStoreError: when the store does not respond or refuses.
        DiskUnavailable: when a record cannot be written.
    """
    known = await read_known_shards(repository, model_id)
    if known.unreadable_pointers:
        raise RepositoryError(
            f"the pointers of {model_id} for {', '.join(known.unreadable_pointers)} cannot be read: "
            "no build is planned; the image builder's /healthz says why"
        )
    recorded = {one.build.name: one for one in records.read_all()[0]}
    planned = PlannedBuilds()
    for due in due_builds(
        model_id, shards_of(known), now, policy, busy=_parents_under_way(recorded.values())
    ):
        before = recorded.get(due.name)
        if before is None:
            planned.created.append(await _record(repository, uri, records, model_id, due, now))
        elif before.status.phase == "Pending":
            planned.pending.append(records.record(due.name))
        elif before.status.phase in {"Failed", "Cancelled"}:
            planned.unfinished.append(before)
    return planned


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


def _parents_under_way(recorded: Iterable[RecordedBuild]) -> set[str]:
    return {
        parent
        for one in recorded
        if one.status.phase == "Running"
        for parent in one.build.spec.source.shards or ()
    }


async def _record(
    repository: ModelRepository,
    uri: str,
    records: BuildRecords,
    model_id: str,
    due: DueBuild,
    now: datetime,
) -> BuildRecord:
    build = build_of(due, model_id, await _dimensions(repository, model_id, due.parents))
    record = records.record(build.name)
    status = BuildStatus.of_a_new_build(
        fingerprints(build, uri),
        repository=uri,
        command_folder=str(Path(records.folder)),
        now=now,
    )
    record.create(build, status)
    return record


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


async def _dimensions(repository: ModelRepository, model_id: str, parents: Sequence[str]) -> int:
    known = await read_known_shards(repository, model_id)
    keys = {s.shard_id: s.manifest_key for p in known.pointers.values() for s in p.shards}
    keys |= {s.manifest.shard_id: s.manifest_key for s in known.stored}
    return (await repository.read_shard(keys[parents[0]])).manifest.dimensions
