"""``fetch``: brings the files of the selected shards here, with what is hidden in them."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from shashin.builds.document import SELECT
from shashin.builds.step import StepContext
from shashin.builds.steps.files import HiddenRows, read_manifests, write_hidden
from shashin.objectstore.open import opened_object_store
from shashin.objectstore.protocol import ObjectStore
from shashin.repository.hidden_snapshots import HiddenSnapshots
from shashin.repository.repository import ModelRepository, StoredShard
from shashin.shards.format.hidden_snapshot import HiddenSnapshot, combined
from shashin.shards.format.manifest import MANIFEST_FILE


async def run(step: StepContext) -> None:
    """Write each shard's files, manifest and hidden rows into a folder of its own."""
    async with opened_object_store(step.repository) as store:
        await _fetch(step, store)


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
    total = sum(entry.size for stored in selected for entry in stored.manifest.files)
    done = 0
    step.progress(done, total, "bytes")
    for stored in selected:
        # Kept by a retry, and verified there.
        cached = await repository.fetch(stored, step.work / "parents")
        folder = step.out / stored.manifest.shard_id
        await asyncio.to_thread(_link_files, stored, cached, folder)
        state = combined(stored.manifest, snapshots[stored.manifest.shard_id], topic_id)
        write_hidden(folder, HiddenRows(state.rows, state.position))
        done += sum(entry.size for entry in stored.manifest.files)
        step.progress(done, total, "bytes")


def _newest_topic(snapshots: list[HiddenSnapshot]) -> str:
    """Return the id of the topic that the newest snapshot was made from; empty without any."""
    newest = max(snapshots, key=lambda snapshot: snapshot.created_at, default=None)
    return newest.position.topic_id if newest else ""


def _link_files(stored: StoredShard, cached: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    for entry in stored.manifest.files:
        try:
            os.link(cached / entry.name, folder / entry.name)
        except OSError:
            # The volume has no hard links.
            shutil.copyfile(cached / entry.name, folder / entry.name)
    (folder / MANIFEST_FILE).write_bytes(stored.manifest.to_json())
    (folder / "key").write_text(stored.manifest_key, encoding="utf-8")
