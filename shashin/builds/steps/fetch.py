"""``fetch``: brings the files of the selected shards here, with what is hidden in them, and the model's
quantizer.

A re-index needs only their rows, and the photos of these.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from shashin.builds.document import SELECT
from shashin.builds.step import StepContext, opened_repository
from shashin.builds.steps.files import (
    QUANTIZER,
    HiddenRows,
    link_or_copy,
    read_manifests,
    write_hidden,
)
from shashin.objectstore.protocol import ObjectStore
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.repository.quantizers import Quantizers
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.shards.format.file_entry import FileEntry
from shashin.shards.format.hidden_snapshot import HiddenSnapshot, combined
from shashin.shards.format.manifest import MANIFEST_FILE, ROWS_FILE


async def run(step: StepContext) -> None:
    """Write each shard's files, manifest and hidden rows into a folder of its own."""
    async with opened_repository(step) as store:
        await _fetch(step, store)
        quantizers = Quantizers(store, step.build.spec.space.model_id)
        if (newest := await quantizers.newest()) is not None:
            await quantizers.fetch(newest, step.out / QUANTIZER)
    if step.build.spec.source.reindex is not None:
        # Imported here: the libraries of photo sources are of no use to a merge.
        from shashin.builds.reindex.photos import fetch_photos

        await fetch_photos(step)


async def _fetch(step: StepContext, store: ObjectStore) -> None:
    repository = ModelRepository(store)
    selected = read_manifests(step.output_of(SELECT))
    snapshots = {
        stored.manifest.shard_id: list(
            (await HiddenSnapshots(store).read(stored.manifest)).by_key.values()
        )
        for stored in selected
    }
    topic_id = _newest_topic([one for of_shard in snapshots.values() for one in of_shard])
    whole = step.build.spec.source.reindex is None

    def files_of(stored: StoredShard) -> list[FileEntry]:
        return [entry for entry in stored.manifest.files if whole or entry.name == ROWS_FILE]

    total = sum(entry.size for stored in selected for entry in files_of(stored))
    done = 0
    step.progress(done, total, "bytes")
    for stored in selected:
        # Kept by a retry, and verified there.
        files = files_of(stored)
        cached = await repository.fetch(
            stored, step.work / "parents", names=[entry.name for entry in files]
        )
        folder = step.out / stored.manifest.shard_id
        await asyncio.to_thread(_link_files, stored, files, cached, folder)
        state = combined(stored.manifest, snapshots[stored.manifest.shard_id], topic_id)
        write_hidden(folder, HiddenRows(state.rows, state.position))
        done += sum(entry.size for entry in files)
        step.progress(done, total, "bytes")


def _newest_topic(snapshots: list[HiddenSnapshot]) -> str:
    """Return the id of the topic that the newest snapshot was made from; empty without any."""
    newest = max(snapshots, key=lambda snapshot: snapshot.created_at, default=None)
    return newest.position.topic_id if newest else ""


def _link_files(
    stored: StoredShard, files: Sequence[FileEntry], cached: Path, folder: Path
) -> None:
    folder.mkdir(parents=True)
    for entry in files:
        link_or_copy(cached / entry.name, folder / entry.name)
    (folder / MANIFEST_FILE).write_bytes(stored.manifest.to_json())
    (folder / "key").write_text(stored.manifest_key, encoding="utf-8")
