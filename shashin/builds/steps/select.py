"""``select``: finds the shards that the build reads, and writes down their manifests."""

from __future__ import annotations

from collections.abc import Sequence

from shashin.builds.document import Spec
from shashin.builds.reindex.selection import select_served
from shashin.builds.step import StepContext, opened_repository
from shashin.builds.steps.files import write_manifests, write_sources
from shashin.errors import StepFailed
from shashin.repository.known_shards import read_known_shards
from shashin.repository.repository import ModelRepository, StoredShard


async def run(step: StepContext) -> None:
    """Write the manifests of the shards that are merged, or indexed again."""
    spec = step.build.spec
    async with opened_repository(step) as store:
        if spec.source.reindex is not None:
            selection = await select_served(
                store,
                from_model=spec.source.reindex.from_model,
                model=spec.model,
                window=spec.window,
            )
            found = selection.shards
            write_sources(step.out, selection.sources)
        else:
            found = await _find(ModelRepository(store), spec.model, spec.source.shards or ())
            _check_merged(found, spec)
    write_manifests(step.out, found)
    rows = sum(stored.manifest.rows for stored in found)
    step.log.info("selected", shards=len(found), rows=rows)
    step.progress(len(found), len(found), "shards")


def _check_merged(found: Sequence[StoredShard], spec: Spec) -> None:
    start, end = spec.window.start.timestamp(), spec.window.end.timestamp()
    for stored in found:
        manifest = stored.manifest
        if manifest.dimensions != spec.dimensions:
            raise StepFailed(
                f"shard {manifest.shard_id} has {manifest.dimensions} dimensions; spec.dimensions is "
                f"{spec.dimensions}"
            )
        if not start <= manifest.bucket_start < end:
            raise StepFailed(
                f"the bucket of shard {manifest.shard_id} starts at {manifest.bucket_start}, outside "
                f"of spec.window ({start:.0f} to {end:.0f})"
            )


async def _find(
    repository: ModelRepository, model_id: str, wanted: Sequence[str]
) -> list[StoredShard]:
    keys = (await read_known_shards(repository, model_id)).manifest_keys
    if any(shard_id not in keys for shard_id in wanted):
        # Neither served nor new: the parents of an earlier build, for example.
        keys = {**await repository.manifest_keys_by_id(model_id), **keys}
    if missing := [shard_id for shard_id in wanted if shard_id not in keys]:
        raise StepFailed(
            f"the repository has no shard {', '.join(missing)}: it was pruned, or never committed"
        )
    return [await repository.read_shard(keys[shard_id]) for shard_id in wanted]
