"""Plans the builds that are due: reads what is served and new, and records new IndexBuilds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

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
            first = await repository.read_shard(known.manifest_keys[due.parents[0]])
            build = build_of(due, model_id, first.manifest.dimensions)
            planned.created.append(_record(build, uri, records, now))
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


def _record(build: IndexBuild, uri: str, records: BuildRecords, now: datetime) -> BuildRecord:
    record = records.record(build.name)
    status = BuildStatus.of_a_new_build(
        fingerprints(build, uri),
        repository=uri,
        command_folder=str(records.folder),
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
