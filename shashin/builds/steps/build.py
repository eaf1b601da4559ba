"""``build``: merges the selected shards into one."""

from __future__ import annotations

import asyncio

from shashin.builds.document import FETCH
from shashin.builds.step import StepContext
from shashin.builds.steps.files import read_hidden, read_manifests, write_position
from shashin.offsets.log_position import lowest
from shashin.shards.kinds.registry import DEFAULT_BUILT_KIND, index_kind
from shashin.shards.merging import MergedBucket, Parent, merge_shards


async def run(step: StepContext) -> None:
    """Write the merged shard into the folder ``shard``."""
    await asyncio.to_thread(_merge, step)


def _merge(step: StepContext) -> None:
    spec = step.build.spec
    fetched = step.output_of(FETCH)
    parents, positions = [], []
    for stored in read_manifests(fetched):
        folder = fetched / stored.manifest.shard_id
        hidden = read_hidden(folder)
        parents.append(Parent(stored.manifest, folder, hidden.rows))
        positions.append(hidden.position)
    start, end = spec.window.start.timestamp(), spec.window.end.timestamp()
    kind = spec.index.kind if spec.index else DEFAULT_BUILT_KIND
    folder = step.out / "shard"
    manifest = merge_shards(
        parents,
        index_kind(kind),
        folder,
        MergedBucket(spec.tier, int(start), int(end - start), step.build.name),
        on_progress=lambda done, total: step.progress(done, total, "rows"),
    )
    topic_id = next((p.topic_id for p in positions if p.topic_id), "")
    write_position(step.out, lowest(topic_id, positions))
    step.log.info(
        "built",
        shard=manifest.shard_id,
        rows=manifest.rows,
        dropped=manifest.dropped_rows,
        recall_at_10=manifest.recall_at_10,
    )
