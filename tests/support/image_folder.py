"""Folders of shards as the images of index servers have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shashin.shards.format.manifest import MANIFEST_FILE, Manifest
from shashin.shards.open_shard import OpenShard
from tests.support.made_shards import write


def lay_out(shard: OpenShard, folder: Path, **changes: Any) -> Manifest:
    """Write a shard as a layer has it, ``<folder>/<shard id>/``, with the manifest's changes."""
    scratch = folder.parent / f"scratch-of-{folder.name}"
    manifest = write(shard, scratch / shard.shard_id, **changes)
    target = folder / manifest.shard_id
    target.mkdir(parents=True)
    for entry in manifest.files:
        (scratch / shard.shard_id / entry.name).rename(target / entry.name)
    (target / MANIFEST_FILE).write_bytes(manifest.to_json())
    return manifest
