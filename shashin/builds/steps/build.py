"""``build``: makes one shard of those that were selected, with their vectors or with new ones."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from shashin.builds.document import EMBED, FETCH, SELECT
from shashin.builds.step import StepContext
from shashin.builds.steps.files import (
    QUANTIZER,
    HiddenRows,
    open_vectors,
    read_hidden,
    read_manifests,
    read_sources,
    write_position,
)
from shashin.offsets.log_position import lowest
from shashin.repository.repository import StoredShard
from shashin.shards.format.manifest import Manifest
from shashin.shards.kinds.protocol import IndexKind
from shashin.shards.kinds.registry import (
    DEFAULT_BUILT_KIND,
    index_kind,
    training,
    with_quantizer,
)
from shashin.shards.merging import (
    EmbeddedParent,
    MergedBucket,
    Parent,
    merge_shards,
    reindex_shards,
)


async def run(step: StepContext) -> None:
    """Write the shard into the folder ``shard``."""
    await asyncio.to_thread(_build, step)


def _build(step: StepContext) -> None:
    fetched = step.output_of(FETCH)
    selected = read_manifests(fetched)
    hidden = {s.manifest.shard_id: read_hidden(fetched / s.manifest.shard_id) for s in selected}
    if step.build.spec.source.reindex is None:
        manifest = _merged(step, selected, hidden)
    else:
        manifest = _reindexed(step, selected)
    positions = [of_shard.position for of_shard in hidden.values()]
    topic_id = next((p.topic_id for p in positions if p.topic_id), "")
    write_position(step.out, lowest(topic_id, positions))
    step.log.info(
        "built",
        shard=manifest.shard_id,
        rows=manifest.rows,
        dropped=manifest.dropped_rows,
        recall_at_10=manifest.recall_at_10,
    )


def _merged(
    step: StepContext, selected: Sequence[StoredShard], hidden: Mapping[str, HiddenRows]
) -> Manifest:
    fetched = step.output_of(FETCH)
    ids = [stored.manifest.shard_id for stored in selected]
    return merge_shards(
        [
            Parent(stored.manifest, fetched / shard_id, hidden[shard_id].rows)
            for shard_id, stored in zip(ids, selected, strict=True)
        ],
        _kind(step),
        step.out / "shard",
        _bucket(step),
        on_progress=lambda done, total: step.progress(done, total, "rows"),
    )


def _reindexed(step: StepContext, selected: Sequence[StoredShard]) -> Manifest:
    fetched, embedded = step.output_of(FETCH), step.output_of(EMBED)
    parents = []
    for stored in selected:
        shard_id = stored.manifest.shard_id
        numbers, vectors = open_vectors(embedded / shard_id)
        parents.append(EmbeddedParent(stored.manifest, fetched / shard_id, numbers, vectors))
    return reindex_shards(
        parents,
        step.build.spec.space,
        read_sources(step.output_of(SELECT)),
        _kind(step),
        step.out / "shard",
        _bucket(step),
        on_progress=lambda done, total: step.progress(done, total, "rows"),
    )


def _kind(step: StepContext) -> IndexKind:
    index = step.build.spec.index
    kind = index_kind(index.kind if index else DEFAULT_BUILT_KIND)
    fetched = step.output_of(FETCH) / QUANTIZER
    path = next(fetched.iterdir(), None) if fetched.exists() else None
    return training(with_quantizer(kind, path, step.build.spec.space.dimensions))


def _bucket(step: StepContext) -> MergedBucket:
    spec = step.build.spec
    start, end = spec.window.start.timestamp(), spec.window.end.timestamp()
    return MergedBucket(spec.tier, int(start), int(end - start), step.build.name)
