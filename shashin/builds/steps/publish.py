"""``publish``: commits the built shard to the model repository, if it is good enough."""

from __future__ import annotations

import time

import numpy as np

from shashin.builds.document import BUILD
from shashin.builds.step import StepContext, opened_repository
from shashin.builds.steps.files import only_manifest, read_position
from shashin.errors import StepFailed
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.repository.quantizers import Quantizers
from shashin.repository.repository import ModelRepository
from shashin.runtime.json_file import write_json
from shashin.shards.format.hidden_snapshot import HiddenSnapshot


async def run(step: StepContext) -> None:
    """Commit the shard; the image builder then lets its tier serve it.

    Raises:
        StepFailed: when its recall is too low.
    """
    built = step.output_of(BUILD)
    manifest = only_manifest(built / "shard")
    minimum, recall = step.build.spec.minimum_recall, manifest.recall_at_10
    if recall is not None and recall < minimum:
        raise StepFailed(
            f"shard {manifest.shard_id} has a recall@10 of {recall:.3f}, measured against exact "
            f"search; spec.minimumRecall is {minimum}: use another index kind, or lower it"
        )
    # Before the manifest, so that the shard has one from the start: no hidden row was merged.
    snapshot = HiddenSnapshot(
        manifest.shard_id,
        manifest.rows_sha256,
        np.empty(0, dtype=np.uint32),
        read_position(built),
        time.time(),
    )
    async with opened_repository(step) as store:
        await HiddenSnapshots(store).write(manifest, snapshot)
        commit = await ModelRepository(store).commit_shard(manifest, built / "shard")
        for entry in manifest.files:
            if entry.name in manifest.model_files:
                lists = manifest.index_parameters["lists"]
                await Quantizers(store, manifest.model_id).offer(entry, lists)
    write_json(
        step.out / "published.json",
        {"shard_id": manifest.shard_id, "manifest_key": manifest.key, "first": commit.first},
    )
    step.published.append(manifest.shard_id)
    step.log.info("published", shard=manifest.shard_id, first=commit.first)
